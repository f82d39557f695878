"""Every record of an API for one day, page by page, or an error.

Owns the order of pages: what is asked for first and next, how far ahead, and when all has come. Refuses to take
a page twice, to go on through empty pages for ever, to guess that there is no more, and to end with another number
of records than the source declares: the day fails with one line instead.
"""

import datetime as dt
import json
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import msgspec

from wholeday.config.placeholders import EPOCH, find_placeholders, render, render_all
from wholeday.config.settings import Source
from wholeday.errors import OutageError, SourceError
from wholeday.extract import detection
from wholeday.extract.census import Census
from wholeday.extract.http.auth import strip_userinfo
from wholeday.extract.http.client import Client
from wholeday.extract.http.page import Page
from wholeday.extract.http.pages import digest, suggest_end
from wholeday.extract.http.request import Request
from wholeday.extract.paginators import Paging
from wholeday.extract.vocabulary import find_flags

MAX_EMPTY = 100  # empty pages in a row
WIDTH = 4  # pages asked for at a time, where requests_per_second says what the source bears


STATUS_ENDS = ("204", "404", "400")  # the ends that are no page


class WrongSourceError(SourceError):
    """What the source sent is proven wrong: no page of this reading can be used again."""


class MovedError(SourceError):
    """The source does not go on from where a reading was broken off: it is to be read from the beginning."""


class Position(msgspec.Struct, frozen=True):
    """Where a reading stands: at a page, with what was known before it came. Holds no secret, or there is none."""

    request: dict[str, Any]
    headers: dict[str, str]
    """Those that the first request did not have."""
    digest: str
    """Of the page's records."""
    pages: int
    records: int
    seen: int
    """How many digests had been seen before its records."""
    totals: tuple[int | None, int | None]
    paging: dict[str, Any]
    decision: str


class Reading:
    """One reading of a source for one day; iterating it fetches the pages in turn, each a list of records.

    A record is the source's own bytes, on one line. `watermark` (UTC) is None where nothing was loaded before.
    Raises ConfigError when made, and SourceError when iterated: an error on any page means that none is to be used.
    The next page is fetched while the one before is worked on.
    """

    url: str
    """The first page's, without secrets."""
    paginator: str
    """How pages follow each other; for `auto` what was decided and why, once the first page has been read."""
    pages: int
    records: int
    total: int | None
    """How many records there are, as the source declares."""
    census: Census
    position: Position | None
    """That of the page that came last; None where it cannot be kept, as a link holds a secret."""
    skipped: int
    """How many records of that page an earlier reading has taken."""
    gap: str
    """The first page without records where the source declares more; an interrupted reading resumes before it."""

    def __init__(
        self, config: Source, date: dt.date, watermark: dt.datetime | None = None, census: Census | None = None
    ) -> None:
        find_placeholders(config)
        window = config.window(date)
        values = {
            "date": date,
            "day_start": config.localize(window.start - config.lookback),
            "day_stop": config.localize(window.stop),
            "watermark": config.localize(EPOCH if watermark is None else watermark - config.lookback),
        }
        self._config, self._ends = config, config.ends
        self._client = Client(config, date)
        self._paging = Paging.of(config)
        self._paginator = self._paging.make()
        request = make_request(config, values)
        self._first = self._paginator.first(self._paging.ask_for_size(request))
        self.url = self._client.mask(self._first.target)
        self.paginator = config.paginator
        self.pages = self.records = self.skipped = self._empty = self._largest = self._known = self._counted_at = 0
        self.total = None
        self._total_pages: int | None = None
        self.census = census or Census()
        self.position = None
        self.gap, self._gap_at = "", (0, 0)
        self._before = b""
        """The list of the page that came last."""
        self._seen: dict[str, str] = {}
        self._uncounted: tuple[Request, Page] | None = None
        self._span: tuple[int, int] | None = None
        self._resumed: Position | None = None

    def resume(self, position: Position, taken: int, seen: Sequence[str]) -> None:
        """Go on at `position`, after `taken` records of its page; `seen` are the digests that were seen before it.

        The page is asked for again, and must have the records that it had: else iterating raises MovedError.
        """
        self.pages, self.records = position.pages, position.records
        self.total, self._total_pages = position.totals
        self._paging = Paging(**position.paging)
        self._paginator, self.paginator = self._paging.make(), position.decision
        self._seen = dict.fromkeys(seen, "a page before")
        self._resumed, self.skipped = position, taken

    def seen(self, start: int, stop: int) -> list[str]:
        """Digests of what was seen, in its order."""
        return list(islice(self._seen, start, stop))

    def __iter__(self) -> Generator[Sequence[msgspec.Raw]]:
        """The records of page after page; the first `skipped` of them were taken before."""
        # The pool is left after the client, which tells its threads that nobody waits for them, and before the mask.
        with self._client.mask.cover(), ThreadPoolExecutor(WIDTH, "fetch") as pool, self._client.open():
            queue: Queue = deque()
            request, page = self._begin()
            try:
                while True:
                    following = self._take(request, page)
                    self._look_ahead(pool, queue, following)
                    self._count_in()
                    yield page.records
                    if following is None:
                        break
                    last = page
                    request, future = queue.popleft()
                    page, self.skipped = self._settle(request, future.result()), 0
                    if self._is_end(request, page, last):
                        break
            finally:
                for _, future in queue:
                    future.cancel()
        self._check_total()

    def _begin(self) -> tuple[Request, Page]:
        """The first request and its answer; of a reading that goes on, those of the page at which it stood."""
        position = self._resumed
        if position is None:
            self._check_new(digest(self._first.identity), 1, self._first, "was asked for before, as")
            return self._first, self._client.fetch(self._first, is_first=True)
        request = Request(**position.request, headers={**self._first.headers, **position.headers})
        try:
            page = self._client.fetch(request)
        except OutageError as error:
            if error.is_refusal:
                raise MovedError(str(error)) from None
            raise
        if digest(page.content) != position.digest:
            raise self._client.fail(f"page {position.pages + 1} ({request}) has other records than before", MovedError)
        return request, page

    def _settle(self, request: Request, page: Page) -> Page:
        """Ask again for a page behind the first that cannot be right.

        Raises OutageError if it stays without records; of a resumed reading MovedError, as its list may have shrunk.
        """

        def doubt(page: Page) -> str:
            return self._find_doubt(request, page)

        if self._is_repeated_end(page):
            page = self._client.fetch(request)  # an end by `end_when` is asked for twice
        if self.gap or not doubt(page):
            return page
        page = self._client.ask_again(request, page, doubt)
        what, own = doubt(page), self._paging.find_total(page)
        fell = any(
            0 < (now or 0) < (before or 0) for now, before in zip(own, (self.total, self._total_pages), strict=True)
        )
        if what and not fell and (not page.records or self._is_repeated_end(page)):
            self.gap, self._gap_at = f"page {self.pages + 1} ({request}): {what}", (self.pages + 1, self.records)
            if page.records or page.end in STATUS_ENDS or 0 in own or not self._paginator.positional:
                raise self._fail_at_gap(f"{self.gap}: the source is in trouble: run it again later")
        return page

    def _fail_at_gap(self, what: str) -> SourceError:
        """The error of a reading that lacks what the source declares: the finished parts count once more, not twice."""
        return self._client.fail(what, MovedError if self._resumed else OutageError)

    def _find_doubt(self, request: Request, page: Page) -> str:
        """Why a page behind the first cannot be right; empty where it may be."""
        if self._is_repeated_end(page) or page.end in STATUS_ENDS:
            return self._find_missing()
        if page.records and page.content == self._before:
            return "it has the same records as the page before"
        try:
            more = self._read_more(page)
            if more is None and self._paginator.positional and not page.records:
                more = detection.says_more(page) or None
            following = self._paginator.next(request, page, more)
        except ValueError as error:
            return str(error)
        if following is None and (path := self._find_contradiction(page)):
            return f"'{path}' says that there is more, and nothing leads to it"
        return self._find_missing() if following is None and not page.records else ""

    def _find_missing(self) -> str:
        """What the source declares and has not sent yet, as a reason to doubt that there is nothing more."""
        if self.total is not None and self.records >= self.total:
            return ""
        if self._total_pages is not None and self.pages < self._total_pages:
            return f"it has nothing new, and the source declares {self._total_pages} pages"
        if self.total is not None:
            return f"it has nothing new, and the source declares {self.total} records, of which {self.records} came"
        return ""

    def _is_repeated_end(self, page: Page) -> bool:
        """Whether a page has the records of an earlier one, and `end_when` takes such a page for the end."""
        return "repeated_page" in self._ends and bool(page.records) and digest(page.content) in self._seen

    def _is_end(self, request: Request, page: Page, last: Page) -> bool:
        """Whether an answer behind the first page is none, and the end by `end_when`."""
        end = "repeated_page" if self._is_repeated_end(page) else page.end
        if end not in (*STATUS_ENDS, "repeated_page"):
            return False
        flags = [] if self._paging.more_path else [word.path for word in find_flags(last) if word.value]
        if path := self._paging.more_path if self._read_more(last) else next(iter(flags), ""):
            raise self._client.fail(
                f"page {self.pages + 1} ({request}): the end by end_when = {end}, and '{path}' of the page before says "
                "that there is more: run it again later, or check end_when",
                OutageError,
            )
        return True

    def _read_more(self, page: Page) -> bool | None:
        """Whether the source says by `more_path` that there is more; None also for a page without a list."""
        try:
            return self._paging.says_more(page)
        except ValueError:
            if page.end:
                return None
            raise

    def _look_ahead(self, pool: ThreadPoolExecutor, queue: "Queue", following: Request | None) -> None:
        """Have `following` fetched, and those after it that are sure to come, as far as the source bears it."""
        if queue and queue[0][0] == following:
            following = self._paginator.foresee(queue[-1][0], self._largest)
        else:
            for _, future in queue:
                future.cancel()
            queue.clear()
        while following is not None and len(queue) < max(1, self._count_ahead()):
            queue.append((following, pool.submit(self._client.fetch, following)))
            following = self._paginator.foresee(queue[-1][0], self._largest)

    def _count_ahead(self) -> int:
        """How many of the pages that are sure to follow may be asked for at once."""
        if self._config.requests_per_second <= 0:
            return 1
        left = (self._total_pages or 0) - self.pages
        if self.total is not None and self._largest:
            left = max(left, -(-(self.total - self.records) // self._largest))
        return min(WIDTH, left)

    def _take(self, request: Request, page: Page) -> Request | None:
        """Check a page; the request after it. What takes long is left to be done while that is answered."""
        self.position = self._find_position(request)
        self._uncounted, self._before = (request, page), page.content
        self.pages += 1
        self.records += len(page.records)
        self._largest = max(self._largest, len(page.records))
        self._empty = 0 if page.records else self._empty + 1
        if self._empty > MAX_EMPTY:
            raise self._client.fail(f"{self._empty} pages in a row are empty, and each says that there is more")
        if self._config.paginator == "auto" and self.pages == 1 and page.end not in STATUS_ENDS:
            request = self._decide(request, page)
        self._note_total(page)
        self._check_ceiling()
        try:
            following = self._paginator.next(request, page, self._says_more(page))
        except ValueError as error:
            raise self._client.fail(f"page {self.pages} ({request}): {error}") from None
        if following is not None and following.identity == request.identity and "same_cursor" in self._ends:
            return None
        if following is not None:
            same = f"; {suggest_end('same_cursor')}" if following.identity == request.identity else ""
            self._check_new(digest(following.identity), self.pages + 1, following, "was asked for before, as", same)
        elif path := self._find_contradiction(page):
            raise self._client.fail(
                f"page {self.pages} ({request}) is the last that {self._paging.paginator} leads to, and '{path}' says "
                "that there is more: check paginator and its keys"
            )
        elif self._paginator.positional and page.records and len(page.records) == self._largest:
            self._check_beyond(request, page)
        return following

    def _count_in(self) -> None:
        """Have the records of the last page in the census; fail where they came before, or pages bring nobody new."""
        if self._uncounted is None:
            return
        (request, page), self._uncounted = self._uncounted, None
        seen = digest(page.content)
        if self.position is not None:
            self.position = msgspec.structs.replace(self.position, digest=seen)
        if page.records:
            hint = f"; {suggest_end('repeated_page')}"
            self._check_new(seen, self.pages, request, "has the same records as", hint)
        self.census.add(page.records[self.skipped :])
        if page.records and self.pages >= self._counted_at + max(MAX_EMPTY, self._counted_at // 10):
            # A key beyond all before it is new: only where none came are they told apart, which takes longer.
            known = self.census.distinct if self.census.span == self._span else 0
            if known and known == self._known:
                raise self._client.fail(
                    f"the last {self.pages - self._counted_at} pages brought nobody new ({request} is one of them): "
                    "the source repeats itself; check paginator and its keys",
                    WrongSourceError,
                )
            self._span, self._known, self._counted_at = self.census.span, known, self.pages

    def _find_contradiction(self, page: Page) -> str:
        """By what a page that is to be the last says that it is not; nothing where a key says which word counts."""
        if self._config.paginator == "single" or self._paging.more_path:
            return ""
        return detection.find_more(page, self._paging.pointer)

    def _check_beyond(self, request: Request, page: Page) -> None:
        """Fail where a full page follows by the source's word that it was the last: its total is a cap, or wrong."""
        self._count_in()
        beyond = self._client.probe(self._paginator.foresee(request, len(page.records)) or request)
        if beyond and beyond.records and digest(beyond.content) not in self._seen:
            raise self._client.fail(
                f"{self.records} records came, as many as the source declares, and there are more behind them: leave "
                "the total out, or set ceiling",
                WrongSourceError,
            )

    def _find_position(self, request: Request) -> Position | None:
        """Where this reading stands before a page; the digest of that is not known yet."""
        sent = {"url": request.url, "params": request.params, "method": request.method, "body": request.body}
        if self.gap:
            return None
        own = {name: value for name, value in request.headers.items() if self._first.headers.get(name) != value}
        if (text := json.dumps([sent, own], default=dict)) != self._client.mask(text):
            return None
        return Position(
            request=sent,
            headers=own,
            digest="",
            pages=self.pages,
            records=self.records,
            seen=len(self._seen),
            totals=(self.total, self._total_pages),
            paging=asdict(self._paging),
            decision=self.paginator,
        )

    def _check_new(self, digest: str, number: int, request: Request, what: str, hint: str = "") -> None:
        """Fail where the request for a page, or its answer's records, came before in this reading."""
        name = f"page {number}"
        if digest in self._seen:
            self._count_in()  # what is wrong with the page itself is said before what is wrong with the one after it
            raise self._client.fail(
                f"{name} ({request}) {what} {self._seen[digest]}: the source repeats itself; "
                f"check paginator and its keys{hint}",
                WrongSourceError,
            )
        self._seen[digest] = name

    def _decide(self, request: Request, page: Page) -> Request:
        """Settle on a paginator by the first page, or fail where it shows that there is more but not how to get it."""
        try:
            decision = detection.decide(self._paging, request, page, self._client.probe)
        except detection.UndecidedError as error:
            raise self._client.fail(f"{request}: {error}") from None
        self._paging = replace(self._paging, **decision.keys)
        self.paginator = self._client.mask(decision.why)  # it shows a cursor
        self._paginator = self._paging.make()
        return self._paginator.first(self._paging.ask_for_size(request))

    def _note_total(self, page: Page) -> None:
        total, pages = self._paging.find_total(page, self._total_pages)
        if self.pages == 1 and not page.end and (path := self._paging.total_path) and total is None and pages is None:
            raise self._client.fail(
                f"{self.url}: total_path = {path}, and the page has no number there: set it to the field that "
                "says how many records there are, or leave it out"
            )
        if self._paginator.positional:
            self._check_fall(self.total, total, "records")
        self._check_fall(self._total_pages, pages, "pages")
        if total is not None:
            self.total = max(total, self.total or 0)
        self._total_pages = pages

    def _check_fall(self, before: int | None, now: int | None, what: str) -> None:
        """Fail where the source declares fewer than before."""
        if before is not None and now is not None and now < before:
            raise self._client.fail(
                f"page {self.pages}: the source declared {before} {what}, and now {now}: its list became "
                "shorter while it was read, and others moved up unseen; run it again, or ask for an order that stays",
                WrongSourceError,
            )

    def _check_ceiling(self) -> None:
        ceiling = self._config.ceiling
        if ceiling and ceiling <= max(self.records, self.total or 0):
            over = f"{self.records} records came"
            over = over if self.records >= ceiling else f"the source declares {self.total} records"
            raise self._client.fail(
                f"{over}, and ceiling is {ceiling}: there may be more behind it; ask for less at a time, "
                "or set ceiling higher"
            )

    def _says_more(self, page: Page) -> bool | None:
        """Whether there is more after `page`: by the key for it, else, where pages are counted off, by the totals."""
        more = self._read_more(page)
        if more is not None or not self._paginator.positional:
            return more
        if self._total_pages is not None:
            return self.pages < self._total_pages
        if self.total is not None:
            # A page that is empty behind the last record is the end, whatever is missing.
            if not page.records and self.pages * self._largest >= self.total:
                return False
            if self.records < self.total:
                return True
            self._count_in()
            return not self.census.has_at_least(self.total)
        return detection.says_more(page) or None

    def _check_total(self) -> None:
        """Fail where not as many records came, each counted once, as the source declares."""
        paging = self._paging
        if self._config.paginator == "single" and not (paging.total_path or paging.total_header):
            return
        page, records = self._gap_at
        missing = ""
        if self._total_pages is not None and self.pages < self._total_pages:
            missing = f"the source declares {self._total_pages} pages, and {self.pages} came"
        elif self.gap and page < (self._total_pages or 0) and self.records == records:
            missing = "no page behind an empty one has records"
        elif self.total is not None and self.census.distinct != self.total:
            twice = self.records - self.census.distinct
            missing = (
                f"{self.url}: the source declares {self.total} records, and {self.census.distinct} came on "
                f"{self.pages} pages{f', and {twice} of them again' if twice else ''}: its list changed while it was "
                "read, or paginator and its keys are wrong"
            )
        if missing:
            raise (
                self._fail_at_gap(f"{missing}; {self.gap}")
                if self.gap
                else self._client.fail(missing, WrongSourceError)
            )


def make_request(config: Source, values: Mapping[str, dt.datetime | dt.date]) -> Request:
    """What the section asks for, with `values` in the place of its placeholders."""
    return Request(
        strip_userinfo(render(config.url, values, quote=True)),
        render_all(config.params, values),
        {name: str(value) for name, value in render_all(config.headers, values).items()},
        config.method,
        render_all(config.body, values),
    )


Queue = deque[tuple[Request, "Future[Page]"]]
