"""Generate schemas of JSON records, records of them, and the columns that a careful person would declare.

A value of each kind has one narrowest type, so the columns follow from the kinds and from which values came.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Path = tuple[str, ...]
NAMES = (
    *("alpha", "Alpha", "betaGamma", "Größe", "class", "delta.x", "Eta Theta", "date", "datetime", "iota_2", "_kappa"),
    *("oid", "position", "str", "None", "1st", "it's", "-", "{x}", "%(y)s", "Field"),
)
MOMENT = dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC)
words = st.text("abcxyz ÜÄ€'\"\\\n", min_size=1, max_size=6).map(lambda text: f"w{text}")
KINDS: dict[str, tuple[str, "st.SearchStrategy[Any]"]] = {
    "whole": ("int", st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)),
    "large": ("Json", st.just(2**63) | st.just(2**70)),
    "real": ("float", st.integers(-(10**6), 10**6).map(lambda number: number + 0.25)),
    "flag": ("bool", st.booleans()),
    "words": ("str", words),
    "empty words": ("str", st.just("")),
    "moment": ("datetime", st.integers(0, 10**6).map(lambda number: f"{MOMENT + dt.timedelta(seconds=number):%FT%TZ}")),
    "day": ("date", st.dates(dt.date(1900, 1, 1)).map(str)),
    "clock": ("time", st.times().map(lambda time: f"{time:%H:%M:%S}")),
    "guid": ("UUID", st.integers(0, 2**128 - 1).map(lambda number: str(uuid.UUID(int=number)))),
    "seconds": ("Epoch", st.integers(10**9, 2 * 10**9)),
    "millis": ("EpochMillis", st.integers(10**12, 2 * 10**12)),
    "money": ("Decimal", st.integers(0, 10**5).map(lambda cents: f"{cents / 100:.2f}")),
    "digits": ("int lenient", st.integers(-99, 99).map(str)),
    "truth": ("bool lenient", st.sampled_from(["true", "false"])),
    "code": ("str", st.integers(0, 99).map(lambda number: f"0{number}")),
    "mixed": ("Json", st.sampled_from([[1, "a"], [True, 0], [{"a": 1}, 2]])),
    "map": ("Json", st.dictionaries(st.integers(0, 9).map(lambda number: f"{number}@x"), st.booleans(), min_size=1)),
    "tags": ("list[str]", st.lists(words, min_size=1, max_size=2)),
    "counts": ("list[int]", st.lists(st.integers(0, 9), min_size=1, max_size=2)),
    "gaps": ("list[int | None]", st.just([1, None])),
    "lists": ("Json", st.just([[1], [2]])),
}
ENDINGS = {"seconds": "_at", "millis": "At", "money": "_price", "code": "_code", "digits": "_qty"}
"""The ends of names without which a number or a text could be anything."""


@dataclass(frozen=True)
class Place:
    """A field of an object."""

    name: str
    kind: str
    """One of KINDS, `object` or `list`, whose objects have `fields`."""
    is_optional: bool
    fields: tuple["Place", ...] = ()


@dataclass
class Expected:
    """A column that should be declared."""

    type: str
    is_nullable: bool
    is_key: bool = False
    children: dict[Path, "Expected"] = field(default_factory=dict)


@st.composite
def schemas(draw: st.DrawFn, level: int = 0) -> tuple[Place, ...]:
    """Draw the fields of an object. At most three below the top, where a person would take more for data."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3 if level else 6))
    kinds = st.sampled_from([*KINDS, *(["object", "list"] * 4 if level < 2 else [])])
    return tuple(draw_place(draw, name, draw(kinds), level) for name in names)


def draw_place(draw: st.DrawFn, name: str, kind: str, level: int) -> Place:
    fields = draw(schemas(level + 1)) if kind in ("object", "list") else ()
    return Place(name + ENDINGS.get(kind, ""), kind, draw(st.booleans()), fields)


def draw_object(draw: st.DrawFn, fields: Sequence[Place]) -> dict[str, Any]:
    found = {}
    for place in fields:
        dice = draw(st.integers(0, 9)) if place.is_optional else 9
        if dice == 0:
            found[place.name] = None
        elif dice > 1:
            found[place.name] = draw_value(draw, place)
    return found


def draw_value(draw: st.DrawFn, place: Place) -> Any:
    if place.kind == "object":
        return draw_object(draw, place.fields)
    if place.kind == "list":
        return [{"id": number} | draw_object(draw, place.fields) for number in range(draw(st.integers(0, 2)))]
    return draw(KINDS[place.kind][1])


@st.composite
def sources(draw: st.DrawFn) -> tuple[tuple[Place, ...], list[Any]]:
    """Draw a schema, and records of it with the key `id`."""
    fields = draw(schemas())
    number = draw(st.integers(2, 8))
    return fields, [{"id": each} | draw_object(draw, fields) for each in range(number)]


def list_expected(fields: Sequence[Place], objects: Sequence[Any]) -> dict[Path, Expected]:
    """List the columns by their paths. A field without a value has none."""
    return {("id",): Expected("int", False, is_key=True)} | dict(_list(fields, objects, len(objects), ()))


def _list(fields: Sequence[Place], objects: Sequence[Any], total: int, above: Path) -> Iterator[tuple[Path, Expected]]:
    for place in fields:
        path = (*above, place.name)
        values = [value for each in objects if (value := each.get(place.name)) is not None]
        if place.kind == "object":
            yield from _list(place.fields, values, total, path)
        elif place.kind == "list":
            items = [item for value in values for item in value]
            if items:
                yield path, Expected("list", len(values) < total, children=list_expected(place.fields, items))
        elif values:
            yield path, Expected(KINDS[place.kind][0], len(values) < total)
