"""Where something stands in a JSON object: dotted paths, and what counts as true there.

A path names fields from the outside in: `paging.next.after`. A name that holds dots itself (`@odata.nextLink`)
is found as it is. `!path` turns the truth of what stands there around.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from wholeday.schema.depth import is_deep

FALSE = ("false", "no", "n", "off", "null", "none")  # as text
NEVER = re.compile(  # the zero of a clock: that of MySQL, of Go and .NET, of Unix
    r"(0000-00-00|0001-01-01|1970-01-01)([t ]00:00(:00(\.0+)?)?( ?(z|utc|[+-]\d\d(:?\d\d)?))*)?"
)


class Number(float):
    """A number with a fraction or an exponent, and the text that it came as, which a float may not hold."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


class Unreadable(str):
    """The JSON text of a value that has no exact meaning: NaN, or text with half a surrogate pair."""

    __slots__ = ()


def load(record: Any) -> Any:
    """Return a record as Python reads it, with NaN and lone surrogates, which msgspec refuses.

    None: it is no JSON, or has a number of thousands of digits, or is nested too deeply.
    """
    with suppress(ValueError):
        return None if is_deep(record) else json.loads(bytes(record))


def find(fields: object, path: str) -> Any:
    """What stands at `path` in nested objects; None where nothing does."""
    if not isinstance(fields, Mapping):
        return None
    if path in fields:
        return fields[path]
    for name, rest in split_path(path):
        if name in fields and (value := find(fields[name], rest)) is not None:
            return value
    return None


def has(fields: object, path: str) -> bool:
    """Whether there is a field at `path`, if only with null in it, or in the place of what should hold it."""
    if not isinstance(fields, Mapping):
        return fields is None
    return path in fields or any(name in fields and has(fields[name], rest) for name, rest in split_path(path))


def is_true(fields: object, path: str) -> bool | None:
    """Whether what stands at `path` is true as Python sees it, and so is the text `true`; None where nothing is."""
    value = find(fields, path.removeprefix("!"))
    if value is None:
        return None
    if isinstance(value, str):  # a date of zeros is one of nothing, too
        text = value.strip().lower()
        truth = bool(text.strip("0-/:. tz")) and text not in FALSE and not NEVER.fullmatch(text)
    else:
        truth = bool(value)
    return truth != path.startswith("!")


def put(fields: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of nested objects with `value` at `path`; objects that are missing on the way are made."""
    name, _, rest = path.partition(".")
    inner = fields.get(name)
    return {**fields, name: put(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def walk(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values in `value` that hold no others, each with the names that lead to it; those of a list share one."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from walk(item, path)
    else:
        yield path, value


def simplify(name: str) -> str:
    """Return the small letters and digits of a name: `error_code` and `ErrorCode` are `errorcode`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def split_path(path: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a path in two at a dot, the longest first name first."""
    at = path.rfind(".")
    while at > 0:
        yield path[:at], path[at + 1 :]
        at = path.rfind(".", 0, at)
