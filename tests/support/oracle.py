"""Decide with Python's json alone which records a day may have if a source sends given bytes.

Responsibilities: list every complete interpretation of a source, and predict the row of a record of users.
Non-goals: choose one of several interpretations. A result outside all of them is a loss.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests

from tests.support.mutations import Case
from tests.support.wire import Parsed, read_answer

BASE = "http://source.example"
USUAL = ("data", "items", "results", "records", "users")
NO_LISTS_OF_RECORDS = ("error", "errors", "link", "links")
MOST = 200  # interpretations of a source
DEEPEST = 200  # most levels of a record that can be a row


class Number(str):
    """A number in its original spelling, distinct from a text with the same characters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Number({self!s})"


class Pairs(list[tuple[str, Any]]):
    """All members of a JSON object, duplicate names included."""

    def __repr__(self) -> str:
        return f"Pairs{super().__repr__()}"

    @property
    def fields(self) -> dict[str, Any] | None:
        """Return the members by name, or None if a name occurs twice."""
        found = dict(self)
        return found if len(found) == len(self) else None


class Page(NamedTuple):
    """One page of records, as parsed from a response."""

    records: tuple[str, ...]
    ids: tuple[str, ...]
    following: str | None
    total: int | None


def decode(text: bytes) -> Any:
    """Decode one JSON value. Raises ValueError or RecursionError."""
    kinds: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), Number)
    return json.loads(text.decode().removeprefix("\ufeff").strip(" \t\r\n"), object_pairs_hook=Pairs, **kinds)


def read_days(case: Case) -> set[tuple[str, ...]]:
    """List every complete interpretation of a source: the records of the day, in order."""
    if case.kind == "pages":
        return {tuple(records) for records in _read_numbered(case)}
    return {tuple(records) for records in _follow(case, "/u", frozenset())}


def _follow(case: Case, target: str, visited: frozenset[str]) -> Iterator[list[str]]:
    if target in visited:
        return
    for page in _read_target(case, target, frozenset()):
        if page.following is None:
            yield [*page.records]
        else:
            for rest in _follow(case, page.following, visited | {target}):
                yield [*page.records, *rest]


def _read_numbered(case: Case) -> Iterator[list[str]]:
    """Yield the interpretations with as many records as the source declares."""
    days: list[tuple[list[str], list[str], list[int]]] = [([], [], [])]
    for number in range(1, 9):
        pages = _read_target(case, f"/u?page={number}", frozenset())
        days = [
            ([*records, *page.records], [*ids, *page.ids], [*totals, *([] if page.total is None else [page.total])])
            for records, ids, totals in days
            for page in pages
        ][:MOST]
        for records, ids, totals in days:
            if totals and len(set(ids)) == max(totals):
                yield records


def _read_target(case: Case, target: str, visited: frozenset[str]) -> list[Page]:
    pages: list[Page] = []
    for raw in case.answers.get(target, ()):
        said = read_answer(raw)
        if said is None:
            continue
        if said.status in (0, 200, 203, 206):
            pages += [page for body in said.bodies for page in read_pages(case.kind, said, target, body)]
        moved = _resolve(target, said.headers.get("location", ""))
        if said.status // 100 == 3 and moved is not None and moved not in visited:
            pages += _read_target(case, moved, visited | {target})
    return pages


def _resolve(target: str, link: str) -> str | None:
    try:
        prepared = requests.Request("GET", urljoin(BASE + target, link.strip())).prepare()
    except ValueError:
        return None
    return prepared.path_url if (prepared.url or "").startswith(BASE + "/") else None


def read_pages(kind: str, said: Parsed, target: str, body: bytes) -> Iterator[Page]:
    """List the possible pages of a body; none if it is not JSON or contradicts itself."""
    lists: list[tuple[list[Any], Mapping[str, Any]]] = []
    try:
        framed = said.headers.keys() & {"content-length", "transfer-encoding", "content-encoding"} and not said.has_rest
        is_named = bool(
            re.match(r"(application|text)/(x-)?ndjson\b", said.headers.get("content-type", ""), re.IGNORECASE)
        )
        lines = [decode(line) for line in body.replace(b"\r", b"\n").split(b"\n") if line.strip(b" \t")]
        is_empty = is_named and not lines
        if is_empty or (
            lines and all(isinstance(line, Pairs) for line in lines) and (kind == "lines" or len(lines) > 1)
        ):
            lists += [(lines, {})] if framed or (len(lines) == 1 and not is_named) else []
    except (ValueError, RecursionError):
        pass
    try:
        page = decode(body)
        if isinstance(page, list) and not isinstance(page, Pairs):
            lists.append((page, {}))
        elif isinstance(page, Pairs) and page.fields is not None:
            lists += [(found, page.fields) for found in _list_lists(kind, page.fields)]
    except (ValueError, RecursionError):
        pass
    for records, fields in lists:
        scalars = records and not any(isinstance(record, list) for record in records)
        kept = [Pairs([("value", record)]) for record in records] if scalars else records
        link = fields.get("next") if kind.startswith("next") else _find_link(said) if kind == "link" else None
        if isinstance(link, Pairs) and kind == "next_auto":
            link = dict(link).get("next")
        if link in (False, "0"):  # many sources mark the end this way
            link = None
        if link not in (None, "") and not isinstance(link, str):
            continue
        following = _resolve(target, link) if link and not isinstance(link, Number) else None
        if (link and following is None) or (fields.get("has_more") is True and not link):
            continue
        total = fields.get("total")
        number = int(total) if isinstance(total, Number) and total.isdecimal() and len(total) < 20 else None
        keys = [dict(each).get("id") if isinstance(each, Pairs) else None for each in kept]
        ids = [f"{target} {at}" if key is None else repr(key) for at, key in enumerate(keys)]
        yield Page(tuple(map(repr, kept)), tuple(ids), following, number)


def _list_lists(kind: str, fields: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the lists that may hold the records."""
    if KINDS_WITH_SELECTOR & {kind}:
        found = fields.get("data", 0)
        if found is None or (isinstance(found, list) and not isinstance(found, Pairs)):
            yield found or []
        return
    everywhere = list(_walk_lists(fields))
    for name, found in fields.items():
        is_list = isinstance(found, list) and not isinstance(found, Pairs)
        lower = name.lower()
        if is_list and lower not in NO_LISTS_OF_RECORDS and (lower in USUAL or len(everywhere) == 1):
            yield found


KINDS_WITH_SELECTOR = {"selected", "next", "pages"}


def _walk_lists(fields: Mapping[str, Any]) -> Iterator[list[Any]]:
    for value in fields.values():
        if isinstance(value, Pairs):
            yield from _walk_lists(dict(value))
        elif isinstance(value, list) and (not value or isinstance(value[0], Pairs)):
            yield value


def _find_link(said: Parsed) -> str | None:
    found = re.search(r"""<([^<>]*)>[^,]*;\s*rel\s*=\s*"?next\b""", said.headers.get("link", ""), re.IGNORECASE)
    return found[1] if found else None


def find_row(record: bytes) -> tuple[Any, ...] | str | None:
    """Return the row of a record, None for a certain reject, or "?" if Python's json cannot decide."""
    if re.search(rb"NaN|Infinity|\\u[dD][89a-fA-F]", record):
        return "?"  # NaN and the like, or half a surrogate pair
    try:
        value = decode(record)
    except (ValueError, RecursionError):
        return "?"
    if not isinstance(value, Pairs) or _measure(value) > DEEPEST:
        return None
    fields = value.fields
    if fields is None:
        return "?"
    number = fields.get("id")
    if not isinstance(number, Number) or not number.isdecimal() or not 1 <= int(number) < 2**63:
        return "?" if isinstance(number, Number) and not number.lstrip("-").isdecimal() else None
    texts = [_read_text(fields, name) for name in ("name", "email")]
    address = fields.get("address")
    if isinstance(address, Pairs) and address.fields is not None:
        texts.append(_read_text(address.fields, "city"))
    elif address is None:
        texts.append(None)
    else:
        return "?" if isinstance(address, Pairs) else None
    if "!" in texts:
        return None
    email = texts[1]
    if "?" in texts or "updated_at" in fields or (email is not None and "@" not in email):
        return "?"
    return int(number), texts[0], email.lower() if email else email, texts[2]


def _measure(value: Any) -> int:
    """Return the depth of nested lists and objects."""
    deepest, level = 0, [value]
    while nested := [each for each in level if isinstance(each, (Pairs, list))]:
        deepest += 1
        level = [inner for each in nested for inner in ((x for _, x in each) if isinstance(each, Pairs) else each)]
    return deepest


def _read_text(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a text as stored in the table; "!" if it is not a text, "?" if it has odd characters."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or isinstance(value, Number):
        return "!"
    return (value.strip() or None) if value.isascii() and (value.isprintable()) else "?"


def canonicalise(lines: Iterable[bytes]) -> tuple[str, ...]:
    """Convert lines of raw parts to the form of `read_days`."""
    return tuple(repr(decode(line)) for line in lines)
