"""Serve HTTP on loopback with scripted responses, valid or broken.

Responsibilities: record the requests; truncate a body, send a wrong length, chunk or compress it, delay it,
or reset the connection. Non-goals: the content of responses, which each test defines:

    with Server() as server:
        server.on("/users", Answer(status=503), Answer([{"id": 1}]))     # in order; the last one repeats
        server.on("/teams", lambda request: Answer([], headers={"X-Page": request.query["page"]}))
        requests.get(server.url + "/users")
        assert server.requests[0].headers["Accept"] == "*/*"
"""

import contextlib
import gzip
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """A received request. `target` is unparsed; `at` is the time of receipt in monotonic seconds."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """A response. A body that is neither bytes nor text is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    compress: bool = False
    chunked: bool = False
    wait: float = 0.0
    """The seconds before the response begins."""
    cut: int | None = None
    """The number of bytes of the body before the connection closes."""
    length: int | None = None
    """A false value of Content-Length."""
    reset: bool = False
    """Whether to reset the connection without a response."""
    noise: str = ""
    """A malformed line before the headers."""
    raw: bytes = b""
    """The bytes of the whole response, from the status line on. They replace all other fields."""

    def encode(self) -> bytes:
        """Return the encoded body, before chunking."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return gzip.compress(body) if self.compress else body


class Server:
    """A server at `url` while the `with` block runs. `requests` lists the received requests, oldest first."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Serve https as `localhost` if `tls` is given."""
        self.requests: list[Request] = []
        self._answers: dict[str, Iterator[Answer | Callable[[Request], Answer]]] = {}
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
            self.url = f"https://localhost:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def on(self, path: str, *answers: Answer | Callable[[Request], Answer]) -> str:
        """Serve these responses, or results of functions, at `path` in order; the last one repeats. Return the URL."""
        self._answers[path] = itertools.chain(answers, itertools.repeat(answers[-1]))
        return self.url + path

    def answer(self, request: Request) -> Answer:
        """Record the request and return its response; an unknown path is a 404."""
        self.requests.append(request)
        answer = next(self._answers[request.path]) if request.path in self._answers else Answer(status=404)
        return answer(request) if callable(answer) else answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    owner: Server
    daemon_threads = True
    block_on_close = False

    def shutdown_request(self, request: Any) -> None:
        # The base class shuts the connection down first, which would hide a reset from the client.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: tests do so on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's acknowledgement
    server: _Http

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.owner.answer(
            Request(self.command, self.path, parts.path, query, self.headers, body, time.monotonic())
        )
        time.sleep(answer.wait)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif answer.raw:
            self.wfile.write(answer.raw)
            self.close_connection = True
        else:
            self._send(answer)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the base class names them

    def _send(self, answer: Answer) -> None:
        body = answer.encode()
        headers = {"Content-Type": "application/json", "Date": self.date_time_string()}
        headers |= {"Content-Encoding": "gzip"} if answer.compress else {}
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
            pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        else:
            headers["Content-Length"] = str(len(body) if answer.length is None else answer.length)
        self.send_response_only(answer.status)
        if answer.noise:
            self._headers_buffer.append(f"{answer.noise}\r\n".encode())
        for name, value in (headers | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[: answer.cut])
        if answer.cut is not None or answer.length is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Print nothing; `requests` has the log."""


class Dripper:
    """A server that sends `start`, then repeats `rest` byte by byte. With `pause` 0 it sends `rest` at full speed."""

    def __init__(self, start: bytes, rest: bytes, pause: float = 0.02, tls: ssl.SSLContext | None = None) -> None:
        self._start, self._rest, self._pause, self._tls = start, rest, pause, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/users"
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.count = 0
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.count += 1
                self._threads.append(threading.Thread(target=self._drip, args=(client,)))
                self._threads[-1].start()

    def _drip(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            client = stack.enter_context(self._tls.wrap_socket(client, server_side=True) if self._tls else client)
            client.recv(65536)
            client.sendall(self._start)
            while not self._closed.is_set():
                for byte in self._rest:
                    client.sendall(bytes([byte]) if self._pause else self._rest)
                    if self._closed.wait(self._pause):
                        break

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
