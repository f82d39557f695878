"""Run an S3 bucket on loopback: moto in this process, behind a door that counts requests and can fail them.

Responsibilities: serve and disturb the application. Non-goals: expectations, which each test defines.
"""

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pyarrow import fs

from tests.support.project import miss

How = Literal["refuse", "lose", "cut", "kill", "kill after"]

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-s3cr3t-access-key",
    "AWS_EC2_METADATA_DISABLED": "true",
}
OF_A_CONNECTION = {"content-length", "transfer-encoding", "connection", "expect", "date", "server"}
CUT_AT = 200  # bytes of a body
VICTIM = "victim.txt"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
NUMBERS = count()  # of this process, because moto keeps the objects of all its buckets


class Door(ThreadingHTTPServer):
    """A server that forwards requests to moto until it is shut at a request, in the way of `how`.

    `refuse`: deny the request and all later ones. `lose`: forward the request, but deny it and all later ones.
    `cut`: close the connection within the request, and deny all later ones. `kill`, `kill after`: kill the client
    before or after the request is forwarded. The file VICTIM holds the client's process id.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._lock = threading.Lock()
        self.open()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore killed clients, which cannot receive a response."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def open(self) -> None:
        """Forward all requests, and reset the count."""
        self.shut(0, "refuse")

    def shut(self, at: int, how: How) -> None:
        self.names: list[str] = []
        self.clients: list[int] = []
        """The client port of each request; each connection has its own."""
        self._at, self._how = at, how

    def judge(self, name: str, client: int) -> How | None:
        """Record a request. Return its failure, or None to forward it."""
        with self._lock:
            self.names.append(name)
            self.clients.append(client)
            if not self._at or len(self.names) < self._at:
                return None
            return self._how if len(self.names) == self._at else "refuse"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Door

    def _answer(self) -> None:
        how = self.server.judge(f"{self.command} {self.path}", self.client_address[1])
        if how == "cut":
            sent = "Transfer-Encoding" in self.headers or int(self.headers.get("Content-Length", 0)) > CUT_AT
            self.rfile.read(CUT_AT if sent else 0)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._read_body()
        if how == "kill":
            _kill()
        answer: tuple[int, Mapping[str, str], bytes] = 403, {"Content-Type": "application/xml"}, DENIED
        if how in (None, "lose", "kill after"):
            done = self._hand_on(body)
            answer = answer if how else done
        if how == "kill after":
            _kill()
        self._send(*answer)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _hand_on(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        headers = {name: value for name, value in self.headers.items() if name.lower() not in OF_A_CONNECTION}
        request = EnvironBuilder(self.path, method=self.command, headers=headers, data=body)
        content, status, answered = run_wsgi_app(_make_application(), request.get_environ(), buffered=True)
        return int(status.split()[0]), dict(answered), b"".join(content)

    def _send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(content)
        kept = {name: value for name, value in headers.items() if name.lower() not in OF_A_CONNECTION}
        self.send_response(status)
        for name, value in (kept | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the names are those of http.server

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@functools.cache
def _make_application() -> Any:
    """Make moto's application of S3 alone: its server looks for the service of each request in 180 folders."""
    from moto.moto_server.werkzeug_app import create_backend_app

    return create_backend_app("s3")


def _kill() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(Path(VICTIM).read_text()), signal.SIGKILL)


class Bucket:
    """The bucket `bucket`: new prefixes and stored objects."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.known: list[Any] = []
        """Results that a test shares with later tests."""
        self._system, _ = fs.FileSystem.from_uri(f"{self.locate('bucket')}&allow_bucket_creation=true")
        self._system.create_dir("bucket")

    def locate(self, place: str) -> str:
        """Return the URI of a bucket and a prefix in it."""
        return f"s3://{place}?scheme=http&endpoint_override=127.0.0.1:{self.door.server_port}"

    def make_place(self) -> str:
        """Return a new, empty data_dir."""
        return self.locate(f"bucket/{next(NUMBERS)}")

    def dump(self, data_dir: str) -> dict[str, bytes]:
        """Return every object below a data_dir, by relative key."""
        below = f"{data_dir.removeprefix('s3://').partition('?')[0]}/"
        found = self._system.get_file_info(fs.FileSelector(below, recursive=True, allow_not_found=True))
        return {each.path.removeprefix(below): self.read(each.path) for each in found if each.is_file}

    def read(self, key: str) -> bytes:
        with self._system.open_input_file(key) as file:
            return file.read()

    def write(self, key: str, content: bytes) -> None:
        with self._system.open_output_stream(key, compression=None) as file:
            file.write(content)


@contextlib.contextmanager
def open_bucket() -> Iterator[Bucket]:
    """Open a bucket while the `with` block runs. The environment must hold its credentials."""
    if find_spec("moto") is None or find_spec("flask_cors") is None:
        miss("moto's server is not installed: .venv/bin/pip install -r requirements/scaling.txt")
    with Door() as door:
        thread = threading.Thread(target=door.serve_forever, args=[0.05])
        thread.start()
        try:
            yield Bucket(door)
        finally:
            door.shutdown()
            thread.join()
