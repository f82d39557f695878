"""How deep a JSON value may be nested, decided by its bytes alone.

Responsibilities: one limit for envelopes and records. The parsers recurse, so their own limit depends on how deep the
Python stack happens to be; a value within MAX_DEPTH is far below it.
"""

import json
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from wholeday.schema.scan import scan

MAX_DEPTH = 200  # levels of lists and objects in one another
TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
BLOCK = 1024  # records checked in one call
OPEN, BOTH_CASES = 0x7B, 0x20  # "{"; "[" differs from it by one bit

_BRACKETS = bytes.maketrans(b"[{]}", b"(())")
_OTHERS = bytes(set(range(256)) - set(b"[{]}"))

Record = TypeVar("Record", bytes, msgspec.Raw, msgspec.Raw | bytes)


def is_deep(value: msgspec.Raw | bytes) -> bool:
    """Return whether a JSON value is nested more than MAX_DEPTH levels deep."""
    return _is_deeper(value, MAX_DEPTH)


def _is_deeper(value: msgspec.Raw | bytes, limit: int) -> bool:
    if len(value) <= 2 * limit:
        return False
    text = bytes(value)
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = b"".join(text.split(b'"')[::2]).translate(_BRACKETS, _OTHERS)
    for _ in range(limit):
        if not brackets:
            return False
        brackets = brackets.replace(b"()", b"")  # the innermost level of each branch
    return bool(brackets)


def hide_deep(records: Sequence[Record]) -> Sequence[Record]:
    """Replace members that are nested too deeply by null.

    The key of such a record, and whether it is a deletion, can still be read.
    """
    deep = [
        start + number
        for start in range(0, len(records), BLOCK)
        if may_be_deep(b"".join(block := records[start : start + BLOCK]), block)
        for number, record in enumerate(block)
        if is_deep(record)
    ]
    if not deep:
        return records
    shown = list(records)
    for number in deep:
        shown[number] = type(shown[number])(_prune(bytes(shown[number])))
    return shown


def _prune(record: bytes) -> bytes:
    """Replace the deep members of an object by null. Return null for any other value."""
    try:
        members = list(scan(record.decode())) if record.startswith(b"{") else None
    except ValueError:  # not JSON, or not UTF-8
        members = None
    if members is None:
        return b"null"
    most = MAX_DEPTH - 1  # of a member, as the record is one level itself
    kept = (b"%b:%b" % (json.dumps(n).encode(), b"null" if _is_deeper(raw, most) else bytes(raw)) for n, raw in members)
    return b"{%b}" % b",".join(kept)


def may_be_deep(text: bytes, records: Sequence[Record]) -> bool:
    """Return False if none of `records`, which follow one another in `text`, can be nested too deeply.

    In no stretch of the text that is as long as the longest record do so many brackets open.
    """
    longest = max(map(len, records), default=0)
    if longest <= 2 * MAX_DEPTH:
        return False
    import numpy as np

    opens = np.flatnonzero((np.frombuffer(text, np.uint8) | BOTH_CASES) == OPEN)
    return bool(len(opens) > MAX_DEPTH and (opens[MAX_DEPTH:] - opens[:-MAX_DEPTH]).min() < longest)
