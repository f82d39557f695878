"""Define the failures of a request and the defects of an answer."""

import re

from urllib3.exceptions import HTTPError

from wholeday.extract.http.page import Page


class RecoverableError(Exception):
    """A request failed in a way that may pass."""

    hint = ""
    is_refusal = False
    is_crowded = False
    """Whether other requests ran when the source refused this one: fewer at a time may succeed."""

    def __init__(self, what: str, wait: float = 0.0, status: int = 0, unreachable: bool = False) -> None:
        """Take the seconds that the source asks to wait, the status of the answer (0: none), and `unreachable`.

        `unreachable`: no server answered at all.
        """
        super().__init__(what)
        self.wait, self.status, self.unreachable = wait, status, unreachable


class OddAnswerError(RecoverableError):
    """An answer that fails at once on a first page. On a later page the client retries."""

    def __init__(self, what: str, hint: str, status: int = 0, *, is_refusal: bool = False) -> None:
        super().__init__(what, status=status)
        self.hint, self.is_refusal = hint, is_refusal


class DoubtfulPageError(RecoverableError):
    """A page that looks wrong and may be right. The last attempt is accepted."""

    def __init__(self, what: str, page: Page) -> None:
        super().__init__(what)
        self.page = page


class BadPageError(Exception):
    """An answer has a good status and an unusable body. `hint` is the next step, `body` the body as far as read."""

    def __init__(self, what: str, hint: str = "check url and headers", body: bytes = b"") -> None:
        super().__init__(what)
        self.body = body
        self.hint = hint


class RefusedPageError(BadPageError):
    """The body itself says that the request failed."""


class MissingListError(BadPageError):
    """A page has no list, or `{}`, `false` or "" in its place. `fields` are the other fields of the page."""

    def __init__(self, what: str, hint: str, fields: dict[str, object]) -> None:
        super().__init__(what, f"{hint}; {suggest_end('missing_list')}")
        self.fields = fields


def suggest_end(word: str) -> str:
    """Return the advice to accept an answer as the end of the data."""
    return f"if this answer means that there are no more records, set end_when = {word}"


def explain(error: Exception) -> str:
    """Return the root cause of an error of requests or urllib3, without the URLs that their texts repeat."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    cause = cause.args[-1] if isinstance(cause, HTTPError) and len(cause.args) > 1 else cause
    return re.sub(r"^\w+\(.*?\): ", "", str(cause)) or type(error).__name__
