"""Read single fields of many raw records, and find out which records are deletions."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from wholeday.schema.paths import find, is_true, load

if TYPE_CHECKING:
    import numpy as np

    Keys: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


Record = msgspec.Raw | bytes


BLOCK = 1024  # records decoded in one call: one bad record sends so many through the slower way


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


INTEGERS = range(-(2**63), 2**63)  # those that are their own key


class Field:
    """What stands at a dotted path in many records, as `fields.find` finds it, and nothing else of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(_make_shape(path))

    def read(self, records: Sequence[Record]) -> list[Any]:
        """A value for each record; None where there is none."""
        values: list[Any] = []
        for start in range(0, len(records), BLOCK):
            block = records[start : start + BLOCK]
            with suppress(*UNREADABLE):
                shapes = self._decoder.decode_lines(b"\n".join(block))
                if len(shapes) == len(block):
                    values += _pick(shapes, self.path)
                    continue
            values += [find(load(record), self.path) for record in block]
        return values


class Deletion:
    """What makes a record a deletion: `field` is true (an object is, even an empty one), or `field=value` as text.

    `!` before it turns it around; a record without the field is never a deletion.
    """

    def __init__(self, deleted_when: str) -> None:
        self.path, equals, text = deleted_when.removeprefix("!").partition("=")
        self._field = Field(self.path) if self.path else None
        self._negated = deleted_when.startswith("!")
        self._wanted: list[Any] = [text] if equals else []
        if equals:
            with suppress(msgspec.DecodeError):
                self._wanted.append(msgspec.json.decode(text))

    def find(self, records: Sequence[Record]) -> list[bool]:
        """Whether each of the records is a deletion."""
        return self.judge(self.read(records))

    def read(self, records: Sequence[Record]) -> list[Any]:
        """Read the field that says so; None where there is none."""
        return self._field.read(records) if self._field else [None] * len(records)

    def judge(self, values: Sequence[Any]) -> list[bool]:
        """Whether each value of that field makes its record a deletion."""
        return [value is not None and self._matches(value) != self._negated for value in values]

    def _matches(self, value: Any) -> bool:
        if self._wanted:
            return any(type(value) is type(wanted) and value == wanted for wanted in self._wanted)
        return isinstance(value, dict) or is_true({"": value}, "") is True


def _make_shape(path: str) -> type[msgspec.Struct]:
    """A struct for all that a path may mean: the whole of it is a name, or what stands before one of its dots is."""
    kinds: dict[str, Any] = {path: Any} | {name: _make_shape(rest) | None for name, rest in _cut(path)}
    fields = [(f"_{number}", kind, None) for number, kind in enumerate(kinds.values())]
    names = {f"_{number}": name for number, name in enumerate(kinds)}
    return msgspec.defstruct("Shape", fields, rename=names, gc=False)  # what JSON holds are no cycles


def _pick(shapes: list[Any], path: str) -> list[Any]:
    """What stands at a path in each of the structs that were made for it."""
    values = [getattr(shape, "_0", None) for shape in shapes]
    for number, (_, rest) in enumerate(_cut(path), start=1):
        inner = _pick([getattr(shape, f"_{number}", None) for shape in shapes], rest)
        values = [other if value is None else value for value, other in zip(values, inner, strict=True)]
    return values


def _cut(path: str) -> list[tuple[str, str]]:
    """Every way to cut a path in two at a dot, the longest first name first."""
    return [(path[:at], path[at + 1 :]) for at in range(len(path) - 1, 0, -1) if path[at] == "."]
