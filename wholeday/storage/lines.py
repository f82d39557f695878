"""Pack records as JSON lines into the bytes of a `.gz` part, and unpack them."""

from collections.abc import Iterable, Iterator
from typing import Any

from isal import igzip, isal_zlib

COMPRESSION = 1  # of igzip: the fastest that still finds repetitions


def pack(slices: Iterable[list[Any]]) -> Iterator[tuple[int, bytes]]:
    """Compress slices of lines. Yield chunks of one file: the number of lines and the bytes.

    The bytes depend on the lines only, not on the slices.
    """
    gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, 31)
    for lines in slices:
        yield len(lines), gz.compress(b"\n".join([*lines, b""]))
    yield 0, gz.flush()


def unpack(data: bytes) -> list[bytes]:
    """Return the lines of a part."""
    *lines, rest = igzip.decompress(data).split(b"\n")
    return [*lines, rest] if rest else lines
