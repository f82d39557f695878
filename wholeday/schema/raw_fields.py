"""Read single fields of many raw records without decoding the rest, and find the records that are deletions."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from wholeday.schema.paths import find, is_true, load, split_path

if TYPE_CHECKING:
    import numpy as np

    Keys: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

RawRecord = msgspec.Raw | bytes

BLOCK = 1024  # records decoded in one call; after a bad one they are decoded one by one
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
INTEGERS = range(-(2**63), 2**63)  # these are their own hash


class KeyReader(Protocol):
    """Reads a column of the key from many raw records."""

    @property
    def path(self) -> str: ...

    def read(self, records: Sequence[RawRecord]) -> list[Any]:
        """Return a value for each record; None for a record without one."""


class FieldReader:
    """Read the value at a dotted path, as `paths.find` does, from many raw records."""

    def __init__(self, path: str, convert: Callable[[list[Any]], list[Any]] | None = None) -> None:
        """Take the path, and a function that is applied to the values."""
        self.path = path
        self._convert = convert
        self._decoder = msgspec.json.Decoder(_make_shape(path))

    def read(self, records: Sequence[RawRecord]) -> list[Any]:
        """Return a value for each record; None for a record without one."""
        values: list[Any] = []
        for start in range(0, len(records), BLOCK):
            block = records[start : start + BLOCK]
            with suppress(*UNREADABLE):
                shapes = self._decoder.decode_lines(b"\n".join(block))
                if len(shapes) == len(block):
                    values += _pick(shapes, self.path)
                    continue
            values += [find(load(record), self.path) for record in block]
        return self._convert(values) if self._convert else values


class Deletion:
    """The key `deleted_when`: `field` is true, or `field=value`. `!` negates it.

    An object counts as true, even an empty one. A record without the field is never a deletion.
    """

    def __init__(self, deleted_when: str) -> None:
        self.path, equals, text = deleted_when.removeprefix("!").partition("=")
        self._field = FieldReader(self.path) if self.path else None
        self._negated = deleted_when.startswith("!")
        self._wanted: list[Any] = [text] if equals else []
        if equals:
            with suppress(msgspec.DecodeError):
                self._wanted.append(msgspec.json.decode(text))

    def find(self, records: Sequence[RawRecord]) -> list[bool]:
        """Return whether each record is a deletion."""
        return self.judge(self.read(records))

    def read(self, records: Sequence[RawRecord]) -> list[Any]:
        """Read the field of each record; None for a record without it."""
        return self._field.read(records) if self._field else [None] * len(records)

    def judge(self, values: Sequence[Any]) -> list[bool]:
        """Return whether each value of the field makes its record a deletion."""
        return [value is not None and self._matches(value) != self._negated for value in values]

    def _matches(self, value: Any) -> bool:
        if self._wanted:
            return any(type(value) is type(wanted) and value == wanted for wanted in self._wanted)
        return isinstance(value, dict) or is_true({"": value}, "") is True


def _make_shape(path: str) -> type[msgspec.Struct]:
    """Build a struct for every meaning of a path: the path is one name, or it is split at any of its dots."""
    kinds: dict[str, Any] = {path: Any} | {name: _make_shape(rest) | None for name, rest in split_path(path)}
    fields = [(f"_{number}", kind, None) for number, kind in enumerate(kinds.values())]
    names = {f"_{number}": name for number, name in enumerate(kinds)}
    return msgspec.defstruct("Shape", fields, rename=names, gc=False)  # JSON contains no cycles


def _pick(shapes: list[Any], path: str) -> list[Any]:
    """Return the value at a path in each of its structs."""
    values = [getattr(shape, "_0", None) for shape in shapes]
    for number, (_, rest) in enumerate(split_path(path), start=1):
        inner = _pick([getattr(shape, f"_{number}", None) for shape in shapes], rest)
        values = [other if value is None else value for value, other in zip(values, inner, strict=True)]
    return values
