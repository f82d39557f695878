"""Proxy connections to a PostgreSQL server on loopback, and cut them.

Responsibilities: forward bytes. Non-goals: the protocol, except COMMIT.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Literal

Moment = Literal["before", "after"]


class Proxy:
    """A proxy that forwards all bytes until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_at_commit: Moment | None = None
        """When to cut the next connection that commits: before or after the server receives the commit."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    @classmethod
    @contextlib.contextmanager
    def open(cls, port: int) -> "Iterator[Proxy]":
        """Open a proxy in front of a port of loopback."""
        proxy = cls(port)
        thread = threading.Thread(target=proxy._accept)
        thread.start()
        try:
            yield proxy
        finally:
            proxy._listener.shutdown(socket.SHUT_RDWR)
            proxy._listener.close()
            proxy.cut()
            thread.join()

    def cut(self) -> None:
        """Close all connections."""
        for pair in self._pairs:
            self._close(pair)
        self._pairs.clear()

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                pair = (client, server)
                self._pairs.append(pair)
                for source, sink in (pair, pair[::-1]):
                    threads.append(threading.Thread(target=self._pass_on, args=(pair, source, sink)))
                    threads[-1].start()
        for thread in threads:
            thread.join()

    def _pass_on(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is pair[0] and b"commit\0" in data and self.cut_at_commit:
                    moment, self.cut_at_commit = self.cut_at_commit, None
                    if moment == "after":
                        source.shutdown(socket.SHUT_RDWR)  # the client never receives the response
                        sink.sendall(data)
                    break
                sink.sendall(data)
        self._close(pair)

    @staticmethod
    def _close(pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
