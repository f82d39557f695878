"""Secrets: into a request, and nowhere else."""

import logging
import traceback

import pytest

from pipeline.auth import Mask
from pipeline.errors import SourceError
from pipeline.source import Reading
from reading import DAY, People, read
from server import Answer, Server

SECRET = "s3cr3t/+tok&n"


@pytest.mark.parametrize(
    "answer",
    [
        Answer([{"id": 1}]),
        Answer(status=500),
        Answer({"you sent": [SECRET, "p4ssw0rd!", "c00kie"]}, status=401),
        Answer(f"<{'x' * 112}{SECRET}"),
        Answer(reset=True),
        Answer([1], cut=1),
        Answer(status=302, headers={"Location": "/users?access_token=p4ssw0rd!&sig=p4ssw0rd!"}),
        Answer(status=302, headers={"Location": "http://ann:p4ssw0rd!@elsewhere.invalid/?api_key=p4ssw0rd!"}),
        Answer([{"id": 1}], headers={"Link": "<http://ann:p4ssw0rd!@[x/?api_key=p4ssw0rd!>; rel=next"}),
        Answer({"users": [{"id": 1}], "next": "/users?api_key=p4ssw0rd!"}),
        Answer([{"id": 1}], headers={"Link": "</users?api_key=p4ssw0rd!>; rel=next"}),
        Answer([{"id": 1}], noise="this is no header"),
    ],
)
def test_no_secret_is_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    """Whatever goes wrong, no error, log record (of urllib3 too, at DEBUG) or URL holds a secret, whole or in part."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    url = server.on("/users", answer).replace("http://", "http://ann:p4ssw0rd!@")
    people = People(
        url=url + "?password=p4ssw0rd!",
        params={"api_key": "p4ssw0rd!", "filter": [{"token": "p4ssw0rd!"}], "q": "oslo"},
        headers={"Cookie": "session c00kie"},
        auth="header:X-Token:PEOPLE_TOKEN",
        retries=1,
    )
    reading = Reading(people, DAY)
    trace = ""
    try:
        list(reading)
    except SourceError:
        trace = traceback.format_exc()
    assert any("urllib3" in record.name for record in caplog.records)
    text = "\n".join([reading.url, reading.paginator, trace, caplog.text])
    assert "oslo" in text
    for secret in (SECRET, "s3cr3t", "p4ssw0rd", "c00kie"):
        assert secret not in text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a/b c, a%2Fb%20c, a%2Fb+c.", "***, ***, ***."),
        ("abcdef abc", "*** ***"),
        ("GET http://ann:pw@h/?next_token=x1&q=2: no", "GET http://***@h/?next_token=***&q=2: no"),
        ("/?q=2&X-Amz-Signature=x1 and ?sig=x1", "/?q=2&X-Amz-Signature=*** and ?sig=***"),
        ("/?design=x1&code=x1&zipcode=x1", "/?design=x1&code=***&zipcode=x1"),
    ],
)
def test_secrets_are_masked_in_any_form(said: str, shown: str) -> None:
    """Those that are known however they are encoded, the longest first; those of a URL by their place."""
    assert Mask(["a/b c", "abc", "abcdef"])(said) == shown


def test_the_loggers_are_given_back(server: Server) -> None:
    """After a reading urllib3's loggers are as they were."""
    read(server.on("/users", Answer([])))
    assert not logging.getLogger("urllib3.connectionpool").filters


def test_a_secret_is_masked_as_json_writes_it() -> None:
    """An API that repeats it in an error escapes it."""
    assert Mask(['quo"ted\\secret'])(r'{"said": "quo\"ted\\secret"}') == '{"said": "***"}'
