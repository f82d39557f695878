"""Test the canonical form of JSON against a decoder and an encoder that share no code with it."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from tests.support.values import REJECT, is_writable, load, trees, write_json
from wholeday.schema.canonical import MOST_INTEGER_DIGITS, canonicalize, write_number
from wholeday.schema.depth import MAX_DEPTH


def canonicalize_or_reject(text: str) -> Any:
    try:
        return canonicalize(text.encode())
    except ValueError:
        return REJECT


numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from(["0", "1", "10", "120", "9007199254740993", "9" * 30]),
    st.sampled_from(["", ".0", ".50", ".000", ".0000001", ".1234567890123456789"]),
    st.sampled_from(
        ["", "e0", "E+2", "e-2", "e308", "e-308", "e309", "e-309", "e00012", "e99999", "e99999999999999999999"]
    ),
)
escapes = st.sampled_from(
    ["a", "\\u0061", "\\n", "\\u000a", "\\u0000", "\\\\u0000", "\\/", '\\"', "\\u0022:", "\\ud83d\\ude00"]
)
odd = (
    st.lists(escapes | st.sampled_from(["\\ud800", "😀", "\x7f", "\u2028"]), max_size=4).map("".join).map('"{}"'.format)
)
spaces = st.sampled_from(["", " ", "\n\t"])


@settings(max_examples=max(100, EXAMPLES), deadline=None)
@given(
    trees
    | numbers
    | odd
    | st.lists(st.tuples(odd, spaces, numbers)).map(
        lambda pairs: "{" + ",".join(f"{name}{space}:{space}{number}" for name, space, number in pairs) + "}"
    )
)
def test_form_is_that_of_the_standard_library(text: str) -> None:
    value = load(text)
    expected = write_json(value) if value is not REJECT and is_writable(value) else REJECT
    assert canonicalize_or_reject(text) == expected


@settings(max_examples=max(40, EXAMPLES), deadline=None)
@given(trees)
def test_form_is_its_own_form(text: str) -> None:
    form = canonicalize_or_reject(text)
    assert form is REJECT or canonicalize(form.encode()) == form


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.integers()), st.randoms())
def test_form_depends_neither_on_order_nor_on_white_space(value: dict[str, int], random: Any) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)
    other = json.dumps(dict(pairs), indent=2, ensure_ascii=random.random() < 0.5)
    assert canonicalize(other.encode()) == canonicalize(json.dumps(value, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"b": 2, "a": 1}', '{"a":1,"b":2}'),
        ('{"ä":1,"z":2,"😀":3,"\\uffff":4}', '{"z":2,"ä":1,"\uffff":4,"😀":3}'),
        ("[1.0, 1e0, 10.50, -0, -0.0, 1E3, 0.10]", "[1,1,10.5,0,0,1000,0.1]"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("9007199254740993.0", "9007199254740993"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("1e308", "1" + "0" * 308),
        ("5e-308", "0." + "0" * 307 + "5"),
        ('"\\u00e9\\/\\u0041"', '"é/A"'),
        ('"\\\\u0000"', '"\\\\u0000"'),
        ('{"a\\u0022:b":1,"c":2}', '{"a\\":b":1,"c":2}'),
        ("null", "null"),
        ("9" * MOST_INTEGER_DIGITS, "9" * MOST_INTEGER_DIGITS),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, "[" * MAX_DEPTH + "]" * MAX_DEPTH),
    ],
    ids=lambda text: text[:30],
)
def test_value_has_one_form(text: str, form: str) -> None:
    assert canonicalize(text.encode()) == form


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":1}', "has the name 'a' twice"),
        (b'[{"a":1,"b":2,"\\u0061":1}]', "has the name 'a' twice"),
        (b'{"a\\"b":1,"a\\u0022b":1}', "has the name 'a\"b' twice"),
        (b'{"x\\u0022:y":1,"b":2,"b":3}', "has the name 'b' twice"),
        (b'"\\u0000"', "has a NUL character"),
        (b'{"\\u0000":1}', "has a NUL character"),
        (b'"\\ud800"', "has half a surrogate pair"),
        (b'{"\\udfff":1}', "has half a surrogate pair"),
        (b'"\xff"', "has bytes that are not UTF-8"),
        (b"NaN", "has NaN, which is not JSON"),
        (b"[1,]", "is not JSON"),
        (b'"a\nb"', "is not JSON"),
        (b"1e309", "has a number with an exponent beyond 308"),
        (b"1e-309", "has a number with an exponent beyond 308"),
        (b"-1e99999999999999999999", "has a number with an exponent beyond 308"),
        (b"0." + b"1" * 1001, "has a number of more than 1000 digits"),
        (b"1" * (MOST_INTEGER_DIGITS + 1), "has an integer of more than 100000 digits"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "is nested more than 200 levels deep"),
        (b"[" * 100_000 + b"]" * 100_000, "is nested more than 200 levels deep"),
    ],
    ids=lambda raw: str(raw)[:30],
)
def test_value_without_form_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        canonicalize(raw)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12) | st.decimals(-1, 1, places=20))
def test_number_keeps_its_value(number: Decimal) -> None:
    text = f"{number:e}"
    form = write_number(text)
    assert Decimal(form) == number
    assert "e" not in form.lower()
    assert form == form.rstrip("0").rstrip(".") or "." not in form
