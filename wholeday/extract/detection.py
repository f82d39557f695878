"""What the first page of a source shows, and a few questions to it prove, about how its pages follow each other.

Owns how `paginator = auto` is decided, on plain values: pages are asked for through a callback. What the source says
in plain words is tried first; a guess counts once page two has come by it. Refuses to take silence for the end where
a page may be a full one, or has a place among others, and a filter, a shuffled list or one without end for pages.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from wholeday.extract.http.page import Page
from wholeday.extract.http.request import Request
from wholeday.extract.paginators import ENDS, TOTALS, Paging, find_next_link, to_number
from wholeday.extract.vocabulary import (
    COUNT,
    PAGE,
    TOTAL,
    Word,
    find_ends,
    find_flags,
    find_keys,
    find_nexts,
    find_places,
    find_sizes,
    find_totals,
    guess_params,
    is_round,
    is_url,
    list_params,
    load_records,
)
from wholeday.log import count
from wholeday.schema.paths import find, has, simplify

MOST_PROBES = 12  # for one decision
FAR = {"page": 10**6, "offset": 10**9}  # where no source has records, but one that never ends
SHOWN = 40  # characters of a cursor in a line

LAST_ID_PARAMS = ("starting_after", "since", "after", "last_id", "since_id", "after_id")
POSITION_PARAMS = ("page", "_page", "offset", "skip", "first", "start", "startIndex")
SIBLINGS = {  # a parameter for the size, and those for the place that go with it
    "_limit": ("_page", "_start"),
    "limit": ("offset", "skip", "page"),
    "$top": ("$skip",),
    "max": ("first",),
    "count": ("startIndex",),
    "maxResults": ("startAt",),
}

Keys = dict[str, Any]
Probe = Callable[[Request], Page | None]


class UndecidedError(ValueError):
    """There may be more than came, and nothing proves how to get it."""


class EndlessError(UndecidedError):
    """There are pages as far as one asks."""


class Decision(NamedTuple):
    """The keys of Paging that a source's pages prove, and how, in a line."""

    keys: Keys
    why: str


def decide(paging: Paging, request: Request, page: Page, probe: Probe) -> Decision:
    """How to go on after `page`, which answered `request`. `probe` gives the page for a request, None if refused.

    Raises UndecidedError, in one line that names what was seen and the key to set.
    """
    return _Inquiry(paging, request, page, probe).decide()


def says_more(page: Page) -> bool | None:
    """Whether a page says in so many words that another one follows; None where it says nothing of it."""
    flags = [word.value for word in find_flags(page)]
    if False in flags:  # outranks a cursor: some send one with the last page too
        return False
    if True in flags or any(word.value not in ENDS for word in find_nexts(page)):
        return True
    return False if find_ends(page) else None


def find_more(page: Page, pointer: str = "") -> str:
    """By what a page says that another one follows; empty where it does not.

    Where `pointer` is to lead there and the page has no such field or header, another that is called next counts too.
    """
    words = [word.path for word in find_flags(page) if word.value and not word.path.startswith("!")]
    if pointer and pointer not in page.headers and not has(page.fields, pointer) and says_more(page):
        words += [word.path for word in find_nexts(page) if word.value not in ENDS and "next" in simplify(word.path)]
    return next(iter(words), "")


class _Inquiry:
    """The questions asked about one first page."""

    def __init__(self, paging: Paging, request: Request, page: Page, probe: Probe) -> None:
        self._paging, self._request, self._page, self._probe = paging, request, page, probe
        # A body is where it is looked for, but not in a list.
        in_body = request.method == "POST" and paging.cursor_in == "query" and isinstance(request.body, Mapping)
        self._where = "body" if in_body else paging.cursor_in
        self._place: Keys = {"cursor_in": "body"} if in_body else {}
        self._got = len(page.records)
        self._came = count(self._got, "record")
        self._key = next(iter(find_keys(load_records(page))), None)
        self._keys = self._read_keys(page)
        self._totals = self._find_totals()
        clear = (paging.total_path, paging.total_header)
        self._all_came = any(
            word.value == self._got and (word.path in clear or TOTAL.fullmatch(word.name)) for word in self._totals
        )
        self._more = self._find_more()
        self._sign = self._find_sign()
        """What says that there is more; empty where nothing does."""
        self._hint = self._find_hint()
        """What says that this page has a place among others: worth a question, even if it has room left."""
        self._doubt = self._find_doubt()
        """What says that there may be more; empty where nothing does."""
        self._answers: dict[bytes, Page | None] = {}
        self._tried: list[str] = []

    def decide(self) -> Decision:
        decision = None
        if self._more is not False:
            decision = self._follow_link() or self._follow_urls() or self._try_cursors()
        elif not self._paging.more_path:
            decision = self._contradict()
        if decision is None and (self._sign or self._doubt or self._hint):
            decision = self._try_places()
            if decision is None and (self._sign or self._doubt):
                raise self._give_up()
        nothing = "the source says that this is all" if self._more is False else "nothing says that there are more"
        return decision or self._decide({"paginator": "single"}, f"{self._came} came, and {nothing}")

    def _find_more(self) -> bool | None:
        try:
            more = self._paging.says_more(self._page)
        except ValueError as error:
            raise UndecidedError(str(error)) from None
        return says_more(self._page) if more is None else more

    def _find_totals(self) -> list[Word]:
        """How many records or pages there are: what the keys for it name, else whatever may say so."""
        named = [(self._paging.total_path, self._page.fields), (self._paging.total_header, self._page.headers)]
        if any(path for path, _ in named):
            words = [Word(path, to_number(find(there, path.removeprefix("pages:")))) for path, there in named if path]
            return [word for word in words if word.value is not None]
        return find_totals(self._page)

    def _find_sign(self) -> str:
        for word in self._totals:
            pages = word.path.startswith("pages:")
            if word.value > (1 if pages else self._got):
                came = "one page" if pages else self._came
                return f"'{word.path.removeprefix('pages:')}' is {word.value} and {came} came"
        if self._more:
            nexts = [word for word in find_nexts(self._page) if word.value not in ENDS]
            words = [*find_flags(self._page), *nexts, Word(self._paging.more_path, True)]
            return f"'{words[0].path}' says that there is more"
        return ""

    def _find_hint(self) -> str:
        # A page without records is the last, and so is the only one that is declared.
        one = any(word.path.startswith("pages:") and word.value == 1 for word in self._totals)
        if self._more is not None or self._all_came or one or not self._got:
            return ""
        return next((f"'{place.path}' is {place.start}" for place in find_places(self._request, self._page)), "")

    def _find_doubt(self) -> str:
        if self._more is not None or self._all_came:
            return ""
        sizes = [Word("page_size", self._paging.page_size), *find_sizes(self._request, self._page)]
        for word in sizes:
            if 0 < word.value <= self._got:
                return f"'{word.path}' is {word.value} and {self._came} came, a full page"
        if self._hint and not any(word.value > self._got for word in sizes):
            return f"{self._hint} and {self._came} came, which may be the first page of more"
        return f"{self._came} came, a round number that may be a full page" if is_round(self._got) else ""

    def _follow_link(self) -> Decision | None:
        link = find_next_link(self._page.headers.get("Link", ""))
        return None if link is None else self._decide({"paginator": "link_header"}, "the Link header names the next")

    def _contradict(self) -> Decision | None:
        """Where a flag says that this is all, and a link leads to others all the same: it is about something else."""
        urls = [word.path for word in self._find_cursors() if is_url(word.value)]
        links: list[Keys] = [{"paginator": "link_header"}]
        links += [{"paginator": "next_url", "cursor_path": path} for path in urls]
        for keys in links:
            second = self._ask_next(keys)
            if second is not None and second.records and not self._repeats(second):
                return self._decide(keys, "a link leads to other keys, though a flag says that this is all", second)
        return None

    def _find_cursors(self) -> list[Word]:
        """What may lead to the next page and can be named; what looks like an address last."""
        words = [word for word in find_nexts(self._page) if word.value not in ENDS]
        words = [word for word in words if find(self._page.fields, word.path) or word.path in self._page.headers]
        named = self._paging.cursor_path
        return sorted(
            (word for word in words if word.path in (named or word.path)), key=lambda word: is_url(word.value)
        )

    def _follow_urls(self) -> Decision | None:
        for path, value in self._find_cursors():
            keys: Keys = {"paginator": "next_url", "cursor_path": path}
            second = self._ask_next(keys) if is_url(value) and path != "Link" else None
            if second is not None and not self._repeats(second):
                return self._decide(keys, f"'{path}' names the next page, which has other keys", second)
        return None

    def _try_cursors(self) -> Decision | None:
        named = self._paging.cursor_param
        guesses = [
            (rank, word, param)
            for word in self._find_cursors()
            for rank, param in enumerate([named] if named else guess_params(word.path))
        ]
        for _, (path, value), param in sorted(guesses, key=lambda guess: guess[0]):
            keys = {"paginator": "cursor", "cursor_path": path, "cursor_param": param, **self._place}
            self._tried.append(param)
            second = self._ask_next(keys)
            if second is not None and not self._repeats(second) and (second.records or self._heeds(keys, second)):
                shown = f"'{path}' is {str(value)[:SHOWN]!r}; sent as '{param}'"
                return self._decide(keys, f"{shown} it gave {len(second.records)} other keys", second)
        return None

    def _heeds(self, keys: Keys, second: Page) -> bool:
        """Whether an empty page two is the end: not where there should be more, or any text at all leads to nobody."""
        if self._has_total() or says_more(second):
            return False
        control = self._ask(self._request.put(self._where, keys["cursor_param"], "no-such-cursor"))
        return control is None or bool(control.records or control.end)

    def _try_places(self) -> Decision | None:
        """Page, offset or last_id, by the names that the source itself uses, then by the usual ones."""
        for place in find_places(self._request, self._page):
            if decision := self._try_place(place.paginator, place.param, place.start):
                return decision
        if self._more and (decision := self._try_last_ids(*LAST_ID_PARAMS)):
            return decision
        for param in self._list_usual():
            paginator = "page" if PAGE.fullmatch(simplify(param)) else "offset"
            if decision := self._try_place(paginator, param, None):
                return decision
        return None if self._more else self._try_last_ids("since")

    def _list_usual(self) -> Iterator[str]:
        for word in list_params(self._request):
            yield from SIBLINGS.get(word.path, ())
        yield from (self._paging.page_param, self._paging.offset_param, *POSITION_PARAMS)

    def _try_place(self, paginator: str, param: str, start: int | None) -> Decision | None:
        if param in self._tried or not self._got:
            return None
        self._tried.append(param)
        keys = {"paginator": paginator, f"{paginator}_param": param, **self._place}
        return self._try_page(keys, param, start) if paginator == "page" else self._try_offset(keys, param, start)

    def _try_page(self, keys: Keys, param: str, start: int | None) -> Decision | None:
        """The page after the first one; where the first was not asked for by number, that number which gives it again.

        What the answer says of its place is tried first, and no more: it may count from 1, and the parameter from 0.
        """
        sent = param in (word.path for word in list_params(self._request))
        second = self._ask_place(keys, 2 if start is None else start + 1)
        if second is None or self._read_keys(second) == self._keys:
            return self._try_page(keys, param, None) if start == 0 and not sent else None
        if start is None or not sent:
            # So a filter that leaves nobody, and a list that is another each time, are no pages.
            numbers = (0, 1) if start == 0 else (1, 0)
            start = next((number for number in numbers if self._begins(self._ask_place(keys, number))), None)
        second = None if start is None else self._ask_place(keys, start + 1)
        if start is None or second is None or not (second.records or self._begins(self._ask_place(keys, start))):
            return None
        number = start + 1
        if second.records and self._repeats(second):
            if self._sign or not self._contains(second):
                return None
            # Everybody came at first, and now a page of them: is there anything after the last?
            number = start + -(-self._got // len(second.records))
            second = self._ask_place(keys, number)
        return self._conclude({**keys, "page_start": start}, f"asked with {param}={number} it gave", second)

    def _try_offset(self, keys: Keys, param: str, start: int | None) -> Decision | None:
        """An offset counts records: asked for one less than have come, the last of them comes again."""
        number = self._got + (start or 0)
        second = self._ask_place(keys, number)
        found = [] if second is None else self._read_keys(second)
        if second is None or found == self._keys:
            return None
        if start is None and found[:1] == self._keys[-1:] and not set(found[1:]) & set(self._keys):
            start, number = 1, number + 1
            second = self._ask_place(keys, number)
        elif self._repeats(second):
            return None
        elif not (found and self._has_total()):
            before = self._ask_place(keys, number - 1)
            if before is None or self._keys[-1] not in self._read_keys(before):
                return None
        size = {} if self._paging.page_size else {"page_size": self._got}
        return self._conclude(
            {**keys, "page_start": start or 0, **size}, f"asked with {param}={number} it gave", second
        )

    def _conclude(self, keys: Keys, how: str, second: Page | None) -> Decision | None:
        """What a page two proves: how to go on, or by being empty that this was all. Nothing, if it cannot be both."""
        if second is None or self._repeats(second) or (not second.records and self._sign):
            return None
        if not second.records:
            return self._decide({"paginator": "single"}, f"{how} nothing: {self._got} records were all")
        decision = self._decide(keys, f"{how} {len(second.records)} other keys", second)
        if not (self._has_total() or self._paging.more_path or "more_path" in decision.keys):
            self._check_end(keys)
        return decision

    def _check_end(self, keys: Keys) -> None:
        """Raise UndecidedError where there are records however far one asks."""
        param, far = keys[f"{keys['paginator']}_param"], FAR[keys["paginator"]]
        beyond = self._ask_place(keys, far)
        if beyond is not None and beyond.records:
            raise EndlessError(
                f"pages follow by {param}, and {param}={far} has records too, so they never end: set paginator = "
                "single, if one page is all there is to be read"
            )

    def _try_last_ids(self, *params: str) -> Decision | None:
        for param in [self._paging.cursor_param] if self._paging.cursor_param else params:
            if self._key is None or param in self._tried:
                continue
            self._tried.append(param)
            keys = {"paginator": "last_id", "cursor_path": self._key, "cursor_param": param, **self._place}
            second = self._ask_next(keys)
            if second is None or not second.records or self._repeats(second):
                continue
            if self._more or self._continues(param):
                sent = f"the last record's '{self._key}' sent as '{param}'"
                return self._decide(keys, f"{sent} gave {len(second.records)} other keys", second)
        return None

    def _continues(self, param: str) -> bool:
        """Whether the last record comes again after the one before it."""
        before = find(load_records(self._page)[-2:][0], self._key or "")
        try:
            page = self._ask(self._request.put(self._where, param, before))
        except ValueError:  # it cannot be sent
            return False
        return page is not None and self._read_keys(page)[:1] == self._keys[-1:]

    def _ask_next(self, keys: Keys) -> Page | None:
        """The page that the paginator of these keys asks for next."""
        paginator = replace(self._paging, **keys).make()
        try:
            following = paginator.next(self._request, self._page, None)
        except ValueError:
            return None
        return None if following is None else self._ask(following)

    def _ask_place(self, keys: Keys, place: int) -> Page | None:
        """The page of that number, or from that record on."""
        return self._ask(replace(self._paging, **{**keys, "page_start": place}).make().first(self._request))

    def _ask(self, request: Request) -> Page | None:
        if request.identity not in self._answers:
            if len(self._answers) == MOST_PROBES:
                raise self._give_up()
            self._answers[request.identity] = self._probe(request)
        return self._answers[request.identity]

    def _give_up(self) -> UndecidedError:
        tried = (
            f"none of {', '.join(dict.fromkeys(self._tried))} leads to others" if self._tried else "nothing leads on"
        )
        return UndecidedError(
            f"{self._sign or self._doubt}, and {tried}: set paginator and its keys (single, if this is all)"
        )

    def _read_keys(self, page: Page) -> list[str]:
        """What tells a page's records apart: their key, else all of each."""
        if self._key is None:
            return [repr(bytes(record)) for record in page.records]
        return [json.dumps(find(record, self._key)) for record in load_records(page)]

    def _repeats(self, page: Page) -> bool:
        """Whether some record of page one comes again."""
        return not set(self._read_keys(page)).isdisjoint(self._keys)

    def _contains(self, page: Page) -> bool:
        """Whether page one has all of a page, and more."""
        return set(self._read_keys(page)) < set(self._keys)

    def _begins(self, page: Page | None) -> bool:
        """Whether a page is page one, or its beginning."""
        keys = [] if page is None else self._read_keys(page)
        return bool(keys) and keys == self._keys[: len(keys)]

    def _has_total(self) -> bool:
        """Whether the source declares more than came, so that it would be found out if not all did."""
        return any(word.value > (1 if word.path.startswith("pages:") else self._got) for word in self._totals)

    def _decide(self, keys: Keys, why: str, second: Page | None = None) -> Decision:
        """The decision, with the source's words on its end, as far as page two bears them out."""
        words = [self._sign or self._doubt, why] if second is not None else [why]
        if (total := self._find_total(second)) is not None:
            in_header = total.path.removeprefix("pages:") in self._page.headers
            keys = {**keys, "total_header" if in_header else "total_path": total.path}
            words.append(f"total {total.value} at '{total.path}'")
        flags = [] if second is None or self._paging.more_path else find_flags(self._page)
        again = [word.path for word in find_flags(second or self._page)]
        if len(flags) == 1 and flags[0].value and flags[0].path in again:
            keys = {**keys, "more_path": flags[0].path}
            words.append(f"'{flags[0].path}' says where it ends")
        return Decision(keys, f"{keys['paginator']}: {'; '.join(filter(None, words))}")

    def _find_total(self, second: Page | None) -> Word | None:
        """A total that is as large as what came or larger, and the same on page two."""
        known = any(to_number(self._page.headers.get(name)) is not None for name in TOTALS)
        if known or self._paging.total_path or self._paging.total_header:
            return None
        came = self._got + (0 if second is None else len(second.records))
        for word in find_totals(self._page):
            pages = word.path.startswith("pages:")
            # What is called a count may be that of the records on a page.
            own = pages and "count" in simplify(word.path) and word.value == self._got
            vague = own or COUNT.fullmatch(word.name)
            least = 2 if pages else came
            later = [] if second is None else [each.value for each in find_totals(second) if each.path == word.path]
            # Another number on page two is how many are left, or a list that moves, which is held to its total.
            moved = not vague and later and (later[0] < word.value if pages else later[0] != word.value - self._got)
            again = not vague if second is None else word.value in later or moved
            if word.path != "Content-Range" and word.value >= least and again:
                return word
        return None
