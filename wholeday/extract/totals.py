"""Compare the records and pages received with the totals that the source declares."""

from collections.abc import Callable

from wholeday.errors import SourceError


class WrongSourceError(SourceError):
    """The source contradicts itself: no page of this extraction can be used again."""


class Totals:
    """The totals that a source declares during an extraction.

    `fail` builds the errors: from a text and, optionally, a class of SourceError.
    """

    def __init__(self, fail: Callable[..., SourceError]) -> None:
        self._fail = fail
        self.records: int | None = None
        self.pages: int | None = None

    def update(self, records: int | None, pages: int | None, number: int, is_positional: bool) -> None:
        """Note the totals of page `number`. Raises WrongSourceError if one is lower than before.

        Unless paging `is_positional`, a falling number of records may count the remaining ones.
        """
        if is_positional:
            self._check_decrease(self.records, records, "records", number)
        self._check_decrease(self.pages, pages, "pages", number)
        if records is not None:
            self.records = max(records, self.records or 0)
        self.pages = pages

    def describe_missing(self, records: int, pages: int) -> str:
        """Describe what is missing if no page follows these records and pages; empty if nothing is."""
        if self.records is not None and records >= self.records:
            return ""
        if self.pages is not None and pages < self.pages:
            return f"it has nothing new, and the source declares {self.pages} pages"
        if self.records is not None:
            return f"it has nothing new, and the source declares {self.records} records, {records} of them came"
        return ""

    def count_pages_left(self, records: int, pages: int, page_size: int) -> int:
        """Return how many pages are sure to follow; `page_size` is the size of the largest page."""
        left = (self.pages or 0) - pages
        if self.records is not None and page_size:
            left = max(left, -(-(self.records - records) // page_size))
        return left

    def check_ceiling(self, ceiling: int, records: int) -> None:
        """Raise SourceError if `records`, or the declared number, reaches `ceiling`. 0: no ceiling."""
        if ceiling and ceiling <= max(records, self.records or 0):
            over = f"{records} records came"
            over = over if records >= ceiling else f"the source declares {self.records} records"
            raise self._fail(
                f"{over}, and ceiling is {ceiling}: there may be more behind it; ask for less at a time, "
                "or set ceiling higher"
            )

    def _check_decrease(self, before: int | None, now: int | None, what: str, number: int) -> None:
        if before is not None and now is not None and now < before:
            raise self._fail(
                f"page {number}: the source declared {before} {what}, and now {now}: its list became shorter during "
                "the extraction, and other records moved up unseen; run it again, or ask for an order that stays",
                WrongSourceError,
            )


def has_fallen(before: tuple[int | None, int | None], now: tuple[int | None, int | None]) -> bool:
    """Return whether a total of records or pages is lower than before, but not 0."""
    return any(0 < (new or 0) < (old or 0) for new, old in zip(now, before, strict=True))
