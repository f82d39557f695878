"""Judge the objects of records: which are split into columns, and which hold data in their names.

Responsibilities: maps, lists within an object of their own, places without a value, names that no path reaches.
"""

import re
from collections.abc import Iterator

from wholeday.commands.new.model import Path
from wholeday.commands.new.names import LISTS, NEUTRAL, to_snake
from wholeday.commands.new.observe import LIST, OBJECT, Seen

FREE = re.compile(r"meta_?data|custom_?fields|annotations|extras?|additional_?properties|user_?data", re.IGNORECASE)
"""Objects whose members are up to the users of the source."""
BESIDE = {"object", "has_more", "hasmore", "url", "total_count", "totalcount", "count", "next", "total", "pageinfo"}
"""The fields next to a list in an object that only wraps the list."""
DATA_NAME = re.compile(r"\d+([^A-Za-z_\d]|$)|.*[@/]|[0-9a-f]{8}(-|[0-9a-f]{8})")  # the beginning of a name that is data
CODES = (re.compile(r"[A-Z]{3}"), re.compile(r"[a-z]{2}([_-][A-Z]{2})?"))  # currencies and languages
LEAST_SHARE_OF_FIELDS = 0.3  # the same where the name of the object says that these are fields
LEAST_SHARE = 0.5  # of the objects that have a member, on average, or the names of the members are data
UNREACHABLE = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')  # characters that the decoder takes in no name


def is_reachable(name: str, path: Path) -> bool:
    """Return whether a path of Field can lead to a field of this name. A number would be a position in a list."""
    return name != "" and not UNREACHABLE.search(name) and not (path and name.isdecimal())


def is_empty(seen: Seen) -> bool:
    """Return whether no value, or only empty lists and objects, came."""
    if set(seen.kinds) == {LIST}:
        return seen.items is None or not seen.items.count
    return not seen.present or (set(seen.kinds) == {OBJECT} and not seen.fields)


def is_map(seen: Seen, name: str) -> bool:
    """Return whether an object has changing members, so that their names are data."""
    names, objects = list(seen.fields), seen.objects
    if FREE.fullmatch(name) or not all(is_reachable(each, ("",)) for each in names):
        return True
    if 2 * sum(bool(DATA_NAME.match(each)) for each in names) >= len(names):
        return True
    kinds = {kind for member in seen.fields.values() for kind in member.kinds}
    if len(names) >= 3 and len(kinds) == 1 and any(all(map(code.fullmatch, names)) for code in CODES):
        return True
    share = sum(member.count for member in seen.fields.values()) / (len(names) * objects)
    least = LEAST_SHARE_OF_FIELDS if name.lower() in NEUTRAL else LEAST_SHARE
    return objects > 1 and len(names) > 3 and share < least


def find_wrapped(seen: Seen) -> str | None:
    """Return the list that an object is there for: `data` in {"object": "list", "data": […], "has_more": false}."""
    lists = [name for name, member in seen.fields.items() if set(member.kinds) == {LIST} and not is_empty(member)]
    others = {to_snake(name).replace("_", "") for name in seen.fields if name not in lists}
    is_wrapped = len(lists) == 1 and lists[0].lower() in LISTS and others <= {name.replace("_", "") for name in BESIDE}
    return lists[0] if is_wrapped else None


def list_empty(node: Seen, path: Path = ()) -> Iterator[Path]:
    """Yield the places outside lists where no value came."""
    for name, seen in node.fields.items():
        if is_empty(seen):
            yield (*path, name)
        elif set(seen.kinds) == {OBJECT} and not is_map(seen, name) and find_wrapped(seen) is None:
            yield from list_empty(seen, (*path, name))


def get_items(seen: Seen) -> Seen:
    """Return what was seen in the lists of a place that has lists."""
    assert seen.items is not None  # noqa: S101 - the caller's condition
    return seen.items
