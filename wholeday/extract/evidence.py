"""Collect the evidence about paging that a request and its first page give, without further requests.

Responsibilities: whether the page announces more, may be one of several, or is complete; compare pages by their keys.
Non-goals: probing the source, which `detection` does.
"""

import json

from wholeday.extract import vocabulary
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import TOTAL_HEADERS, Paging
from wholeday.extract.vocabulary import Word
from wholeday.log import count
from wholeday.schema.paths import find, has, simplify, to_integer


class UndecidedError(ValueError):
    """The source may have more records, and no probe proves how to get them."""


def announces_more(page: Page) -> bool | None:
    """Return whether a page says explicitly that another page follows; None if it does not say."""
    flags = [word.value for word in vocabulary.find_flags(page)]
    if False in flags:  # outranks a cursor: some sources send one with the last page too
        return False
    if True in flags or vocabulary.find_leads(page):
        return True
    return False if vocabulary.find_ends(page) else None


def find_more(page: Page, pointer: str = "") -> str:
    """Return the field or header that announces another page; empty if none does.

    If the page lacks `pointer`, the field or header that leads to the next page, another one named "next" counts too.
    """
    words = [word.path for word in vocabulary.find_flags(page) if word.value and not word.path.startswith("!")]
    if pointer and pointer not in page.headers and not has(page.fields, pointer) and announces_more(page):
        words += [word.path for word in vocabulary.find_leads(page) if "next" in simplify(word.path)]
    return next(iter(words), "")


class Evidence:
    """The evidence of a request and its first page.

    Raises UndecidedError if the page has no field `more_path`.
    """

    def __init__(self, paging: Paging, request: Request, page: Page) -> None:
        self._paging, self._request, self._page = paging, request, page
        self.received = len(page.records)
        self.received_text = count(self.received, "record")
        self.key = next(iter(vocabulary.find_keys(vocabulary.load_records(page))), None)
        """The dotted path of the field that identifies a record."""
        self.keys = self.read_keys(page)
        """The keys of the page's records."""
        self._totals = self._read_totals()
        declared = (paging.total_path, paging.total_header)
        self._is_complete = any(
            word.value == self.received and (word.path in declared or vocabulary.TOTAL.fullmatch(word.name))
            for word in self._totals
        )
        try:
            more = paging.read_more(page)
        except ValueError as error:
            raise UndecidedError(str(error)) from None
        self.more = announces_more(page) if more is None else more
        """Whether the page says that another page follows; None if it does not say."""
        self.announced = self._find_announcement()
        """What proves that there is more; empty without proof."""
        self.place = self._find_place()
        """The field or parameter that gives the page's position; worth a probe even if the page is not full."""
        self.suspected = self._find_suspicion()
        """What suggests that there may be more; empty without suspicion."""

    def read_keys(self, page: Page) -> list[str]:
        """Read the key of each record; without a key field, the whole record."""
        if self.key is None:
            return [repr(bytes(record)) for record in page.records]
        return [json.dumps(find(record, self.key)) for record in vocabulary.load_records(page)]

    def repeats(self, page: Page) -> bool:
        """Return whether `page` has a record of the first page."""
        return not set(self.read_keys(page)).isdisjoint(self.keys)

    def contains(self, page: Page) -> bool:
        """Return whether the first page has all records of `page`, and more."""
        return set(self.read_keys(page)) < set(self.keys)

    def begins(self, page: Page | None) -> bool:
        """Return whether `page` has records and the first page begins with them."""
        keys = [] if page is None else self.read_keys(page)
        return bool(keys) and keys == self.keys[: len(keys)]

    def declares_more(self) -> bool:
        """Return whether a declared total exceeds the page. An extraction that misses records then fails."""
        return any(word.value > (1 if word.path.startswith("pages:") else self.received) for word in self._totals)

    def _find_total(self, second: Page | None) -> Word | None:
        """Return a total that is at least the number of received records, and that page two repeats."""
        known = any(to_integer(self._page.headers.get(name)) is not None for name in TOTAL_HEADERS)
        if known or self._paging.total_path or self._paging.total_header:
            return None
        received = self.received + (0 if second is None else len(second.records))
        again = [] if second is None else vocabulary.find_totals(second)
        words = vocabulary.find_totals(self._page)
        remains = any(
            word.value == each.value + self.received and vocabulary.TOTAL.fullmatch(word.name)
            for word in words
            for each in again
            if each.path == word.path
        )
        for word in words:
            is_pages = word.path.startswith("pages:")
            # A "count" may be the number of records on the page.
            is_own = is_pages and "count" in simplify(word.path) and word.value == self.received
            # If the records are those that remain, so are the pages.
            is_vague = is_own or (is_pages and remains) or vocabulary.COUNT.fullmatch(word.name)
            least = 2 if is_pages else received
            later = [each.value for each in again if each.path == word.path]
            # Another number on page two: the records that remain, or the total of a list that changes. The latter
            # counts as a total, so that the extraction fails.
            has_changed = (
                not is_vague
                and later
                and (later[0] < word.value if is_pages else later[0] != word.value - self.received)
            )
            is_confirmed = not is_vague if second is None else word.value in later or has_changed
            if word.path != "Content-Range" and word.value >= least and is_confirmed:
                return word
        return None

    def find_total_key(self, second: Page | None) -> tuple[dict[str, str], str]:
        """Return the key of the section that names the total, and the total in words; both empty without a total."""
        word = self._find_total(second)
        if word is None:
            return {}, ""
        in_header = word.path.removeprefix("pages:") in self._page.headers
        key = "total_header" if in_header else "total_path"
        return {key: word.path}, f"total {word.value} at '{word.path}'"

    def _read_totals(self) -> list[Word]:
        """Read the configured totals; without any, every field and header that may be a total."""
        named = [(self._paging.total_path, self._page.fields), (self._paging.total_header, self._page.headers)]
        if any(path for path, _ in named):
            words = [
                Word(path, to_integer(find(source, path.removeprefix("pages:")))) for path, source in named if path
            ]
            return [word for word in words if word.value is not None]
        return vocabulary.find_totals(self._page)

    def _find_announcement(self) -> str:
        for word in self._totals:
            is_pages = word.path.startswith("pages:")
            if word.value > (1 if is_pages else self.received):
                came = "one page" if is_pages else self.received_text
                return f"'{word.path.removeprefix('pages:')}' is {word.value} and {came} came"
        if self.more:
            words = [*vocabulary.find_flags(self._page), *vocabulary.find_leads(self._page)]
            return f"'{words[0].path if words else self._paging.more_path}' announces more"
        return ""

    def _find_place(self) -> str:
        # A page without records is the last one, and so is the only declared page.
        one = any(word.path.startswith("pages:") and word.value == 1 for word in self._totals)
        if self.more is not None or self._is_complete or one or not self.received:
            return ""
        places = vocabulary.find_places(self._request, self._page)
        return next((f"'{place.path}' is {place.start}" for place in places), "")

    def _find_suspicion(self) -> str:
        if self.more is not None or self._is_complete:
            return ""
        sizes = [Word("page_size", self._paging.page_size), *vocabulary.find_sizes(self._request, self._page)]
        for word in sizes:
            if 0 < word.value <= self.received:
                return f"'{word.path}' is {word.value} and {self.received_text} came, a full page"
        if self.place and not any(word.value > self.received for word in sizes):
            return f"{self.place} and {self.received_text} came, which may be the first page of more"
        is_round = vocabulary.is_round(self.received)
        return f"{self.received_text} came, a round number that may be a full page" if is_round else ""
