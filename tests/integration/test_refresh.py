"""OAuth 2.0 refresh tokens: they are sent, replaced, stored and never printed."""

import base64
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.reading import People, read, read_error
from tests.support.server import Answer, Request, Server
from tests.support.tokens import SECRET, Caller
from wholeday.errors import ConfigError, SourceError
from wholeday.extract.http.failures import RecoverableError

AUTH = "oauth2_refresh:{url}:PEOPLE_ID:PEOPLE_SECRET:PEOPLE_REFRESH"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that auth names."""
    for name, value in {"ID": "our-id", "SECRET": SECRET, "REFRESH": "refresh-0"}.items():
        monkeypatch.setenv(f"PEOPLE_{name}", value)


class Endpoint:
    """A token endpoint that replaces the refresh token with each use, and refuses one that was used before."""

    def __init__(self) -> None:
        self.newest = 0
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            if f"refresh_token=refresh-{self.newest}" not in request.body.decode().split("&"):
                self.refused += 1
                return Answer({"error": "invalid_grant", "error_description": request.body.decode()}, status=400)
            self.newest += 1
            return Answer({"access_token": f"token-{self.newest}", "refresh_token": f"refresh-{self.newest}"})


def fail_config(caller: Caller) -> str:
    """Return the error for an unusable file. Nothing is sent."""
    with pytest.raises(ConfigError) as caught:
        caller.fetch_token()
    assert not caller.server.requests
    assert "refresh-" not in str(caught.value)
    return str(caught.value)


def test_refresh_request_follows_the_standard(server: Server) -> None:
    """A form, with id and secret in HTTP basic, and the scope of the URL."""
    caller = Caller(server, Answer({"access_token": "token-1"}), query="?scope=users.read", auth=AUTH)
    assert caller.fetch_token() == "token-1"
    assert caller.asked == [{"grant_type": "refresh_token", "refresh_token": "refresh-0", "scope": "users.read"}]
    sent = server.requests[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent) == b"our-id:s3cr3t%2F%2Btok%26n+%C3%A9"


def test_public_client_sends_only_its_id(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable for its secret is empty."""
    monkeypatch.setenv("PEOPLE_SECRET", "")
    caller = Caller(server, Answer({"access_token": "token-1"}), auth=AUTH)
    assert caller.fetch_token() == "token-1"
    assert caller.asked == [{"grant_type": "refresh_token", "refresh_token": "refresh-0", "client_id": "our-id"}]
    assert server.requests[0].headers["Authorization"] is None


def test_refused_header_uses_no_refresh_token(server: Server) -> None:
    """The second request sends the secret in the body."""
    give = Endpoint()
    refuse = Answer({"error": "invalid_client"}, status=401)
    caller = Caller(server, lambda request: give(request) if b"client_secret" in request.body else refuse, auth=AUTH)
    assert caller.fetch_token() == "token-1"
    assert [sorted(body) for body in caller.asked] == [
        ["grant_type", "refresh_token"],
        ["client_id", "client_secret", "grant_type", "refresh_token"],
    ]


def test_replaced_token_is_stored_in_a_private_file(server: Server, tmp_path: Path) -> None:
    """Each run uses the newest token. The folder contains nothing but the file and its lock."""
    path = tmp_path / "secrets" / "people.json"
    endpoint = Endpoint()
    for number in range(1, 4):
        assert Caller(server, endpoint, auth=AUTH, token_file=str(path)).fetch_token() == f"token-{number}"
    assert endpoint.refused == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_bytes())["refresh_token"] == "refresh-3"
    assert sorted(each.name for each in path.parent.iterdir()) == ["people.json", "people.json.lock"]


def test_renewal_uses_the_newest_refresh_token(server: Server, tmp_path: Path) -> None:
    """The rule holds within a run as well, after the API refused a token."""
    endpoint = Endpoint()
    server.on("/token", endpoint)
    answers = [Answer(status=401), Answer([{"id": 1}])]
    keys = {"auth": AUTH.format(url=f"{server.url}/token"), "token_file": str(tmp_path / "kept")}
    assert read(server.on("/users", *answers), paginator="single", **keys) == [{"id": 1}]
    assert (endpoint.newest, endpoint.refused) == (2, 0)


def test_new_token_in_the_variable_counts(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new authorisation, exporting the new token is enough: the file belongs to the old one."""
    path, endpoint = str(tmp_path / "kept"), Endpoint()
    assert Caller(server, endpoint, auth=AUTH, token_file=path).fetch_token() == "token-1"
    endpoint.newest = 50
    monkeypatch.setenv("PEOPLE_REFRESH", "refresh-50")
    assert Caller(server, endpoint, auth=AUTH, token_file=path).fetch_token() == "token-51"
    assert Caller(server, endpoint, auth=AUTH, token_file=path).fetch_token() == "token-52"
    assert endpoint.refused == 0


@pytest.mark.slow
def test_threads_and_processes_use_a_token_once(server: Server, tmp_path: Path) -> None:
    """Each waits for the one before, and uses the token that it stored."""
    path, endpoint = str(tmp_path / "kept"), Endpoint()
    callers = [Caller(server, endpoint, auth=AUTH, token_file=path) for _ in range(6)]
    code = (
        "import sys; from tests.support.reading import read;"
        "[read(sys.argv[1] + '/users', auth=sys.argv[2], token_file=sys.argv[3]) for _ in range(5)]"
    )
    command = [sys.executable, "-c", code, server.url, AUTH.format(url=callers[0].url), path]
    others = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(2)]
    threads = [threading.Thread(target=caller.fetch_token) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    assert (endpoint.newest, endpoint.refused) == (16, 0)


@pytest.mark.parametrize(("left", "newest"), [("", 1), (" " * 8192, 1), ('{"descends_from": ', 1), ("whole", 7)])
def test_token_survives_sigkill_while_writing(server: Server, tmp_path: Path, left: str, newest: int) -> None:
    """A complete new file is used, because it is newer. An incomplete one is deleted."""
    path, endpoint = tmp_path / "kept", Endpoint()
    assert Caller(server, endpoint, auth=AUTH, token_file=str(path)).fetch_token() == "token-1"
    kept = path.read_text()
    text = kept.replace("refresh-1", "refresh-7") if left == "whole" else left
    path.with_name("kept.new").write_text(text)
    endpoint.newest = newest
    assert Caller(server, endpoint, auth=AUTH, token_file=str(path)).fetch_token() == f"token-{newest + 1}"
    assert json.loads(path.read_text())["refresh_token"] == f"refresh-{newest + 1}"
    assert not path.with_name("kept.new").exists()


def test_unusable_file_uses_no_token(server: Server, tmp_path: Path) -> None:
    """The file is tested before any request is sent."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "kept", tmp_path):
        line = fail_config(Caller(server, Endpoint(), auth=AUTH, token_file=str(path)))
        assert re.search(rf"token_file = {path} cannot be used \(.+\): name a file in a folder that you own", line)
    (tmp_path / "kept").write_text("refresh-9")
    line = fail_config(Caller(server, Endpoint(), auth=AUTH, token_file=str(tmp_path / "kept")))
    assert "contains no refresh token: delete it, and export a new token as PEOPLE_REFRESH" in line
    assert "refresh-9" not in line


def test_token_that_cannot_be_stored_fails_the_day(server: Server, tmp_path: Path) -> None:
    """The line names the file and the next step."""
    folder, endpoint = tmp_path / "secrets", Endpoint()

    def take_away(request: Request) -> Answer:
        shutil.rmtree(folder)
        return endpoint(request)

    caller = Caller(server, take_away, auth=AUTH, token_file=str(folder / "kept"))
    with pytest.raises(SourceError) as caught:
        caller.fetch_token()
    assert "cannot be written (No such file or directory): free disk space or grant access; if PEOPLE_" in str(
        caught.value
    )
    assert "refresh-" not in str(caught.value)


def test_token_file_needs_a_refresh_token() -> None:
    """A key without effect is refused."""
    with pytest.raises(ConfigError, match="token_file needs auth = oauth2_refresh"):
        read("http://127.0.0.1/users", token_file="kept")


@pytest.mark.parametrize("token_file", ["", "kept"])
def test_refused_refresh_token_names_the_next_step(server: Server, token_file: str) -> None:
    """One line, without the token."""
    endpoint = Endpoint()
    endpoint.newest = 3
    line = Caller(server, endpoint, auth=AUTH, token_file=token_file).fetch_error()
    assert "400 Bad Request: 'invalid_grant" in line
    assert "authorise the application again and export the new one as PEOPLE_REFRESH" in line
    assert ("set token_file too" in line) == (not token_file)
    assert not re.search(r"refresh-\d", line)
    assert endpoint.refused == 1


def test_replaced_token_without_a_file_is_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The run uses it; the line names the key."""
    caplog.set_level(logging.DEBUG)
    caller = Caller(server, Endpoint(), auth=AUTH)
    for number in (1, 2, 3):
        token = caller.fetch_token()
        assert token == f"token-{number}"
        caller.auth._tokens.drop(token)  # type: ignore[union-attr]
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "set token_file to a path, or the endpoint may refuse PEOPLE_REFRESH" in warning.getMessage()
    assert "refresh-" not in warning.getMessage()


def test_short_outage_uses_no_refresh_token(server: Server, tmp_path: Path) -> None:
    """The next attempt sends the same one."""
    endpoint = Endpoint()
    caller = Caller(server, Answer(status=503), endpoint, auth=AUTH, token_file=str(tmp_path / "kept"))
    with pytest.raises(RecoverableError):
        caller.fetch_token()
    assert caller.fetch_token() == "token-1"
    assert endpoint.refused == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": "token-1", "refresh_token": "refresh-1", "token_type": "mac"},
        {"refresh_token": "refresh-1"},
        {"access_token": "token-1", "refresh_token": "refresh-1", "expires_in": "refresh-1"},
    ],
    ids=str,
)
def test_token_of_a_useless_answer_is_stored(server: Server, tmp_path: Path, answer: dict[str, Any]) -> None:
    """The endpoint may have revoked the previous token."""
    path = tmp_path / "kept"
    line = Caller(server, Answer(answer), auth=AUTH, token_file=str(path)).fetch_error()
    assert json.loads(path.read_text())["refresh_token"] == "refresh-1"
    assert not re.search(r"(refresh|token)-\d", line)


def test_no_refresh_token_is_printed(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an error of an API that repeats everything, nor in a log at DEBUG."""
    caplog.set_level(logging.DEBUG)
    server.on("/token", Endpoint())
    said = {"error": f"token-1 refresh-0 refresh-1 {SECRET}"}
    keys = {"auth": AUTH.format(url=f"{server.url}/token"), "token_file": str(tmp_path / "kept")}
    line = read_error(server.on("/users", Answer(said, status=400)), **keys)
    assert "*** *** *** ***" in line
    assert not re.search(r"(refresh|token)-\d|s3cr3t", line + caplog.text + repr(People(url="http://h/", **keys)))
