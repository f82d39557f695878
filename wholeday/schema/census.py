"""Count the records of a day by their keys, and collect the fields that no column reads."""

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from msgspec import inspect

from wholeday.schema.depth import hide_deep
from wholeday.schema.paths import load, walk

if TYPE_CHECKING:
    import numpy as np

    Keys: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
from wholeday.schema.raw_fields import BLOCK, INTEGERS, UNREADABLE, Deletion, Field, Record

SAMPLE = 100  # records of a page that are looked through for unknown fields,


MANY, FEW = 100_000, 10  # and, once so many records are counted, so few of each page: a new field is rare by then


MAX_UNKNOWN = 100  # where the names of fields are data there is no end of them


DEEPEST_KEY, FEW_NAMES = 2, 5  # of the fields that are suggested as a key: names in a path, and how many fields


_encode = msgspec.json.Encoder(order="deterministic").encode


_splitter = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Census:
    """Counts the records of a day by their keys, in eight bytes a key, whatever a key is made of.

    `key` are the dotted paths of the natural key in a record. Of records with the same key the last one says
    whether it is deleted; a record whose key cannot be read, or is not known, counts as one of its own.
    """

    records: int
    span: tuple[int, int] | None
    """The lowest and the highest key, as they are counted."""

    def __init__(
        self, record_class: type[msgspec.Struct] | None = None, key: Sequence[str] = (), deleted_when: str = ""
    ) -> None:
        self.records, self.span = 0, None
        self.key, self.deleted_when = tuple(key), deleted_when
        self._fields = [Field(path) for path in key]
        self._deletion = Deletion(deleted_when)
        self._known = _name_fields(inspect.type_info(record_class)) if record_class else {}
        self._unknown: set[str] = set()
        self._keys, self._gone = array("q"), bytearray()
        self._alone = self._alone_gone = 0
        self._sample: list[Any] = []  # some of the first records of which one has no key
        self._counted = self._duplicates = 0
        self._latest: tuple[Keys, np.ndarray[tuple[int], np.dtype[np.bool]]] | None = None

    def add(self, records: Sequence[Record]) -> None:
        """Count these records, which came after those before."""
        self.records += len(records)
        records = hide_deep(records)
        keys = self._read_keys(records)
        if None in keys:
            self._sample = self._sample or list(map(load, records[:SAMPLE]))
        self.add_keys(keys, self._deletion.find(records))
        if self._known and len(self._unknown) < MAX_UNKNOWN:
            sample = SAMPLE if self.records <= MANY else FEW
            self._unknown.update(_find_unknown(records[:sample], self._known))

    def add_keys(self, found: Sequence[int | None], gone: Sequence[bool]) -> None:
        """Count these hashed keys, None for one that cannot be read, and whether each is of a deletion."""
        self._latest = None
        if alone := found.count(None):
            self._alone += alone
            self._alone_gone += sum(deleted for key, deleted in zip(found, gone, strict=True) if key is None)
            gone = [deleted for key, deleted in zip(found, gone, strict=True) if key is not None]
            found = [key for key in found if key is not None]
        keys = cast(Sequence[int], found)
        self._keys.extend(keys)
        if keys:
            low, high = self.span or (keys[0], keys[0])
            self.span = min(low, min(keys)), max(high, max(keys))
        self._gone.extend(gone)

    def has_at_least(self, number: int) -> bool:
        """Whether there are so many distinct keys: cheap to ask after every page."""
        if self._counted < number <= self.records - self._duplicates:
            self._counted = self.distinct
            self._duplicates = self.records - self._counted
        return self._counted >= number

    @property
    def distinct(self) -> int:
        """How many keys came, deleted or not."""
        return len(self._find_latest()[0]) + self._alone

    @property
    def deleted(self) -> int:
        """How many keys are deleted."""
        return int(self._find_latest()[1].sum()) + self._alone_gone

    def explain_no_key(self) -> str | None:
        """What to say where records came and none of them has the key, which no guard could then compare."""
        if not self.key or not self.records or self._alone < self.records:
            return None
        return f"no record has the key {', '.join(self.key)}: {_suggest_key(self._sample)}"

    @property
    def unknown(self) -> list[str]:
        """Dotted names of fields that the record class does not name."""
        return sorted(self._unknown)[:MAX_UNKNOWN]

    def present_keys(self) -> "Keys":
        """The keys that are not deleted, sorted: an integer is itself, anything else a hash."""
        keys, gone = self._find_latest()
        return keys[~gone]

    def _read_keys(self, records: Sequence[Record]) -> list[int | None]:
        if not self._fields:
            return [None] * len(records)
        if len(self._fields) == 1:
            values = self._fields[0].read(records)
            if set(map(type, values)) == {int} and min(values) in INTEGERS and max(values) in INTEGERS:
                return values
            return [None if value is None else _hash(value) for value in values]
        columns = zip(*(field.read(records) for field in self._fields), strict=True)
        return [None if None in values else _hash(values) for values in columns]

    def _find_latest(self) -> "tuple[Keys, np.ndarray[tuple[int], np.dtype[np.bool]]]":
        """The distinct keys, sorted, and whether the last record of each was a deletion."""
        import numpy as np

        if self._latest is None:
            keys, gone = np.array(self._keys, dtype=np.int64), np.array(self._gone, dtype=np.bool)
            if self._gone.count(1):
                order = np.argsort(keys, kind="stable")
                keys, gone = keys[order], gone[order]
            else:
                keys.sort()
            last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
            self._latest = keys[last], gone[last]
        return self._latest


def _suggest_key(records: Sequence[Any]) -> str:
    """What to do about records without the key: the names of fields that could be it."""
    if kinds := {type(record).__name__ for record in records if not isinstance(record, dict)}:
        names = {"list": "arrays", "str": "texts", "NoneType": "no JSON"}
        shown = ", ".join(sorted(names.get(kind, "numbers or booleans") for kind in kinds))
        return f"there are records that are {shown}, and not objects: set data_selector to a list of objects"
    values: dict[str, set[Any]] = {}
    for record in records:
        for path, value in walk(record):
            if isinstance(value, int | str) and len(path) <= DEEPEST_KEY:
                values.setdefault(".".join(path), set()).add(value)
    alike = [name for name, found in values.items() if len(found) == len(records)]
    likely = sorted(alike, key=lambda name: not re.search(r"(id|key|number|code|name)$", name, re.IGNORECASE))
    if not likely:
        return "no other field tells the records apart"
    return f"name another field as the key of the dataset, such as {', '.join(likely[:FEW_NAMES])}"


def hash_keys(keys: Iterable[Sequence[Any]]) -> "Keys":
    """Hash keys as Census counts them. Each of `keys` holds the values of one key."""
    import numpy as np

    found, keys = array("q"), iter(keys)
    while block := list(islice(keys, BLOCK)):
        if set(map(len, block)) == {1} and set(map(type, values := list(chain.from_iterable(block)))) == {int}:
            found.extend(values)  # most keys, and far faster than one by one
        else:
            found.extend(_hash(key[0] if len(key) == 1 else key) for key in block)
    return np.array(found, np.int64)


def _hash(value: Any) -> int:
    """A key in 64 bits, the same in every process: an integer that fits is itself."""
    if type(value) is int and value in INTEGERS:
        return value
    try:
        text = _encode(value)
    except (OverflowError, UnicodeEncodeError):  # an integer beyond 64 bits, a lone surrogate
        text = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def _name_fields(node: inspect.Type) -> dict[str, Any]:
    """The fields of a struct by their names in JSON, each with those below it; none where it is taken whole."""
    if isinstance(node, inspect.UnionType):
        structs = [kind for kind in node.types if isinstance(kind, inspect.StructType)]
        node = structs[0] if len(structs) == 1 else node
    if not isinstance(node, inspect.StructType):
        return {}
    return {field.encode_name: _name_fields(field.type) for field in node.fields}


def _find_unknown(records: Sequence[Record], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields of records that are not among the known ones."""
    objects = _split(records)
    for name in set().union(*objects):
        if name not in known:
            yield prefix + name
        elif known[name]:
            inner = [fields[name] for fields in objects if name in fields]
            yield from _find_unknown(inner, known[name], f"{prefix}{name}.")


def _split(records: Sequence[Record]) -> list[dict[str, msgspec.Raw]]:
    """The fields of those of the records that are objects."""
    with suppress(*UNREADABLE):
        return [fields for fields in _splitter.decode_lines(b"\n".join(records)) if fields]
    found = []
    for record in records:
        with suppress(*UNREADABLE):
            found.append(_splitter.decode(record) or {})
    return found
