"""Convert values of another type than their column declares: what `lenient = true` accepts.

| sent | column | becomes |
|---|---|---|
| `"12"`, `12.0`, `"12.0"` | int; Literal or Enum of integers | `12` |
| `"1.5"` | float | `1.5` |
| `"true"`, `"false"` | bool | `true`, `false` |
| `""` | any but str and Json, that may be null | null |
| `"1764000000"` | Epoch, EpochMillis | the time (in `values`, which reads these) |

Any other value of another type is rejected.
"""

import re
from contextlib import suppress
from typing import Any

import msgspec

from wholeday.schema.columns import Column, Columns
from wholeday.schema.kinds import BOOLEAN, FLOAT, INTEGER
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.schema.record import Json

INTEGER_TEXT = re.compile(rb'("?)(-?(?:0|[1-9][0-9]*))(?:\.0+)?\1')
FLOAT_TEXT = re.compile(rb'"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"')
BOOLEAN_TEXT = re.compile(rb'"(true|false)"')

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_join = msgspec.json.Encoder().encode


def repair(line: bytes, columns: Columns) -> bytes:
    """Return a record with its values converted, where their columns are lenient about them."""
    return _repair(line, [(column.path, column) for column in columns if not column.options.rest])


def _repair(raw: bytes, columns: list[tuple[tuple[str, ...], Column]]) -> bytes:
    with suppress(*UNREADABLE):
        fields: dict[str, Any] = _split(raw)
        below: dict[str, list[tuple[tuple[str, ...], Column]]] = {}
        for path, column in columns:
            below.setdefault(path[0], []).append((path[1:], column))
        for name, inner in below.items():
            if name not in fields:
                continue
            value = bytes(fields[name])
            deeper = [(path, column) for path, column in inner if path]
            for path, column in inner:
                value = value if path else convert_value(value, column)
            fields[name] = msgspec.Raw(_repair(value, deeper) if deeper else value)
        return _join(fields)
    return raw


def convert_value(value: bytes, column: Column) -> bytes:
    """Return a JSON value converted to the type of its column; a value that is not in the table as it is."""
    if value == b'""' and column.is_nullable and column.type not in (str, Json):
        return b"null"
    if column.kind == INTEGER and (match := INTEGER_TEXT.fullmatch(value)):
        return match[2]
    if column.kind == FLOAT and (match := FLOAT_TEXT.fullmatch(value)):
        return match[1]
    if column.kind == BOOLEAN and (match := BOOLEAN_TEXT.fullmatch(value)):
        return match[1]
    return value


def convert_key(value: Any, column: Column) -> Any:
    """Return a value of a key, decoded from JSON, as `lenient` reads it."""
    if column.kind == INTEGER and isinstance(value, str | float):
        match = INTEGER_TEXT.fullmatch(str(value).encode())
        return int(match[2]) if match else value
    return value
