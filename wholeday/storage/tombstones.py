"""Keep the keys that `forget` erased, in `<data_dir>/forgotten/<dataset>.jsonl`, and find them in records.

Responsibilities: the file, and which keys count as equal. The file holds the keys for good, as the table
`_<dataset>_forgotten` does: only its key identifies a record that comes again.
Non-goals: locking. The caller of `Tombstones.add` holds the lock of the warehouse, so that no line is lost.
"""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from wholeday.errors import FolderError
from wholeday.schema.depth import hide_deep
from wholeday.schema.raw_fields import UNREADABLE, KeyReader
from wholeday.storage.backends import open_storage

Key = tuple[int | str, ...]
"""The values of a key; dates and UUIDs as text."""


def to_key(values: Iterable[Any]) -> Key:
    """Return the values of a key, as a database or a file of rows has them, with dates and UUIDs as text."""
    return tuple(value if isinstance(value, int | str) else str(value) for value in values)


class Tombstone(msgspec.Struct, frozen=True, tag="forget", tag_field="what"):
    """A key to forget, and when this was asked for."""

    key: Key
    since: dt.datetime


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="what"):
    """A finished erasure: at this time no file and no table held a record of the first `tombstones` keys.

    `days` counts the lines removed from the raw files of each day since its extraction.
    """

    at: dt.datetime
    tombstones: int
    days: dict[dt.date, int]


class Tombstones:
    """The forgotten keys of a dataset."""

    def __init__(self, data_dir: str, dataset: str, private: bool = True) -> None:
        self._storage = open_storage(data_dir, private)
        self._path = self._storage.root / "forgotten" / f"{dataset}.jsonl"

    def read(self) -> list[Tombstone | Done]:
        """Read the lines, the oldest first. Raises FolderError."""
        try:
            return msgspec.json.Decoder(Tombstone | Done).decode_lines(self._read())
        except UNREADABLE as error:
            raise FolderError(
                f"{self._storage.show(self._path)}: the keys that are forgotten cannot be read ({error}): "
                f"bring the file back from a copy"
            ) from error

    def keys(self) -> list[Key]:
        """Read the keys, each once."""
        return [line.key for line in self.read() if isinstance(line, Tombstone)]

    def count_pending(self) -> int:
        """Count the keys whose erasure is unfinished, because the last run was interrupted."""
        return len(self.keys()) - max((line.tombstones for line in self.read() if isinstance(line, Done)), default=0)

    def add(self, lines: Iterable[Tombstone | Done]) -> None:
        """Append lines: all of them or, after a crash, none."""
        if new := b"".join(msgspec.json.encode(line) + b"\n" for line in lines):
            self._storage.replace(self._path, self._read() + new)

    def _read(self) -> bytes:
        return self._storage.read(self._path) if self._storage.is_file(self._path) else b""


class Finder:
    """Find forgotten keys, compared as text, in raw lines, rows and rejects. `found` collects the keys found."""

    def __init__(self, readers: Sequence[KeyReader], keys: Iterable[Key]) -> None:
        """Search for `keys`. `readers` read the values of the key in a record."""
        self.keys = list(keys)
        self.found: set[Key] = set()
        self._fields = readers
        self._by_text = {_as_text(key): key for key in self.keys}

    def find_lines(self, lines: Sequence[bytes]) -> set[int]:
        """Return the numbers, from 1, of the lines with a forgotten key."""
        lines = hide_deep(lines)
        return {number + 1 for number in self.find(zip(*(field.read(lines) for field in self._fields), strict=True))}

    def find_rejects(self, keys: Iterable[str | None]) -> set[int]:
        """Return the positions of forgotten keys among the keys of rejects, which are JSON arrays."""
        return self.find(map(read_reject_key, keys))

    def find(self, keys: Iterable[Sequence[Any]]) -> set[int]:
        """Return the positions of forgotten keys."""
        found = {
            number: self._by_text[text] for number, key in enumerate(keys) if (text := _as_text(key)) in self._by_text
        }
        self.found.update(found.values())
        return set(found)

    def name(self, record: str) -> str | None:
        """Return the forgotten key of a record as a JSON array, also if its type differs there; else None."""
        if not self.keys:
            return None
        records = hide_deep([record.encode()])
        (values,) = zip(*(field.read(records) for field in self._fields), strict=True)
        key = self._by_text.get(_as_text(values))
        return None if key is None else json.dumps(key, ensure_ascii=False)


def _as_text(key: Sequence[Any]) -> tuple[str, ...] | None:
    """Return a key in a form that compares: 42, 42.0 and "42" are equal. None if a part is missing."""
    if not key or None in key:
        return None
    return tuple(map(_write_value, key))


def _write_value(value: Any) -> str:
    if isinstance(value, str | dt.date):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else json.dumps(value)


def read_reject_key(text: str | None) -> list[Any]:
    """Decode the key of a reject; empty without a key, or if a number is too long for Python."""
    with suppress(ValueError):
        key = json.loads(text or "[]")
        return key if isinstance(key, list) else []
    return []
