"""The keys of which nothing may be kept, and each time that nothing was: `<data_dir>/forgotten/<dataset>.jsonl`.

Owns that file, and what counts as the same key. It holds the keys themselves, for good, as the table
`<dataset>_forgotten` does: what comes again is known by its key alone. Whoever adds a line holds the warehouse's lock,
so that no other line is lost.
"""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from wholeday.errors import FolderError
from wholeday.schema.depth import hide_deep
from wholeday.schema.raw_fields import UNREADABLE, Field
from wholeday.storage.backends import open_storage

Key = tuple[int | str, ...]


class Tombstone(msgspec.Struct, frozen=True, tag="forget", tag_field="what"):
    """A key that is to be forgotten, since when."""

    key: Key
    since: dt.datetime


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="what"):
    """That no file and no table held anything of the first so many `tombstones`, at a time.

    `days` are those whose raw files have lost lines since they were extracted, and how many.
    """

    at: dt.datetime
    tombstones: int
    days: dict[dt.date, int]


class Tombstones:
    """The file of a dataset."""

    def __init__(self, data_dir: str, dataset: str, private: bool = True) -> None:
        self._storage = open_storage(data_dir, private)
        self._path = self._storage.root / "forgotten" / f"{dataset}.jsonl"

    def read(self) -> list[Tombstone | Done]:
        """Its lines, the oldest first; raises FolderError."""
        try:
            return msgspec.json.Decoder(Tombstone | Done).decode_lines(self._read())
        except UNREADABLE as error:
            raise FolderError(
                f"{self._storage.show(self._path)}: the keys that are forgotten cannot be read ({error}): "
                f"bring the file back from a copy"
            ) from error

    def keys(self) -> list[Key]:
        """The keys, each once."""
        return [line.key for line in self.read() if isinstance(line, Tombstone)]

    def count_pending(self) -> int:
        """How many of the keys were never wholly erased: the last run did not come to its end."""
        return len(self.keys()) - max((line.tombstones for line in self.read() if isinstance(line, Done)), default=0)

    def add(self, lines: Iterable[Tombstone | Done]) -> None:
        """Add lines at the end: all of them or, after a crash, none."""
        if new := b"".join(msgspec.json.encode(line) + b"\n" for line in lines):
            self._storage.replace(self._path, self._read() + new)

    def _read(self) -> bytes:
        return self._storage.read(self._path) if self._storage.is_file(self._path) else b""


class Finder:
    """Finds forgotten keys, compared as text, in lines and in what was made of them; `found` are those it found."""

    def __init__(self, paths: Sequence[str], keys: Iterable[Key]) -> None:
        """`paths` name the fields of a record that are its key."""
        self.keys = list(keys)
        self.found: set[Key] = set()
        self._fields = [Field(path) for path in paths]
        self._by_text = {_as_text(key): key for key in self.keys}

    def find_lines(self, lines: Sequence[bytes]) -> set[int]:
        """The numbers, from 1, of the lines with such a key."""
        lines = hide_deep(lines)
        return {number + 1 for number in self.find(zip(*(field.read(lines) for field in self._fields), strict=True))}

    def find_rejects(self, keys: Iterable[str | None]) -> set[int]:
        """The positions of such keys among those of rejects, which are JSON arrays."""
        return self.find(map(_read_key, keys))

    def find(self, keys: Iterable[Sequence[Any]]) -> set[int]:
        """The positions of such keys."""
        found = {
            number: self._by_text[text] for number, key in enumerate(keys) if (text := _as_text(key)) in self._by_text
        }
        self.found.update(found.values())
        return set(found)

    def name(self, record: str) -> str | None:
        """The forgotten key of a record, as a JSON array: also where it stands there as another type."""
        if not self.keys:
            return None
        records = hide_deep([record.encode()])
        (values,) = zip(*(field.read(records) for field in self._fields), strict=True)
        key = self._by_text.get(_as_text(values))
        return None if key is None else json.dumps(key, ensure_ascii=False)


def _as_text(key: Sequence[Any]) -> tuple[str, ...] | None:
    """A key to be compared: 42, 42.0 and "42" are one. None where a part of it is missing."""
    if not key or None in key:
        return None
    return tuple(map(_write_value, key))


def _write_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else json.dumps(value)


def _read_key(text: str | None) -> list[Any]:
    """The key of a reject; nothing where it has none, or one with a number that Python does not read."""
    with suppress(ValueError):
        key = json.loads(text or "[]")
        return key if isinstance(key, list) else []
    return []
