"""Extract from a source in a test; return its records or its one-line error."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.server import Answer, Request, Server
from wholeday.config.source import Source
from wholeday.errors import SourceError
from wholeday.extract.reader import Reader

DAY = dt.date(2026, 10, 31)


class People(Source):
    section = "people"


def read_bytes(url: str, **keys: Any) -> list[bytes]:
    """Return the records of an extraction as bytes, as in a raw file."""
    return [bytes(record) for page in Reader(People(url=url, **keys), DAY) for record in page]


def read(url: str, **keys: Any) -> list[Any]:
    """Return the decoded records of an extraction."""
    return list(map(json.loads, read_bytes(url, **keys)))


def read_error(url: str, **keys: Any) -> str:
    """Run an extraction that must fail; return its one-line error."""
    with pytest.raises(SourceError) as caught:
        read(url, **{"retries": 0} | keys)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"people {DAY}: ")
    return line


def make_pages(count: int, size: int, server: Server, link: str) -> Callable[[Request], Answer]:
    """Build an API over `count` users with numbered pages of `size` or `per_page`; `link` formats its Link header."""

    def respond(request: Request) -> Answer:
        page, per_page = int(request.query.get("page", 1)), int(request.query.get("per_page", size))
        users = [{"id": number} for number in range(count)][(page - 1) * per_page : page * per_page]
        target = link.format(url=server.url, page=page + 1, per_page=per_page)
        headers = {"Link": target} if link and page * per_page < count else {}
        return Answer(users, headers=headers)

    return respond


def serve(server: Server, configure: Callable[..., None], *pages: bytes, **keys: object) -> None:
    """Serve these bodies as pages 1, 2, … with Link headers, and configure the section of users to extract them."""

    def respond(request: Request) -> Answer:
        number = int(request.query.get("page", "1"))
        link = {"Link": f'<{server.url}/users?page={number + 1}>; rel="next"'} if number < len(pages) else {}
        return Answer(pages[number - 1], headers=link)

    configure("users", url=server.on("/users", respond), **keys)


def make_user(number: int, updated_at: str = "2026-11-20T10:00:00Z", **fields: object) -> dict[str, object]:
    """Return a valid record of the record class `User`."""
    return {
        "id": number,
        "name": f"User {number}",
        "email": f"U{number}@example.com",
        "updated_at": updated_at,
    } | fields
