"""Detect how the pages of a source follow each other: `paginator = auto`.

Responsibilities: turn the evidence of the first page, and a few probes, into the keys of `Paging`. Explicit evidence
comes first; a guess counts only if it fetched page two.
Non-goals: sending requests; a callback does. Detection never takes silence for the end if the page may be a full one or
one of several, and never takes a filter, a shuffled list or an endless list for pages.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from wholeday.extract import vocabulary
from wholeday.extract.evidence import Evidence, UndecidedError, announces_more
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import Paging, parse_next_link
from wholeday.extract.vocabulary import Word
from wholeday.schema.paths import find, simplify

MAX_PROBES = 14  # for one decision
FAR = {"page": 10**6, "offset": 10**9}  # only an endless list has records there
HEADER_RANK = 1  # of a header as the place for a cursor, among the parameters that may take it
LONGEST_CURSOR = 40  # characters of a cursor in a line

LAST_ID_PARAMS = ("starting_after", "since", "after", "last_id", "since_id", "after_id")
POSITION_PARAMS = ("page", "_page", "offset", "skip", "first", "start", "startIndex", "from")
SIBLINGS = {  # a parameter for the size, and the parameters for the position that go with it
    "_limit": ("_page", "_start"),
    "limit": ("offset", "skip", "page"),
    "$top": ("$skip",),
    "max": ("first",),
    "count": ("startIndex",),
    "maxResults": ("startAt",),
}

Keys = dict[str, Any]
Probe = Callable[[Request], Page | None]


class EndlessError(UndecidedError):
    """The source has records at any page number or offset."""


class Decision(NamedTuple):
    """The keys of Paging that the probes prove, and the evidence in one line."""

    keys: Keys
    why: str


def decide(paging: Paging, request: Request, page: Page, probe: Probe) -> Decision:
    """Decide how pages follow `page`, the answer to `request`.

    `probe` fetches the page of a request, or returns None if the source refuses it. Raises UndecidedError with one line
    that names the evidence and the key to set.
    """
    return _Detection(paging, request, page, probe).run()


class _Detection:
    """The probes about one first page."""

    def __init__(self, paging: Paging, request: Request, page: Page, probe: Probe) -> None:
        self._paging, self._request, self._page, self._probe = paging, request, page, probe
        # A position is looked for in a body, too, unless the body is a list.
        in_body = request.method == "POST" and paging.cursor_in == "query" and isinstance(request.body, Mapping)
        self._where = "body" if in_body else paging.cursor_in
        self._where_keys: Keys = {"cursor_in": "body"} if in_body else {}
        self._evidence = Evidence(paging, request, page)
        self._answers: dict[bytes, Page | None] = {}
        self._tried: list[str] = []

    def run(self) -> Decision:
        evidence, decision = self._evidence, None
        if evidence.more is not False:
            decision = self._follow_link() or self._follow_urls() or self._try_cursors()
        elif not self._paging.more_path:
            decision = self._contradict_flag()
        has_reason = bool(evidence.announced or evidence.suspected)
        if decision is None and (has_reason or evidence.place):
            decision = self._try_positions()
            if decision is None and has_reason:
                raise self._undecided()
        nothing = "the source says that this is all" if evidence.more is False else "nothing announces more"
        return decision or self._conclude({"paginator": "single"}, f"{evidence.received_text} came, and {nothing}")

    def _follow_link(self) -> Decision | None:
        link = parse_next_link(self._page.headers.get("Link", ""))
        why = "the Link header names the next page"
        return None if link is None else self._conclude({"paginator": "link_header"}, why)

    def _contradict_flag(self) -> Decision | None:
        """Follow a link although a flag says that this is all; if it leads to other keys, the flag is about else."""
        urls = [word.path for word in self._list_cursors() if vocabulary.is_url(word.value)]
        links: list[Keys] = [{"paginator": "link_header"}]
        links += [{"paginator": "next_url", "cursor_path": path} for path in urls]
        for keys in links:
            second = self._fetch_next(keys)
            if second is not None and second.records and not self._evidence.repeats(second):
                return self._conclude(keys, "a link leads to other keys, though a flag says that this is all", second)
        return None

    def _list_cursors(self) -> list[Word]:
        """List the fields and headers that may lead to the next page; URLs come last."""
        page, named = self._page, self._paging.cursor_path
        words = [word for word in vocabulary.find_leads(page) if word.path in (named or word.path)]
        words = [word for word in words if find(page.fields, word.path) or word.path in page.headers]
        return sorted(words, key=lambda word: vocabulary.is_url(word.value))

    def _follow_urls(self) -> Decision | None:
        for path, value in self._list_cursors():
            keys: Keys = {"paginator": "next_url", "cursor_path": path}
            second = self._fetch_next(keys) if vocabulary.is_url(value) and path != "Link" else None
            if second is not None and not self._evidence.repeats(second):
                return self._conclude(keys, f"'{path}' names the next page, which has other keys", second)
        return None

    def _try_cursors(self) -> Decision | None:
        guesses = [(rank, word, keys) for word in self._list_cursors() for rank, keys in self._guess_params(word.path)]
        for _, (path, value), where in sorted(guesses, key=lambda guess: guess[0]):
            keys = {"paginator": "cursor", "cursor_path": path, **where}
            self._tried.append(keys["cursor_param"])
            second = self._fetch_next(keys)
            if second is None or self._evidence.repeats(second):
                continue
            if second.records or self._is_heeded(keys, second):
                sent = f"'{path}' is {str(value)[:LONGEST_CURSOR]!r}; sent as '{keys['cursor_param']}'"
                return self._conclude(keys, f"{sent} it gave {len(second.records)} other keys", second)
        return None

    def _guess_params(self, path: str) -> Iterator[tuple[int, Keys]]:
        """Yield the keys that may send the cursor at `path`, with their rank. A header may take it under its name."""
        if named := self._paging.cursor_param:
            yield 0, {"cursor_param": named, **self._where_keys}
            return
        for name in vocabulary.list_variables(self._request.body):
            yield 0, {"cursor_param": f"variables.{name}", **self._where_keys}
        for rank, param in enumerate(vocabulary.guess_params(path)):
            yield rank, {"cursor_param": param, **self._where_keys}
        if path in self._page.headers:
            name = re.sub(r"^next-", "", path, flags=re.IGNORECASE)  # Next-Range goes into Range
            yield HEADER_RANK, {"cursor_param": name, "cursor_in": "header"}

    def _is_heeded(self, keys: Keys, second: Page) -> bool:
        """Return whether an empty page two is the end.

        It is not if the source declares more, or if any text as cursor gives an empty page.
        """
        if self._evidence.declares_more() or announces_more(second):
            return False
        where = keys.get("cursor_in", self._where)
        control = self._fetch(self._request.put(where, keys["cursor_param"], "no-such-cursor"))
        return control is None or bool(control.records or control.end)

    def _try_positions(self) -> Decision | None:
        """Try page, offset and last_id: first with the names that the source uses, then with the usual names."""
        for place in vocabulary.find_places(self._request, self._page):
            if decision := self._try_position(place.paginator, place.param, place.start):
                return decision
        if self._evidence.more and (decision := self._try_last_ids(*LAST_ID_PARAMS)):
            return decision
        for param in self._list_usual_params():
            paginator = "page" if vocabulary.PAGE.fullmatch(simplify(param)) else "offset"
            if decision := self._try_position(paginator, param, None):
                return decision
        return None if self._evidence.more else self._try_last_ids("since", "after", "before")

    def _list_usual_params(self) -> Iterator[str]:
        for word in vocabulary.list_params(self._request):
            yield from SIBLINGS.get(word.path, ())
        yield from (self._paging.page_param, self._paging.offset_param, *POSITION_PARAMS)

    def _try_position(self, paginator: str, param: str, start: int | None) -> Decision | None:
        if param in self._tried or not self._evidence.received:
            return None
        self._tried.append(param)
        keys = {"paginator": paginator, f"{paginator}_param": param, **self._where_keys}
        return self._try_page(keys, param, start) if paginator == "page" else self._try_offset(keys, param, start)

    def _try_page(self, keys: Keys, param: str, start: int | None) -> Decision | None:
        """Try page numbers. If the request did not send `param`, find the number that returns the first page again.

        `start`, the number in the answer, is a hint only: the answer may count from 1 and the parameter from 0.
        """
        evidence = self._evidence
        was_sent = param in (word.path for word in vocabulary.list_params(self._request))
        second = self._fetch_at(keys, 2 if start is None else start + 1)
        if second is None or evidence.read_keys(second) == evidence.keys:
            return self._try_page(keys, param, None) if start == 0 and not was_sent else None
        if start is None or not was_sent:
            # Rules out a filter that matches no record, and a list whose order changes with each request.
            numbers = (0, 1) if start == 0 else (1, 0)
            start = next((number for number in numbers if evidence.begins(self._fetch_at(keys, number))), None)
        second = None if start is None else self._fetch_at(keys, start + 1)
        if start is None or second is None or not (second.records or evidence.begins(self._fetch_at(keys, start))):
            return None
        number = start + 1
        if second.records and evidence.repeats(second):
            if evidence.announced or not evidence.contains(second):
                return None
            # The first answer held all records, and `param` splits them into pages: look behind the last one.
            number = start + -(-evidence.received // len(second.records))
            second = self._fetch_at(keys, number)
        return self._judge_second({**keys, "page_start": start}, f"asked with {param}={number} it gave", second)

    def _try_offset(self, keys: Keys, param: str, start: int | None) -> Decision | None:
        """Try an offset in records: with an offset one lower, the last record must come again."""
        evidence = self._evidence
        number = evidence.received + (start or 0)
        second = self._fetch_at(keys, number)
        found = [] if second is None else evidence.read_keys(second)
        if second is None or found == evidence.keys:
            return None
        if start is None and found[:1] == evidence.keys[-1:] and not set(found[1:]) & set(evidence.keys):
            start, number = 1, number + 1
            second = self._fetch_at(keys, number)
        elif evidence.repeats(second):
            return None
        elif not (found and evidence.declares_more()):
            before = self._fetch_at(keys, number - 1)
            if before is None or evidence.keys[-1] not in evidence.read_keys(before):
                return None
        size = {} if self._paging.page_size else {"page_size": evidence.received}
        return self._judge_second(
            {**keys, "page_start": start or 0, **size}, f"asked with {param}={number} it gave", second
        )

    def _judge_second(self, keys: Keys, how: str, second: Page | None) -> Decision | None:
        """Decide by page two: new records prove `keys`, an empty page proves that page one was all."""
        evidence = self._evidence
        if second is None or evidence.repeats(second) or (not second.records and evidence.announced):
            return None
        if not second.records:
            return self._conclude({"paginator": "single"}, f"{how} nothing: {evidence.received} records were all")
        decision = self._conclude(keys, f"{how} {len(second.records)} other keys", second)
        if not (evidence.declares_more() or self._paging.more_path or "more_path" in decision.keys):
            self._check_end(keys)
        return decision

    def _check_end(self, keys: Keys) -> None:
        """Raise EndlessError if the source has records at a position where none can be."""
        param, far = keys[f"{keys['paginator']}_param"], FAR[keys["paginator"]]
        beyond = self._fetch_at(keys, far)
        if beyond is not None and beyond.records:
            raise EndlessError(
                f"pages follow by {param}, and {param}={far} has records too, so they never end: set paginator = "
                "single if one page holds all records"
            )

    def _try_last_ids(self, *params: str) -> Decision | None:
        key = self._evidence.key
        for param in [self._paging.cursor_param] if self._paging.cursor_param else params:
            if key is None or param in self._tried:
                continue
            self._tried.append(param)
            keys = {"paginator": "last_id", "cursor_path": key, "cursor_param": param, **self._where_keys}
            second = self._fetch_next(keys)
            if second is None or not second.records or self._evidence.repeats(second):
                continue
            if self._evidence.more or self._continues_after(param, key):
                sent = f"the last record's '{key}' sent as '{param}'"
                return self._conclude(keys, f"{sent} gave {len(second.records)} other keys", second)
        return None

    def _continues_after(self, param: str, key: str) -> bool:
        """Return whether the key of the record before the last one returns the last record."""
        before = find(vocabulary.load_records(self._page)[-2:][0], key)
        try:
            page = self._fetch(self._request.put(self._where, param, before))
        except ValueError:  # the key cannot be sent
            return False
        return page is not None and self._evidence.read_keys(page)[:1] == self._evidence.keys[-1:]

    def _fetch_next(self, keys: Keys) -> Page | None:
        """Fetch the page that the paginator of these keys asks for next."""
        try:
            following = replace(self._paging, **keys, overlap=False).next(self._request, self._page, None)
        except ValueError:
            return None
        return None if following is None else self._fetch(following)

    def _fetch_at(self, keys: Keys, position: int) -> Page | None:
        """Fetch the page with this number, or from this offset."""
        return self._fetch(replace(self._paging, **{**keys, "page_start": position}).first(self._request))

    def _fetch(self, request: Request) -> Page | None:
        if request.identity not in self._answers:
            if len(self._answers) == MAX_PROBES:
                raise self._undecided()
            self._answers[request.identity] = self._probe(request)
        return self._answers[request.identity]

    def _undecided(self) -> UndecidedError:
        tried = f"none of {', '.join(dict.fromkeys(self._tried))} leads to more" if self._tried else "nothing leads on"
        reason = self._evidence.announced or self._evidence.suspected
        return UndecidedError(f"{reason}, and {tried}: set paginator and its keys (single, if this is all)")

    def _conclude(self, keys: Keys, why: str, second: Page | None = None) -> Decision:
        """Build the decision, with the total and the flag for the end that page two confirms."""
        reason = self._evidence.announced or self._evidence.suspected
        words = [why] if second is None else [reason, why]
        total, shown = self._evidence.find_total_key(second)
        keys, words = {**keys, **total}, [*words, shown]
        flags = [] if second is None or self._paging.more_path else vocabulary.find_flags(self._page)
        again = [word.path for word in vocabulary.find_flags(second or self._page)]
        if len(flags) == 1 and flags[0].value and flags[0].path in again:
            keys = {**keys, "more_path": flags[0].path}
            words.append(f"'{flags[0].path}' says where it ends")
        return Decision(keys, f"{keys['paginator']}: {'; '.join(filter(None, words))}")
