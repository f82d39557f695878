"""Decode raw records, or the items of a list, to the values of their columns.

Responsibilities: a record that does not fit its class is refused alone, with a reason.
Non-goals: rules that msgspec does not check; see `values`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from wholeday.schema.canonical import COLON, ESCAPED_QUOTE
from wholeday.schema.columns import Column, Columns
from wholeday.schema.lenient import convert_value, repair
from wholeday.schema.paths import find, load
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.schema.scan import scan
from wholeday.schema.structs import Place, describe_type, make_decoders, make_tree
from wholeday.transform.times import cut_fractions

# Lines decoded in one call. After a bad record the lines of its block are decoded one by one.
BLOCK = 256
NULL = b"null"
NOT_EXACT = "JSON that cannot be kept exactly (NaN, a lone surrogate, bytes that are not UTF-8)"

_split = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_split_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_join = msgspec.json.Encoder().encode


@dataclass
class Decoded:
    """The values of the records that fit, column by column, and the others."""

    lines: list[int]
    """The numbers of the records that fit, from 1."""
    values: dict[str, list[Any]]
    """By column: a value for each of these records; None for a record without one."""
    refused: dict[int, Exception]
    """Why the others do not fit."""
    marks: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By column of a list: the fields beside the list that say whether it is complete."""


def decode(lines: Sequence[bytes], columns: Columns, lenient: bool = False) -> Decoded:
    """Decode JSON objects to the values of `columns`."""
    lines = cut_fractions(lines, columns)
    decoders = make_decoders(columns)
    refused: dict[int, Exception] = {}
    found = []
    inner: dict[str, dict[int, Any]] = {}
    for decoder in decoders:
        records, errors = _decode_all(lines, decoder.json, columns if lenient else None)
        refused = errors | refused
        found.append(records)
        for place in decoder.places:
            if place.rest:
                inner[place.column.name], errors = _descend_all(records, place, lenient)
                refused = errors | refused
    rest = next((column for column in columns if column.options.rest), None)
    good = [line for line in range(1, len(lines) + 1) if line not in refused] if refused else range(1, len(lines) + 1)
    others = _read_rest([lines[line - 1] for line in good], columns) if rest else []
    values: dict[str, list[Any]] = {rest.name: others} if rest else {}
    marks = {}
    for decoder, records in zip(decoders, found, strict=True):
        kept = [records[line] for line in good] if refused else list(records.values())
        for place in decoder.places:
            below = inner.get(place.column.name)
            values[place.column.name] = [below[line] for line in good] if below else _get_values(kept, place)
            if place.marks:
                marks[place.column.name] = {name: _pick(kept, mark) for name, mark in place.marks.items()}
    return Decoded(list(good), values, refused, marks)


def salvage(line: bytes, columns: Columns) -> dict[str, Any]:
    """Return the values of a refused record that fit their columns, each read by itself; None for the others."""
    record = load(line)
    values: dict[str, Any] = dict.fromkeys(column.name for column in columns)
    for column in columns:
        if column.kind != "json":
            with suppress(msgspec.ValidationError, UnicodeEncodeError, OverflowError):
                value = _join(find(record, column.source))
                values[column.name] = _decode_value(value, column)
    return values


def explain(error: Exception) -> tuple[str, str | None]:
    """Return reason and field of a decoding error, from msgspec's message: the expectation and the path after `$`."""
    if not isinstance(error, msgspec.ValidationError):
        return NOT_EXACT, None
    reason, _, path = str(error).partition(" - at `$")
    _, is_missing, name = reason.partition("missing required field `")
    return reason, ".".join(filter(None, [path.strip(".`"), name.strip("`") if is_missing else ""])) or None


def _decode_all(
    lines: Sequence[bytes], decoder: "msgspec.json.Decoder[Any]", repaired: Columns | None
) -> tuple[dict[int, Any], dict[int, Exception]]:
    """Decode records. Return those that fit, and the errors of the others, each by line.

    With `repaired`, a record that does not fit is decoded again with the conversions of `lenient`.
    """
    records: dict[int, Any] = {}
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
                if repaired is not None:
                    with suppress(*UNREADABLE):
                        records[number] = decoder.decode(repair(line, repaired))
                        del refused[number]
    return dict(sorted(records.items())) if repaired else records, refused


def _get_values(records: Sequence[Any], place: Place) -> list[Any]:
    values = _pick(records, place.attribute)
    if place.column.is_nullable and describe_type(place.column) is msgspec.Raw:
        return [
            None if value is None or (len(value) == len(NULL) and bytes(value) == NULL) else value for value in values
        ]
    return values


def _pick(records: Sequence[Any], attribute: str) -> list[Any]:
    """Return an attribute of each record; None where an object on the way is null."""
    try:
        return list(map(attrgetter(attribute), records))
    except AttributeError:
        values: list[Any] = list(records)
        for name in attribute.split("."):
            values = [getattr(value, name, None) for value in values]
        return values


def _descend_all(
    records: Mapping[int, Any], place: Place, lenient: bool
) -> tuple[dict[int, Any], dict[int, Exception]]:
    """Return the value of a column below a list in each record, and the errors of records that do not fit, by line."""
    values: dict[int, Any] = {}
    refused: dict[int, Exception] = {}
    for line, raw in zip(records, _pick(list(records.values()), place.attribute), strict=True):
        try:
            values[line] = _descend(raw, place, lenient)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at `$")[0]
            refused[line] = msgspec.ValidationError(f"{reason} - at `$.{place.column.source}`")
        except UNREADABLE as error:
            refused[line] = error
    return values, refused


def _descend(raw: msgspec.Raw | None, place: Place, lenient: bool) -> Any:
    """Follow a path through the lists and objects of a raw value. Return the value; None if there is none.

    Raises ValidationError for a value of another type, and for a missing one that may not be null.
    """
    value: Any = raw
    for step in place.rest:
        if value is None:
            break
        if step.isdecimal():
            items = _split_list(value) or []
            value = items[int(step)] if int(step) < len(items) else None
        else:
            value = (_split(value) or {}).get(step)
    if value is not None and lenient:
        value = convert_value(bytes(value), place.column)
    found = None if value is None else _decode_value(value, place.column)
    if found is None and not place.column.is_nullable:
        raise msgspec.ValidationError("is null or missing")
    return found


def _decode_value(raw: bytes | msgspec.Raw, column: Column) -> Any:
    """Decode a value by itself. Raises ValidationError."""
    type_ = describe_type(column)
    if type_ is msgspec.Raw:
        return None if bytes(raw) == NULL else msgspec.Raw(bytes(raw))
    return msgspec.json.decode(raw, type=type_ | None)


def _read_rest(lines: Sequence[bytes], columns: Columns) -> list[Any]:
    """Return the fields of each record that no column reads, as raw JSON."""
    tree = make_tree(columns)
    return [_drop(line, tree) for line in lines]


def _drop(raw: bytes | msgspec.Raw, tree: Mapping[str, Any]) -> msgspec.Raw:
    fields = _split(raw) or {}
    if len(COLON.findall(raw)) == len(COLON.findall(_join(fields))) and ESCAPED_QUOTE not in bytes(raw):
        return msgspec.Raw(_join(dict(_walk_rest(fields.items(), tree))))
    # A name may come twice. Both are kept, so that the value is refused.
    members = _walk_rest(scan(bytes(raw).decode()), tree)
    return msgspec.Raw(b"{%b}" % b",".join(b"%b:%b" % (_join(name), bytes(value)) for name, value in members))


def _walk_rest(
    members: Iterable[tuple[str, msgspec.Raw]], tree: Mapping[str, Any]
) -> Iterator[tuple[str, msgspec.Raw]]:
    for name, value in members:
        if name not in tree:
            yield name, value
        elif tree[name]:
            inner = _drop(value, tree[name])
            if bytes(inner) != b"{}":
                yield name, inner
