"""Turn a body of another shape into a page with a list: JSON lines, a single object, an object of objects.

Responsibilities: which lines and members are records. Each record keeps the bytes that the source sent. A member of an
object gets its name as `_key`, unless it has a `_key` already.
Non-goals: guessing that a single object is a record, as an error looks the same.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from wholeday.extract.http import envelope
from wholeday.extract.http.failures import BadPageError, RecoverableError
from wholeday.schema.paths import split_path

OBJECT = "@"  # data_selector for a single object, or for the object of each line
MEMBERS = "*"  # the end of a data_selector for the members of an object
KEY = "_key"
LINES = re.compile(r"(application|text)/(x-)?(ndjson|jsonl|json-?lines?|stream\+json)\b", re.IGNORECASE)
SPACE = b" \t\r\n"

_lines = msgspec.json.Decoder(msgspec.Raw)


class Unfolded(NamedTuple):
    """A body with its records in a list at `selector`."""

    body: bytes
    selector: str | None
    fields: Mapping[str, object] = {}
    """The fields of an object that replaces the list. They may report a failure."""
    is_lines: bool = False


def unfold(body: bytes, selector: str | None, content_type: str) -> Unfolded:
    """Put the records of a body into a list. A page that has a list already is returned unchanged.

    Raises BadPageError if the body does not fit `selector`, and RecoverableError if its last line is cut.
    """
    if LINES.match(content_type) or _has_lines(body):
        if selector not in (None, "", OBJECT):
            raise BadPageError("the body is JSON lines", f"leave data_selector out, or set it to {OBJECT}")
        if max(body.count(b"\n"), body.count(b"\r")) > envelope.MAX_RECORDS:
            raise BadPageError(f"the body has more than {envelope.MAX_RECORDS:,} lines", "request smaller pages")
        return _join_lines([line for line in body.splitlines() if line.strip(SPACE)])
    if selector == OBJECT and body:
        if body[:1] != b"{":
            raise BadPageError("the body is not a single object, which data_selector = @ needs", "check data_selector")
        return Unfolded(b"[%b]" % body, "", envelope.read_fields(envelope.split_envelope(body)))
    if selector is not None and f".{selector}".endswith(f".{MEMBERS}") and body[:1] == b"{":
        return _list_members(body, selector.removesuffix(MEMBERS).removesuffix("."))
    return Unfolded(body, selector)


def _has_lines(body: bytes) -> bool:
    """Return whether a body is JSON lines: its first line is an object, and more text follows."""
    first, _, rest = body.partition(b"\n") if body[:1] == b"{" else (b"", b"", b"")
    if not rest or not first.rstrip(SPACE).endswith(b"}"):
        return False
    with contextlib.suppress(BadPageError, RecoverableError):
        envelope.split_object(first)
        return True
    return False


def _join_lines(lines: Sequence[bytes]) -> Unfolded:
    odd = next((line for line in lines if not line.lstrip(SPACE).startswith(b"{")), None)
    if odd is not None:
        raise BadPageError("a line of the body is not a JSON object", "check url and data_selector", odd)
    try:
        _lines.decode_lines(b"\n".join(lines))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        for line in lines:  # unlike msgspec, this accepts NaN and the like
            envelope.split_object(line)
    fields: dict[str, object] = {}
    if lines:
        first, last = envelope.split_object(lines[0]), envelope.split_object(lines[-1])
        shared = first.keys() & last.keys() - set(envelope.ERRORS)
        if len(lines) == 1 or not shared:  # the last line of an interrupted stream may be the error
            fields = envelope.read_fields(last)
    return Unfolded(b"[%b]" % b",".join(lines), "", fields, is_lines=True)


def _list_members(body: bytes, path: str) -> Unfolded:
    page = envelope.split_envelope(body)
    if path:
        listed = _replace(page, path)
        return Unfolded(body if listed is None else listed, path)
    errors = envelope.ERRORS
    others = {name: raw for name, raw in page.items() if not envelope.is_container(raw) or name.lower() in errors}
    return Unfolded(_join_members(page), "", envelope.read_fields(others))


def _replace(page: Mapping[str, msgspec.Raw], path: str) -> bytes | None:
    """Replace the object at `path` in a page by the list of its members; None if `path` has no object."""
    # PHP writes an empty object as an empty list
    if path in page and envelope.LIST_START.match(page[path]) and not envelope.EMPTY_LIST.fullmatch(page[path]):
        raise BadPageError(f"there is a list at '{path}', not an object", "set data_selector to the list's path")
    for name, rest in [(path, "")] if path in page else split_path(path):
        if envelope.starts_with(page.get(name), b"{"):
            inner = envelope.split_envelope(page[name])
            new = _replace(inner, rest) if rest else _join_members(inner)
            if new is not None:
                members = {**page, name: new}
                parts = (json.dumps(each).encode() + b":" + bytes(raw) for each, raw in members.items())
                return b"{%b}" % b",".join(parts)
    return None


def _join_members(members: Mapping[str, msgspec.Raw]) -> bytes:
    """Return a list of an object's members, each with its name as `_key`. A scalar member goes to the field `value`."""
    return b"[%b]" % b",".join(_add_key(name, bytes(raw)) for name, raw in members.items())


def _add_key(name: str, raw: bytes) -> bytes:
    key = b'"%b":%b' % (KEY.encode(), json.dumps(name).encode())
    if not raw.startswith(b"{"):
        return b'{%b,"%b":%b}' % (key, envelope.VALUE.encode(), raw)
    if b'"_key"' in raw and KEY in envelope.split_object(raw):
        return raw
    rest = raw[1:].lstrip(SPACE)
    return b"{%b%b%b" % (key, b"" if rest.startswith(b"}") else b",", rest)
