"""Secrets: into a request, and nowhere else."""

import base64
import logging
import re
import traceback
from typing import Any

import pytest
import requests

from tests.support.reading import DAY, People, read
from tests.support.server import Answer, Request, Server
from wholeday.errors import ConfigError, SourceError
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.session import Session
from wholeday.extract.reader import Reader
from wholeday.redaction import Mask

SECRET = "s3cr3t/+tok&n"


def send(server: Server, auth: str, path: str = "/users", **keys: Any) -> Request:
    """What comes to the server with the given auth."""
    url = server.on(path.partition("?")[0], Answer([]))
    people = People(**{"url": url, "auth": auth} | keys)
    with Session(Auth(people, Mask())) as session:
        session.get(server.url + path)
    return server.requests[-1]


def fail(**keys: Any) -> str:
    """The line with which a section is refused, before anything is sent."""
    with pytest.raises(ConfigError) as caught:
        Auth(People(**{"url": "http://127.0.0.1/users"} | keys), Mask())
    assert str(caught.value).startswith("[people] ")
    return str(caught.value)


def test_a_bearer_and_a_header_carry_the_secret_as_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one behind its word, the other alone."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    assert send(server, "bearer:PEOPLE_TOKEN").headers["Authorization"] == f"Bearer {SECRET}"
    request = send(server, "header:X-Token:PEOPLE_TOKEN")
    assert (request.headers["X-Token"], request.headers["Authorization"]) == (SECRET, None)


def test_basic_takes_user_and_password_of_any_language(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sent as UTF-8, a colon in the password included."""
    monkeypatch.setenv("PEOPLE_USER", "ann/token")
    monkeypatch.setenv("PEOPLE_PASSWORD", "pässwörd:東京")
    sent = send(server, "basic:PEOPLE_USER:PEOPLE_PASSWORD").headers["Authorization"]
    assert sent.startswith("Basic ")
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "ann/token:pässwörd:東京"


@pytest.mark.parametrize(("user", "password"), [("key-of-nobody", ""), ("", "pass-of-nobody")])
def test_an_empty_half_of_basic_is_sent_empty(
    server: Server, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    """Many APIs take a key for the user and no password: a variable that is empty is set. The key is masked."""
    monkeypatch.setenv("PEOPLE_USER", user)
    monkeypatch.setenv("PEOPLE_PASSWORD", password)
    sent = send(server, "basic:PEOPLE_USER:PEOPLE_PASSWORD").headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"{user}:{password}"
    mask = Mask()
    Auth(People(url="http://h/users", auth="basic:PEOPLE_USER:PEOPLE_PASSWORD"), mask)
    assert mask(f"{user}{password} {sent}") == "*** Basic ***"


def test_basic_with_nothing_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two empty variables are a mistake."""
    monkeypatch.setenv("PEOPLE_USER", "")
    monkeypatch.setenv("PEOPLE_PASSWORD", "")
    assert "PEOPLE_USER and PEOPLE_PASSWORD are both empty" in fail(auth="basic:PEOPLE_USER:PEOPLE_PASSWORD")


def test_a_query_secret_is_added_last_and_takes_the_place_of_its_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded, whatever it holds; the other parameters stay as they are written."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    request = send(server, "query:api_key:PEOPLE_TOKEN", "/users?a=%2Fx,y&api%5Fkey=old&b&a=2")
    assert request.target == "/users?a=%2Fx,y&b&a=2&api_key=s3cr3t%2F%2Btok%26n"
    assert send(server, "query:k[1]:PEOPLE_TOKEN").query == {"k[1]": SECRET}


def test_a_query_secret_reaches_a_redirect_s_target_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the origin, where the target is asked for in our name; what is kept of the reading does not hold it."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    url = server.on("/old", Answer(status=302, headers={"Location": "/users?api_key=&x=1"}))
    server.on("/users", Answer([{"id": 1}], headers={"Link": '</two>; rel="next"'}))
    server.on("/two", Answer([{"id": 2}]))
    reading = Reader(People(url=url, auth="query:api_key:PEOPLE_TOKEN", paginator="link_header"), DAY)
    assert sum(len(page) for page in reading) == 2
    assert [request.query.get("api_key") for request in server.requests] == [SECRET] * 3
    assert "api_key" not in reading.url


def test_a_password_in_the_url_is_basic_authentication(server: Server) -> None:
    """As everywhere else; and it goes with a secret that auth names, unless that is for the same header."""
    url = server.url.replace("http://", "http://ann:p%40ss@") + "/users"
    sent = send(server, "none", url=url).headers["Authorization"]
    assert sent == f"Basic {base64.b64encode(b'ann:p@ss').decode()}"


def test_nothing_is_taken_from_a_netrc(server: Server, monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    """Nobody wrote its password into luigi.cfg."""
    (home / "netrc").write_text("machine 127.0.0.1 login ann password hunter2")
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    assert requests.get(server.on("/users", Answer([]))).request.headers["Authorization"]
    assert send(server, "none").headers["Authorization"] is None


@pytest.mark.parametrize(
    "auth",
    [
        "hunter2",
        "bearer",
        "bearer:A:B",
        "basic:A",
        "header:A B:C",
        "query:A",
        "query:a=b:C",
        "query::C",
        "oauth2:A:B",
        "",
    ],
)
def test_what_cannot_be_understood_is_not_shown(auth: str) -> None:
    """It may be the secret itself; the line lists every form."""
    line = fail(auth=auth)
    assert "hunter2" not in line
    for form in ("none", "bearer:", "basic:", "header:", "query:", "oauth2:"):
        assert form in line


@pytest.mark.parametrize(
    "auth",
    [
        "bearer:{}",
        "basic:{}:SET",
        "basic:SET:{}",
        "header:X:{}",
        "query:x:{}",
        "oauth2:http://127.0.0.1/t:{}:SET",
        "oauth2:http://127.0.0.1/t:SET:{}",
    ],
)
@pytest.mark.parametrize("value", [None, "", "two\nlines", " before", "after ", "\x07"])
def test_a_variable_that_holds_nothing_to_send_is_named(
    monkeypatch: pytest.MonkeyPatch, auth: str, value: str | None
) -> None:
    """At once, before anything is sent, and without what it holds; one half of basic may be empty."""
    monkeypatch.setenv("SET", "" if auth.startswith("basic") and value == "" else "something")
    if value is not None:
        monkeypatch.setenv("PEOPLE_TOKEN", value)
    line = fail(auth=auth.format("PEOPLE_TOKEN"))
    assert re.search(r"the environment variables? .*PEOPLE_TOKEN", line)
    assert ("not set" in line, "empty" in line) == (value is None, value == "")
    assert "lines" not in line


@pytest.mark.parametrize("auth", ["bearer:PEOPLE_TOKEN", "header:X-Token:PEOPLE_TOKEN"])
def test_a_header_carries_ascii(monkeypatch: pytest.MonkeyPatch, auth: str) -> None:
    """Each server would read other characters in its own way."""
    monkeypatch.setenv("PEOPLE_TOKEN", "tökén")
    assert "PEOPLE_TOKEN has a line break" in fail(auth=auth)


@pytest.mark.parametrize(
    ("keys", "echoes"),
    [
        ({"auth": "bearer:PEOPLE_TOKEN"}, ["Token s3cr3t"]),
        ({"auth": "header:X:PEOPLE_TOKEN"}, ["Token s3cr3t", "s3cr3t"]),
        ({"auth": "query:x:PEOPLE_TOKEN"}, ["Token s3cr3t", "Token%20s3cr3t", "Token+s3cr3t"]),
        ({"auth": "basic:PEOPLE_USER:PEOPLE_TOKEN"}, ["Token s3cr3t", base64.b64encode(b"ann:Token s3cr3t").decode()]),
        ({"url": "http://ann:p%40ss@h/users"}, ["p@ss", "p%40ss", base64.b64encode(b"ann:p@ss").decode()]),
        ({"url": "http://p%40ss@h/users"}, ["p@ss", "p%40ss", base64.b64encode(b"p@ss:").decode()]),
    ],
    ids=str,
)
def test_the_mask_knows_what_is_sent_before_it_is(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], echoes: list[str]
) -> None:
    """Every form in which the source could repeat it; the user is no secret, but where there is no password."""
    monkeypatch.setenv("PEOPLE_TOKEN", "Token s3cr3t")
    monkeypatch.setenv("PEOPLE_USER", "ann")
    mask = Mask()
    Auth(People(**{"url": "http://h/users"} | keys), mask)
    assert [mask(echo) for echo in echoes] == ["***"] * len(echoes)
    assert mask("ann") == "ann"


def test_a_secret_in_the_place_of_its_variable_s_name_is_not_shown() -> None:
    """What does not look like the name of a variable is kept back."""
    assert "sk-live-hunter2" not in fail(auth="bearer:sk-live-hunter2")


@pytest.mark.parametrize(
    "url", ["users", "ftp://h/t", "http:///t", "http://h:port/t", "http://[h/t", "//h/t", "http://ann:hunter2@h/t"]
)
def test_a_token_url_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It needs http or https and a host; id and secret stand in variables, not in it."""
    monkeypatch.setenv("SET", "something")
    line = fail(auth=f"oauth2:{url}:SET:SET")
    assert "the token URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("hunter2", "it has no scheme"),
        ("ftp://ann:hunter2@h/x", "its scheme is not supported"),
        ("localhost:8080/hunter2", "its scheme is not supported"),
        ("http:///hunter2", "it has no host"),
        ("http://h:hunter2/", "its host or port is invalid"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_for_what_is_wrong_with_it(url: str, problem: str) -> None:
    """With what to write instead, and without the URL."""
    line = f"[people] url cannot be used: {problem}: write http://, https:// or demo://, and a host"
    assert fail(url=url) == line


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
@pytest.mark.parametrize("auth", ["bearer:", "basic:PEOPLE_USER:", "header:X-Token:", "query:code_word:"])
def test_no_secret_is_printed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Answer, auth: str
) -> None:
    """Whatever goes wrong, no error, log record (of urllib3 too, at DEBUG) or URL holds a secret, whole or in part."""
    monkeypatch.setenv("PEOPLE_TOKEN", SECRET)
    monkeypatch.setenv("PEOPLE_USER", "ann")
    caplog.set_level(logging.DEBUG)
    url = server.on("/users", answer).replace("http://", "http://ann:p4ssw0rd!@")
    people = People(
        url=url + "?password=p4ssw0rd!",
        params={"api_key": "p4ssw0rd!", "filter": [{"token": "p4ssw0rd!"}], "q": "oslo"},
        headers={"Cookie": "session c00kie"},
        auth=f"{auth}PEOPLE_TOKEN",
        retries=1,
    )
    reading = Reader(people, DAY)
    trace = ""
    try:
        list(reading)
    except SourceError:
        trace = traceback.format_exc()
    assert any("urllib3" in record.name for record in caplog.records)
    text = "\n".join([reading.url, reading.paginator, trace, caplog.text])
    assert "oslo" in text
    for secret in (SECRET, "s3cr3t", "p4ssw0rd", "c00kie", base64.b64encode(f"ann:{SECRET}".encode()).decode()):
        assert secret not in text


def test_the_loggers_are_given_back(server: Server) -> None:
    """After a reading urllib3's loggers are as they were."""
    read(server.on("/users", Answer([])), paginator="single")
    assert not logging.getLogger("urllib3.connectionpool").filters
