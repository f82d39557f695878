"""Read every record of a source for one day, page by page, or raise an error.

Responsibilities: which page is requested next, how far ahead pages are fetched, and when the extraction is complete.
The extraction fails, with one line, instead of taking a page twice, following empty pages for ever, guessing that
nothing follows, or ending with another number of records than the source declares.
"""

import contextlib
import datetime as dt
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Protocol

import msgspec

from wholeday.config.days import Window
from wholeday.config.placeholders import EPOCH, find_placeholders
from wholeday.config.source import Source
from wholeday.errors import OutageError, SourceError
from wholeday.extract import detection, evidence
from wholeday.extract.http.client import Client
from wholeday.extract.http.failures import suggest_end
from wholeday.extract.http.page import Page, Request, digest
from wholeday.extract.links import foresee_link
from wholeday.extract.overlap import join
from wholeday.extract.paging import Paging, build_request
from wholeday.extract.position import MovedError, Position, Standing
from wholeday.extract.prefetch import Prefetcher
from wholeday.extract.vocabulary import find_flags
from wholeday.schema.census import Census

MAX_EMPTY = 100  # empty pages in a row
AHEAD = 2  # pages read ahead, in flight or waiting for their turn, for each request that may be in flight
AHEAD_BYTES = 16 * 2**20  # of the pages requested ahead
GUESSES = 4  # without a total, one page is guessed for as many pages that came
STATUS_ENDS = ("204", "404", "400")  # values of end_when that are a status, not a page


class WrongSourceError(SourceError):
    """The source contradicts itself: no page of this extraction can be used again."""


class Counts(Protocol):
    """How much of a day has come so far, and from where."""

    @property
    def url(self) -> str: ...

    @property
    def pages(self) -> int: ...

    @property
    def records(self) -> int: ...

    @property
    def total(self) -> int | None:
        """How many records the source declares."""

    @property
    def done(self) -> tuple[int, int] | None:
        """How many parents are read, and of how many; None if the source is not asked for each parent."""


class Reader:
    """Read a source once for one day. Iterate it for the pages, each a list of records.

    A record is the source's own bytes, on one line. `watermark` (UTC) is None before the first load. The constructor
    raises ConfigError. Iterating raises SourceError, and then no page may be used. The next page is fetched while the
    caller processes the page before.
    """

    done: tuple[int, int] | None = None

    def __init__(
        self,
        config: Source,
        date: dt.date,
        watermark: dt.datetime | None = None,
        census: Census | None = None,
        window: Window | None = None,
        client: Client | None = None,
        parent: Mapping[str, str | int] | None = None,
    ) -> None:
        """Prepare to read a window of the day, by default all of it. A `client` of several readers is open already.

        `parent` holds the values of the placeholders of a parent, as in `repos.owner`.
        """
        find_placeholders(config)
        whole = config.window(date)
        window = window or Window(whole.start - config.lookback, whole.stop)
        values: dict[str, dt.datetime | dt.date | str | int] = {
            **(parent or {}),
            "date": date,
            "day_start": config.localize(window.start),
            "day_stop": config.localize(window.stop),
            "watermark": config.localize(EPOCH if watermark is None else watermark - config.lookback),
        }
        self._config, self._is_shared = config, client is not None
        self._client = client or Client(config, date)
        self.fail = self._client.fail
        """Builds the error for a failure, without secrets."""
        self._paging = Paging.of(config)
        self._first = self._paging.first(build_request(config, values))
        self._before: tuple[Request, Page] | None = None
        """The page before, and its request."""
        self.url = self._client.mask(self._first.target)
        """The URL of the first page, without secrets."""
        self.paginator = config.paginator
        """The configured paginator; for `auto`, after the first page, the detected one and the evidence."""
        self.pages = self.records = self._empty = self._largest = self._known = self._counted_at = 0
        self._largest_bytes = 0
        self.total: int | None = None
        """How many records the source declares."""
        self._total_pages: int | None = None
        self.census = census or Census()
        self._position: Position | None = None
        self._has_more = True
        self.page_digest = ""
        """The digest of the records of the current page."""
        self.skipped = 0
        """How many records of the current page an interrupted extraction has stored already."""
        self._gap, self._gap_at = "", (0, 0)
        self._declared: dict[str, list[tuple[float, int]]] = {"records": [], "pages": []}
        """Of each total: when a page declared more than all before, and how many."""
        self._seen: dict[str, str] = {}
        self._before_page: list[str] = []
        self._of_page: list[str] = []
        """Digests in `_seen` that were not described yet: before the current page, and of the page itself."""
        self._uncounted: tuple[Request, Page] | None = None
        self._span: tuple[int, int] | None = None
        self._resumed: Position | None = None

    def resume(self, position: Position, taken: int, seen: Sequence[str]) -> None:
        """Continue at `position`, after `taken` records of its page; `seen` are the digests of the pages before.

        The page is requested again. If it has other records now, iterating raises MovedError.
        """
        self.pages, self.records = position.pages, position.records
        self.total, self._total_pages = position.totals
        for what, number in zip(self._declared, position.totals, strict=True):
            self._declared[what] = [] if number is None else [(0.0, number)]
        self._paging, self.paginator = Paging(**position.paging), position.decision
        self._seen = dict.fromkeys(seen, "an earlier page")
        self._resumed, self.skipped = position, taken

    def describe_standing(self) -> Standing:
        """Describe where the reader stands, for a checkpoint."""
        digests, self._before_page = tuple(self._before_page), []
        return Standing(self._position, digests, self._has_more, self._gap, self.skipped)

    def __iter__(self) -> Generator[Sequence[msgspec.Raw]]:
        """Yield the records of each page. Of the page at which an extraction resumes, `skipped` were stored before."""
        # The client closes before the pool, so that its threads stop waiting; the mask must outlive both.
        pool = ThreadPoolExecutor(self._config.concurrency, "fetch")
        with self._client.mask.cover(), pool, contextlib.nullcontext() if self._is_shared else self._client.open():
            ahead = Prefetcher(pool, self._fetch)
            request, page = self._fetch_first()
            try:
                while True:
                    request, following = self._take(request, page)
                    self._has_more = following is not None
                    self._before = request, page
                    ahead.schedule(request, following, self._foresee, self._count_ahead(page))
                    self._count_page()
                    yield page.records
                    if following is None:
                        break
                    request, page = ahead.take()
                    page, self.skipped = self._confirm(request, page), 0
                    request, page = self._join(request, page)
                    if self._is_end(request, page, self._before[1]):
                        break
            finally:
                ahead.cancel()
        self._check_total()

    def _fetch_first(self) -> tuple[Request, Page]:
        """Fetch the first page or, of a resumed extraction, the page of its position."""
        position = self._resumed
        if position is None:
            self._check_new(digest(self._first.identity), 1, self._first, "repeats the request of")
            return self._first, self._client.fetch(self._first, is_first=True)
        request = Request(**position.request, headers={**self._first.headers, **position.headers})
        try:
            page = self._client.fetch(request)
        except OutageError as error:
            if error.is_refusal:
                raise MovedError(str(error)) from None
            raise
        if page.digest != position.digest:
            raise self._client.fail(f"page {position.pages + 1} ({request}) has other records than before", MovedError)
        return request, replace(page, records=page.records[position.overlap :], overlap=position.overlap)

    def _fetch(self, request: Request) -> tuple[Request, Page]:
        """Fetch a page behind the first, and return it with its request.

        If the source knows only offsets that are multiples of the page size, read on without overlap. The second page
        shows that, so it is requested alone.
        """
        if self.pages > 1 or self._before is None or not self._paging.overlaps(self._largest):
            return request, self._client.fetch(request)
        page = self._client.fetch_unless_refused(request)
        if page is None or page.content == self._before[1].content:
            self._paging = replace(self._paging, overlap=False)
            request = self._paging.foresee(self._before[0], self._largest) or request
            page = self._client.fetch(request)
        return request, page

    def _join(self, request: Request, page: Page) -> tuple[Request, Page]:
        """Return the page without the records of the page before, or another page that continues it."""
        assert self._before is not None  # noqa: S101 - the caller has set it
        if page.end or self._gap or not self._paging.overlaps(self._before[1].received):
            return request, page
        joined, page = join(self._client, self.census, self._config.retries, self._before, (request, page))
        # The request may come again.
        if joined != request and self._seen.pop(digest(request.identity), ""):
            self._of_page.remove(digest(request.identity))
        return joined, page

    def _confirm(self, request: Request, page: Page) -> Page:
        """Fetch a page behind the first again if it cannot be right.

        Raises OutageError if it has no records again; MovedError if the extraction was resumed, as the list may have
        become shorter.
        """

        def doubt(page: Page) -> str:
            return self._find_doubt(request, page)

        if self._is_repeated_end(page) or self._is_same_cursor(request, page):
            page = self._client.fetch(request)  # an end by `end_when` is confirmed once
        if self._gap or not doubt(page):
            return page
        page = self._client.ask_again(request, page, doubt)
        what, declared = doubt(page), self._paging.read_totals(page)
        before = self.total, self._total_pages
        fell = any(0 < (new or 0) < (old or 0) for new, old in zip(declared, before, strict=True))
        if what and not fell and (not page.records or self._is_repeated_end(page)):
            self._gap, self._gap_at = f"page {self.pages + 1} ({request}): {what}", (self.pages + 1, self.records)
            if page.records or page.end in STATUS_ENDS or 0 in declared or not self._paging.positional:
                raise self._fail_at_gap(f"{self._gap}: the source is in trouble; run it again later")
        return page

    def _fail_at_gap(self, what: str) -> SourceError:
        """Build the error for missing records. A resumed extraction restarts once, in case its parts are wrong."""
        return self._client.fail(what, MovedError if self._resumed else OutageError)

    def _find_doubt(self, request: Request, page: Page) -> str:
        """Say why a page behind the first cannot be right; empty if it may be."""
        if self._is_repeated_end(page) or page.end in STATUS_ENDS:
            return self._describe_missing()
        if page.records and self._before and page.content == self._before[1].content:
            return "it has the same records as the page before"
        try:
            more = self._read_more(page)
            if more is None and self._paging.positional and not page.records:
                more = evidence.announces_more(page) or None
            following = self._paging.next(request, page, more)
        except ValueError as error:
            return str(error)
        if following is None and (path := self._find_contradiction(page)):
            return f"'{path}' announces more, and nothing leads to it"
        return self._describe_missing() if following is None and not page.records else ""

    def _describe_missing(self) -> str:
        """Describe what is missing if no page follows; empty if nothing is."""
        if self.total is not None and self.records >= self.total:
            return ""
        if self._total_pages is not None and self.pages < self._total_pages:
            return f"it has nothing new, and the source declares {self._total_pages} pages"
        if self.total is not None:
            return f"it has nothing new, and the source declares {self.total} records, {self.records} of them came"
        return ""

    def _is_repeated_end(self, page: Page) -> bool:
        """Return whether a page repeats the records of an earlier one, which `end_when` accepts as the end."""
        return "repeated_page" in self._config.ends and bool(page.records) and page.digest in self._seen

    def _is_same_cursor(self, request: Request, page: Page) -> bool:
        """Return whether a page leads to itself, which `end_when` accepts as the end."""
        if "same_cursor" not in self._config.ends:
            return False
        try:
            following = self._paging.next(request, page, self._read_more(page))
        except ValueError:  # the page is in doubt
            return False
        return following is not None and following.identity == request.identity

    def _is_end(self, request: Request, page: Page, last: Page) -> bool:
        """Return whether an answer behind the first page is the end by `end_when`. Raises OutageError if not."""
        end = "repeated_page" if self._is_repeated_end(page) else page.end
        if end not in (*STATUS_ENDS, "repeated_page"):
            return False
        flags = [] if self._paging.more_path else [word.path for word in find_flags(last) if word.value]
        if path := self._paging.more_path if self._read_more(last) else next(iter(flags), ""):
            raise self._client.fail(
                f"page {self.pages + 1} ({request}): the end by end_when = {end}, and '{path}' of the page before "
                "announces more: run it again later, or check end_when",
                OutageError,
            )
        return True

    def _read_more(self, page: Page) -> bool | None:
        """Read the flag at `more_path`; None without `more_path`, and for an answer that is an end by `end_when`."""
        try:
            return self._paging.read_more(page)
        except ValueError:
            if page.end:
                return None
            raise

    def _foresee(self, before: Request, request: Request) -> Request | None:
        """Return the request after `request`, which followed `before`, if its page is as large as the largest."""
        if self._paging.positional:
            return self._paging.foresee(request, self._largest)
        return foresee_link(before, request) if self._paging.paginator in ("link_header", "next_url") else None

    def _count_ahead(self, page: Page) -> int:
        """Return how many pages may be requested ahead: all that are sure to follow, or a few without a total."""
        if page.received < self._largest:  # perhaps the last one
            return 1
        left = (self._total_pages or 0) - self.pages
        if self.total is not None and self._largest:
            left = max(left, -(-(self.total - self.records) // self._largest))
        if self.total is None and self._total_pages is None:
            left = self.pages // GUESSES
        self._largest_bytes = max(self._largest_bytes, len(page.content))
        fitting = AHEAD_BYTES // max(1, self._largest_bytes)
        return max(1, min(AHEAD * self._config.concurrency - 1, left, fitting))

    def _take(self, request: Request, page: Page) -> tuple[Request, Request | None]:
        """Check a page. Return its request, as the paginator would make it, and the request after it.

        `_count_page` does the slow checks while that is in flight.
        """
        self._before_page += self._of_page
        self._of_page = []
        self._position = self._build_position(request, page.overlap)
        self._uncounted = request, page
        self.pages += 1
        self.records += len(page.records)
        self._largest = max(self._largest, page.received)
        self._empty = 0 if page.records else self._empty + 1
        if self._empty > MAX_EMPTY:
            raise self._client.fail(f"{self._empty} pages in a row are empty, and each announces more")
        if self._config.paginator == "auto" and self.pages == 1 and page.end not in STATUS_ENDS:
            request = self._detect(request, page)
        self._read_totals(page)
        try:
            following = self._paging.next(request, page, self._expects_more(page))
        except ValueError as error:
            raise self._client.fail(f"page {self.pages} ({request}): {error}") from None
        if following is not None and following.identity == request.identity and "same_cursor" in self._config.ends:
            return request, None
        if following is not None:
            same = f"; {suggest_end('same_cursor')}" if following.identity == request.identity else ""
            self._check_new(digest(following.identity), self.pages + 1, following, "repeats the request of", same)
        elif path := self._find_contradiction(page):
            raise self._client.fail(
                f"page {self.pages} ({request}) is the last that {self._paging.paginator} leads to, and '{path}' "
                "announces more: check paginator and its keys"
            )
        elif self._paging.positional and page.records and page.received == self._largest:
            self._check_beyond(request, page)
        return request, following

    def _count_page(self) -> None:
        """Add the records of the current page to the census.

        Raises WrongSourceError if an earlier page had the same records, or many pages brought no new key.
        """
        if self._uncounted is None:
            return
        (request, page), self._uncounted = self._uncounted, None
        seen = self.page_digest = page.digest
        if self._position is not None:
            self._position = msgspec.structs.replace(self._position, digest=seen)
        if page.records:
            hint = f"; {suggest_end('repeated_page')}"
            self._check_new(seen, self.pages, request, "has the same records as", hint)
        self.census.add(page.records[self.skipped :], may_be_deep=page.may_be_deep)
        if page.records and self.pages >= self._counted_at + max(MAX_EMPTY, self._counted_at // 10):
            # A key outside the range so far is new. Without one, count the distinct keys, which is slow.
            known = self.census.distinct if self.census.span == self._span else 0
            if known and known == self._known:
                raise self._client.fail(
                    f"the last {self.pages - self._counted_at} pages brought no new records, such as {request}: "
                    "the source repeats itself; check paginator and its keys",
                    WrongSourceError,
                )
            self._span, self._known, self._counted_at = self.census.span, known, self.pages

    def _find_contradiction(self, page: Page) -> str:
        """Return the field that announces more on a supposedly last page; empty with `more_path`, which decides."""
        if self._config.paginator == "single" or self._paging.more_path:
            return ""
        return evidence.find_more(page, self._paging.pointer)

    def _check_beyond(self, request: Request, page: Page) -> None:
        """Raise WrongSourceError if a page follows the declared last one: the total is capped, or wrong."""
        self._count_page()
        beyond = self._client.probe(self._paging.foresee(request, page.received) or request)
        known = self.census.identify(page.records)
        if beyond and not set(self.census.identify(beyond.records)) <= set(known) and beyond.digest not in self._seen:
            raise self._client.fail(
                f"{self.records} records came, as many as the source declares, and there are more behind them: leave "
                "the total out, or set ceiling",
                WrongSourceError,
            )

    def _build_position(self, request: Request, overlap: int) -> Position | None:
        """Build the position at a page. Its digest is not known yet."""
        sent = {"url": request.url, "params": request.params, "method": request.method, "body": request.body}
        if self._gap:
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
            totals=(self.total, self._total_pages),
            paging=asdict(self._paging),
            decision=self.paginator,
            overlap=overlap,
        )

    def _check_new(self, digest: str, number: int, request: Request, what: str, hint: str = "") -> None:
        """Raise WrongSourceError if the digest of a request, or of a page's records, occurred before."""
        name = f"page {number}"
        if digest in self._seen:
            self._count_page()  # an error of this page comes before an error of the next one
            raise self._client.fail(
                f"{name} ({request}) {what} {self._seen[digest]}: the source repeats itself; "
                f"check paginator and its keys{hint}",
                WrongSourceError,
            )
        self._seen[digest] = name
        self._of_page.append(digest)

    def _detect(self, request: Request, page: Page) -> Request:
        """Detect the paginator by the first page; return the first request of this paginator."""
        try:
            decision = detection.decide(self._paging, request, page, self._client.probe)
        except evidence.UndecidedError as error:
            raise self._client.fail(f"{request}: {error}") from None
        self._paging = replace(self._paging, **decision.keys)
        self.paginator = self._client.mask(decision.why)  # it shows a cursor
        return self._paging.first(request)

    def _read_totals(self, page: Page) -> None:
        """Note the totals that a page declares.

        Raises WrongSourceError if one is lower than on a page that came before this one was requested. Unless paging is
        positional, a falling number of records may count the remaining ones; and pages that overlap show by themselves
        that nothing moved up unseen. Raises SourceError if the number of records reaches `ceiling`.
        """
        records, pages = self._paging.read_totals(page, self._total_pages)
        if self.pages == 1 and not page.end and (path := self._paging.total_path) and records is None and pages is None:
            raise self._client.fail(
                f"{self.url}: total_path = {path}, and the page has no number there: set it to the field "
                "with the number of records, or leave it out"
            )
        falls = [(records, "records")] if self._paging.positional and not self._overlaps else []
        for now, what in [*falls, (pages, "pages")]:
            before = None if now is None else self._note_total(what, now, page)
            if before is not None and now is not None and now < before:
                raise self._client.fail(
                    f"page {self.pages}: the source declared {before} {what}, and now {now}: its list became shorter "
                    "during the extraction, and other records moved up unseen; run it again, or ask for an order that "
                    "stays",
                    WrongSourceError,
                )
        if records is not None:
            self.total = max(records, self.total or 0)
        self._total_pages = pages
        ceiling = self._config.ceiling
        if ceiling and ceiling <= max(self.records, self.total or 0):
            over = f"{self.records} records came"
            over = over if self.records >= ceiling else f"the source declares {self.total} records"
            raise self._client.fail(
                f"{over}, and ceiling is {ceiling}: there may be more behind it; ask for less at a time, "
                "or set ceiling higher"
            )

    @property
    def _overlaps(self) -> bool:
        """Whether each page begins with the last record of the page before."""
        return self._paging.overlaps(self._largest)

    def _note_total(self, what: str, number: int, page: Page) -> int | None:
        """Note a total, and return the highest of the pages that came before `page` was requested."""
        declared = self._declared[what]
        before = max((other for came_at, other in declared if came_at < page.asked_at), default=None)
        if all(other < number for _, other in declared):
            declared.append((page.came_at, number))
        return before

    def _expects_more(self, page: Page) -> bool | None:
        """Return whether a page follows: by `more_path` or, if paging is positional, by the totals.

        Pages that overlap end with a short one: a total that is reached may count users that came late.
        """
        more = self._read_more(page)
        if more is not None or not self._paging.positional:
            return more
        if self._overlaps and page.records:
            if self.total is None or page.received == self._largest:
                return None
            self._count_page()
            return None if not self.census.has_at_least(self.total) else False
        if self._overlaps and self.total is not None:
            return self.records < self.total and self.pages * self._largest < self.total
        if self._total_pages is not None:
            return self.pages < self._total_pages
        if self.total is not None:
            # An empty page behind the last record is the end, even if records are missing.
            if not page.records and self.pages * self._largest >= self.total:
                return False
            if self.records < self.total:
                return True
            self._count_page()
            return not self.census.has_at_least(self.total)
        return evidence.announces_more(page) or None

    def _check_total(self) -> None:
        """Raise SourceError unless as many distinct records and pages came as the source declares."""
        paging, pages = self._paging, self._total_pages
        if self._config.paginator == "single" and not (paging.total_path or paging.total_header):
            return
        gap_page, records = self._gap_at
        missing = ""
        if pages is not None and self.pages < pages:
            missing = f"the source declares {pages} pages, and {self.pages} came"
        elif self._gap and gap_page < (pages or 0) and self.records == records:
            missing = "no page behind an empty one has records"
        elif self.total is not None and (
            self.census.distinct < self.total if self._overlaps else self.census.distinct != self.total
        ):
            twice = self.records - self.census.distinct
            missing = (
                f"{self.url}: the source declares {self.total} records, and {self.census.distinct} came on "
                f"{self.pages} pages{f', and {twice} of them again' if twice else ''}: its list changed during the "
                "extraction, or paginator and its keys are wrong"
            )
        if missing and self._gap:
            raise self._fail_at_gap(f"{missing}; {self._gap}")
        if missing:
            raise self._client.fail(missing, WrongSourceError)
