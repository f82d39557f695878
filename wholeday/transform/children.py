"""Convert lists of records to canonical JSON, the form in which a row keeps its child rows.

A list holds objects with the columns of the child's record class, sorted by the child's primary key if it has one.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wholeday.schema.canonical import write_number
from wholeday.schema.columns import Column, Columns
from wholeday.schema.kinds import BOOLEAN, FLOAT, INTEGER, JSON, TEXT, TIMESTAMP, parse_decimal
from wholeday.schema.texts import write_timestamps
from wholeday.transform.decode import decode, explain
from wholeday.transform.values import Broken, Reading, convert

MOST_PLACES = 6  # of decimals that Arrow never writes with an exponent
TO_ESCAPE = r'["\\\x00-\x1f]'  # characters that JSON escapes

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
    decoded = decode(list(itertools.chain.from_iterable(filter(None, values))), children, reading.lenient)

    def mark(field: str | None, reason: str, items: Any) -> None:
        name = ".".join(filter(None, [column.source, field]))
        broken.setdefault((name, reason), np.zeros(len(values), bool))[owners[items]] = True

    for line, error in decoded.refused.items():
        reason, field = explain(error)
        mark(field, reason, [line - 1])
    lines = np.array(decoded.lines, dtype=np.int64) - 1
    arrays = {}
    for child in children:
        arrays[child.name], rules = convert_values(
            decoded.values[child.name], decoded.marks.get(child.name, {}), child, reading
        )
        for (field, reason), mask in rules.items():
            mark(field, reason, lines[mask])
    owners, items = owners[lines], pa.table(arrays)
    if children.key:
        items, twice = _sort(items, owners, [child.name for child in children.key])
        if len(twice):
            reason = f"has two items with the same {_join_names(children)}"
            broken.setdefault((column.source, reason), np.zeros(len(values), bool))[twice] = True
    lists = _write_lists(_write_objects(items, children), owners, len(values))
    is_null = np.array([value is None for value in values], bool)
    return pc.if_else(pa.array(np.logical_or.reduce([is_null, *broken.values()])), None, lists), broken


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


def _sort(items: "pa.Table", owners: Any, key: Sequence[str]) -> tuple["pa.Table", Any]:
    """Sort the items of each owner by their key. Return them, and the owners with two items of one key."""
    table = items.select(key).append_column("", pa.array(owners))
    order = pc.sort_indices(table, [(name, "ascending") for name in ["", *key]])
    if not order.equals(pa.array(np.arange(len(owners)), pa.uint64())):
        items, table = items.take(order), table.take(order)
    before, after = table.slice(0, max(len(owners) - 1, 0)), table.slice(1)
    same = functools.reduce(pc.and_, (pc.equal(before[name], after[name]) for name in table.column_names))
    return items, owners[1:][pc.fill_null(same, False).to_numpy()]


def _write_objects(items: "pa.Table", children: Columns) -> "pa.Array[Any]":
    """Write each row of a table as a JSON object."""
    pieces: list[Any] = []
    before = "{"
    for column in sorted(children, key=attrgetter("name")):
        before += f"{_encode(column.name).decode()}:"
        texts, quote = _write_values(items[column.name].combine_chunks(), column)
        if texts.null_count:
            texts, quote = pc.fill_null(pc.binary_join_element_wise(quote, texts, quote, ""), "null"), ""
        pieces += [before + quote, texts]
        before = f"{quote},"
    return pc.binary_join_element_wise(*pieces, f"{before.removesuffix(',')}}}", "")


def _write_values(array: "pa.Array[Any]", column: Column) -> tuple["pa.Array[Any]", str]:
    """Write values as JSON in their canonical form. Return their texts, and the quote around each, if there is one."""
    if column.kind in (INTEGER, BOOLEAN):
        return array.cast(pa.string()), ""
    if column.kind == JSON:
        return array, ""
    if column.kind == FLOAT:
        texts = [None if value is None else write_number(repr(value)) for value in array.to_pylist()]
        return pa.array(texts, pa.string()), ""
    if column.kind == TIMESTAMP:
        array = write_timestamps(array)
    elif (digits := parse_decimal(column.kind)) and digits[1] > MOST_PLACES:
        array = pa.array([None if value is None else f"{value:f}" for value in array.to_pylist()], pa.string())
    elif column.kind != TEXT:
        array = array.cast(pa.string())
    elif pc.any(pc.match_substring_regex(array, TO_ESCAPE)).as_py():
        texts = [None if value is None else _encode(value).decode() for value in array.to_pylist()]
        return pa.array(texts, pa.string()), ""
    return array, '"'


def _write_lists(texts: "pa.Array[Any]", owners: Any, number: int) -> "pa.Array[Any]":
    """Write a JSON list for each of so many owners, of the texts that belong to it."""
    bounds = pa.array(np.searchsorted(owners, np.arange(number + 1)), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(bounds, texts), ",")
    return pc.binary_join_element_wise("[", joined, "]", "")


def _join_names(children: Columns) -> str:
    return ", ".join(column.name for column in children.key)
