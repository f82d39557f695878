"""The bytes of an answer to records, each the bytes that came.

Owns what is believed of a body. Nothing is parsed that need not be, nothing is written anew; what is cut,
endless, larger than the bound or no JSON is refused.
"""

import codecs
import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, cast

import msgspec
import requests
from urllib3.exceptions import HTTPError

from wholeday.extract.http.body_errors import BodyErrors, Complaint, show
from wholeday.schema.depth import MAX_DEPTH, is_deep
from wholeday.schema.paths import Number, Unreadable, find, split_path
from wholeday.schema.scan import count_items, scan

MAX_BODY = 256 * 2**20  # bytes of a page, as they come and decompressed
MAX_RECORDS = 1_000_000  # of a page: a short body may hold many
MAX_SECONDS = 1800  # for a request, from the first byte sent to the last byte of the body
CHUNK = 2**18
FIELDS_DEPTH = 20  # how deep a page's object is looked into, beside its records

Split = TypeVar("Split", list[msgspec.Raw], dict[str, msgspec.Raw])

_values = msgspec.json.Decoder(float_hook=Number)

START_BYTES = 2**14  # of an answer that is a failure anyway
LINKS = ("link", "links")
ERRORS = ("error", "errors")
NOTHING = (b"{}", b"false", b'""')  # what some send in the place of an empty list
RECORDS = ("data", "items", "results", "records", "users")  # what many call their list
OF_SCALARS = ("members", "ids", "keys", "values")  # and a list of texts or numbers
VALUE = "value"  # the field of a record that came as a number or a text
LIST = ("...",)  # stands for a list in which there is something: it is true, and neither a number nor a cursor
MEMBER = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*')
END = re.compile(rb"[ \t\r\n]*}[ \t\r\n]*")
ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
LIST_END = re.compile(rb"\[[ \t\r\n]*\]")
LIST_START = re.compile(rb"\[[ \t\r\n]*(.)", re.DOTALL)


class RecoverableError(Exception):
    """A request failed in a way that may pass; the source asked to be left alone for `wait` seconds.

    `status` is that of the answer, 0 where there was none. `unreachable`: nobody answered at all.
    """

    def __init__(self, what: str, wait: float = 0.0, status: int = 0, unreachable: bool = False) -> None:
        super().__init__(what)
        self.wait, self.status, self.unreachable = wait, status, unreachable


class BadPageError(Exception):
    """An answer with a good status that cannot be believed: what is wrong with it, what to do, what it began with."""

    def __init__(self, what: str, hint: str = "check url and headers", body: bytes = b"") -> None:
        super().__init__(what)
        self.body = body
        self.hint = hint


class RefusedPageError(BadPageError):
    """A page that says itself that the request failed."""


class TooManyError(Exception):
    """A list or an object has more than MAX_RECORDS items."""


class _Empty(msgspec.Struct, frozen=True, gc=False):
    """Stands for any object."""


class MissingListError(BadPageError):
    """A page without a list, or with `{}`, `false` or "" in its place; `fields` is what the page has beside it."""

    def __init__(self, what: str, hint: str, fields: dict[str, object]) -> None:
        super().__init__(what, f"{hint}; {suggest_end('missing_list')}")
        self.fields = fields


def suggest_end(word: str) -> str:
    """Return the advice to take an answer for the end."""
    return f"if this answer means that there is nothing more, set end_when = {word}"


def read_body(response: requests.Response) -> bytes:
    """The whole body, decompressed. Raises BadPageError (too large, no UTF-8) or RecoverableError (cut, damaged)."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces = []
    try:
        for piece in _stream(response):
            pieces.append(piece)
            decoder.decode(piece)
    except UnicodeDecodeError:
        raise BadPageError("the body is not UTF-8", body=b"".join(pieces)) from None
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n")


def check_end(response: requests.Response) -> None:
    """Check that a body which was read is whole although its format has no end, as JSON lines have none.

    Raises BadPageError if only the end of the connection ends the body, as it would if the body were cut, and
    RecoverableError if more bytes came than the headers declare.
    """
    original = getattr(response.raw, "_original_response", None)
    if original is None:
        return
    if not any(name in response.headers for name in ("Content-Length", "Transfer-Encoding", "Content-Encoding")):
        raise BadPageError(
            "the body is JSON lines without a declared length, so a cut would not be seen",
            "have the source send Content-Length, chunks, gzip or one JSON list",
        )
    if getattr(original, "has_rest", False):
        raise RecoverableError("the answer is longer than its headers declare, so JSON lines may be missing")


def read_start(response: requests.Response) -> bytes:
    """What an answer that is a failure anyway begins with; whatever is wrong with the rest changes nothing."""
    start = b""
    with contextlib.suppress(RecoverableError, BadPageError):
        for piece in _stream(response):
            start += piece
            if len(start) >= START_BYTES:
                break
    return start


def _stream(response: requests.Response) -> Iterator[bytes]:
    """The body, decompressed, in pieces of at most CHUNK bytes, MAX_BODY bytes in all."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise BadPageError(f"the body is compressed as '{encoding}', and gzip was asked for")
    unpacker = None if encoding == "identity" else zlib.decompressobj(wbits=31)
    received = unpacked = 0
    try:
        # Not iter_content: it decompresses what it likes, however large, and sees no end of empty gzip members.
        while data := response.raw.read(CHUNK):
            received += len(data)
            while data:
                if unpacker is None:
                    piece, data = data, b""
                else:
                    if unpacker.eof:
                        unpacker = zlib.decompressobj(wbits=31)
                    piece = unpacker.decompress(data, CHUNK)
                    data = unpacker.unconsumed_tail or unpacker.unused_data
                unpacked += len(piece)
                if max(received, unpacked) > MAX_BODY:
                    raise BadPageError(f"the body is larger than {MAX_BODY // 2**20} MiB", "ask for smaller pages")
                yield piece
    except (HTTPError, zlib.error) as error:
        raise RecoverableError(f"the body is cut or damaged: {explain(error)}") from None
    if unpacker is not None and not unpacker.eof:
        raise RecoverableError("the body is cut: its gzip stream has no end")


def select_list(
    body: bytes, selector: str | None, errors: BodyErrors, total_path: str = "", dataset: str = ""
) -> tuple[str, bytes, dict[str, object]]:
    """The list of records in a page: its dotted path (empty: the page itself), its bytes, and what stands beside it.

    `selector` is that path; None takes the page itself, or its only list of objects. Go writes null for an empty list,
    and so it is one at `selector`. Raises BadPageError, also where `errors` finds that the page says that it failed,
    MissingListError where there is no list, and RecoverableError where the JSON just ends.
    """
    kind = body[:1]
    if not body:
        raise BadPageError("the body is empty")
    if kind == b"[" and not selector:
        refuse(errors.find_in_list(body))
        return "", body, {}
    if kind == b"{" and selector != "":
        page = split_envelope(body)
        fields = _read_fields(page)
        refuse(errors.find_always(fields))
        path, found = _find_list(page, fields, selector, errors, total_path, dataset)
        _refuse_deep(page, path)
        null = _starts(found, b"n")
        content = b"[]" if found is None or null else bytes(found)
        if LIST_END.fullmatch(content):
            refuse(errors.find_without_records(fields, missing=found is None, null=null))
        else:
            refuse(errors.find_in_list(content))
        return path, content, fields
    names = {b"[": "a list", b"{": "an object", b"<": "HTML or XML"}
    wanted = f"an object with a list at '{selector}'" if selector else "a list of records"
    came = names.get(kind, "no JSON list or object")
    what, hint = f"the body is {came} where {wanted} was expected", "check url and data_selector"
    if LIST_END.fullmatch(body):  # PHP writes an empty object as an empty list
        raise MissingListError(what, hint, {})
    raise BadPageError(what, hint)


def refuse(complaint: Complaint | None) -> None:
    """Raise BadPageError where a page with a good status says itself that it is a failure."""
    if complaint is None:
        return
    path, value = complaint
    text = show(value)
    excuse = text if text and not isinstance(value, (Mapping, list, tuple)) and "," not in text else "*"
    raise RefusedPageError(
        f"the page says that it failed: '{path}' is {json.dumps(value, default=str)[:80]}",
        f"find out why, or set ok_when = {path}={excuse[:80]} if that is no failure",
    )


def split_list(content: bytes) -> list[msgspec.Raw]:
    """The items of a JSON list, each the bytes that came, on one line. They are views of `content`, and keep it.

    In a list that holds no object and no list, each item becomes an object: `7` is the record `{"value": 7}`.
    """
    records = _decode(content, list[msgspec.Raw])
    if records and not _is_container(records[0]):
        records = _wrap_scalars(records)
    if b"\n" in content or b"\r" in content:
        # Pretty-printed. Within a string JSON has no line breaks, or it would have been refused by now.
        return [msgspec.Raw(bytes(record).translate(ONE_LINE)) for record in records]
    return records


def _wrap_scalars(items: list[msgspec.Raw]) -> list[msgspec.Raw]:
    if any(map(_is_container, items)):
        return items
    return [msgspec.Raw(b'{"%b": %b}' % (VALUE.encode(), bytes(item))) for item in items]


def digest(content: bytes) -> str:
    """By which the same bytes are known when they come again."""
    return hashlib.sha256(content).hexdigest()


def split_object(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of an object, each the bytes that came. Of members with the same name the last one counts."""
    return _decode(content, dict[str, msgspec.Raw])


def split_envelope(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a page's object. Raises BadPageError where two members have the same name."""
    members, text, at = split_object(content), bytes(content), 0
    for name, raw in members.items():
        # The members stand in the text one after the other, unless one of them was replaced by a later one.
        found = MEMBER.match(text, at)
        if found is None or _read_name(found[1]) != name or not text.startswith(raw, found.end()):
            _refuse_duplicates([name for name, _ in scan(text.decode())])
            break
        at = found.end() + len(raw)
    if members and not END.fullmatch(text, at):
        _refuse_duplicates([name for name, _ in scan(text.decode())])
    return members


def _read_name(token: bytes) -> str:
    try:
        return msgspec.json.decode(token, type=str)
    except msgspec.DecodeError:
        name = ascii(json.loads(token))[:80]
        raise BadPageError(f"the page has a member {name}, whose name has half a surrogate pair") from None


def _refuse_duplicates(names: list[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise BadPageError(
            f"the page has the name {json.dumps(twice[0])} twice in one object", "report it to the source"
        )


def _decode(content: bytes | msgspec.Raw, kind: type[Split]) -> Split:
    try:
        try:
            _check_count(content, kind)
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            refused = str(error)
        except RecursionError:
            refused = "nested too deeply"
        # msgspec refuses a page for one NaN, half a surrogate pair or a deep value in one record.
        items: list[tuple[str, msgspec.Raw]] = []
        for item in scan(bytes(content).decode()):
            items.append(item)
            if len(items) > MAX_RECORDS:
                raise TooManyError
        return cast(Split, [raw for _, raw in items] if kind == list[msgspec.Raw] else dict(items))
    except TooManyError:
        raise _complain_of_size() from None
    except json.JSONDecodeError:
        if "truncated" in refused:
            raise RecoverableError("the body is cut: its JSON has no end") from None
        raise BadPageError(f"the body is no JSON ({refused})") from None
    except UnicodeDecodeError:  # in the middle of a character: `read_body` has seen to the others
        raise RecoverableError("the body is cut: its JSON has no end") from None


def _complain_of_size() -> BadPageError:
    return BadPageError(f"the body has more than {MAX_RECORDS:,} records", "ask for smaller pages")


def _check_count(content: bytes | msgspec.Raw, kind: object) -> None:
    """Raise TooManyError where the items would take too much memory. Most pages are too short for that."""
    if len(content) < 2 * MAX_RECORDS or (text := bytes(content)).count(b",") < MAX_RECORDS:
        return
    if kind == list[msgspec.Raw] and text.count(b"{") <= MAX_RECORDS:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            msgspec.json.decode(text, type=list[_Empty])  # each item is an object: the faster way to know
            return
    if count_items(text, MAX_RECORDS) > MAX_RECORDS:
        raise TooManyError


def _find_list(
    page: Mapping[str, msgspec.Raw],
    fields: dict[str, object],
    selector: str | None,
    errors: BodyErrors,
    total_path: str,
    dataset: str,
) -> tuple[str, msgspec.Raw | None]:
    """The path of a page's list, and its bytes, which may be null; None where a total of 0 stands for it.

    Raises BadPageError or MissingListError where there is none.
    """
    if selector is None:
        path, hint = _guess_list(page, dataset), "set data_selector to its path"
        if path is not None:
            return path, page[path]
    else:
        path, hint = selector, "check url and data_selector"
    found = None if path is None else _find_raw(page, path)
    if path is not None and (_starts(found, b"[") or _starts(found, b"n")):
        return path, found
    paths = ", ".join(f"'{each}'" for each, _ in _walk_lists(page)) or "none at all"
    if path is not None and found is None and total_path and find(fields, total_path) == 0:
        return path, None  # RFC 7644 lets a server leave out a list in which there is nothing
    is_missing = found is None or bytes(found) in NOTHING
    if path is None:
        nulls = _list_nulls(page, (*RECORDS, dataset))
        is_missing = paths == "none at all" and not nulls
        what = f"it is not clear which list holds the records: there are {paths}"
        what += "".join(f", and null at '{name}'" for name in nulls)
        if paths == "none at all" and page:
            members = "".join(f" or {name}.* (its members)" for name, raw in page.items() if _holds_objects(raw))
            hint += f",{members} or @ (the object itself), if that is a record"
    else:
        what = f"there is no list at '{path}': there are {paths}"
    if is_missing or path is not None or paths == "none at all":
        refuse(errors.find_without_records(fields, missing=is_missing, null=True))
    raise MissingListError(what, hint, fields) if is_missing else BadPageError(what, hint)


def _guess_list(page: Mapping[str, msgspec.Raw], dataset: str) -> str | None:
    """Return the name of the list that can only be the one of the records; None if another list may be it.

    A list counts if it holds objects, lists or nothing, or begins with null, wherever it stands in the page; those of
    errors and links do not. Null in the place of a list counts if many call their list so, or if it has the name of the
    dataset. A list of objects with such a name wins over all but another list of objects beside it. A list of texts or
    numbers is taken only if there is no other list, and its name is a usual one.
    """
    usual = (*RECORDS, dataset)
    lists = {path: raw for path, raw in _walk_lists(page) if not _is_beside(path)}
    found = {path: raw for path, raw in lists.items() if _may_hold_records(raw)}
    names = [name for name in page if name in found and _holds_objects_or_nothing(found[name])]
    if len(lists) == 1 and not found and (name := next(iter(lists))).lower() in (*usual, *OF_SCALARS):
        return name
    if len(names) != 1:
        return None
    doubts = len(found) > 1 or bool(_list_nulls(page, usual))
    return None if doubts and names[0].lower() not in usual else names[0]


def _is_beside(path: str) -> bool:
    """Return whether a list stands below a name for errors or links."""
    return any(name.strip("_").lower() in (*ERRORS, *LINKS) for name in path.split("."))


def _may_hold_records(raw: msgspec.Raw) -> bool:
    start = LIST_START.match(raw)
    return bool(start and start[1] in b"{[]n") or _holds_objects_or_nothing(raw)


def _holds_objects_or_nothing(raw: msgspec.Raw) -> bool:
    """Return whether a list is empty or has an object, not necessarily at its beginning."""
    start = LIST_START.match(raw)
    if start and start[1] in b"{]":
        return True
    return b"{" in bytes(raw) and any(_starts(item, b"{") for item in _decode(raw, list[msgspec.Raw]))


def _list_nulls(page: Mapping[str, msgspec.Raw], usual: Sequence[str], prefix: str = "") -> list[str]:
    """Return the paths of null where many have their list."""
    found = []
    for name, raw in page.items():
        if _starts(raw, b"n") and name.lower() in usual:
            found.append(prefix + name)
        elif _starts(raw, b"{") and not _is_beside(name) and prefix.count(".") < FIELDS_DEPTH:
            found += _list_nulls(split_envelope(raw), usual, f"{prefix}{name}.")
    return found


def _refuse_deep(page: Mapping[str, msgspec.Raw], path: str) -> None:
    """Raise BadPageError where anything but the list at `path` is nested too deeply."""
    for name, raw in page.items():
        if path.startswith(f"{name}.") and _starts(raw, b"{"):
            _refuse_deep(split_envelope(raw), path.removeprefix(f"{name}."))
        elif name != path and is_deep(raw):
            raise BadPageError(f"'{name}' is nested more than {MAX_DEPTH} levels deep")


def _find_raw(page: Mapping[str, msgspec.Raw], path: str) -> msgspec.Raw | None:
    """What stands at a dotted path, as fields.find would find it."""
    if path in page:
        return page[path]
    for name, rest in split_path(path):
        if _starts(page.get(name), b"{") and (found := _find_raw(split_envelope(page[name]), rest)) is not None:
            return found
    return None


def _holds_objects(raw: msgspec.Raw) -> bool:
    """Whether a member of a page is an object in which there are objects, and nothing else."""
    return (
        _starts(raw, b"{")
        and bool(inner := split_envelope(raw))
        and all(_starts(each, b"{") for each in inner.values())
    )


def _walk_lists(
    page: Mapping[str, msgspec.Raw], prefix: str = "", depth: int = FIELDS_DEPTH
) -> Iterator[tuple[str, msgspec.Raw]]:
    for name, raw in page.items():
        if _starts(raw, b"["):
            yield prefix + name, raw
        elif _starts(raw, b"{") and depth > 1:
            yield from _walk_lists(split_envelope(raw), f"{prefix}{name}.", depth - 1)


def _read_fields(page: Mapping[str, msgspec.Raw], depth: int = FIELDS_DEPTH) -> dict[str, object]:
    """A page's object, with LIST in the place of its lists, but for those of links and errors."""
    fields: dict[str, object] = {}
    for name, raw in page.items():
        if _starts(raw, b"{"):
            fields[name] = _read_fields(split_envelope(raw), depth - 1) if depth > 1 else {}
        elif not _starts(raw, b"[") or name.strip("_").lower() in (*LINKS, *ERRORS):
            fields[name] = _read_value(name, raw)
        elif (start := LIST_START.match(raw)) and start[1] != b"]":
            fields[name] = LIST
    return fields


def _read_value(name: str, raw: msgspec.Raw) -> object:
    """Return a value of a page, or the whole list of its errors or links."""
    if _starts(raw, b"["):
        if bytes(raw).count(b",") > MAX_RECORDS:
            raise _complain_of_size()
        if is_deep(raw):
            raise BadPageError(f"'{name}' is nested more than {MAX_DEPTH} levels deep")
        json.loads(
            bytes(raw), parse_int=str, object_pairs_hook=lambda pairs: _refuse_duplicates([each for each, _ in pairs])
        )
    try:
        return _values.decode(raw)
    except msgspec.DecodeError:
        return Unreadable(bytes(raw).decode())


def _is_container(raw: msgspec.Raw) -> bool:
    return _starts(raw, b"{") or _starts(raw, b"[")


def _starts(raw: msgspec.Raw | None, char: bytes) -> bool:
    return raw is not None and memoryview(raw)[:1] == char


def explain(error: Exception) -> str:
    """The cause in a chain of errors of requests and urllib3, without the URLs that these repeat."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    cause = cause.args[-1] if isinstance(cause, HTTPError) and len(cause.args) > 1 else cause
    return re.sub(r"^\w+\(.*?\): ", "", str(cause)) or type(error).__name__
