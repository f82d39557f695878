"""Test the deadline of a request in every phase, and the minimum rate."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.reading import read, read_error
from tests.support.server import Answer, Dripper, Server
from tests.support.wire import Raw, Wire
from wholeday.extract.http import deadline
from wholeday.tasks import alerts

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: 1000000\r\n\r\n"

# The bytes that arrive at once, then the bytes that arrive one by one without end.
PHASES = {
    "TLS handshake": (b"", b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\x00" + bytes(16000)),
    "status line": (b"", b"HTTP/1.1 200 " + b"O" * 60000),
    "headers": (OK, b"X-Header: value\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": (CHUNKED, b"1;" + b"x" * 60000),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"2\r\n[]\r\n0\r\n", b"X-Trailer: value\r\n"),
    "body": (OK + LENGTH, b" "),
    "body without length": (OK + b"\r\n", b" "),
    "body of an error": (b"HTTP/1.1 503 Busy\r\n" + LENGTH, b"x"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /users\r\n", b"X-Header: value\r\n"),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline of half a second, and no minimum rate."""
    monkeypatch.setattr(deadline, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(deadline, "MIN_RATE", 0)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that the block takes at most so many seconds, with some allowance for a busy machine.

    Without the limit it would never end.
    """
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds + 30


@pytest.mark.slow
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("phase", PHASES)
def test_slow_source_fails_at_the_deadline(phase: str) -> None:
    scheme = "https" if phase == "TLS handshake" else "http"
    with Dripper(*PHASES[phase]) as dripper, within(1):
        line = read_error(f"{scheme}://127.0.0.1:{dripper.port}/users", retries=1)
    assert "failed after 2 attempts" in line
    if phase == "TLS handshake":
        assert "timed out" in line
    elif phase != "body of an error":
        assert "the request took longer than 0.5 seconds" in line
    assert dripper.count == 2


@pytest.mark.slow
@pytest.mark.parametrize("phase", sorted(PHASES.keys() - {"TLS handshake"}))
def test_slow_source_fails_below_the_minimum_rate(phase: str) -> None:
    """The rate is measured over each period of `timeout`, and the deadline is far away."""
    with Dripper(*PHASES[phase]) as dripper, within(0.8):
        line = read_error(dripper.url, timeout=0.4)
    if phase != "body of an error":
        assert "the source sends less than 100 bytes per second" in line
    assert "failed after 1 attempt" in line


@pytest.mark.slow
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_deadline_holds_through_a_proxy(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """For https, the answer to CONNECT is slow."""
    with Dripper(OK, b"X-Header: value\r\n") as dripper, within(0.5):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{dripper.port}")
        assert "longer than 0.5 seconds" in read_error(f"{scheme}://api.example.com/users")


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_deadline_holds_while_sending_a_request() -> None:
    """A large request waits until the source accepts it."""
    with socket.create_server(("127.0.0.1", 0)) as silent, within(0.5):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/users"
        assert "failed after 1 attempt" in read_error(url, method="POST", body={"filter": "x" * 2**23})


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_redirects_share_one_deadline(server: Server) -> None:
    """A chain of redirects, each in time, takes no longer than one request."""
    url = server.on("/users", Answer(status=307, headers={"Location": "/users"}, wait=0.2))
    with within(0.5):
        assert "longer than 0.5 seconds" in read_error(url)
    assert len(server.requests) <= 3


@pytest.mark.slow
def test_pause_between_requests_does_not_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "MAX_SECONDS", 2)
    url = server.on("/users", Answer(status=307, headers={"Location": "/list"}))
    server.on("/list", Answer([{"id": 1}]))
    assert read(url, requests_per_second=0.4) == [{"id": 1}]


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_deadline_holds_for_a_token_endpoint(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEOPLE_ID", "id")
    monkeypatch.setenv("PEOPLE_SECRET", "long-secret")
    with Dripper(OK + LENGTH, b" ") as dripper, within(0.5):
        auth = f"oauth2:{dripper.url}:PEOPLE_ID:PEOPLE_SECRET"
        assert "longer than 0.5 seconds" in read_error(server.on("/users", Answer([])), auth=auth)
    assert not server.requests


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_deadline_holds_for_a_webhook() -> None:
    with Dripper(b"", b"HTTP/1.1 100 Continue\r\n\r\n") as dripper, within(0.5):
        assert alerts._send(dripper.url, {}) is not None


def test_endless_interim_answers_fail_at_the_limit() -> None:
    """They may arrive above the minimum rate, so their size is limited too."""
    with Dripper(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, pause=0) as dripper, within(5):
        assert "headers of the answer are larger than 1 MiB" in read_error(dripper.url)


@pytest.mark.slow
def test_slow_body_at_the_minimum_rate_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body may take many times the timeout."""
    monkeypatch.setattr(deadline, "MIN_RATE", 3)
    with Dripper(OK + b"Content-Length: 42\r\n\r\n", b"[" + b" " * 40 + b"]", pause=0.1) as dripper:
        assert read(dripper.url, timeout=1) == []


@pytest.mark.slow
def test_first_byte_may_take_the_whole_timeout(server: Server) -> None:
    """The rate is measured from the first byte on."""
    url = server.on("/users", Answer([{"id": 1}], wait=2))
    assert read(url, timeout=5) == [{"id": 1}]


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        (b"-1\r\n[]\r\n0\r\n\r\n", "a chunk has a negative size: -1"),
        (b"-5\r\n[]\r\n0\r\n\r\n", "a chunk has a negative size: -5"),
        (b"zz\r\n[]\r\n0\r\n\r\n", "cut or damaged"),
        (b"f" * 400 + b"\r\n[]\r\n0\r\n\r\n", "cut or damaged"),
        (b"2\r\n[]", "cut or damaged"),
    ],
)
def test_malformed_chunks_fail_with_one_line(framing: bytes, words: str) -> None:
    """The client retries them like an incomplete body."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(CHUNKED + framing)

        thread = threading.Thread(target=serve)
        thread.start()
        line = read_error(f"http://127.0.0.1:{listener.getsockname()[1]}/users", retries=1)
        thread.join()
    assert words in line
    assert "failed after 2 attempts" in line


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\n", OK + b"Content-Type: application/x-ndjson\r\nX: 1", OK + b"X"])
def test_incomplete_headers_are_retried(cut: bytes) -> None:
    """http.client accepts them as complete: JSON lines would be a day without records."""
    whole = OK + b"Content-Length: 9\r\n\r\n" + b'[{"a":1}]'
    with Wire() as wire:
        wire.show({"/users": [Raw(cut), Raw(whole)]})
        assert read(f"{wire.url}/users", retries=1) == [{"a": 1}]
        wire.show({"/users": [Raw(cut)]})
        assert "the headers of the answer are incomplete" in read_error(f"{wire.url}/users")
