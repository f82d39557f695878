"""Generate JSON values in many spellings, and decide what a column of each type stores of them.

The decision uses nothing of wholeday but the words of a declaration.
"""

import datetime as dt
import enum
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from hypothesis import strategies as st

from wholeday import Epoch, EpochMillis, Json

REJECT: Any = object()
DIGITS, PLACES = 7, 2
SPACE = " \t\n\u00a0\u2003"


class State(enum.Enum):
    OPEN = "open"
    SHUT = "shut"


TYPES: dict[str, Any] = {
    "whole": int,
    "real": float,
    "flag": bool,
    "words": str,
    "moment": dt.datetime,
    "day": dt.date,
    "clock": dt.time,
    "money": Decimal,
    "guid": uuid.UUID,
    "seconds": Epoch,
    "millis": EpochMillis,
    "json": Json,
    "state": State,
    "level": Literal[1, 2],
    "tags": list[str],
    "counts": list[int | None],
    "prices": list[Decimal],
    "times": list[Epoch],
    "anything": list[Json],
}
ITEMS = {"tags": "words", "counts": "whole", "prices": "price", "times": "seconds", "anything": "json"}

RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?", re.ASCII)
GUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
LARGEST = Decimal(2) ** 1024 - Decimal(2) ** 970  # a float rounds it up to infinity


def store(name: str, text: str, options: Mapping[str, Any], lenient: bool = False) -> Any:
    """Return what a column of a type in TYPES stores of a JSON value, or REJECT. None stands for null."""
    value = load(soften(name, text, options) if lenient else text)
    if value is REJECT or ((name == "json" or name in ITEMS) and not is_writable(value)):
        return REJECT
    if value is None:
        return None if options.get("nullable", True) else REJECT
    return write_json(value) if name == "json" else convert(name, value, options)


def load(text: str) -> Any:
    """Decode a JSON value with exact numbers; REJECT for a value that no column holds."""
    try:
        value = json.loads(text, parse_float=parse_exactly, object_pairs_hook=list_members)
    except ValueError:
        return REJECT
    return value if is_storable(value) else REJECT


def parse_exactly(text: str) -> Decimal:
    digits, _, exponent = text.lower().partition("e")
    if not Decimal(digits):
        return Decimal(0)
    if abs(int(exponent or 0)) > 10**5:
        raise ValueError("too large")
    return Decimal(text)


def list_members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name comes twice")
    return members


def is_storable(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not re.search("[\ud800-\udfff]", value)
    if isinstance(value, dict):
        return all(is_storable(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return all(map(is_storable, value))
    return True


def is_writable(value: Any) -> bool:
    """Tell whether JSON has a canonical form: its numbers have no exponent there. A float rounds a tiny one to 0."""
    if isinstance(value, list | dict):
        return all(map(is_writable, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Decimal) or not value or abs(value.adjusted()) <= 308


def write_json(value: Any) -> str:
    """Write a decoded value in the canonical form of JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{write_json(name)}:{write_json(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(write_json, value))}]"
    if isinstance(value, Decimal):
        whole, _, fraction = f"{value:f}".partition(".")
        text = f"{whole}.{fraction}".rstrip("0").rstrip(".") if fraction else whole
        return "0" if not value else text
    return json.dumps(value, ensure_ascii=False)


def soften(name: str, text: str, options: Mapping[str, Any]) -> str:
    """Convert a JSON value as the documentation of `lenient` says."""
    if text == '""' and options.get("nullable", True) and name not in ("words", "json"):
        return "null"
    inner = text[1:-1] if text.startswith('"') and text.endswith('"') and len(text) > 1 else ""
    if name in ("whole", "level") and (found := re.fullmatch(r"(-?(0|[1-9]\d*))(\.0+)?", inner or text, re.ASCII)):
        return found[1]
    if name == "real" and NUMBER.fullmatch(inner):
        return inner
    if name == "flag" and inner in ("true", "false"):
        return inner
    return inner if name in ("seconds", "millis") and NUMBER.fullmatch(inner) else text


def convert(name: str, value: Any, options: Mapping[str, Any]) -> Any:
    """Return what a column stores of a decoded value that is not null."""
    is_whole = type(value) is int
    is_number = is_whole or isinstance(value, Decimal)
    if name in ITEMS:
        return convert_items(name, value)
    if name == "whole":
        return value if is_whole and -(2**63) <= value < 2**63 and is_within(value, options) else REJECT
    if name == "real":
        is_fit = is_number and abs(Decimal(value)) < LARGEST and is_within(float(value), options)
        return float(value) if is_fit else REJECT
    if name == "flag":
        return value if isinstance(value, bool) else REJECT
    if name == "level":
        return value if is_whole and value in (1, 2) else REJECT
    if name in ("money", "price"):
        return convert_decimal(value, options, is_number, name)
    if name in ("seconds", "millis"):
        return convert_epoch(Fraction(value), name) if is_number else REJECT
    if not isinstance(value, str):
        return REJECT
    if name == "words":
        return convert_text(value, options)
    if name == "state":
        return value if value in ("open", "shut") else REJECT
    if name == "guid":
        return str(uuid.UUID(value)) if GUID.fullmatch(value) else REJECT
    if name == "day":
        return value if re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) and is_date(value) else REJECT
    if name == "clock":
        return f"{value[:8]}.{value[9:15]:0<6}" if CLOCK.fullmatch(value) else REJECT
    found = RFC_3339.fullmatch(value)
    return convert_time(*found.groups()) if found else REJECT


def is_within(value: Any, options: Mapping[str, Any]) -> bool:
    return options.get("ge", value) <= value <= options.get("le", value)


def is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def convert_items(name: str, value: Any) -> Any:
    """Lists of scalars are stored as they are, if each item has the type."""
    if not isinstance(value, list):
        return REJECT
    for item in value:
        is_null = item is None and name in ("counts", "anything")
        is_large = name == "counts" and type(item) is int  # JSON holds integers of any size
        if not is_null and not is_large and name != "anything" and convert(ITEMS[name], item, {}) is REJECT:
            return REJECT
    return write_json(value)


def convert_text(value: str, options: Mapping[str, Any]) -> Any:
    if options.get("strip_whitespace"):
        value = value.strip(SPACE)
        if not value and options.get("nullable", True):
            return None
    if options.get("to_lower"):
        value = value.lower()
    if options.get("to_upper"):
        value = value.upper()
    is_long = not options.get("min_length", 0) <= len(value) <= options.get("max_length", 2**31)
    is_other = "pattern" in options and not re.search(options["pattern"], value)
    return REJECT if is_long or is_other else value


def convert_decimal(value: Any, options: Mapping[str, Any], is_number: bool, name: str) -> Any:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = Decimal(value)
    elif not is_number:
        return REJECT
    if name == "price":
        return value
    cents = Fraction(value) * 10**PLACES
    is_fit = cents.denominator == 1 and abs(cents) < 10**DIGITS and is_within(Fraction(value), options)
    return Decimal(cents.numerator).scaleb(-PLACES) if is_fit else REJECT


def convert_epoch(value: Fraction, name: str) -> Any:
    if name == "seconds" and value >= 10**11:
        return REJECT
    micros = value * (10**6 if name == "seconds" else 10**3) // 1
    try:
        time = dt.datetime.fromisoformat("1970-01-01T00:00:00+00:00") + dt.timedelta(microseconds=int(micros))
    except OverflowError:
        return REJECT
    return write_time(time)


def convert_time(date: str, time: str, fraction: str | None, offset: str | None) -> Any:
    """Return an instant in UTC, with the first six digits of its fraction."""
    try:
        local = dt.datetime.fromisoformat(f"{date}T{time}{offset if offset and offset not in 'zZ' else '+00:00'}")
        utc = local.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return REJECT
    return f"{write_time(utc)[:19]}.{(fraction or '.')[1:7]:0<6}Z"


def write_time(time: dt.datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


numbers = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.integers(-3, 9).map(str),
    st.sampled_from(["0", "-0", "1", str(2**53 + 1), str(2**63), str(-(2**63)), "1795168815", str(2**70)]),
    st.sampled_from(["1.0", "-0.0", "12.0", "1e3", "1E-400", "1e400", "0.1", "10.50", "12345678901234567890.5"]),
    st.sampled_from(["99999.99", "100000", "99999.990", "0.001", "1e5", "1795168815.1234569", "-0.0000001", "1e11"]),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
)
offsets = st.sampled_from(["", "Z", "z", "+00:00", "-05:00", "+14:00", "+05:45", "-23:59"])
fractions = st.sampled_from(["", ".0", ".5", ".123456", ".9999999", ".1234565", ".0000004999999999"])
moments = st.builds(
    lambda time, space, fraction, offset: f"{time:%Y-%m-%d}{space}{time:%H:%M:%S}{fraction}{offset}",
    st.datetimes(dt.datetime.fromisoformat("1000-01-01"), dt.datetime.fromisoformat("9999-12-31T23:59:59")),
    *(st.sampled_from(["T", "t", " "]), fractions, offsets),
)
clocks = st.builds(lambda time, fraction: f"{time:%H:%M:%S}{fraction}", st.times(), fractions)
guids = st.uuids().flatmap(lambda guid: st.sampled_from([str(guid), str(guid).upper(), guid.hex]))
words = st.text(st.sampled_from("aBz9Ü€😀 \t\n\u00a0\u2003\\\"'%{}@\0"), max_size=6)
texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    *(words, moments, clocks, guids, st.dates(dt.date(1000, 1, 1)).map(str)),
    st.sampled_from(["", "12", "1.5", "true", "null", "NaN", "0000-00-00", "2026-02-30", "0000-00-00 00:00:00"]),
    st.sampled_from(["2026-11-20T24:00:00Z", "2016-12-31T23:59:60Z", "Wed Oct 10 20:19:24 +0000 2018", "09:30", "1_0"]),
    st.sampled_from(["open", "shut", "open!", " 1 ", "-0", "1e2", "12.0", "0x1", "+1", ".5", "1."]),
)
scalars = numbers | texts.map(json.dumps) | st.sampled_from(["true", "false", "null"])
names = st.sampled_from(["a", "b", "ä", "a.b", "", 'q"', "a\\u0022b", "\U0001f600"]) | st.text(max_size=3).filter(
    is_storable
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(names.map(json.dumps), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{name} :{text}" for name, text in pairs) + "}"
        )
    ),
    max_leaves=6,
)
values = scalars | st.sampled_from(["[]", "{}", "[1]", '{"a":1}', '["x"]', '{"a":1,"a":2}', '"\\ud800"', "[null]"])

_usual: dict[str, st.SearchStrategy[str]] = {
    "whole": st.integers(-(2**63), 2**63 - 1).map(str) | st.integers(0, 9).map(str),
    "real": st.floats(allow_nan=False, allow_infinity=False).map(json.dumps) | st.integers(0, 9).map(str),
    "flag": st.sampled_from(["true", "false"]),
    "words": words.map(json.dumps),
    "moment": moments.map(json.dumps),
    "day": st.dates(dt.date(1000, 1, 1)).map(lambda day: f'"{day}"'),
    "clock": clocks.map(json.dumps),
    "money": st.integers(-(10**7) + 1, 10**7 - 1).flatmap(
        lambda cents: st.sampled_from([f"{Decimal(cents) / 100:f}", f'"{cents}e-2"', f"{cents / 100:.3f}"])
    ),
    "guid": guids.map(json.dumps),
    "seconds": st.integers(-(10**10), 10**10).map(str)
    | st.decimals(-(10**9), 10**9, places=8).map(lambda number: f"{number:f}"),
    "millis": st.integers(-(10**13), 10**13).map(str),
    "json": trees,
    "state": st.sampled_from(['"open"', '"shut"']),
    "level": st.sampled_from(["1", "2"]),
}
_usual["price"] = _usual["money"]


def make_list(item: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    """Return lists of JSON values."""
    return st.lists(item, max_size=3).map(lambda items: f"[{','.join(items)}]")


_usual |= {name: make_list(_usual[item]) for name, item in ITEMS.items()}
usual: dict[str, st.SearchStrategy[str]] = {
    name: st.integers(0, 9).flatmap(lambda dice, of=strategy: values if dice == 9 else of)
    for name, strategy in _usual.items()
}
"""Values for a column of each type; one in ten may be of another type."""
