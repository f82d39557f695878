"""Records as JSON lines in the bytes of a part: a .gz file, a record a line."""

from collections.abc import Iterable, Iterator
from typing import Any

from isal import igzip, isal_zlib

COMPRESSION = 1  # of igzip: the fastest that still finds repetitions


def pack(slices: Iterable[list[Any]]) -> Iterator[tuple[int, bytes]]:
    """Slices of lines to chunks of one file (lines in it, bytes); the same lines give the same bytes, in any slices."""
    gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, 31)
    for lines in slices:
        yield len(lines), gz.compress(b"\n".join([*lines, b""]))
    yield 0, gz.flush()


def unpack(data: bytes) -> list[bytes]:
    """The lines of a file."""
    *lines, rest = igzip.decompress(data).split(b"\n")
    return [*lines, rest] if rest else lines
