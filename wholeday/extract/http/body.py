"""Read the body of an answer: decompressed, bounded in size, and complete.

Responsibilities: a body that is cut, damaged, too large or not UTF-8 never passes.
Non-goals: what the body says.
"""

import codecs
import contextlib
import zlib
from collections.abc import Iterator

import requests
from urllib3.exceptions import HTTPError

from wholeday.extract.http.failures import BadPageError, RecoverableError, explain

MAX_BODY = 256 * 2**20  # bytes, both as received and decompressed
CHUNK = 2**18
START_BYTES = 2**14  # of the body of a failure


def read_body(response: requests.Response) -> bytes:
    """Return the whole body, decompressed.

    Raises BadPageError if it is too large or not UTF-8, and RecoverableError if it is cut or damaged.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces = []
    try:
        for piece in _stream(response):
            pieces.append(piece)
            decoder.decode(piece)
    except UnicodeDecodeError:
        raise BadPageError("the body is not UTF-8", body=b"".join(pieces)) from None
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n")


def read_start(response: requests.Response) -> bytes:
    """Return the first bytes of a failure's body, however damaged the rest is."""
    start = b""
    with contextlib.suppress(RecoverableError, BadPageError):
        for piece in _stream(response):
            start += piece
            if len(start) >= START_BYTES:
                break
    return start


def check_end(response: requests.Response) -> None:
    """Check that JSON lines are complete. They have no closing bracket, so only HTTP can show where they end.

    Raises BadPageError if nothing but the end of the connection ends the body, and RecoverableError if more bytes
    arrived than the headers declare.
    """
    original = getattr(response.raw, "_original_response", None)
    if original is None:
        return
    if not any(name in response.headers for name in ("Content-Length", "Transfer-Encoding", "Content-Encoding")):
        raise BadPageError(
            "the body is JSON lines without a declared length, so a cut body would look complete",
            "make the source send Content-Length, chunks, gzip or one JSON list",
        )
    if getattr(original, "has_rest", False):
        raise RecoverableError("the answer is longer than its headers declare, so JSON lines may be missing")


def _stream(response: requests.Response) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of at most CHUNK bytes, and at most MAX_BODY bytes in total."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise BadPageError(f"the body is compressed as '{encoding}', although the request accepts gzip only")
    unpacker = None if encoding == "identity" else zlib.decompressobj(wbits=31)
    received = unpacked = 0
    try:
        # iter_content would decompress pieces of any size, and loop for ever over empty gzip members.
        while data := response.raw.read(CHUNK):
            received += len(data)
            while data:
                if unpacker is None:
                    piece, data = data, b""
                else:
                    if unpacker.eof:
                        unpacker = zlib.decompressobj(wbits=31)
                    piece = unpacker.decompress(data, CHUNK)
                    data = unpacker.unconsumed_tail or unpacker.unused_data
                unpacked += len(piece)
                if max(received, unpacked) > MAX_BODY:
                    raise BadPageError(f"the body is larger than {MAX_BODY // 2**20} MiB", "request smaller pages")
                yield piece
    except (HTTPError, zlib.error) as error:
        raise RecoverableError(f"the body is cut or damaged: {explain(error)}") from None
    if unpacker is not None and not unpacker.eof:
        raise RecoverableError("the body is cut: its gzip stream has no end")
