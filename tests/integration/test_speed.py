"""What reading and cleaning may not cost: passes and collections are counted, as no clock is to be trusted here."""

import gc
import hashlib
import json

import pytest

from pipeline.users import User, clean
from tests.support.reading import make_pages, read
from tests.support.server import Server
from wholeday.transform.rows import transform


def test_the_bytes_of_a_page_are_hashed_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """To know a page that comes again; beside it there are only the requests."""
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: hashed.append(len(b"".join(data))) or sha256(*data))
    url = server.on("/users", make_pages(3000, 1000, server, '<{url}/users?page={page}>; rel="next"'))
    records = read(url, paginator="link_header")
    assert len(records) == 3000
    large = [size for size in hashed if size > 1000]
    assert sum(large) == pytest.approx(len(json.dumps(records)), rel=0.01)


def test_no_record_that_is_cleaned_is_looked_through_for_cycles() -> None:
    """The collector would take as long as the decoding; afterwards it is as it was."""
    lines = [json.dumps({"id": key, "address": {"city": "Bern"}}).encode() for key in range(1, 20_000)]
    collections = []

    def note(phase: str, _: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        transform(lines, User, clean, ["user_id"])
    finally:
        gc.callbacks.remove(note)
    assert collections.count("start") <= 1  # what is due when it is let go on
    assert gc.isenabled()
