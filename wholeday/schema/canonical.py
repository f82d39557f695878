"""Write JSON values in one canonical form: names sorted by code point, no white space, one spelling per number.

The form is made here and not by a database, so that a value is the same text in every database.
"""

import decimal
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from wholeday.schema.depth import TOO_DEEP, is_deep

LARGEST_EXPONENT = 308  # of a number written with a fraction or an exponent; a float holds no larger one
MOST_DIGITS = 1000  # of a number with a fraction
MOST_INTEGER_DIGITS = 100_000  # PostgreSQL stores 131,072
HAS_NUL = "has a NUL character"
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
COLON = re.compile(rb'"\s*:')
ESCAPED_QUOTE = b"\\u0022"
SIMPLE = re.compile(r"-?(0|[1-9]\d{0,15})\.\d{0,14}[1-9]")  # already in canonical form
LONG_EXPONENT = re.compile(r"[eE][+-]?0*[1-9]\d{4}")

EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
_encode = msgspec.json.Encoder(order="deterministic").encode


def canonicalize(raw: bytes | msgspec.Raw) -> str:
    """Return a JSON value in canonical form. Raises ValueError, with the reason, for a value without one."""
    if is_deep(raw):
        raise ValueError(TOO_DEEP)
    try:
        value = _decode(raw)
        text = _encode(value)
        # A name that comes twice is gone from `text`. A quote and a colon within a text count in both.
        if b"\\u" not in text and len(COLON.findall(raw)) == text.count(b'":') and ESCAPED_QUOTE not in bytes(raw):
            return text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        pass
    return _canonicalize_exactly(bytes(raw))


def _canonicalize_exactly(raw: bytes) -> str:
    try:
        value = json.loads(
            raw.decode(),
            parse_float=_write_float,
            parse_int=_write_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_build_object,
        )
        text = _encode(value)
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair") from None
    except UnicodeDecodeError:
        raise ValueError("has bytes that are not UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if NUL.search(text):
        raise ValueError(HAS_NUL)
    return text.decode()


def _build_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"has the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return members


def _write_integer(text: str) -> Any:
    if len(text) < 19:
        return int(text)
    if len(text) > MOST_INTEGER_DIGITS:
        raise ValueError(f"has an integer of more than {MOST_INTEGER_DIGITS} digits")
    return msgspec.Raw(text.encode())


def _write_float(text: str) -> Any:
    return msgspec.Raw(write_number(text).encode())


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"has {text}, which is not JSON")


def parse_number(text: str) -> decimal.Decimal:
    """Return a JSON number exactly. Raises ValueError for an exponent of five digits, which can take all memory."""
    if LONG_EXPONENT.search(text):
        if not text.lower().partition("e")[0].strip("-0."):
            return decimal.Decimal(0)
        raise ValueError(f"has a number with an exponent beyond {LARGEST_EXPONENT}")
    return EXACT.create_decimal(text)


def write_number(text: str) -> str:
    """Return a JSON number without exponent and superfluous zeros. Raises ValueError if it is too large to store."""
    if SIMPLE.fullmatch(text):
        return text
    number = parse_number(text)
    if number and abs(number.adjusted()) > LARGEST_EXPONENT:
        raise ValueError(f"has a number with an exponent beyond {LARGEST_EXPONENT}")
    if len(number.as_tuple().digits) > MOST_DIGITS:
        raise ValueError(f"has a number of more than {MOST_DIGITS} digits")
    return f"{number.normalize(EXACT):f}" if number else "0"


_decode = msgspec.json.Decoder(float_hook=_write_float).decode
