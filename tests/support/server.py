"""A small HTTP server on loopback that answers as a test tells it to, well or badly.

Owns the wire: it counts and keeps the requests, and can cut a body, lie about its length, chunk or compress it,
wait, or reset the connection. What to answer is the test's business:

    with Server() as server:
        server.on("/users", Answer(status=503), Answer([{"id": 1}]))     # one after the other, the last for ever
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
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """What came: the method, the target as it stood in the request line, its parts, and when (monotonic seconds)."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """What to say. A body that is neither bytes nor text is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    compress: bool = False
    chunked: bool = False
    wait: float = 0.0
    """Seconds before the answer begins."""
    cut: int | None = None
    """The connection is closed after so many bytes of the body."""
    length: int | None = None
    """What Content-Length says, if not the truth."""
    reset: bool = False
    """No answer: the connection is reset."""
    noise: str = ""
    """A line before the headers that is no header."""
    raw: bytes = b""
    """All of the answer, from its status line on, in the place of everything else."""

    def encode(self) -> bytes:
        """The body as it goes over the wire, but for chunks."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return gzip.compress(body) if self.compress else body


class Server:
    """A server at `url` for the length of a `with`; `requests` are those that came, oldest first."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, the server speaks https, as `localhost`."""
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
        """Answer `path` with one answer, or what a function says, after the other, the last for ever. Its URL."""
        self._answers[path] = itertools.chain(answers, itertools.repeat(answers[-1]))
        return self.url + path

    def answer(self, request: Request) -> Answer:
        """The answer to `request`, which is kept; a path that nobody named is a 404."""
        self.requests.append(request)
        answer = next(self._answers[request.path]) if request.path in self._answers else Answer(status=404)
        return answer(request) if callable(answer) else answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    owner: Server
    daemon_threads = True
    block_on_close = False

    def shutdown_request(self, request: Any) -> None:
        # Closing is enough, and a reset must not begin with the farewell that the base class sends.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


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
        """Nothing on stderr: the requests are kept."""


class Dripper:
    """A server that reads a request, sends a start at once and repeats the rest byte by byte, or without a pause."""

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
