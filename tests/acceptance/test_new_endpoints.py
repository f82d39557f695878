"""Run `new` against endpoints of real APIs: what it writes loads every record, without an edit."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.apis.served import ENDPOINTS
from tests.support.project import query
from tests.support.server import Server
from tests.support.shapes import SHAPES
from tests.support.written import compare, load_here, open_project, read_module
from wholeday.errors import DatasetError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("configure")]  # restores luigi.cfg as Luigi reads it
COUNT = 120
REFUSED = {"worldwide": "identify a record"}
"""Endpoints that `new` refuses, and what the error says."""
READ_BY_CLEAN = {"twilio"}
"""Endpoints whose times of change are no JSON times."""
KEYS = {  # that the documentation of a shape requires
    "scim": {"headers": {"Accept": "application/scim+json"}},
    "hubspot": {"method": "POST", "body": {"filterGroups": []}},
}


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    with open_project():
        yield


def load(monkeypatch: pytest.MonkeyPatch, url: str, keys: dict[str, Any], environment: dict[str, str]) -> None:
    """Create the dataset `things` with these keys of its section."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    load_here(
        "things", url, {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
    )


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_record_of_documented_endpoint_is_loaded(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the URL, the secret and the headers that the documentation requires."""
    endpoint = ENDPOINTS[name](server, COUNT)
    keys = {"auth": endpoint.auth, **endpoint.needs}
    if name in REFUSED:
        with pytest.raises(DatasetError, match=REFUSED[name]):
            load(monkeypatch, endpoint.url, keys, endpoint.environment)
        return
    load(monkeypatch, endpoint.url, keys, endpoint.environment)
    compare(read_module("things"), endpoint.records, "things", ("updated_at",) if name in READ_BY_CLEAN else ())
    assert query("select count(*) from rejects") == [(0,)]


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"zendesk"}))
def test_every_user_of_known_api_is_loaded(server: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    traits = {"largest": 20} if name == "graph" else {}
    shape = SHAPES[name](server, COUNT, path="/people", **traits)
    load(monkeypatch, shape.url, {"auth": shape.auth, **KEYS.get(name, {})}, shape.environment)
    compare(read_module("things"), shape.describe_all(), "things")
    assert query("select count(*) from rejects") == [(0,)]
