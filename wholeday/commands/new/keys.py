"""Find the key of records, and of the items of lists: by uniqueness and name."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wholeday.commands.new.model import Path, write_path
from wholeday.commands.new.names import to_singular, to_snake
from wholeday.commands.new.observe import Seen
from wholeday.commands.new.types import decide_type
from wholeday.extract.http.envelope import VALUE
from wholeday.extract.vocabulary import KEY
from wholeday.log import count

KEY_TYPES = ("int", "str", "UUID", "date")
IDS = ("id", "uuid", "guid", "_id", "sid", "gid", "oid")
NAMED_KEYS = ("key", "code", "slug", "sku", "symbol", "number", "iso", "login", "username", "handle", "email", "name")
PART_OF_KEY = re.compile(
    r"(^|_)(id|uuid|key|code|number|version|currency|country|date|day|hour|week|month|quarter|year|period|time|"
    r"timestamp|datetime|sku|symbol|slug|store|warehouse|location|region|market|exchange|channel|campaign|keyword|"
    r"device|station|sensor|language|locale|metric|unit)$|^name$"
)
OF_OTHERS = re.compile(r"^(first|last|min|max|start|end|prev|previous|next|parent|root|created_by|updated_by)_")
FEW = 20  # records, which say little about a key


class NoKeyError(ValueError):
    """No field, and no few fields together, identify a record."""


@dataclass
class Key:
    """The places of a key, the evidence for it, and the doubts about it."""

    places: list[Path]
    evidence: str = ""
    doubts: list[str] = field(default_factory=list)


def find_key(leaves: Mapping[Path, Seen], records: Iterable[Any], total: int, dataset: str) -> Key:
    """Find the field, or the fields, that identify each of `total` records. Raises NoKeyError.

    `leaves` are the places of scalars and lists; `records` is the sample.
    """
    kept = _drop_repeated(records)
    able = [
        path
        for path, seen in leaves.items()
        if seen.present == total and decide_type(seen, to_snake(path[-1]), is_key=True).name in KEY_TYPES
    ]
    ranks = {path: rank for path in able if (rank := _rank(path, dataset))}
    named = ([path] for path in sorted(ranks, key=lambda path: ranks[path]))
    is_scalar = [*leaves] == [(VALUE,)]  # a list of scalars has no other field
    parts = [path for path in able if is_scalar or PART_OF_KEY.search(to_snake("_".join(path)))]
    some = (itertools.combinations(parts, number) for number in (1, 2, 3))
    for places in itertools.chain(named, *some):
        if _is_unique(kept, places):
            return Key([*places], f"distinct and present in {count(len(kept), 'record')}", _doubt(places, ranks, kept))
    raise NoKeyError


def find_child_key(leaves: Mapping[Path, Seen], items: Seen, owner: str) -> Path | None:
    """Return the field that identifies an item within its list; None without one."""
    for name in ("id", "_id", "uuid", "guid", f"{owner}_id"):
        for path, seen in leaves.items():
            is_named = len(path) == 1 and to_snake(path[0]) == name.strip("_")
            is_distinct = seen.present == items.objects and path[0] not in items.repeated
            if is_named and is_distinct and decide_type(seen, path[0], is_key=True).name in KEY_TYPES:
                return path
    return None


def get(record: Any, path: Path) -> Any:
    """Return the value at a path, None without one."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _rank(path: Path, dataset: str) -> tuple[int, ...]:
    """Return the rank of a path among keys; empty if nothing but its values makes it one."""
    dotted, leaf, owner = ".".join(path), to_snake(path[-1]), to_singular(dataset)
    best = [*IDS, *(f"{owner}{ending}" for ending in ("_id", "_uuid", "id", "_key", "_code")), f"{dataset}_id"]
    if leaf in best or dotted in best:
        return 0, len(path), best.index(leaf if leaf in best else dotted)
    if KEY.search(dotted):
        return 3 if OF_OTHERS.search(leaf) else 1, len(path), len(dotted)
    return (2, len(path), NAMED_KEYS.index(leaf)) if leaf in NAMED_KEYS else ()


def _doubt(places: Sequence[Path], ranks: Mapping[Path, tuple[int, ...]], records: Sequence[Any]) -> list[str]:
    """List the doubts about a key: a name that is not usual, few records, and other fields that are distinct too."""
    shown, number = ", ".join(map(write_path, places)), count(len(records), "record")
    if len(places) > 1:
        return [f"no field identifies a record alone; {shown} together are distinct in {number}: check the key"]
    rank = ranks.get(places[0], (2,))[0]
    is_sure = rank == 0 or (rank == 1 and len(records) >= FEW)
    if is_sure:
        return []
    others = [write_path(path) for path in ranks if path != places[0] and _is_unique(records, [path])]
    more = f"; {others[0]} is distinct too" if others else ""
    return [f"the key {shown} is distinct in {number}, but its name is not usual{more}: check it"]


def _is_unique(records: Sequence[Any], key: Sequence[Path]) -> bool:
    return len({tuple(str(get(record, path)) for path in key) for record in records}) == len(records)


def _drop_repeated(records: Iterable[Any]) -> list[Any]:
    """Return the records without those that came twice, as on two pages of a list that changed meanwhile."""
    return list({repr(record): record for record in records}.values())
