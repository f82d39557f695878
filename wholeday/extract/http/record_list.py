"""Find the list of records in a page.

Responsibilities: the list at `data_selector`, or the only list that can hold the records. In doubt the page is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from wholeday.config.source import Source
from wholeday.extract.http import envelope
from wholeday.extract.http.body_errors import BodyErrors, Complaint, show
from wholeday.extract.http.body_shapes import unfold
from wholeday.extract.http.failures import BadPageError, MissingListError, RefusedPageError
from wholeday.schema.paths import find

EMPTY_VALUES = (b"{}", b"false", b'""')  # some sources send these for an empty list
USUAL_NAMES = ("data", "items", "results", "records", "users")
USUAL_DEEP_NAMES = ("children", "docs", "edges", "entries", "hits", "list", "nodes", "rows", "values")
EMBEDDED = "_embedded"  # the object that holds the lists in HAL
USUAL_SCALAR_NAMES = ("members", "ids", "keys", "values")  # of a list of texts or numbers


class RecordList(NamedTuple):
    """The list of records in a page: its dotted path (empty: the page is the list), its bytes, the other fields."""

    path: str
    content: bytes
    fields: dict[str, object]
    is_lines: bool = False
    """Whether the body is JSON lines, which only HTTP can show to be complete."""


class ListFinder:
    """Finds the list of records in the pages of a source."""

    def __init__(self, config: Source) -> None:
        self.selector = None if config.data_selector == "auto" else config.data_selector
        """The dotted path of the list: `data_selector`, or the path that the first page showed; None before that."""
        self.is_shown = False
        """Whether a person looks at the result, so that the likeliest of several lists, or a deep one, may do."""
        self.rivals: list[str] = []
        """The lists that the likeliest one was preferred to."""
        self._errors = BodyErrors(config.error_path, config.ok_when)
        self._total_path, self._usual = config.total_path, (*USUAL_NAMES, config.section)
        self._section = config.section.lower()

    def find(self, body: bytes, content_type: str) -> RecordList:
        """Find the list of records in a body.

        A null at `selector` is an empty list, as Go encodes one. Raises BadPageError, also if the page reports a
        failure; MissingListError if there is no list; RecoverableError if the JSON ends too early.
        """
        unfolded = unfold(body, self.selector, content_type)
        _refuse(self._errors.find_in_object(unfolded.fields))
        found = self._select(unfolded.body, unfolded.selector)
        if self.selector is None:
            self.selector = found.path
        return found._replace(is_lines=unfolded.is_lines)

    def _select(self, body: bytes, selector: str | None) -> RecordList:
        """Find the list at `selector`. None accepts the page itself, or the only list of objects in it."""
        kind, errors = body[:1], self._errors
        if not body:
            raise BadPageError("the body is empty")
        if kind == b"[" and not selector:
            _refuse(errors.find_in_list(body))
            return RecordList("", body, {})
        if kind == b"{" and selector != "":
            page = envelope.split_envelope(body)
            fields = envelope.read_fields(page)
            _refuse(errors.find_always(fields))
            path, found = self._find_list(page, fields, selector)
            envelope.check_depth(page, path)
            null = envelope.starts_with(found, b"n")
            content = b"[]" if found is None or null else bytes(found)
            if envelope.EMPTY_LIST.fullmatch(content):
                _refuse(errors.find_without_records(fields, missing=found is None, null=null))
            else:
                _refuse(errors.find_in_list(content))
            return RecordList(path, content, fields)
        names = {b"[": "a list", b"{": "an object", b"<": "HTML or XML"}
        wanted = f"an object with a list at '{selector}'" if selector else "a list of records"
        came = names.get(kind, "not a JSON list or object")
        what, hint = f"the body is {came}, expected {wanted}", "check url and data_selector"
        if envelope.EMPTY_LIST.fullmatch(body):  # PHP writes an empty object as an empty list
            raise MissingListError(what, hint, {})
        raise BadPageError(what, hint)

    def _find_list(
        self, page: Mapping[str, msgspec.Raw], fields: dict[str, object], selector: str | None
    ) -> tuple[str, msgspec.Raw | None]:
        """Return the path of the list and its bytes, which may be null; None if a total of 0 stands for the list.

        Raises BadPageError or MissingListError if there is no list.
        """
        found = None
        if selector is None:
            if (path := self._guess_path(page)) is not None:
                return path, envelope.find_raw(page, path)
        else:
            found = envelope.find_raw(page, selector)
            if envelope.starts_with(found, b"[") or envelope.starts_with(found, b"n"):
                return selector, found
            if found is None and self._total_path and find(fields, self._total_path) == 0:
                return selector, None  # RFC 7644 allows a server to leave out an empty list
        paths = ", ".join(f"'{each}'" for each, _ in _list_lists(page))
        lists = f"lists at {paths}" if paths else "no list"
        if selector is None:
            nulls = _list_nulls(page, self._usual)
            is_missing, hint = not paths and not nulls, "set data_selector to its path"
            what = f"it is not clear which list holds the records: the page has {lists}"
            what += "".join(f", and null at '{name}'" for name in nulls)
            if not paths and page:
                objects = [f"{name}.*" for name, raw in page.items() if _holds_only_objects(raw)]
                objects += ["*"] * all(envelope.starts_with(raw, b"{") for raw in page.values())
                members = "".join(f" or {selector} (its members)" for selector in objects)
                hint += f",{members} or @ (the object itself), if that is a record"
        else:
            is_missing, hint = found is None or bytes(found) in EMPTY_VALUES, "check url and data_selector"
            what = f"there is no list at '{selector}': the page has {lists}"
        if is_missing or selector is not None or not paths:
            _refuse(self._errors.find_without_records(fields, missing=is_missing, null=True))
        raise MissingListError(what, hint, fields) if is_missing else BadPageError(what, hint)

    def _guess_path(self, page: Mapping[str, msgspec.Raw]) -> str | None:
        """Return the name of the only list that can hold the records; None if there is a doubt.

        - Candidates anywhere in the page are lists of objects or lists, empty lists, and lists that begin with null.
          Lists of errors and links are not.
        - The records are in a list of objects at the top of the page, and the only one there. Any further candidate is
          a doubt, and so is null under a usual name. A usual name, or the name of the dataset, settles these doubts.
        - A list of texts or numbers counts only if it is the only list in the page and has a usual name.
        """
        lists = {path: raw for path, raw in _list_lists(page) if not _is_for_links_or_errors(path)}
        found = {path: raw for path, raw in lists.items() if _may_hold_records(raw)}
        names = [name for name in page if name in found and _holds_objects_or_nothing(found[name])]
        if len(lists) == 1 and not found and (name := next(iter(lists))).lower() in (*self._usual, *USUAL_SCALAR_NAMES):
            return name
        if len(names) != 1:
            return self._guess_shown_path(page, names, list(found)) if self.is_shown else None
        has_doubts = len(found) > 1 or bool(_list_nulls(page, self._usual))
        return None if has_doubts and names[0].lower() not in self._usual else names[0]

    def _guess_shown_path(
        self, page: Mapping[str, msgspec.Raw], names: Sequence[str], found: Sequence[str]
    ) -> str | None:
        """Return the likeliest path, for a person to look at; None if two are equally likely.

        `names` are the lists at the top, and `found` are all lists that may hold records.
        """
        own = [name for name in names if name.lower() == self._section]
        usual = {*self._usual, *USUAL_DEEP_NAMES}
        named = [path for path in names or found if path.rpartition(".")[2].lower() in usual]
        alone = [path for path in found if not names and (EMBEDDED in path.split(".") or _is_alone(page, path))]
        likely = own or named or alone
        if len(likely) != 1:
            return None
        self.rivals = [path for path in found if path not in likely]
        return likely[0]


def _refuse(complaint: Complaint | None) -> None:
    """Raise RefusedPageError if the page reports a failure."""
    if complaint is None:
        return
    path, value = complaint
    text = show(value)
    excuse = text if text and not isinstance(value, (Mapping, list, tuple)) and "," not in text else "*"
    raise RefusedPageError(
        f"the page reports a failure: '{path}' is {json.dumps(value, default=str)[:80]}",
        f"find out why, or set ok_when = {path}={excuse[:80]} if it is not a failure",
    )


def _is_for_links_or_errors(path: str) -> bool:
    return any(name.strip("_").lower() in (*envelope.ERRORS, *envelope.LINKS) for name in path.split("."))


def _may_hold_records(raw: msgspec.Raw) -> bool:
    start = envelope.LIST_START.match(raw)
    return bool(start and start[1] in b"{[]n") or _holds_objects_or_nothing(raw)


def _holds_objects_or_nothing(raw: msgspec.Raw) -> bool:
    """Return whether a list is empty or contains an object at any place."""
    start = envelope.LIST_START.match(raw)
    if start and start[1] in b"{]":
        return True
    return b"{" in bytes(raw) and any(envelope.starts_with(item, b"{") for item in envelope.split_items(raw))


def _list_nulls(page: Mapping[str, msgspec.Raw], usual: Sequence[str]) -> list[str]:
    """List the paths of null values under usual names of lists."""
    nulls = [path for path, raw in _walk(page) if envelope.starts_with(raw, b"n") and not _is_for_links_or_errors(path)]
    return [path for path in nulls if path.rpartition(".")[2].lower() in usual]


def _list_lists(page: Mapping[str, msgspec.Raw]) -> list[tuple[str, msgspec.Raw]]:
    """List the path and the bytes of each list in a page."""
    return [(path, raw) for path, raw in _walk(page) if envelope.starts_with(raw, b"[")]


def _is_alone(page: Mapping[str, msgspec.Raw], path: str) -> bool:
    """Return whether the object around a list has no text, as an object that describes something has."""
    around = envelope.find_raw(page, path.rpartition(".")[0])
    return around is not None and not any(
        envelope.starts_with(each, b'"') for each in envelope.split_envelope(around).values()
    )


def _holds_only_objects(raw: msgspec.Raw) -> bool:
    """Return whether a value is an object whose members are all objects."""
    return (
        envelope.starts_with(raw, b"{")
        and bool(inner := envelope.split_envelope(raw))
        and all(envelope.starts_with(each, b"{") for each in inner.values())
    )


def _walk(
    page: Mapping[str, msgspec.Raw], prefix: str = "", depth: int = envelope.MAX_FIELD_DEPTH
) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield the path and the bytes of each value in a page, except for objects."""
    for name, raw in page.items():
        if not envelope.starts_with(raw, b"{"):
            yield prefix + name, raw
        elif depth > 1:
            yield from _walk(envelope.split_envelope(raw), f"{prefix}{name}.", depth - 1)
