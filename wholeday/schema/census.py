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

from wholeday.schema.depth import hide_deep
from wholeday.schema.paths import load, walk
from wholeday.schema.raw_fields import BLOCK, INTEGERS, UNREADABLE, Deletion, KeyReader, RawRecord

if TYPE_CHECKING:
    import numpy as np

    Keys: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

SAMPLE = 100  # records of a page that are searched for unknown fields
MANY, FEW = 100_000, 10  # after so many records only so few of each page: a new field is rare by then
MAX_UNKNOWN = 100  # in some sources the names are data, so their number has no limit
DEEPEST_KEY, FEW_NAMES = 2, 5  # of fields suggested as a key: levels of their paths, and their number

_encode = msgspec.json.Encoder(order="deterministic").encode
_splitter = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Census:
    """Count the records of a day by their keys, in eight bytes per key.

    `key` reads the values of the key. Of records with the same key the last one decides whether it is deleted. A record
    without a readable key counts as a key of its own. `known` holds the names that columns read, nested; of other
    names, `unknown` collects some.
    """

    records: int
    span: tuple[int, int] | None
    """The lowest and the highest hash of a key."""

    def __init__(
        self, key: Sequence[KeyReader] = (), deleted_when: str = "", known: Mapping[str, Any] | None = None
    ) -> None:
        self.records, self.span = 0, None
        self.key, self.deleted_when = tuple(key), deleted_when
        self._deletion = Deletion(deleted_when)
        self._known = known or {}
        self._unknown: set[str] = set()
        self._keys, self._deleted = array("q"), bytearray()
        self._alone = self._alone_deleted = 0
        self._sample: list[Any] = []  # records of the first page with a missing key
        self._counted = self._duplicates = 0
        self._latest: tuple[Keys, np.ndarray[tuple[int], np.dtype[np.bool]]] | None = None

    def add(self, records: Sequence[RawRecord], *, may_be_deep: bool = True) -> None:
        """Count the next records, in the order of the source. `may_be_deep` is that of their page."""
        self.records += len(records)
        records = hide_deep(records) if may_be_deep else records
        keys = self._read_keys(records)
        if None in keys:
            self._sample = self._sample or list(map(load, records[:SAMPLE]))
        self.add_keys(keys, self._deletion.find(records))
        if self._known and len(self._unknown) < MAX_UNKNOWN:
            sample = SAMPLE if self.records <= MANY else FEW
            self._unknown.update(_find_unknown(records[:sample], self._known))

    def identify(self, records: Sequence[RawRecord]) -> list[int | bytes]:
        """Return what identifies each record: its hashed key or, without a readable one, its bytes."""
        keys = self._read_keys(hide_deep(records))
        return [bytes(record) if key is None else key for key, record in zip(keys, records, strict=True)]

    def add_keys(self, found: Sequence[int | None], deleted: Sequence[bool]) -> None:
        """Count hashed keys (None: not readable), each with whether its record is a deletion."""
        self._latest = None
        if alone := found.count(None):
            self._alone += alone
            self._alone_deleted += sum(
                is_deleted for key, is_deleted in zip(found, deleted, strict=True) if key is None
            )
            deleted = [is_deleted for key, is_deleted in zip(found, deleted, strict=True) if key is not None]
            found = [key for key in found if key is not None]
        keys = cast(Sequence[int], found)
        self._keys.extend(keys)
        if keys:
            low, high = self.span or (keys[0], keys[0])
            self.span = min(low, min(keys)), max(high, max(keys))
        self._deleted.extend(deleted)

    def absorb(self, other: "Census") -> None:
        """Count the records of another census, as if they came next."""
        self._latest = None
        self.records += other.records
        self._keys.extend(other._keys)
        self._deleted.extend(other._deleted)
        self._alone, self._alone_deleted = self._alone + other._alone, self._alone_deleted + other._alone_deleted
        self._sample, self._unknown = self._sample or other._sample, self._unknown | other._unknown

    def has_at_least(self, number: int) -> bool:
        """Return whether at least `number` distinct keys came. Cheap enough for every page."""
        if self._counted < number <= self.records - self._duplicates:
            self._counted = self.distinct
            self._duplicates = self.records - self._counted
        return self._counted >= number

    @property
    def distinct(self) -> int:
        """The number of distinct keys, deleted or not."""
        return len(self._select_latest()[0]) + self._alone

    @property
    def deleted(self) -> int:
        """The number of deleted keys."""
        return int(self._select_latest()[1].sum()) + self._alone_deleted

    def explain_no_key(self) -> str | None:
        """Explain that no record has the key, without which no gate can compare the day; None if one has it."""
        if not self.key or not self.records or self._alone < self.records:
            return None
        names = ", ".join(reader.path for reader in self.key)
        return f"no record has the key {names}: {_suggest_key(self._sample)}"

    @property
    def unknown(self) -> list[str]:
        """The dotted names of fields that no column reads, sorted."""
        return sorted(self._unknown)[:MAX_UNKNOWN]

    def present_keys(self) -> "Keys":
        """Return the keys that are not deleted, hashed and sorted. An integer is its own hash."""
        keys, deleted = self._select_latest()
        return keys[~deleted]

    def _read_keys(self, records: Sequence[RawRecord]) -> list[int | None]:
        if not self.key:
            return [None] * len(records)
        if len(self.key) == 1:
            values = self.key[0].read(records)
            if set(map(type, values)) == {int} and min(values) in INTEGERS and max(values) in INTEGERS:
                return values
            return [None if value is None else _hash(value) for value in values]
        columns = zip(*(field.read(records) for field in self.key), strict=True)
        return [None if None in values else _hash(values) for values in columns]

    def _select_latest(self) -> "tuple[Keys, np.ndarray[tuple[int], np.dtype[np.bool]]]":
        """Return the distinct keys, sorted, and whether the last record of each is a deletion.

        Without deletions the order of the keys does not matter, so they are sorted where they are: millions of keys
        need much memory. `add_keys` drops the result before it adds to them.
        """
        import numpy as np

        if self._latest is None:
            if self._deleted.count(1):
                keys, deleted = np.array(self._keys, dtype=np.int64), np.array(self._deleted, dtype=np.bool)
                order = np.argsort(keys, kind="stable")
                keys, deleted = keys[order], deleted[order]
            else:
                keys = np.frombuffer(self._keys, np.int64) if self._keys else np.empty(0, np.int64)
                keys.sort()
                deleted = np.zeros(len(keys), np.bool)
            last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
            self._latest = (keys, deleted) if last.all() else (keys[last], deleted[last])
        return self._latest


def _suggest_key(records: Sequence[Any]) -> str:
    """Suggest what to do about records without the key: fields that could be the key."""
    if kinds := {type(record).__name__ for record in records if not isinstance(record, dict)}:
        names = {"list": "arrays", "str": "texts", "NoneType": "no JSON"}
        shown = ", ".join(sorted(names.get(kind, "numbers or booleans") for kind in kinds))
        return f"some records are {shown}, not objects. Set data_selector to a list of objects"
    values: dict[str, set[Any]] = {}
    for record in records:
        for path, value in walk(record):
            if isinstance(value, int | str) and len(path) <= DEEPEST_KEY:
                values.setdefault(".".join(path), set()).add(value)
    alike = [name for name, found in values.items() if len(found) == len(records)]
    likely = sorted(alike, key=lambda name: not re.search(r"(id|key|number|code|name)$", name, re.IGNORECASE))
    if not likely:
        return "no other field identifies a record"
    return f"name another field as the key of the dataset, such as {', '.join(likely[:FEW_NAMES])}"


def hash_keys(keys: Iterable[Sequence[Any]]) -> "Keys":
    """Hash keys as Census counts them. Each of `keys` holds the values of one key."""
    import numpy as np

    found, keys = array("q"), iter(keys)
    while block := list(islice(keys, BLOCK)):
        if set(map(len, block)) == {1} and set(map(type, values := list(chain.from_iterable(block)))) == {int}:
            found.extend(values)  # the usual case, and far faster than one by one
        else:
            found.extend(_hash(key[0] if len(key) == 1 else key) for key in block)
    return np.array(found, np.int64)


def _hash(value: Any) -> int:
    """Hash a key to 64 bits, the same in every process. An integer that fits is its own hash."""
    if type(value) is int and value in INTEGERS:
        return value
    try:
        text = _encode(value)
    except (OverflowError, UnicodeEncodeError):  # an integer beyond 64 bits, a lone surrogate
        text = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def _find_unknown(records: Sequence[RawRecord], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of fields that are not known."""
    objects = _split(records)
    for name in set().union(*objects):
        if name not in known:
            yield prefix + name
        elif known[name]:
            inner = [fields[name] for fields in objects if name in fields]
            yield from _find_unknown(inner, known[name], f"{prefix}{name}.")


def _split(records: Sequence[RawRecord]) -> list[dict[str, msgspec.Raw]]:
    """Return the fields of each record that is an object."""
    with suppress(*UNREADABLE):
        return [fields for fields in _splitter.decode_lines(b"\n".join(records)) if fields]
    found = []
    for record in records:
        with suppress(*UNREADABLE):
            found.append(_splitter.decode(record) or {})
    return found
