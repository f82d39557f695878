"""Split the JSON of a page into records and fields, each with the bytes that the source sent.

Responsibilities: nothing is parsed or encoded again without need. Incomplete, too large and invalid JSON is refused,
and so are ambiguous names.
Non-goals: which list holds the records.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec

from wholeday.extract.http.failures import BadPageError, RecoverableError
from wholeday.schema.depth import MAX_DEPTH, is_deep
from wholeday.schema.paths import Number, Unreadable, split_path
from wholeday.schema.scan import count_items, scan

MAX_RECORDS = 1_000_000  # per page: a small body may hold many
MAX_FIELD_DEPTH = 20  # levels of objects that are searched for fields
LINKS = ("link", "links")
RELATIONS, TARGETS = ("rel", "relation"), ("href", "url", "uri")  # of a link in a list of links
ERRORS = ("error", "errors")
VALUE = "value"  # the field of a record that was a number or a text
NOT_EMPTY = ("...",)  # stands for a list with items: it is true, and neither a number nor a cursor

PAGING = re.compile(r"pag(e|ing|inat)", re.IGNORECASE)  # in the name of a header
MEMBER = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*')
END = re.compile(rb"[ \t\r\n]*}[ \t\r\n]*")
EMPTY_LIST = re.compile(rb"\[[ \t\r\n]*\]")
LIST_START = re.compile(rb"\[[ \t\r\n]*(.)", re.DOTALL)
ONE_LINE = bytes.maketrans(b"\r\n", b"  ")

Split = TypeVar("Split", list[msgspec.Raw], dict[str, msgspec.Raw])

_values = msgspec.json.Decoder(float_hook=Number)


class _Empty(msgspec.Struct, frozen=True, gc=False):
    """Decodes from any object, and stores nothing of it."""


def split_list(content: bytes) -> list[msgspec.Raw]:
    """Return the items of a JSON list, each on one line. They are views of `content`, and keep it in memory.

    If no item is an object or a list, each item becomes an object: `7` becomes `{"value": 7}`.
    """
    records = split_items(content)
    if records and not is_container(records[0]) and not any(map(is_container, records)):
        records = [msgspec.Raw(b'{"%b": %b}' % (VALUE.encode(), bytes(record))) for record in records]
    if b"\n" in content or b"\r" in content:
        # Line breaks stand between values only: JSON does not allow them in strings, and `_decode` has checked that.
        return [msgspec.Raw(bytes(record).translate(ONE_LINE)) for record in records]
    return records


def split_items(content: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the items of a JSON list, each with its own bytes."""
    return _decode(content, list[msgspec.Raw])


def split_object(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of an object. The last of several members with the same name counts."""
    return _decode(content, dict[str, msgspec.Raw])


def split_envelope(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a page's object. Raises BadPageError if two members have the same name."""
    members, text, at = split_object(content), bytes(content), 0
    for name, raw in members.items():
        # Walk through the text along the members. They follow each other unless a later duplicate replaced one.
        found = MEMBER.match(text, at)
        if found is None or _decode_name(found[1]) != name or not text.startswith(raw, found.end()):
            _refuse_duplicates([name for name, _ in scan(text.decode())])
            break
        at = found.end() + len(raw)
    if members and not END.fullmatch(text, at):
        _refuse_duplicates([name for name, _ in scan(text.decode())])
    return members


def _decode_name(token: bytes) -> str:
    try:
        return msgspec.json.decode(token, type=str)
    except msgspec.DecodeError:
        name = ascii(json.loads(token))[:80]
        raise BadPageError(f"the name {name} in the page contains half a surrogate pair") from None


def _refuse_duplicates(names: list[str]) -> None:
    duplicates = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if duplicates:
        raise BadPageError(
            f"the page has the name {json.dumps(duplicates[0])} twice in one object", "report it to the source"
        )


def _decode(content: bytes | msgspec.Raw, kind: type[Split]) -> Split:
    try:
        try:
            _check_count(content, kind)
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            reason = str(error)
        except RecursionError:
            reason = "nested too deeply"
        # msgspec refuses the whole page for one NaN, half surrogate pair or deep value in one record.
        items: list[tuple[str, msgspec.Raw]] = []
        for item in scan(bytes(content).decode()):
            items.append(item)
            if len(items) > MAX_RECORDS:
                raise _make_size_error()
        return cast(Split, [raw for _, raw in items] if kind == list[msgspec.Raw] else dict(items))
    except json.JSONDecodeError:
        if "truncated" in reason:
            raise RecoverableError("the body is cut: its JSON has no end") from None
        raise BadPageError(f"the body is not JSON ({reason})") from None
    except UnicodeDecodeError:  # the body ends within a character: `read_body` has refused all other bad bytes
        raise RecoverableError("the body is cut: its JSON has no end") from None


def _make_size_error() -> BadPageError:
    return BadPageError(f"the body has more than {MAX_RECORDS:,} records", "request smaller pages")


def _check_count(content: bytes | msgspec.Raw, kind: object) -> None:
    """Raise BadPageError if the items would need too much memory. Most pages are too short for that."""
    if len(content) < 2 * MAX_RECORDS or (text := bytes(content)).count(b",") < MAX_RECORDS:
        return
    if kind == list[msgspec.Raw] and text.count(b"{") <= MAX_RECORDS:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            msgspec.json.decode(text, type=list[_Empty])  # fast proof: each item is an object, so each has its "{"
            return
    if count_items(text, MAX_RECORDS) > MAX_RECORDS:
        raise _make_size_error()


def read_fields(page: Mapping[str, msgspec.Raw], depth: int = MAX_FIELD_DEPTH) -> dict[str, object]:
    """Decode the fields of a page, without its lists. Lists of errors stay; others become NOT_EMPTY.

    A list of links becomes an object by relation. Empty lists are left out.
    """
    fields: dict[str, object] = {}
    for name, raw in page.items():
        if starts_with(raw, b"{"):
            fields[name] = read_fields(split_envelope(raw), depth - 1) if depth > 1 else {}
        elif not starts_with(raw, b"[") or name.strip("_").lower() in (*LINKS, *ERRORS):
            fields[name] = _name_links(_decode_value(name, raw))
        elif (start := LIST_START.match(raw)) and start[1] != b"]":
            fields[name] = NOT_EMPTY
    return fields


def _name_links(value: object) -> object:
    """Turn a list of links into an object by relation: `[{"rel": "next", "href": "/2"}]` into `{"next": "/2"}`."""
    links: dict[str, object] = {}
    for link in value if isinstance(value, list) else ():
        if not isinstance(link, dict):
            return value
        relation = next((link[name] for name in RELATIONS if isinstance(link.get(name), str)), None)
        target = next((link[name] for name in TARGETS if link.get(name)), None)
        if relation is None or target is None:
            return value
        links.setdefault(relation, target)
    return links or value


def read_header_objects(headers: Mapping[str, str]) -> dict[str, object]:
    """Decode the headers about paging whose value is an object. Their names become `X-Pagination`, in any case."""
    objects: dict[str, object] = {}
    for name, text in headers.items():
        if PAGING.search(name) and text.lstrip().startswith("{"):
            with contextlib.suppress(BadPageError, RecoverableError):  # it has braces and is something else
                objects[name.title()] = read_fields(split_envelope(text.strip().encode()))
    return objects


def _decode_value(name: str, raw: msgspec.Raw) -> object:
    """Decode a value of a page, or the whole list of its errors or links."""
    if starts_with(raw, b"["):
        if bytes(raw).count(b",") > MAX_RECORDS:
            raise _make_size_error()
        if is_deep(raw):
            raise BadPageError(f"'{name}' is nested more than {MAX_DEPTH} levels deep")
        json.loads(
            bytes(raw), parse_int=str, object_pairs_hook=lambda pairs: _refuse_duplicates([each for each, _ in pairs])
        )
    try:
        return _values.decode(raw)
    except msgspec.DecodeError:
        return Unreadable(bytes(raw).decode())


def find_raw(page: Mapping[str, msgspec.Raw], path: str) -> msgspec.Raw | None:
    """Return the bytes at a dotted path, by the rules of `paths.find`; None if there is nothing."""
    if path in page:
        return page[path]
    for name, rest in split_path(path):
        if starts_with(page.get(name), b"{") and (found := find_raw(split_envelope(page[name]), rest)) is not None:
            return found
    return None


def check_depth(page: Mapping[str, msgspec.Raw], path: str) -> None:
    """Raise BadPageError if a value other than the list at `path` is nested too deeply."""
    for name, raw in page.items():
        if path.startswith(f"{name}.") and starts_with(raw, b"{"):
            check_depth(split_envelope(raw), path.removeprefix(f"{name}."))
        elif name != path and is_deep(raw):
            raise BadPageError(f"'{name}' is nested more than {MAX_DEPTH} levels deep")


def starts_with(raw: msgspec.Raw | None, char: bytes) -> bool:
    """Return whether a JSON value begins with a character, which shows its type. None has no characters."""
    return raw is not None and memoryview(raw)[:1] == char


def is_container(raw: msgspec.Raw) -> bool:
    return starts_with(raw, b"{") or starts_with(raw, b"[")
