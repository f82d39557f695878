"""Read and write values at dotted paths in decoded JSON, and say which of them count as true.

A path names fields from the outside in: `paging.next.after`. A field whose own name contains dots (`@odata.nextLink`)
is found under that name. `!path` negates the truth of the value.

Non-goals: raw records, whose fields `raw_fields` reads without decoding the rest.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from wholeday.schema.depth import is_deep

FALSE = ("false", "no", "n", "off", "null", "none")  # strings
NEVER = re.compile(  # the zero of a clock: of MySQL, of Go and .NET, of Unix
    r"(0000-00-00|0001-01-01|1970-01-01)([t ]00:00(:00(\.0+)?)?( ?(z|utc|[+-]\d\d(:?\d\d)?))*)?"
)


class Number(float):
    """A number with a fraction or an exponent, and its original text, which a float may not reproduce."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


class Unreadable(str):
    """The JSON text of a value without an exact meaning: NaN, or a string with half a surrogate pair."""

    __slots__ = ()


def load(record: Any) -> Any:
    """Decode a record with the standard library, which accepts NaN and lone surrogates; msgspec refuses them.

    Return None if the record is not JSON, is nested too deeply, or has a number of thousands of digits.
    """
    with suppress(ValueError):
        return None if is_deep(record) else json.loads(bytes(record))


def find(fields: object, path: str) -> Any:
    """Return the value at `path` in nested objects, None if there is none."""
    if not isinstance(fields, Mapping):
        return None
    if path in fields:
        return fields[path]
    for name, rest in split_path(path):
        if name in fields and (value := find(fields[name], rest)) is not None:
            return value
    return None


def has(fields: object, path: str) -> bool:
    """Return whether a field exists at `path`, also if it or an object above it is null."""
    if not isinstance(fields, Mapping):
        return fields is None
    return path in fields or any(name in fields and has(fields[name], rest) for name, rest in split_path(path))


def is_true(fields: object, path: str) -> bool | None:
    """Return whether the value at `path` counts as true; None without a value.

    Python decides, but strings such as `false`, `no`, and dates of zeros count as false.
    """
    value = find(fields, path.removeprefix("!"))
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip().lower()
        truth = bool(text.strip("0-/:. tz")) and text not in FALSE and not NEVER.fullmatch(text)
    else:
        truth = bool(value)
    return truth != path.startswith("!")


def put(fields: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy of nested objects with `value` at `path`. Missing objects on the way are created."""
    name, _, rest = path.partition(".")
    inner = fields.get(name)
    return {**fields, name: put(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def drop(fields: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a copy of nested objects without the value at `path`, by the rules of `find`."""
    if path in fields:
        return {name: value for name, value in fields.items() if name != path}
    for name, rest in split_path(path):
        if isinstance(inner := fields.get(name), Mapping) and find(inner, rest) is not None:
            return {**fields, name: drop(inner, rest)}
    return dict(fields)


def walk(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each scalar in `value` with the names that lead to it. The items of a list share one path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from walk(item, path)
    else:
        yield path, value


def to_integer(value: object) -> int | None:
    """Return a whole number, or a string of up to 18 digits, as an integer; None for any other value."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def simplify(name: str) -> str:
    """Return the lower-case letters and digits of a name: `error_code` and `ErrorCode` become `errorcode`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def split_path(path: str) -> Iterator[tuple[str, str]]:
    """Yield every way to split a path at a dot into a name and the rest, the longest name first."""
    at = path.rfind(".")
    while at > 0:
        yield path[:at], path[at + 1 :]
        at = path.rfind(".", 0, at)
