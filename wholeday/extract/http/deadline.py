"""Connections that end a request at its deadline, or earlier if the source sends too slowly.

Responsibilities: no wait for the network lasts beyond the deadline, from connecting to the last byte of the body, with
TLS and proxies. An answer must arrive at MIN_RATE bytes per second, measured over each period of the request's timeout.
Non-goals: looking up a host name. The machine's resolver has limits of its own.
"""

import contextlib
import http.client
import io
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.poolmanager import ProxyManager

MAX_SECONDS = 1800  # for a request, from its first byte to the last byte of the answer
MIN_RATE = 100  # bytes per second
MAX_HEAD = 2**20  # bytes of status line and headers, including interim answers


class SlowError(OSError):
    """The source did not answer before the deadline, or sends too slowly."""


class BrokenAnswerError(http.client.HTTPException):
    """An answer has incomplete headers or a negative size, which http.client would accept."""


class Deadline:
    """The latest end of a request: `seconds` from now, and never later than `outer`."""

    def __init__(self, seconds: float, outer: "Deadline | None" = None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        if outer is not None and outer._end < self._end:
            self._seconds, self._end = outer._seconds, outer._end

    def postpone(self, seconds: float) -> None:
        """Move the deadline by `seconds`, which passed before a request was sent."""
        self._end += seconds

    def shorten(self, timeout: float | None) -> float:
        """Return the smaller of `timeout` and the remaining seconds. Raises SlowError after the deadline."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise SlowError(f"the request took longer than {self._seconds:g} seconds")
        return left if timeout is None else min(left, timeout)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """End the requests of the block, with their bodies, after `seconds` in total."""
    token = _current.set(Deadline(seconds, _current.get()))
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def pause() -> Iterator[None]:
    """Move the deadline by the time that the block takes."""
    start = time.monotonic()
    try:
        yield
    finally:
        if deadline := _current.get():
            deadline.postpone(time.monotonic() - start)


class _Reader(io.RawIOBase):
    """Reads the bytes of one answer as they arrive."""

    def __init__(self, sock: socket.socket, deadline: Deadline | None) -> None:
        self._sock, self._deadline = sock, deadline
        self._timeout = sock.gettimeout()
        self._raw = sock.makefile("rb", buffering=0)
        self._since: float | None = None
        self._received = 0
        self.is_head = True
        self.is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_over:
            return 0
        self._shorten_timeout()
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError:
            self._shorten_timeout()
            raise
        if not size and self.is_head and self._received:
            raise BrokenAnswerError("the headers of the answer are incomplete")
        self._check_rate(size or 0)
        return size

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Stand in for the socket: http.client.HTTPResponse only calls this method of it."""
        return io.BufferedReader(self)

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _shorten_timeout(self) -> None:
        if self._deadline is not None:
            timeout = self._deadline.shorten(self._timeout)
            if timeout != self._timeout:
                self._sock.settimeout(timeout)

    def _check_rate(self, size: int) -> None:
        now = time.monotonic()
        self._received += size
        if self.is_head and self._received > MAX_HEAD:
            raise SlowError(f"the headers of the answer are larger than {MAX_HEAD // 2**20} MiB")
        if self._since is None:
            self._since, self._counted = now, 0  # the first byte may take the whole timeout
        self._counted += size
        passed = now - self._since
        if size and self._timeout is not None and passed > self._timeout:
            if self._counted < MIN_RATE * passed:
                raise SlowError(f"the source sends less than {MIN_RATE} bytes per second")
            self._since, self._counted = now, 0


class _Response(http.client.HTTPResponse):
    has_rest = False
    """Whether bytes arrived after the end of the body."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._reader = _Reader(sock, _current.get())
        super().__init__(self._reader, *args, **kwargs)  # type: ignore[arg-type]

    def begin(self) -> None:
        super().begin()
        self._reader.is_head = False

    def _close_conn(self) -> None:
        self._reader.is_over = True
        self.has_rest = bool(self.fp.peek(1))  # looks at the buffer only, without waiting
        super()._close_conn()  # type: ignore[misc]

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # http.client would read everything into memory
            raise BrokenAnswerError(f"a chunk has a negative size: {size}")
        return size


class _SocketOptions(list[tuple[int, int, Any]]):
    """Stops trying addresses of a host after the deadline: urllib3 sets these options before each attempt."""

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        if deadline := _current.get():
            deadline.shorten(None)
        return super().__iter__()


class _Timed(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        self._shorten_timeout()
        self.socket_options = _SocketOptions(self.socket_options or ())
        sock = super()._new_conn()
        sock.settimeout(self._shorten_timeout())  # for a TLS handshake
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(self._shorten_timeout())

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self._shorten_timeout())
        super().send(data)

    def _shorten_timeout(self) -> float | None:
        if deadline := _current.get():
            self.timeout = deadline.shorten(self.timeout)
        return self.timeout


class _TimedTls(_Timed, HTTPSConnection):
    """A timed connection over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Timed


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TimedTls


class DeadlineAdapter(HTTPAdapter):
    """Sends requests over connections that end at the deadline of `limit`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _replace_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        _replace_pools(manager)
        return manager


def _replace_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
