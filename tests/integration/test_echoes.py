"""Test that no eight characters of a secret are shown anywhere, even if a source repeats the secret in any spelling.

PIPELINE_SECRETS=all tests each spelling with each failure and each kind of secret.
"""

import base64
import datetime as dt
import html
import json
import logging
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from pipeline.users import ExtractUsers
from tests.support.project import run_here
from tests.support.server import Answer
from wholeday.config.pipeline import Pipeline
from wholeday.errors import PipelineError
from wholeday.extract.http.body import START_BYTES
from wholeday.load.database import find_database
from wholeday.storage.backends import open_storage
from wholeday.tasks import alerts, day_tasks

SECRET = 'Gq7/x+Rt&9 "Zk=Lm2\\Pw%41Vb_5'
CODE = base64.b64encode(f"ann:{SECRET}".encode()).decode()
PART = 8  # shortest part of a secret that must not be shown
FIRST = dt.date(2026, 1, 1)
USER = {"id": 1}

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper case": str.upper,
    "other case": str.swapcase,
    "percent-encoded": quote,
    "percent-encoded, all": lambda text: "".join(f"%{ord(char):02x}" for char in text),
    "form": quote_plus,
    "plus for space": lambda text: text.replace(" ", "+"),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "JSON in a URL": lambda text: quote(json.dumps(text)),
    "unicode escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "Python": repr,
    "hex escapes": lambda text: "".join(f"\\x{ord(char):02x}" for char in text),
    "HTML": html.escape,
    "HTML twice": lambda text: html.escape(html.escape(text)),
    "decimal entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "hex entities": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 behind a user": lambda text: base64.b64encode(f"u:{text}".encode()).decode(),
    "base64 in lines": lambda text: "\n".join(textwrap.wrap(base64.b64encode(text.encode()).decode(), 10)),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "hexadecimal": lambda text: text.encode().hex().upper(),
    "in lines": lambda text: "\n".join(text[at : at + 5] for at in range(0, len(text), 5)),
    "in indented lines": lambda text: "\r\n\t".join(text[at : at + 5] for at in range(0, len(text), 5)),
    "spaced out": " ".join,
    "backwards": lambda text: text[::-1],
    "its start": lambda text: text[:PART],
    "its end": lambda text: text[-PART:],
    "its middle": lambda text: text[7 : 7 + PART],
}


def fit(echo: str) -> str:
    """Remove the characters that a header cannot contain."""
    return "".join(char if char.isprintable() and char.isascii() else " " for char in echo)


def write(head: str) -> Answer:
    return Answer(raw=f"HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n[]".encode())


FAILURES: dict[str, Callable[[str], Answer]] = {
    "401": lambda echo: Answer({"error": echo}, status=401),
    "403 as text": lambda echo: Answer(echo, status=403),
    "400": lambda echo: Answer({"errors": [echo]}, status=400),
    "500": lambda echo: Answer(f"<html>{echo}", status=500),
    "503 with a reason": lambda echo: write(f"503 {fit(echo)}"),
    "401 with a reason": lambda echo: write(f"401 {fit(echo)}"),
    "200 with an error": lambda echo: Answer({"error": {"message": echo}, "data": [USER]}),
    "200 without JSON": lambda echo: Answer(f"<{echo}"),
    "two lists": lambda echo: Answer({echo: [USER], "others": [{"id": 2}]}),
    "redirect": lambda echo: write(f"302 Found\r\nLocation: http://other.invalid/{fit(echo)}"),
    "redirect in a circle": lambda echo: write(f"302 Found\r\nLocation: /users?again={fit(echo)}"),
    "link": lambda echo: write(f'200 OK\r\nLink: <http://other.invalid/{fit(echo)}>; rel="next"'),
    "cut in the excerpt": lambda echo: Answer("x" * 100 + echo, status=500),
    "cut with the start of the body": lambda echo: Answer(" " * (START_BYTES - 12) + echo, status=500),
}

KINDS = {
    "none": {"params": json.dumps({"api_key": SECRET})},
    "bearer": {"auth": "bearer:A_SECRET"},
    "basic": {"auth": "basic:A_USER:A_SECRET"},
    "header": {"auth": "header:X-Token:A_SECRET"},
    "query": {"auth": "query:word:A_SECRET"},
    "oauth2": {"auth": "oauth2:{server}/token:A_USER:A_SECRET"},
    "oauth2_refresh": {"auth": "oauth2_refresh:{server}/token:A_USER:AN_EMPTY:A_SECRET"},
    "token endpoint": {"auth": "oauth2:{server}/users:A_USER:A_SECRET"},
    "user info": {"url": f"http://ann:{quote(SECRET, safe='')}@{{host}}/users"},
    "proxy": {"url": "http://source.invalid/users"},
}


def find_leaks(text: str) -> list[str]:
    """List the spellings of the secret that appear in a text, in whole or in part."""

    def strip(text: str) -> str:
        return re.sub(r"[\s\\]", "", text).lower()

    text, leaks = strip(text), []
    for secret in (SECRET, CODE):
        for name, spell in FORMS.items():
            form = strip(spell(secret))
            size = max(PART, math.ceil(PART * len(form) / len(strip(secret))))
            if any(form[at : at + size] in text for at in range(max(1, len(form) - size + 1))):
                leaks.append(name)
    return leaks


def list_cases(kind: str) -> Iterator[tuple[str, str]]:
    """Pair each failure with a spelling. Two kinds test all spellings. PIPELINE_SECRETS=all yields all pairs."""
    if os.environ.get("PIPELINE_SECRETS") == "all":
        yield from ((failure, form) for failure in FAILURES for form in FORMS)
        return
    failures, shift = list(FAILURES), list(KINDS).index(kind)
    for number, form in enumerate([*FORMS][shift % 2 :: 2]):
        yield failures[(number + shift) % len(failures)], form


@pytest.fixture
def watch(
    configure: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Log everything, and set the variables that sections name."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="luigi-interface")
    for name, value in {"A_SECRET": SECRET, "A_USER": "ann", "AN_EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    configure("pipeline", webhook="A_HOOK")
    configure("users", retries=1, max_wait="0 seconds")
    return configure


def fail(date: dt.date) -> str:
    """Run a day, which must fail as in a Luigi worker. Return the text that luigid gets."""
    task = ExtractUsers(date=date)
    try:
        task.run()
    except PipelineError as error:
        day_tasks.on_failure(task, error)
        return f"{error} {task.on_failure(error)}"
    raise AssertionError("the day did not fail")


def read_files() -> str:
    """The content of every file in the current folder but luigi.cfg, which may hold a secret."""
    files = [path for path in Path().rglob("*") if path.is_file() and path.name != "luigi.cfg"]
    return "\n".join(f"{path} {path.read_text('utf-8', 'replace')}" for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_echo_of_a_secret_is_shown(kind, server, watch, caplog, capsys, monkeypatch):
    """The test checks errors, the log at DEBUG, luigid, files, the webhook, `status` and the report."""
    host = server.url.partition("//")[2]
    keys = {"url": f"{server.url}/users"} | KINDS[kind]
    watch("users", **{key: text.replace("{server}", server.url).replace("{host}", host) for key, text in keys.items()})
    monkeypatch.setenv("A_HOOK", server.on("/hook", Answer(b"ok")))
    if kind == "proxy":
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:{quote(SECRET, safe='')}@{host}")
    server.on("/token", Answer({"access_token": "t0k3n", "token_type": "bearer"}))
    for number, (failure, form) in enumerate(list_cases(kind)):
        for carried in (SECRET, CODE) if kind in ("basic", "user info") else (SECRET,):
            server.on("/users", FAILURES[failure](FORMS[form](carried)))
            caplog.clear()
            told = fail(FIRST + dt.timedelta(days=number))
            assert not find_leaks(f"{told} {caplog.text}"), (failure, form)
    shown = [*run_here(capsys, "status")[:2], *run_here(capsys, "report")[:2], read_files()]
    shown += [str(json.loads(request.body)) for request in server.requests if request.path == "/hook"]
    assert len(shown) > len(FAILURES)
    assert "***" in str(shown)
    assert not find_leaks("\n".join(shown))


@pytest.mark.parametrize("form", FORMS)
def test_search_finds_every_spelling(form):
    """Otherwise the other tests would prove nothing."""
    assert form in find_leaks(f"what came: {FORMS[form](SECRET)}!")
    assert not find_leaks("GET http://127.0.0.1:8080/users: 401 Unauthorized: check auth, and the secret it names")


def test_url_repeated_by_a_webhook_is_not_shown(server, watch, monkeypatch):
    watch("users", url="demo://users")
    monkeypatch.setenv("A_HOOK", f"{server.url}/hook?{quote(SECRET, safe='')}")
    for form, spell in FORMS.items():
        server.on("/hook", FAILURES["503 with a reason"](spell(SECRET)))
        problem = alerts.post("A_HOOK", {"text": "trial"})
        assert problem
        assert not find_leaks(problem), form


PASSWORD = "Geh3im-Wort"
BROKEN = [
    *(f"{PASSWORD}{rest}" for rest in ("", "/x", "#x", "?x", "@x", " x", "/")),
    *(f"{start}{PASSWORD}" for start in ("a/", "a#", "a?", "a@", "a:", "a\\", "[", "1#", "8/", "80?")),
]


def use_day() -> str:
    return fail(FIRST)


def use_database() -> str:
    with pytest.raises(PipelineError) as caught, find_database(Pipeline().database).connect():
        pass
    return str(caught.value)


def use_storage() -> str:
    with pytest.raises(PipelineError) as caught:
        open_storage(Pipeline().data_dir)
    return str(caught.value)


def use_webhook() -> str:
    return alerts.post("A_HOOK", {"text": "trial"}) or "taken"


PLACES: dict[str, tuple[str, str, str, Callable[[], str]]] = {
    "source": ("users", "url", "http://bob:{}@127.0.0.1:1/x", use_day),
    "token URL": ("users", "auth", "oauth2:http://bob:{}@127.0.0.1:1/token:A_USER:A_SECRET", use_day),
    "proxy": ("environment", "HTTP_PROXY", "http://bob:{}@127.0.0.1:1", use_day),
    "webhook": ("environment", "A_HOOK", "http://bob:{0}@127.0.0.1:1/services/{0}", use_webhook),
    "database": ("pipeline", "database", "postgresql+psycopg://bob:{}@127.0.0.1:1/x", use_database),
    "other database": ("pipeline", "database", "postgres://bob:{}@127.0.0.1:1/x", use_database),
    "data_dir": ("pipeline", "data_dir", "s3://bob:{}@bucket/x", use_storage),
    "endpoint": ("pipeline", "data_dir", "s3://bucket/x?endpoint_override=http://bob:{}@127.0.0.1:1", use_storage),
}


@pytest.mark.parametrize("place", PLACES)
def test_unencoded_password_in_a_url_is_not_shown(place, watch, caplog, monkeypatch):
    """Without percent-encoding, the URL is invalid or has another meaning."""
    section, key, url, use = PLACES[place]
    watch("users", url="http://source.invalid/users", retries=0)
    for password in BROKEN:
        text = url.replace("{0}", password).replace("{}", password)
        if section == "environment":
            monkeypatch.setenv(key, text)
        else:
            watch(section, **{key: text})
        told = use()
        assert PASSWORD not in f"{told} {caplog.text} {read_files()}", password
