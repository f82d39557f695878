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
from wholeday.schema.kinds import JSON
from wholeday.schema.lenient import convert_value, repair
from wholeday.schema.paths import find, load
from wholeday.schema.raw_fields import UNREADABLE, RawRecord
from wholeday.schema.scan import scan
from wholeday.schema.structs import Decoder, Place, describe_type, make_decoders, make_tree
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


def decode(lines: Sequence[RawRecord], columns: Columns, lenient: bool = False) -> Decoded:
    """Decode JSON objects to the values of `columns`."""
    lines = cut_fractions(lines, columns)
    decoders = make_decoders(columns)
    places = [place for decoder in decoders for place in decoder.places]
    decoded = Decoded(
        lines=[],
        values={column.name: [] for column in columns},
        refused={},
        marks={place.column.name: {name: [] for name in place.marks} for place in places if place.marks},
    )
    for start in range(0, len(lines), BLOCK):
        _add_block(decoded, lines[start : start + BLOCK], start + 1, decoders, columns if lenient else None)
    if rest := next((column for column in columns if column.options.rest), None):
        decoded.values[rest.name] = _read_rest([lines[line - 1] for line in decoded.lines], columns)
    return decoded


def _add_block(
    decoded: Decoded, block: Sequence[RawRecord], first: int, decoders: Sequence[Decoder], repaired: Columns | None
) -> None:
    """Decode a block of records, the first of them with a number, and add their values.

    The decoded records end with their block, while they are in the cache of the processor.
    """
    found = []
    refused: dict[int, Exception] = {}
    inner: dict[str, list[Any]] = {}
    # A repaired record may have nulls that were not sent.
    has_null = repaired is not None or NULL in b"\n".join(block)
    for decoder in decoders:
        records, errors = _decode_block(block, decoder.json, repaired)
        refused = errors | refused
        found.append(records)
        for place in decoder.places:
            if place.rest:
                inner[place.column.name], errors = _descend_all(records, place, lenient=repaired is not None)
                refused = errors | refused
    good = [position for position in range(len(block)) if position not in refused]
    decoded.lines += [first + position for position in good]
    decoded.refused |= {first + position: error for position, error in refused.items()}
    for decoder, records in zip(decoders, found, strict=True):
        kept = [records[position] for position in good] if refused else records
        for place in decoder.places:
            below = inner.get(place.column.name)
            values = [below[position] for position in good] if below else _get_values(kept, place, has_null)
            decoded.values[place.column.name] += values
            for name, attribute in place.marks.items():
                decoded.marks[place.column.name][name] += _pick(kept, attribute)


def salvage(line: bytes, columns: Columns) -> dict[str, Any]:
    """Return the values of a refused record that fit their columns, each read by itself; None for the others."""
    record = load(line)
    values: dict[str, Any] = dict.fromkeys(column.name for column in columns)
    for column in columns:
        if column.kind != JSON:
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


def _decode_block(
    block: Sequence[RawRecord], decoder: "msgspec.json.Decoder[Any]", repaired: Columns | None
) -> tuple[list[Any], dict[int, Exception]]:
    """Decode records. Return them, None for those that do not fit, and the errors of these by position.

    With `repaired`, a record that does not fit is decoded again with the conversions of `lenient`.
    """
    with suppress(*UNREADABLE):
        records: list[Any] = decoder.decode_lines(b"\n".join(block))
        if len(records) == len(block):
            return records, {}
    records = [None] * len(block)
    refused: dict[int, Exception] = {}
    for position, line in enumerate(block):
        try:
            records[position] = decoder.decode(line)
        except UNREADABLE as error:
            refused[position] = error
            if repaired is not None:
                with suppress(*UNREADABLE):
                    records[position] = decoder.decode(repair(bytes(line), repaired))
                    del refused[position]
    return records, refused


def _get_values(records: Sequence[Any], place: Place, has_null: bool) -> list[Any]:
    values = _pick(records, place.attribute)
    if has_null and place.column.is_nullable and describe_type(place.column) is msgspec.Raw:
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


def _descend_all(records: Sequence[Any], place: Place, lenient: bool) -> tuple[list[Any], dict[int, Exception]]:
    """Return the value of a column below a list in each record, and the errors of records that do not fit."""
    values: list[Any] = [None] * len(records)
    refused: dict[int, Exception] = {}
    for position, raw in enumerate(_pick(records, place.attribute)):
        try:
            values[position] = _descend(raw, place, lenient)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at `$")[0]
            refused[position] = msgspec.ValidationError(f"{reason} - at `$.{place.column.source}`")
        except UNREADABLE as error:
            refused[position] = error
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


def _read_rest(lines: Sequence[RawRecord], columns: Columns) -> list[Any]:
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
