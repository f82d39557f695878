"""Turn the raw lines of a part into a frame of rows and its rejects: a pure function without I/O or clock.

Responsibilities: decode records by the record class, reject the others, and let deletions pass with their
key alone. Non-goals: the rules of a dataset, which its `clean` holds.
"""

import gc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pandas as pd
import pyarrow as pa

from wholeday.errors import DatasetError
from wholeday.schema.depth import TOO_DEEP, hide_deep
from wholeday.schema.kinds import list_arrow_types
from wholeday.schema.paths import load
from wholeday.schema.raw_fields import INTEGERS, UNREADABLE, Deletion, Field
from wholeday.schema.record import Leaf, list_leaves
from wholeday.schema.reject import Reject
from wholeday.transform.cleaning import run_clean
from wholeday.transform.times import cut_fractions, place_times

if TYPE_CHECKING:
    from wholeday.schema.dataset import Clean


# Lines decoded in one call. After a bad record the lines of its block are decoded one by one.
BLOCK = 256

ARROW_TYPES = list_arrow_types()
PANDAS_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(na_value=float("nan")),  # explicit: pandas cannot infer it without values
    pa.date32(): pd.ArrowDtype(pa.date32()),
}
UTC = ZoneInfo("UTC")
KEY_IS_NULL = "is null, and it is the key"
HAS_NUL, KEY_HAS_NUL = "has a NUL character", "has a NUL character, and it is the key"
TOO_LARGE = "is an integer of more than 64 bits"
OUT_OF_RANGE = "is a time outside the years 1 to 9999"


class _TooDeepError(Exception):
    """A record is nested too deeply."""


class Cleaned(NamedTuple):
    """The rows and rejects of a part."""

    rows: pd.DataFrame
    rejects: list[Reject]
    fields: dict[str, tuple[int, int]]
    """By field: how many records could have it, and in how many it is present and not null."""


@contextmanager
def _without_collector() -> Iterator[None]:
    """Stop the garbage collector, which takes as long as decoding. Decoded records contain no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def transform(
    lines: Sequence[bytes],
    record_class: type[msgspec.Struct],
    clean: "Clean",
    key: Sequence[str],
    deleted_when: str = "",
    timezone: str = "UTC",
) -> tuple[pd.DataFrame, list[Reject]]:
    """Return the rows of a part in the order of its lines, and its rejects by line.

    `lines` are JSON records. `key` names the columns of the primary key in the result of `clean`. With `deleted_when`
    rows have a last column `deleted`, and a deletion with a readable key is a row, even if it breaks other rules.
    Times without an offset are in `timezone`. Every line becomes a row or a reject: len(rows) + len(rejects) ==
    len(lines). Raises DatasetError if record class and `clean` do not fit together.
    """
    cleaned = transform_and_count(lines, record_class, clean, key, deleted_when, timezone)
    return cleaned.rows, cleaned.rejects


@_without_collector()
def transform_and_count(
    lines: Sequence[bytes],
    record_class: type[msgspec.Struct],
    clean: "Clean",
    key: Sequence[str],
    deleted_when: str = "",
    timezone: str = "UTC",
) -> Cleaned:
    """Do what `transform` does, and count the records that have each field of the class, and of `deleted_when`."""
    leaves, zone = list_leaves(record_class), ZoneInfo(timezone)
    shown = hide_deep(lines)
    exact = cut_fractions(shown, leaves)
    records, refused = _decode(exact, record_class)
    if shown is not lines:
        for line in [number for number, line in enumerate(lines, 1) if shown[number - 1] is not line]:
            records.pop(line, None)
            refused[line] = _TooDeepError()
    salvaged = {line: _salvage(exact[line - 1], record_class) for line in refused}
    keys = _read_keys(salvaged, leaves, clean, key)
    deletion = Deletion(deleted_when)
    said = deletion.read(shown)
    gone = deletion.judge(said)
    kept = {line: salvaged[line] for line in refused if gone[line - 1] and keys[line]}
    readable = dict(sorted((records | kept).items())) if kept else records
    frame, skipped = _to_frame(readable, leaves, zone)
    fields = _count_fields(frame, leaves, lines, gone)
    if deletion.path:
        fields[deletion.path] = len(lines), len(lines) - said.count(None)
    rows, broken = _clean(clean, key, frame)
    rejects = []
    for line, error in refused.items():
        if line not in kept:
            reason, field = _explain(error)
            record = lines[line - 1].decode(errors="replace")
            rejects.append(Reject(line=line, reason=reason, field=field, key=keys[line], record=record))
    deleted = pd.Series([gone[line - 1] for line in rows.index] if any(gone) else False, rows.index, dtype=bool)
    bad = pd.Series(data=False, index=rows.index)
    for (field, reason), rule in (skipped | broken).items():
        mask = rule if reason in (KEY_IS_NULL, KEY_HAS_NUL) else rule & ~deleted
        for line, *values in rows.loc[mask & ~bad, list(key)].itertuples():
            record = lines[line - 1].decode()
            rejects.append(Reject(line=line, reason=reason, field=field, key=_encode_key(values), record=record))
        bad |= mask
        if reason in (HAS_NUL, OUT_OF_RANGE):
            rows[field] = rows[field].mask(rule)  # a deletion keeps its row without the value
    if deleted_when:
        rows = rows.assign(deleted=deleted)
    return Cleaned(rows[~bad], sorted(rejects, key=attrgetter("line")), fields)


def _count_fields(
    frame: pd.DataFrame, leaves: Sequence[Leaf], lines: Sequence[bytes], gone: Sequence[bool]
) -> dict[str, tuple[int, int]]:
    """Count the records that could have a field, and those where it is present and not null.

    A deletion needs only its key, so it does not count. Nor does a record that does not fit the record class.
    """
    live = frame[[not gone[line - 1] for line in frame.index]] if any(gone) else frame
    present = dict(zip(live.columns, live.count(), strict=True))
    fields = {".".join(leaf.names): (len(live), int(present[".".join(leaf.path)])) for leaf in leaves}
    if defaults := [".".join(leaf.names) for leaf in leaves if leaf.has_default]:
        records = [lines[line - 1] for line in live.index]  # a default hides whether the record has the field
        fields |= {name: (len(records), len(records) - Field(name).read(records).count(None)) for name in defaults}
    return fields


def _decode(
    lines: Sequence[bytes], record_class: type[msgspec.Struct]
) -> tuple[dict[int, msgspec.Struct], dict[int, Exception]]:
    """Decode records. Return those that fit the record class, and the errors of the others, each by line."""
    decoder = msgspec.json.Decoder(record_class)
    records: dict[int, msgspec.Struct] = {}
    refused: dict[int, Exception] = {}
    for start in range(0, len(lines), BLOCK):
        block = lines[start : start + BLOCK]
        with suppress(*UNREADABLE):
            fitting = decoder.decode_lines(b"\n".join(block))
            if len(fitting) == len(block):
                records.update(enumerate(fitting, start + 1))
                continue
        for number, line in enumerate(block, start + 1):
            try:
                records[number] = decoder.decode(line)
            except UNREADABLE as error:
                refused[number] = error
    return records, refused


def _explain(error: Exception) -> tuple[str, str | None]:
    """Return reason and field of a decoding error, from msgspec's message: the expectation and the path after `$`."""
    if isinstance(error, _TooDeepError):
        return TOO_DEEP, None
    if not isinstance(error, msgspec.ValidationError):
        return "JSON that cannot be kept exactly (NaN, a lone surrogate, bytes that are not UTF-8)", None
    reason, _, path = str(error).partition(" - at `$")
    missing = re.search(r"missing required field `(.+)`", reason)
    return reason, ".".join(filter(None, [path.strip(".`"), missing and missing[1]])) or None


def _to_frame(
    records: Mapping[int, object], leaves: Sequence[Leaf], zone: ZoneInfo = UTC
) -> tuple[pd.DataFrame, dict[tuple[str, str], "pd.Series[bool]"]]:
    """Build a frame with a column for each leaf, named by its dotted path, and line numbers as index.

    Return the rules that rows break, too: integers of more than 64 bits, and times that the clocks of `zone` skip. The
    frame has a missing value for these, as for absent and null fields.
    """
    index = pd.Index(records, dtype="int64")
    series, broken = {}, {}
    for leaf in leaves:
        name = ".".join(leaf.path)
        values: list[Any] = list(records.values())
        for step in leaf.path:
            values = _pick(values, step)
        if leaf.is_enum:
            values = _pick(values, "value")
        if leaf.kind == "time" and zone != UTC:
            values, skipped = place_times(values, zone)
            if skipped:
                broken[name, f"is a time that the clocks of {zone.key} skip"] = pd.Series(
                    index.isin(index[skipped]), index
                )
        try:
            column = pa.array(values, ARROW_TYPES[leaf.kind])
        except OverflowError:
            large = [value is not None and value not in INTEGERS for value in values]
            broken[name, TOO_LARGE] = pd.Series(large, index)
            column = pa.array([None if out else value for value, out in zip(values, large, strict=True)], pa.int64())
        series[name] = column.to_pandas(types_mapper=PANDAS_TYPES.get)
    return pd.DataFrame(series, dtype=None).set_axis(index), broken


def _pick(values: list[Any], name: str) -> list[Any]:
    """Return an attribute of each value, None for a value without it."""
    try:
        return list(map(attrgetter(name), values))
    except AttributeError:
        return [getattr(value, name, None) for value in values]


def _clean(clean: "Clean", key: Sequence[str], frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[tuple[str, str], Any]]:
    """Apply `clean` and the rules for every dataset. Raises DatasetError if `clean` lost rows or a key column."""
    rows, broken = run_clean(clean, frame)
    if missing := set(key) - set(rows.columns):
        raise DatasetError(f"clean: the key column {', '.join(sorted(missing))} is not among {', '.join(rows.columns)}")
    nulls = {(column, KEY_IS_NULL): rows[column].isna() for column in key}
    # Valid in JSON, but not in every database. The result must not depend on the database.
    texts = [str(column) for column in rows if isinstance(rows[column].dtype, pd.StringDtype)]
    nuls = {
        (column, KEY_HAS_NUL if column in key else HAS_NUL): rows[column].str.contains("\0", regex=False, na=False)
        for column in texts
    }
    # RFC 3339 can write such times: an offset may move the first and last hours of these years into another year.
    times = [str(column) for column in rows if rows[column].dtype.kind == "M"]
    out = {(column, OUT_OF_RANGE): rows[column].notna() & ~rows[column].dt.year.between(1, 9999) for column in times}
    return rows, nulls | broken | nuls | out


def _read_keys(
    salvaged: Mapping[int, object], leaves: Sequence[Leaf], clean: "Clean", key: Sequence[str]
) -> dict[int, str | None]:
    """Read the keys of refused records by line, from the fields that fit; None for an incomplete key."""
    if not salvaged:
        return {}
    frame, _ = _to_frame(salvaged, leaves)
    rows, _ = _clean(clean, key, frame)
    return dict(zip(salvaged, map(_encode_key, rows[list(key)].itertuples(index=False)), strict=True))


def _salvage(line: bytes, record_class: type[msgspec.Struct]) -> SimpleNamespace:
    """Decode the top-level fields of a refused record, each by itself; leave out those that do not fit."""
    fields = {}
    record = load(line)
    if isinstance(record, dict):
        for field in msgspec.structs.fields(record_class):
            with suppress(msgspec.ValidationError, UnicodeEncodeError):
                value = msgspec.convert(record.get(field.encode_name), field.type)
                msgspec.json.encode(value)  # refuses a lone surrogate, which is not text
                fields[field.name] = value
    return SimpleNamespace(**fields)


def _encode_key(values: Sequence[Any]) -> str | None:
    """Encode the values of a key as a JSON array; None if one is missing."""
    return None if pd.isna(list(values)).any() else json.dumps(list(values), default=_to_json, ensure_ascii=False)


def _to_json(value: Any) -> Any:
    """Convert a value that JSON does not know: numbers of NumPy to numbers, dates and times to text."""
    return value.item() if hasattr(value, "item") else str(value)
