"""Pack records as JSON lines into the bytes of a `.gz` part, and unpack them."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from isal import igzip, isal_zlib

COMPRESSION = 1  # of igzip: the fastest that still finds repetitions
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time, unknown system
GZIP, RAW = 31, -15  # wbits: with header and checksum, or without


class Packer:
    """Packs lines so that each chunk can be read before the next is written.

    A chunk does not refer to the chunks before it, so its bytes depend on its lines only.
    """

    def __init__(self, before: Sequence[bytes] = ()) -> None:
        """Begin a file, or continue one that holds the lines `before`."""
        text = b"".join(line + b"\n" for line in before)
        self._crc, self._size = isal_zlib.crc32(text), len(text)

    def pack(self, lines: Sequence[Any]) -> bytes:
        """Return the bytes of the next chunk."""
        text = b"\n".join([*lines, b""])
        gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, RAW)
        chunk = bytes(gz.compress(text) + gz.flush(isal_zlib.Z_FULL_FLUSH))
        chunk = chunk if self._size else HEADER + chunk
        self._crc, self._size = isal_zlib.crc32(text, self._crc), self._size + len(text)
        return chunk

    def end(self) -> bytes:
        """Return the last bytes of the file."""
        gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, RAW)
        return bytes(gz.flush()) + struct.pack("<II", self._crc, self._size % 2**32)


def pack(slices: Iterable[Sequence[Any]]) -> Iterator[tuple[int, bytes]]:
    """Compress slices of lines. Yield chunks of one file: the number of lines and the bytes.

    The bytes depend on the lines only, not on the slices.
    """
    gz = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, GZIP)
    for lines in slices:
        yield len(lines), gz.compress(b"\n".join([*lines, b""]))
    yield 0, gz.flush()


def unpack(data: bytes) -> list[bytes]:
    """Return the lines of a part."""
    return _split(igzip.decompress(data))


def unpack_open(data: bytes) -> list[bytes]:
    """Return the lines of a part that is not finished: the chunks of a `Packer` without its end."""
    return _split(isal_zlib.decompressobj(GZIP).decompress(data))


def _split(text: bytes) -> list[bytes]:
    *lines, rest = text.split(b"\n")
    return [*lines, rest] if rest else lines
