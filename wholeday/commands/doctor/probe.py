"""Send the requests of `doctor` to a source: each request once, and a bounded number.

Responsibilities: the client, the first request, and the answers so far; whether page two follows page one.
Non-goals: conclusions about the source.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wholeday import clock
from wholeday.commands.doctor.section import copy_section
from wholeday.config.placeholders import EPOCH
from wholeday.config.source import Source
from wholeday.errors import SourceError
from wholeday.extract.http.client import Client
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import Paging, build_request
from wholeday.extract.vocabulary import find_keys, load_records
from wholeday.schema.paths import find

MOST_REQUESTS = 40


class Probe:
    """A source that answers requests. `unsure` holds the doubts about it."""

    def __init__(self, config: Source) -> None:
        self.config = config
        self.client = Client(copy_section(config, retries=min(config.retries, 1)), clock.utc_now().date())
        self.client.lists.is_shown = True
        self.unsure: list[str] = []
        self.paging, date = Paging.of(config), clock.utc_now().date()
        # The placeholders before the first load.
        values = {"date": date, "day_start": EPOCH, "day_stop": config.window(date).stop, "watermark": EPOCH}
        self.request = self.paging.first(build_request(config, values))
        self.place = "body" if config.method == "POST" and isinstance(config.body, Mapping) else "query"
        """Where parameters go."""
        self.cursor_in: dict[str, Any] = {"cursor_in": "body"} if self.place == "body" else {}
        self.answers: dict[bytes, Page | None] = {}
        self.page: Page
        """The first page. It is set by `open`."""

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Open the client and fetch the first page. Raises SourceError if the page cannot be read."""
        with self.client.open():
            self.page = self.answers[self.request.identity] = self.client.fetch(self.request, is_first=True)
            yield

    def doubt(self, text: str) -> None:
        """Add a doubt, once."""
        if (text := self.client.mask(text)) not in self.unsure:
            self.unsure.append(text)

    def ask(self, request: Request) -> Page | None:
        """Return the page for a request, None if there is none. The same request is not sent again."""
        if request.identity not in self.answers:
            if len(self.answers) >= MOST_REQUESTS:
                self.doubt(f"stopped after {MOST_REQUESTS} requests, so some questions are open")
                return None
            self.answers[request.identity] = None
            try:
                self.answers[request.identity] = self.client.probe(request)
            except SourceError as error:
                self.doubt(str(error))
        return self.answers[request.identity]

    def follows(self, keys: Mapping[str, Any]) -> bool:
        """Tell whether page two follows page one under the keys: no record comes twice."""
        pages = self.take_two(keys)
        return len(pages) < 2 or not set(self.read_keys(pages[0])) & set(self.read_keys(pages[1]))

    def take_two(self, keys: Mapping[str, Any]) -> list[Page]:
        """Return the first two pages under the keys, or fewer."""
        paging = self.page_by(keys)
        request: Request | None = paging.first(self.request)
        pages: list[Page] = []
        with contextlib.suppress(ValueError):
            while request is not None and len(pages) < 2 and (page := self.ask(request)) is not None:
                pages.append(page)
                request = paging.next(request, page, paging.read_more(page))
        return pages

    def page_by(self, keys: Mapping[str, Any]) -> Paging:
        """Return the paging of the section with some other keys, and pages that do not overlap."""
        known = {name: keys[name] for name in keys if name in Paging.__dataclass_fields__}
        return replace(self.paging, **known, overlap=False)

    def read_keys(self, page: Page) -> list[str]:
        """Return the keys of the records on a page, or the whole records if they have no key."""
        path = next(iter(find_keys(load_records(self.page))), None)
        records = load_records(page)
        return [str(record if path is None else find(record, path)) for record in records]
