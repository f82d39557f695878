"""Turn the raw lines of a part into a frame of rows and its rejects: a pure function without I/O or clock.

Responsibilities: the frame that `clean` gets, which records are rejected, and deletions, which need only their key.
Non-goals: decoding (`decode`) and the values of a column (`values`, `children`).
"""

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from wholeday.schema.columns import Column, Columns
from wholeday.schema.conversion import Conversion
from wholeday.schema.depth import TOO_DEEP, hide_deep
from wholeday.schema.raw_fields import Deletion
from wholeday.schema.reject import Reject
from wholeday.transform.children import convert_values
from wholeday.transform.cleaning import clean_frame
from wholeday.transform.decode import decode, explain, salvage
from wholeday.transform.values import Broken, Mask, Reading

PANDAS_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(na_value=float("nan")),  # explicit: pandas cannot infer it without values
}


class Cleaned(NamedTuple):
    """The rows and rejects of a part."""

    rows: pd.DataFrame
    rejects: list[Reject]
    fields: dict[str, tuple[int, int]]
    """By field: how many records could have it, and in how many it is present and not null."""


class _Records(NamedTuple):
    """Decoded records, in the order of their lines."""

    lines: list[int]
    values: Mapping[str, list[Any]]
    marks: Mapping[str, Mapping[str, list[Any]]]


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


@_without_collector()
def transform(lines: Sequence[bytes], conversion: Conversion) -> Cleaned:
    """Return the rows of a part in the order of its lines, its rejects by line, and how many records have each field.

    `lines` are JSON records. With `deleted_when` rows have a last column `deleted`, and a deletion with a readable key
    is a row, even if it breaks other rules. Every line becomes a row or a reject: len(rows) + len(rejects) ==
    len(lines). Raises DatasetError if `clean` fails or does not fit the record class.
    """
    columns = conversion.columns
    reading = Reading(ZoneInfo(conversion.timezone), conversion.lenient)
    shown = hide_deep(lines)
    records, refused = _decode(lines, shown, conversion)
    salvaged = {line: salvage(shown[line - 1], columns) for line in refused}
    keys = dict(zip(salvaged, _encode_keys(list(salvaged.values()), columns, reading), strict=True))
    deletion = Deletion(conversion.deleted_when)
    said = deletion.read(shown)
    gone = deletion.judge(said)
    kept = {line: salvaged[line] for line in refused if gone[line - 1] and keys[line]}
    fields = _count_fields(records, columns, gone)
    if deletion.path:
        fields[deletion.path] = len(lines), len(lines) - said.count(None)
    if kept:
        records = _merge(records, kept)
    frame, broken = _to_frame(records, columns, reading)
    rows, rules = clean_frame(conversion.clean, frame, columns)
    rejects = [
        Reject(line=line, reason=reason, field=field, key=keys[line], record=lines[line - 1].decode(errors="replace"))
        for line, (reason, field) in refused.items()
        if line not in kept
    ]
    deleted = np.array([gone[line - 1] for line in records.lines], bool)
    bad = _reject(rejects, lines, rows, broken | rules, deleted, columns)
    if conversion.deleted_when:
        rows = rows.assign(deleted=deleted)
    return Cleaned(rows[~bad] if bad.any() else rows, sorted(rejects, key=attrgetter("line")), fields)


def _decode(
    lines: Sequence[bytes], shown: Sequence[bytes], conversion: Conversion
) -> tuple[_Records, dict[int, tuple[str, str | None]]]:
    """Decode the records that are not nested too deeply. Return them, and reason and field of the others by line."""
    flat = range(1, len(lines) + 1)
    refused: dict[int, tuple[str, str | None]] = {}
    if shown is not lines:
        refused = {line: (TOO_DEEP, None) for line in flat if shown[line - 1] is not lines[line - 1]}
        lines, flat = [lines[line - 1] for line in flat if line not in refused], [x for x in flat if x not in refused]  # type: ignore[assignment]
    decoded = decode(lines, conversion.columns, conversion.lenient)
    refused |= {flat[line - 1]: explain(error) for line, error in decoded.refused.items()}
    return _Records([flat[line - 1] for line in decoded.lines], decoded.values, decoded.marks), refused


def _merge(records: _Records, others: Mapping[int, Mapping[str, Any]]) -> _Records:
    """Add the salvaged values of refused records. Their lists are null, so nothing is beside these."""
    lines = [*records.lines, *others]
    order = sorted(range(len(lines)), key=lines.__getitem__)

    def sort(values: list[Any], more: list[Any]) -> list[Any]:
        both = values + more
        return [both[position] for position in order]

    nothing = [None] * len(others)
    return _Records(
        [lines[position] for position in order],
        {name: sort(values, [other[name] for other in others.values()]) for name, values in records.values.items()},
        {name: {m: sort(v, nothing) for m, v in marks.items()} for name, marks in records.marks.items()},
    )


def _to_frame(records: _Records, columns: Columns, reading: Reading) -> tuple[pd.DataFrame, Broken]:
    """Build a frame with the columns of the record class and line numbers as index, and find the broken rules."""
    series, broken = {}, dict[tuple[str, str], Mask]()
    for column in columns:
        values, marks = records.values[column.name], records.marks.get(column.name, {})
        array, rules = convert_values(values, marks, column, reading)
        broken |= rules
        series[column.name] = _to_series(array)
    return pd.DataFrame(series).set_axis(pd.Index(records.lines, dtype="int64")), broken


def _to_series(array: "pa.Array[Any]") -> "pd.Series[Any]":
    """Convert an array for the frame: the types of pandas for its kinds, else Arrow's."""
    if array.type in PANDAS_TYPES or pa.types.is_floating(array.type) or pa.types.is_timestamp(array.type):
        return array.to_pandas(types_mapper=PANDAS_TYPES.get)
    return array.to_pandas(types_mapper=pd.ArrowDtype)


def _reject(
    rejects: list[Reject],
    lines: Sequence[bytes],
    rows: pd.DataFrame,
    broken: Mapping[tuple[str, str], Mask],
    deleted: Mask,
    columns: Columns,
) -> Mask:
    """Add a reject for each row that breaks a rule, with the first rule that it breaks. Return which rows do.

    A deletion is rejected only for its key.
    """
    bad = np.zeros(len(rows), bool)
    names = [column.name for column in columns.key]
    of_key = {column.source for column in columns.key}
    for (field, reason), mask in broken.items():
        counted = mask if field in of_key else mask & ~deleted
        for line, *values in rows.loc[counted & ~bad, names].itertuples():
            record = lines[line - 1].decode(errors="replace")
            rejects.append(Reject(line=line, reason=reason, field=field, key=_encode_key(values), record=record))
        bad |= counted
    return bad


def _count_fields(records: _Records, columns: Columns, gone: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """Count the records that could have a field, and those where it is present and neither null nor an empty list.

    A deletion needs only its key, so it does not count. Nor does a record that does not fit the record class.
    """
    live = [position for position, line in enumerate(records.lines) if not gone[line - 1]] if any(gone) else None
    counts = {}
    for column in columns:
        if not column.options.fields_gate or column.options.rest:
            continue
        values = records.values[column.name]
        if live is not None:
            values = [values[position] for position in live]
        counts[column.source] = len(values), _count_present(values, column)
    return counts


def _count_present(values: Sequence[Any], column: Column) -> int:
    if column.children is not None:
        return sum(map(bool, values))
    empty = sum(bytes(value) == b"[]" for value in values if value is not None) if column.is_list else 0
    return len(values) - list(values).count(None) - empty


def _encode_keys(salvaged: Sequence[Mapping[str, Any]], columns: Columns, reading: Reading) -> list[str | None]:
    """Encode the keys of refused records, from the fields that fit; None for an incomplete key."""
    if not salvaged:
        return []
    arrays = [convert_values([x[c.name] for x in salvaged], {}, c, reading)[0].to_pylist() for c in columns.key]
    return [_encode_key(values) for values in zip(*arrays, strict=True)]


def _encode_key(values: Sequence[Any]) -> str | None:
    """Encode the values of a key as a JSON array; None if one is missing."""
    return None if pd.isna(list(values)).any() else json.dumps(list(values), default=_to_json, ensure_ascii=False)


def _to_json(value: Any) -> Any:
    """Convert a value that JSON does not know: numbers of NumPy to numbers, dates and times to text."""
    return value.item() if hasattr(value, "item") else str(value)
