"""Convert lists of records to canonical JSON, the form in which a row keeps its child rows.

A list holds objects with the columns of the child's record class, sorted by the child's primary key if it has one.
"""

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from wholeday.schema.canonical import write_number
from wholeday.schema.columns import Column, Columns
from wholeday.schema.kinds import DATE, FLOAT, JSON, TIME, TIMESTAMP, parse_decimal
from wholeday.transform.decode import decode, explain
from wholeday.transform.values import Broken, Reading, convert

_encode = msgspec.json.Encoder(order="deterministic").encode


def convert_lists(
    values: Sequence[list[msgspec.Raw] | None], marks: Mapping[str, Sequence[Any]], column: Column, reading: Reading
) -> tuple["pa.Array[Any]", Broken]:
    """Convert the lists of a column to canonical JSON. A record with an item that does not fit breaks a rule.

    `marks` holds the fields beside each list that say whether it is complete.
    """
    children = column.children
    assert children is not None  # noqa: S101 - the caller's condition
    broken = _find_cut(values, marks, column)
    counts = [len(value) if value else 0 for value in values]
    owners = np.repeat(np.arange(len(values)), counts)
    decoded = decode([bytes(item) for value in values if value for item in value], children, reading.lenient)

    def mark(field: str | None, reason: str, items: Any) -> None:
        name = ".".join(filter(None, [column.source, field]))
        broken.setdefault((name, reason), np.zeros(len(values), bool))[owners[items]] = True

    for line, error in decoded.refused.items():
        reason, field = explain(error)
        mark(field, reason, [line - 1])
    lines = np.array(decoded.lines, dtype=np.int64) - 1
    texts = {}
    for child in children:
        array, rules = convert_values(decoded.values[child.name], decoded.marks.get(child.name, {}), child, reading)
        for (field, reason), mask in rules.items():
            mark(field, reason, lines[mask])
        texts[child.name] = _encode_values(array, child)
    owned = owners[lines]
    rows = _make_rows(texts, children)
    keys = list(zip(*(texts[child.name] for child in children.key), strict=True)) if children.key else None
    found, twice = _group(rows, keys, owned, values)
    if twice:
        broken.setdefault(
            (column.source, f"has two items with the same {_join_names(children)}"), np.zeros(len(values), bool)
        )[twice] = True
    bad = np.logical_or.reduce(list(broken.values())) if broken else None
    if bad is not None:
        found = [None if out else text for text, out in zip(found, bad, strict=True)]
    return pa.array(found, pa.string()), broken


def convert_values(
    values: Sequence[Any], marks: Mapping[str, Sequence[Any]], column: Column, reading: Reading
) -> tuple["pa.Array[Any]", Broken]:
    """Convert the decoded values of a column, a list of records or any other."""
    if column.children is not None:
        return convert_lists(values, marks, column, reading)
    return convert(values, column, reading)


def _find_cut(values: Sequence[Any], marks: Mapping[str, Sequence[Any]], column: Column) -> Broken:
    """Find the lists that are not complete, as a field beside them says."""
    broken: Broken = {}
    for name, found in marks.items():
        cut = [value is not None and _is_cut(name, mark, len(value)) for value, mark in zip(values, found, strict=True)]
        if any(cut):
            broken[column.source, f"is not complete, by the field {name} beside it"] = np.array(cut)
    return broken


def _is_cut(name: str, mark: Any, length: int) -> bool:
    if name == "pageInfo":
        return isinstance(mark, dict) and mark.get("hasNextPage") is True
    if name == "next":
        return mark not in (None, "", False)
    if name.startswith("total"):
        return type(mark) is int and mark > length
    return mark is True


def _encode_values(array: "pa.Array[Any]", column: Column) -> list[Any]:
    """Return values that msgspec writes in their canonical form."""
    values = array.to_pylist()
    if parse_decimal(column.kind):
        return [None if value is None else f"{value:f}" for value in values]
    if column.kind == FLOAT:
        return [None if value is None else msgspec.Raw(write_number(repr(value)).encode()) for value in values]
    if column.kind == JSON:
        return [None if value is None else msgspec.Raw(value.encode()) for value in values]
    if column.kind == TIMESTAMP:
        return [None if value is None else _write_time(value) for value in values]
    if column.kind == TIME:
        return [None if value is None else value.isoformat("microseconds") for value in values]
    return [None if value is None else value.isoformat() for value in values] if column.kind == DATE else values


def _write_time(value: dt.datetime) -> str:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _make_rows(texts: Mapping[str, list[Any]], children: Columns) -> list[Any]:
    names = sorted(texts)
    fields = [(f"_{number}", Any) for number in range(len(names))]
    row = msgspec.defstruct(
        children.class_name, fields, rename={f"_{number}": name for number, name in enumerate(names)}, gc=False
    )
    return list(map(row, *(texts[name] for name in names)))


def _group(
    rows: Sequence[Any], keys: Sequence[tuple[Any, ...]] | None, owners: Any, values: Sequence[Any]
) -> tuple[list[str | None], list[int]]:
    """Write the rows of each owner as a list. Return these, and the owners with two rows of one key."""
    bounds = np.searchsorted(owners, np.arange(len(values) + 1))
    twice: list[int] = []
    found: list[str | None] = []
    for owner, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        if values[owner] is None:
            found.append(None)
            continue
        some = rows[start:stop]
        if keys and stop - start > 1:
            own = keys[start:stop]
            order = sorted(range(len(own)), key=own.__getitem__) if None not in itertools.chain(*own) else []
            some = [some[position] for position in order]
            if len(set(own)) < len(own):
                twice.append(owner)
        found.append(_encode(some).decode())
    return found, twice


def _join_names(children: Columns) -> str:
    return ", ".join(column.name for column in children.key)
