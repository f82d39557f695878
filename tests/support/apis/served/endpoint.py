"""Share the parts of the endpoints: the records, cursors that hide an offset, and times."""

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.server import Server
from tests.support.vendor import Record, Shape, iso


class Endpoint(Shape):
    """An endpoint over `count` records. `query` belongs to its URL."""

    query = ""
    needs: ClassVar[dict[str, Any]] = {}
    """Keys of the section without which the documentation allows no request, such as headers."""
    updated = ""
    """The path of the time of the last change in a record; empty if the vendor has none."""

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        super().__init__(server, count, **traits)
        self.server = server
        self.url += self.query

    @property
    def section(self) -> dict[str, Any]:
        return {"url": self.url, "auth": self.auth, **self.needs}

    @property
    def records(self) -> list[Record]:
        return self.describe_all()

    def cut(self, found: list[Record], start: int, size: int) -> tuple[list[Record], int | None]:
        """Return the records of a page, and the start of the next page, None after the last one."""
        return found[start : start + size], start + size if start + size < len(found) else None

    def keep(self, query: Mapping[str, str], lower: str, upper: str = "") -> list[Record]:
        """Return the records that changed between two parameters in RFC 3339, both inclusive."""
        low, high = query.get(lower, ""), query.get(upper, "~")
        return self.describe_all(lambda number: low <= iso(self.moments(number)) <= high)

    def created(self, number: int) -> dt.datetime:
        """Return the time at which a record came into being: older records change later."""
        return self.moments(number) - dt.timedelta(days=30, hours=number)


def hide(number: int | None, kind: str = "offset") -> str | None:
    """Return an opaque cursor for an offset."""
    return None if number is None else base64.urlsafe_b64encode(f"{kind}:{number}".encode()).decode().rstrip("=")


def reveal(cursor: str | None, kind: str = "offset") -> int | None:
    """Return the offset in a cursor, 0 without one, None for any other text."""
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        return None
    return int(text.removeprefix(f"{kind}:")) if text.startswith(f"{kind}:") else None


def epoch(moment: dt.datetime) -> int:
    return int(moment.timestamp())


def with_millis(moment: dt.datetime, zone: str = "Z") -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000{zone}"
