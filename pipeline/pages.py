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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar, cast

import msgspec
import requests
from urllib3.exceptions import HTTPError

from pipeline.body_errors import BodyErrors, Complaint, show
from pipeline.fields import Number, find, split_path

MAX_BODY = 256 * 2**20  # bytes of a page, as they come and decompressed
MAX_SECONDS = 1800  # for a request, from the first byte sent to the last byte of the body
CHUNK = 2**18
FIELDS_DEPTH = 20  # how deep a page's object is looked into, beside its records

Split = TypeVar("Split")

_values = msgspec.json.Decoder(float_hook=Number)

KNOWN = 64  # bytes by whose equality a part of a page is found in it
START_BYTES = 2**14  # of an answer that is a failure anyway
LINKS = ("link", "links")
ERRORS = ("error", "errors")
NOTHING = (b"{}", b"false", b'""')  # what some send in the place of an empty list
RECORDS = ("data", "items", "results", "records", "users")  # what many call their list
OF_SCALARS = ("members", "ids", "keys", "values")  # and a list of texts or numbers
VALUE = "value"  # the field of a record that came as a number or a text
LIST = ("...",)  # stands for a list in which there is something: it is true, and neither a number nor a cursor
BLANK = re.compile(r"[ \t\r\n]*")
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
        page = _split_object(body)
        fields = _read_fields(page)
        refuse(errors.find_always(fields))
        path, found = _find_list(page, fields, selector, errors, total_path, dataset)
        check_names(body, [raw for raw in (*page.values(), found) if raw is not None and _starts(raw, b"[")])
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


def check_names(body: bytes, large: Iterable[msgspec.Raw]) -> None:
    """Check that no object of a page has two members of one name: a decoder would drop all but the last one.

    `large` are the parts of the page that are not looked into, as its records. Raises BadPageError.
    """

    def check(members: list[tuple[str, object]]) -> None:
        names = Counter(name for name, _ in members)
        if len(names) < len(members):
            name = names.most_common(1)[0][0]
            raise BadPageError(
                f"the page has the name {json.dumps(name)} twice in one object", "report it to the source"
            )

    spans = [(at, at + len(memoryview(raw))) for raw in large if (at := _locate(body, raw)) >= 0]
    pieces, start = [], 0
    for begin, end in sorted(spans):
        if begin >= start:
            pieces.append(body[start:begin])
            start = end
    text = b"0".join([*pieces, body[start:]]).decode()
    try:
        json.loads(text, object_pairs_hook=check, parse_int=str, parse_float=str)
    except RecursionError:
        raise BadPageError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadPageError(f"the body is no JSON ({error})") from None


def check_members(content: bytes | msgspec.Raw) -> None:
    """Check the same of the members of one object, and of nothing within them."""
    seen: set[str] = set()
    for name, _ in cast(Iterator[tuple[str, msgspec.Raw]], _scan(bytes(content).decode())):
        if name in seen:
            raise BadPageError(f"two members have the name {json.dumps(name)}", "report it to the source")
        seen.add(name)


def _locate(body: bytes, raw: msgspec.Raw) -> int:
    """The place of a part in a page; -1 where it is so short that it may as well be read."""
    view = memoryview(raw)
    head, tail, size = bytes(view[:KNOWN]), bytes(view[-KNOWN:]), len(view)
    at = -1 if size < KNOWN else body.find(head)
    while at >= 0 and not body.startswith(tail, at + size - KNOWN):
        at = body.find(head, at + 1)
    return at


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


def _split_object(content: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _decode(content, dict[str, msgspec.Raw])


def _decode(content: bytes | msgspec.Raw, kind: Callable[..., Split]) -> Split:
    try:
        try:
            return cast(Split, msgspec.json.decode(content, type=kind))
        except msgspec.DecodeError as error:
            refused = str(error)
        # msgspec refuses a page for one NaN or half a surrogate pair in one record; Python reads over them.
        return kind(_scan(bytes(content).decode()))
    except json.JSONDecodeError:
        if "truncated" in refused:
            raise RecoverableError("the body is cut: its JSON has no end") from None
        raise BadPageError(f"the body is no JSON ({refused})") from None
    except UnicodeDecodeError:  # in the middle of a character: `read_body` has seen to the others
        raise RecoverableError("the body is cut: its JSON has no end") from None
    except RecursionError:
        raise BadPageError("the body is nested too deeply") from None


def _scan(text: str) -> Iterator[msgspec.Raw | tuple[str, msgspec.Raw]]:
    """The items of the JSON list `text`, or the name and value of each of the JSON object's. Raises JSONDecodeError."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)  # numbers of any length
    is_object, close = text[0] == "{", {"{": "}", "[": "]"}[text[0]]

    def expect(wanted: str, at: int) -> int:
        at = BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
        if not text.startswith(wanted, at):
            raise json.JSONDecodeError(f"no {wanted}", text, at)
        return BLANK.match(text, at + len(wanted)).end()  # type: ignore[union-attr]

    at = expect(text[0], 0)
    more = not text.startswith(close, at)
    while more:
        name = ""
        if is_object:
            name, at = decoder.raw_decode(text, at)
            at = expect(":", at)
        _, end = decoder.raw_decode(text, at)
        raw = msgspec.Raw(text[at:end].encode())
        yield (name, raw) if is_object else raw
        at = expect("", end)
        more = not text.startswith(close, at)
        if more:
            at = expect(",", at)
    if expect(close, at) != len(text):
        raise json.JSONDecodeError("more than one value", text, at)


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
    paths = ", ".join(f"'{each}'" for each in _walk_lists(page)) or "none at all"
    if path is not None and found is None and total_path and find(fields, total_path) == 0:
        return path, None  # RFC 7644 lets a server leave out a list in which there is nothing
    is_missing = found is None or bytes(found) in NOTHING
    if path is None:
        nulls = [name for name, raw in page.items() if _starts(raw, b"n") and name.lower() in (*RECORDS, dataset)]
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
    """The name of the page's only list that holds objects or nothing, but for those of errors and links.

    A list of texts or numbers is taken only if there is no other list, and its name is a usual one.

    An empty list counts: on a day without users, another list of objects must not be taken for theirs. So does null
    where many have their list, or one named like the dataset, unless the list that is there has such a name.
    """
    starts = {name: LIST_START.match(raw) for name, raw in page.items()}
    lists = [name for name, start in starts.items() if start and name.strip("_").lower() not in (*ERRORS, *LINKS)]
    found = [name for name in lists if (start := starts[name]) and start[1] in (b"{", b"]")]
    usual = (*RECORDS, dataset)
    if len(lists) == 1 and not found and lists[0].lower() in (*usual, *OF_SCALARS):
        found = lists
    nulls = [name for name, raw in page.items() if _starts(raw, b"n") and name.lower() in usual]
    return found[0] if len(found) == 1 and (not nulls or found[0].lower() in usual) else None


def _find_raw(page: Mapping[str, msgspec.Raw], path: str) -> msgspec.Raw | None:
    """What stands at a dotted path, as fields.find would find it."""
    if path in page:
        return page[path]
    for name, rest in split_path(path):
        if _starts(page.get(name), b"{") and (found := _find_raw(_split_object(page[name]), rest)) is not None:
            return found
    return None


def _holds_objects(raw: msgspec.Raw) -> bool:
    """Whether a member of a page is an object in which there are objects, and nothing else."""
    return (
        _starts(raw, b"{") and bool(inner := _split_object(raw)) and all(_starts(each, b"{") for each in inner.values())
    )


def _walk_lists(page: Mapping[str, msgspec.Raw], prefix: str = "", depth: int = FIELDS_DEPTH) -> Iterator[str]:
    for name, raw in page.items():
        if _starts(raw, b"["):
            yield prefix + name
        elif _starts(raw, b"{") and depth > 1:
            yield from _walk_lists(_split_object(raw), f"{prefix}{name}.", depth - 1)


def _read_fields(page: Mapping[str, msgspec.Raw], depth: int = FIELDS_DEPTH) -> dict[str, object]:
    """A page's object, with LIST in the place of its lists, but for those of links and errors."""
    fields: dict[str, object] = {}
    for name, raw in page.items():
        if _starts(raw, b"{"):
            fields[name] = _read_fields(_split_object(raw), depth - 1) if depth > 1 else {}
        elif not _starts(raw, b"[") or name.strip("_").lower() in (*LINKS, *ERRORS):
            try:
                fields[name] = _values.decode(raw)
            except msgspec.DecodeError:  # a NaN, half a surrogate pair: as it stands, or a cursor would look like none
                fields[name] = bytes(raw).decode()
        elif (start := LIST_START.match(raw)) and start[1] != b"]":
            fields[name] = LIST
    return fields


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
