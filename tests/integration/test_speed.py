"""The cost of extract and transform, in passes and collections: time is not reliable on a shared machine."""

import gc
import hashlib
import json

import pytest

from pipeline.users import User
from tests.support.reading import make_pages, read
from tests.support.server import Server
from wholeday.schema.conversion import Conversion
from wholeday.transform.rows import transform


def test_page_is_hashed_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash detects repeated pages. Other hashes cover only requests."""
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: hashed.append(len(b"".join(data))) or sha256(*data))
    url = server.on("/users", make_pages(3000, 1000, server, '<{url}/users?page={page}>; rel="next"'))
    records = read(url, paginator="link_header")
    assert len(records) == 3000
    large = [size for size in hashed if size > 1000]
    assert sum(large) == pytest.approx(len(json.dumps(records)), rel=0.01)


def test_transform_pauses_the_garbage_collector() -> None:
    """A collection takes as long as decoding. The collector is enabled again afterwards."""
    lines = [json.dumps({"id": key, "address": {"city": "Bern"}}).encode() for key in range(1, 20_000)]
    collections = []

    def note(phase: str, _: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        transform(lines, Conversion(User))
    finally:
        gc.callbacks.remove(note)
    assert collections.count("start") <= 1  # a collection that is due when it is enabled again
    assert gc.isenabled()
