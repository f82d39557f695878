"""Write a part of a day chunk by chunk, so that a later run can continue it."""

import hashlib
from collections.abc import Sequence
from typing import Any

from wholeday.storage.backends import OpenFile
from wholeday.storage.lines import Packer, unpack_open
from wholeday.storage.manifest import Part


class PartWriter:
    """A part that is being written."""

    def __init__(self, name: str, file: OpenFile, content: bytes = b"") -> None:
        """Continue after `content`, which an earlier run has written to the file."""
        lines = unpack_open(content) if content else []
        self._name, self._file, self._packer = name, file, Packer(lines)
        self.records, self._bytes, self._sha256 = len(lines), len(content), hashlib.sha256(content)

    def add(self, lines: Sequence[Any]) -> None:
        """Append lines as one chunk. They survive the end of this process, but not yet a power cut."""
        self._write(self._packer.pack(lines))
        self.records += len(lines)

    def describe(self) -> Part:
        """Describe the part with the lines so far."""
        return Part(self._name, self.records, self._bytes, self._sha256.hexdigest())

    def finish(self) -> Part:
        """Finish the file, and wait until the disk has it."""
        self._write(self._packer.end())
        self._file.finish()
        return self.describe()

    def abandon(self) -> None:
        """Leave the part as it is, for a later run to continue."""
        self._file.abandon()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)
