"""Inspect endpoints of real APIs with `doctor`: the printed section must extract every record, or a doubt says why."""

import json
from collections.abc import Callable
from configparser import ConfigParser

import pytest

from pipeline.users import USERS
from tests.support.apis.served import ENDPOINTS, Endpoint
from tests.support.reading import DAY
from tests.support.server import Server
from wholeday.commands.doctor.examination import Examination, diagnose
from wholeday.commands.doctor.probe import MOST_REQUESTS
from wholeday.extract.reader import Reader

COUNT = 120  # more than a page, also of the largest pages
REFUSED = {"worldwide": "1 of 2 items of the list are not objects"}
"""Endpoints that no section can read, and the doubt about each of them."""
FILTERED = {
    *("shopify", "woocommerce", "chargebee", "harvest", "github", "mailchimp", "fhir", "strapi", "aspnet", "nextpage"),
}
"""Endpoints with a filter by the time of the last change that has a usual name."""


def examine(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Examination:
    for name, value in endpoint.environment.items():
        monkeypatch.setenv(name, value)
    return diagnose(USERS.config(**endpoint.section), USERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDPOINTS)
def test_section_extracts_every_record(
    server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the URL, the secret and the headers that the documentation requires."""
    endpoint = ENDPOINTS[name](server, COUNT)
    found = examine(endpoint, monkeypatch)
    assert endpoint.asked <= MOST_REQUESTS
    if name in REFUSED:
        assert any(doubt.startswith(REFUSED[name]) for doubt in found.unsure)
        return
    parser = ConfigParser()
    parser.read_string(found.section)
    section = dict(parser["users"])
    configure("users", **section)
    extracted = [json.loads(bytes(record)) for page in Reader(USERS.config(), DAY) for record in page]
    assert sorted(extracted, key=json.dumps) == sorted(endpoint.records, key=json.dumps)
    assert ("params" in section and "{" in section["params"]) == (name in FILTERED)
