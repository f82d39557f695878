"""Send the exact bytes of a response on loopback, and parse such bytes without any code of the product.

Responsibilities: a server that adds no bytes; an oracle that lists the possible bodies of a response.
Non-goals: the meaning of a body. test_fuzz.py judges it.
"""

import contextlib
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

HEAD_END = re.compile(rb"\r?\n\r?\n")
NUMBER = re.compile(rb"\d+")


@dataclass(frozen=True)
class Raw:
    """The bytes of one response, and the end of its connection."""

    data: bytes
    then: str = "close"
    """The end of the connection: `close`, `reset`, or `keep` for the next request."""
    slow: float = 0.0
    """The seconds between pieces of 40 bytes."""


class Wire:
    """A server at `url` that sends the n-th response of a target to its n-th request; the last one repeats."""

    def __init__(self) -> None:
        self.answers: Mapping[str, Sequence[Raw]] = {}
        self.targets: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def show(self, answers: Mapping[str, Sequence[Raw]]) -> None:
        """Reset the list of requests and set new responses."""
        self.answers, self.targets = answers, []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(60)
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    received += piece
                head, _, received = received.partition(b"\r\n\r\n")
                raw = self._pick(head.split(b" ", 2)[1].decode())
                _send(connection, raw)
                if raw.then == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if raw.then != "keep":
                    return

    def _pick(self, target: str) -> Raw:
        answers = self.answers.get(target, [NOT_FOUND])
        self.targets.append(target)
        return answers[min(self.targets.count(target), len(answers)) - 1]


def _send(connection: socket.socket, raw: Raw) -> None:
    if not raw.slow:
        connection.sendall(raw.data)
        return
    for at in range(0, len(raw.data), 40):
        connection.sendall(raw.data[at : at + 40])
        time.sleep(raw.slow)


NOT_FOUND = Raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@dataclass(frozen=True)
class Parsed:
    """A parsed response: status, headers in lower case, and every possible body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    bodies: Sequence[bytes] = ()
    is_sound: bool = False
    """Whether the response is complete and valid HTTP, so it has exactly one body."""
    has_rest: bool = False
    """Whether bytes follow the declared end."""


def read_answer(raw: Raw) -> Parsed | None:
    """Parse a response by RFC 9112; return None without a status or the end of the headers."""
    data = raw.data
    while True:
        found = HEAD_END.search(data)
        if found is None:
            return None
        head, tail = data[: found.start()], data[found.end() :]
        first, *lines = re.split(rb"\r?\n", head)
        status = re.fullmatch(rb"HTTP/\S*\s+(\d{3})(?:\s.*)?", first, re.DOTALL)
        if status is None or status[1] not in (b"100",):
            break
        data = tail
    headers: dict[str, str] = {}
    sound = status is not None and b"\r" not in head.replace(b"\r\n", b"")
    for line in lines:
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        sound = sound and bool(colon) and bool(re.fullmatch(rb"[!-9;-~]+", name)) and b"\0" not in value
        if key in headers and key in ("content-length", "transfer-encoding", "content-encoding", "location"):
            sound = False
        text = value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key == "link" and key in headers else headers.get(key, text)
    code = int(status[1]) if status else 0
    body, rest = _frame(headers, tail, raw.then) if sound else (None, b"")
    body = None if body is None else _unpack(headers, body)
    if body is not None:
        return Parsed(code, headers, [body], is_sound=True, has_rest=bool(rest))
    return Parsed(code, headers, list(_guess_bodies(head, tail)))


def _frame(headers: Mapping[str, str], tail: bytes, then: str) -> tuple[bytes | None, bytes]:
    """Return the framed body and the bytes after it, or None if the body is truncated or the framing malformed."""
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            return None, b""
        return _join_chunks(tail)
    if (length := headers.get("content-length")) is not None:
        if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            return None, b""
        size = int(length)
        return (tail[:size], tail[size:]) if len(tail) >= size else (None, b"")
    return (tail if then == "close" else None), b""


def _join_chunks(tail: bytes) -> tuple[bytes | None, bytes]:
    body = b""
    while found := re.match(rb"([0-9a-fA-F]{1,16})\r\n", tail):
        size, rest = int(found[1], 16), tail[found.end() :]
        if not size:
            end = re.match(rb"(?:[^\r\n]+\r\n)*\r\n", rest)
            return (body, rest[end.end() :]) if end else (None, b"")
        if rest[size : size + 2] != b"\r\n":
            return None, b""
        body, tail = body + rest[:size], rest[size + 2 :]
    return None, b""


def _join_odd_chunks(tail: bytes) -> bytes:
    """Join chunks like a lenient parser, which accepts anything that resembles a size."""
    body = b""
    while found := re.match(rb"[\s+]*(?:0x)?([0-9a-fA-F_]+)[^\n]*\n", tail):
        size, rest = int(found[1].replace(b"_", b"") or b"0", 16), tail[found.end() :]
        if not size:
            break
        body, tail = body + rest[:size], rest[size + 2 :]
    return body


def _unpack(headers: Mapping[str, str], body: bytes) -> bytes | None:
    """Decompress the body; return None if the compression is damaged, truncated or unknown."""
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    return _gunzip(body) if encoding in ("gzip", "x-gzip") else None


def _gunzip(body: bytes) -> bytes | None:
    content = b""
    while body:
        unpacker = zlib.decompressobj(wbits=31)
        with contextlib.suppress(zlib.error):
            content += unpacker.decompress(body)
        if not unpacker.eof:
            return None
        body = unpacker.unused_data
    return content


def _guess_bodies(head: bytes, tail: bytes) -> list[bytes]:
    """Return every complete body that a lenient parser may find in a malformed response."""
    bodies = [tail, _join_odd_chunks(tail)]
    bodies += [tail[: int(number)] for number in NUMBER.findall(head) if len(number) < 9 and int(number) <= len(tail)]
    unpacked = [content for body in bodies if body[:2] == b"\x1f\x8b" and (content := _gunzip(body)) is not None]
    return [body for body in [*bodies, *unpacked] if body]
