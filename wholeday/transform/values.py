"""Convert the decoded values of a column to Arrow, exactly, and find the values that break a rule.

Responsibilities: one value for each record, and for each broken rule the records that break it.
Non-goals: rules about several columns, which `clean` holds.
"""

import datetime as dt
import decimal
import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wholeday.schema.canonical import EXACT, HAS_NUL, canonicalize, parse_number
from wholeday.schema.columns import Column, split_none
from wholeday.schema.kinds import TIMESTAMP, UUID, parse_decimal, to_arrow_type
from wholeday.schema.raw_fields import INTEGERS
from wholeday.schema.record import Epoch, Json
from wholeday.schema.structs import RAW
from wholeday.schema.texts import change_texts
from wholeday.transform.times import place_times

Mask = np.ndarray[tuple[int], np.dtype[np.bool]]
Broken = dict[tuple[str, str], Mask]
"""Which records break a rule, by the dotted field and the reason."""
Rules = dict[str, Mask]
"""Which values of a column break a rule, by the reason."""

UTC = ZoneInfo("UTC")
TOO_LARGE = "is an integer of more than 64 bits"
OUT_OF_RANGE = "is a time outside the years 1 to 9999"
MILLISECONDS = "is 100000000000 or more: declare the column EpochMillis"
LARGEST_EPOCH = 10**11
NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
NUMBER_IN_ARROW = f"^{NUMBER.pattern.decode()}$"
TIME = re.compile(rb'"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,6})[0-9]*)?"')
MICROSECONDS = 10**6
LONGEST_VALUE = 40  # characters of a value that a reason shows
# Microseconds from 1970 to the first and last moments of the years 1 to 9999.
FIRST, LAST = -62_135_596_800 * MICROSECONDS, 253_402_300_800 * MICROSECONDS - 1


@dataclass(frozen=True)
class Reading:
    """The keys of a section that decide how a value is read."""

    zone: ZoneInfo = UTC
    """Times without an offset are in this zone."""
    lenient: bool = False


def convert(values: Sequence[Any], column: Column, reading: Reading) -> tuple["pa.Array[Any]", Broken]:
    """Convert the values of a column, None where a record has none. A value that breaks a rule is null in the array."""
    array, rules = _convert(values, column, reading)
    if column.type is str:
        array, rules = apply_options(array, column)
    for mask in rules.values():
        array = pc.if_else(pa.array(mask), None, array) if mask.any() else array
    return array, {(column.source, reason): mask for reason, mask in rules.items() if mask.any()}


def _convert(values: Sequence[Any], column: Column, reading: Reading) -> tuple["pa.Array[Any]", Rules]:
    type_ = to_arrow_type(column.kind)
    if column.type is decimal.Decimal:
        return _convert_decimals(values, column, reading)
    if column.is_list or column.type in RAW:
        return _convert_each(values, _find_converter(column, reading), type_)
    if column.kind == UUID:
        return pa.array([None if value is None else str(value) for value in values], type_), {}
    if column.kind == TIMESTAMP:
        return _convert_times(values, reading.zone)
    if isinstance(column.type, type) and issubclass(column.type, enum.Enum):
        values = [None if value is None else value.value for value in values]
    try:
        return pa.array(values, type_), {}
    except OverflowError:
        large = np.array([value is not None and value not in INTEGERS for value in values], bool)
        kept = [None if out else value for value, out in zip(values, large, strict=True)]
        return pa.array(kept, type_), {TOO_LARGE: large}


def _convert_each(
    values: Sequence[Any], convert_one: Callable[[bytes], Any], type_: "pa.DataType"
) -> tuple["pa.Array[Any]", Rules]:
    """Convert raw values one by one. `convert_one` raises ValueError with the reason that a record is rejected for."""
    found: list[Any] = []
    broken: Rules = {}
    for position, value in enumerate(values):
        try:
            found.append(None if value is None else convert_one(bytes(value)))
        except ValueError as error:
            found.append(None)
            broken.setdefault(str(error), np.zeros(len(values), bool))[position] = True
    return pa.array(found, type_), broken


def _find_converter(column: Column, reading: Reading) -> Callable[[bytes], Any]:
    def convert_one(raw: bytes) -> Any:
        if raw == b"null":  # of a column that is not nullable
            raise ValueError("is null")
        if reading.lenient and raw == b'""' and column.is_nullable and column.type is not Json:
            return None
        return inner(raw)

    inner: Callable[[bytes], Any]
    if column.type is Json:
        inner = canonicalize
    elif column.is_list:
        inner = _make_list_converter(column, reading)
    elif column.type is dt.time:
        inner = _parse_time
    elif column.type is decimal.Decimal:  # an item of a list, of any digits

        def inner(raw: bytes) -> decimal.Decimal:
            return _parse_number(raw, is_text=True)

    else:
        unit = MICROSECONDS if column.type is Epoch else MICROSECONDS // 1000

        def inner(raw: bytes) -> int:
            number = _parse_number(raw, is_text=reading.lenient)
            if column.type is Epoch and number >= LARGEST_EPOCH:
                raise ValueError(MILLISECONDS)
            if number.copy_abs() > LARGEST_EPOCH * 10**4:
                raise ValueError(OUT_OF_RANGE)
            # Down, as the digits of a text are cut: a moment before midnight stays on its day, also before 1970.
            time = int(EXACT.multiply(number, unit).to_integral_value(decimal.ROUND_FLOOR, EXACT))
            if not FIRST <= time <= LAST:
                raise ValueError(OUT_OF_RANGE)
            return time

    return convert_one


def _make_list_converter(column: Column, reading: Reading) -> Callable[[bytes], str]:
    """Return a function that checks the items of a list and returns the list as sent, in its canonical form."""
    (type_,) = get_args(column.type)
    item_type, is_nullable = split_none(column.name, type_)
    is_raw = item_type in RAW and item_type is not Json
    decoder: msgspec.json.Decoder[list[Any]]
    decoder = msgspec.json.Decoder(list[msgspec.Raw] if item_type in RAW else column.type)
    check_item = _find_converter(replace(column, type=item_type), replace(reading, lenient=False))

    def convert_list(raw: bytes) -> str:
        try:
            items = decoder.decode(raw)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise ValueError(f"{reason}{f' at {path.strip(chr(96))}' if path else ''}") from None
        for number, item in enumerate(items) if is_raw else ():
            try:
                if not is_nullable or bytes(item) != b"null":
                    check_item(bytes(item))
            except ValueError as error:
                raise ValueError(f"{error} at [{number}]") from None
        return canonicalize(raw)

    return convert_list


def _parse_number(raw: bytes, is_text: bool) -> decimal.Decimal:
    """Return a JSON number, or with `is_text` the number in a JSON string. Raises ValueError for anything else."""
    text = raw[1:-1] if is_text and raw.startswith(b'"') else raw
    if not NUMBER.fullmatch(text):
        raise ValueError(f"is not a number: {_shorten(raw)}")
    return parse_number(text.decode())


def _parse_time(raw: bytes) -> dt.time:
    match = TIME.fullmatch(raw)
    if not match:
        raise ValueError(f"is not a time of day such as 09:30:00: {_shorten(raw)}")
    hour, minute, second = map(int, match.groups()[:3])
    return dt.time(hour, minute, second, int((match[4] or b"0").ljust(6, b"0")))


def _convert_decimals(values: Sequence[Any], column: Column, reading: Reading) -> tuple["pa.Array[Any]", Rules]:
    """Convert JSON numbers, and JSON numbers in strings, to decimals of the declared digits."""
    digits, places = parse_decimal(column.kind) or (0, 0)
    type_ = pa.decimal128(digits, places)
    array = pa.array(_read_texts(values), pa.string())
    if pc.all(pc.match_substring_regex(array, NUMBER_IN_ARROW), min_count=0).as_py():
        try:
            found = array.cast(type_)
        except pa.ArrowInvalid:
            pass
        else:
            return found, _check_bounds(found, column)

    def convert_one(raw: bytes) -> decimal.Decimal | None:
        if raw == b"null":
            raise ValueError("is null")
        if reading.lenient and raw == b'""' and column.is_nullable:
            return None
        number = _parse_number(raw, is_text=True)
        if number and number.adjusted() >= digits - places:
            raise ValueError(f"has more than {digits - places} digits before the point: {_shorten(raw)}")
        if number.normalize(EXACT).as_tuple().exponent < -places:  # type: ignore[operator]  # a number, not NaN
            raise ValueError(f"has more than {places} digits after the point: {_shorten(raw)}")
        return number.quantize(decimal.Decimal(1).scaleb(-places), context=EXACT)

    found, broken = _convert_each(values, convert_one, type_)
    return found, broken | _check_bounds(found, column)


def _read_texts(values: Sequence[Any]) -> list[str | None]:
    """Return the text of each raw number, without quotes."""
    some = [value for value in values if value is not None]
    texts = b"\n".join(some).replace(b'"', b"").decode(errors="replace").split("\n") if some else []
    if len(texts) != len(some):  # a value that is not a number has line breaks
        texts = [bytes(value).decode(errors="replace") for value in some]
    if len(some) == len(values):
        return [*texts]
    rest = iter(texts)
    return [None if value is None else next(rest) for value in values]


def _check_bounds(array: "pa.Array[Any]", column: Column) -> Rules:
    """Check the bounds of decimals. Those of other numbers are checked by msgspec."""
    options = column.options
    tests = {"ge": pc.less, "gt": pc.less_equal, "le": pc.greater, "lt": pc.greater_equal}
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return {
        f"Expected `Decimal` {signs[name]} {bound}": _to_mask(test(array, pa.scalar(decimal.Decimal(str(bound)))))
        for name, test in tests.items()
        if (bound := getattr(options, name)) is not None
    }


def _convert_times(values: Sequence[Any], zone: ZoneInfo) -> tuple["pa.Array[Any]", Rules]:
    broken: Rules = {}
    if zone != UTC:
        values, skipped = place_times(values, zone)
        if skipped:
            mask = np.zeros(len(values), bool)
            mask[skipped] = True
            broken[f"is a time that the clocks of {zone.key} skip"] = mask
    array = pa.array(values, pa.timestamp("us", tz="UTC"))
    # RFC 3339 can write such times: an offset may move the first and last hours of these years into another year.
    micros = array.cast(pa.int64())
    out = pc.or_(pc.less(micros, FIRST), pc.greater(micros, LAST))
    if pc.any(out).as_py():
        broken[OUT_OF_RANGE] = _to_mask(out)
    return array, broken


def apply_options(array: "pa.Array[Any]", column: Column) -> tuple["pa.Array[Any]", Rules]:
    """Apply the options of a text column: what is done to its values, then what they must be."""
    options = column.options
    array = change_texts(array, column)
    broken: Rules = {}
    # Valid in JSON, but not in every database. The result must not depend on the database.
    if pc.any(nul := pc.match_substring(array, "\0")).as_py():
        broken[HAS_NUL] = _to_mask(nul)
    if options.min_length is not None:
        short = pc.less(pc.utf8_length(array), options.min_length)
        broken[f"has fewer than {options.min_length} characters"] = _to_mask(short)
    if options.max_length is not None:
        long = pc.greater(pc.utf8_length(array), options.max_length)
        broken[f"has more than {options.max_length} characters"] = _to_mask(long)
    if options.pattern is not None:
        broken[f"does not match the pattern {options.pattern}"] = _to_mask(_mismatch(array, options.pattern))
    return array, broken


def _mismatch(array: "pa.Array[Any]", pattern: str) -> "pa.Array[Any]":
    """Return which texts do not contain a match of a pattern of Python's `re`."""
    if re.escape(pattern) == pattern:
        return pc.invert(pc.match_substring(array, pattern))
    search = re.compile(pattern).search
    return pa.array([None if text is None else not search(text) for text in array.to_pylist()], pa.bool_())


def _to_mask(array: "pa.Array[Any]") -> Mask:
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _shorten(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
