"""Extract from third-party servers and compare the keys with their data."""

import datetime as dt
import json
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline.users import USERS
from tests.support import find_port, peers
from tests.support.peers import DATASETTE, JSON_SERVER, JSON_SERVER_1, JSONPLACEHOLDER, SCIM, Peer, serve
from tests.support.project import miss, need, query, run_stages
from tests.support.reading import DAY, People, read, read_error
from wholeday.extract.reader import Reader

# One process starts each server once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("peers"), pytest.mark.timeout(300)]

Users = list[dict[str, Any]]


def find(peer: Peer) -> Path:
    """Return the folder of an installed peer."""
    if not peer.folder.exists():
        miss(f"{peer.packages[0]} is not installed: .venv/bin/python -m tests.support.peers")
    return peer.folder


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("false", pytest.skip.Exception)])
def test_missing_part_is_skipped_or_fails_in_ci(monkeypatch, tmp_path, ci, outcome):
    """It names the command that installs the part."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    for ask, reason in (
        (lambda: find(JSON_SERVER), "json-server@0.17.4 is not installed: .venv/bin/python -m tests.support.peers"),
        (lambda: need("no-such-program"), "no-such-program is not installed"),
    ):
        with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match=reason) as raised:
            ask()
        assert raised.type is outcome


NOON = dt.datetime.combine(DAY, dt.time(12), dt.UTC)


def make_users(count: int) -> Users:
    """Make users, each changed an hour after the one before, half of them before `NOON`."""
    moments = [NOON + dt.timedelta(hours=number - count // 2) for number in range(count)]
    return [
        {"id": number, "name": f"User {number}", "email": f"{number}@b", "updated_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}
        for number, moment in enumerate(moments, start=1)
    ]


@pytest.fixture(scope="module")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Users]]:
    """Run json-server with 105 users, and with the ten users of the public JSONPlaceholder API."""
    folder, port = tmp_path_factory.mktemp("json-server"), find_port()
    users = make_users(105)
    with tarfile.open(next(find(JSONPLACEHOLDER).iterdir())) as package:
        placeholder = json.load(package.extractfile("package/data.json"))["users"]
    (folder / "db.json").write_text(json.dumps({"users": users, "placeholder": placeholder}))
    program = find(JSON_SERVER) / "node_modules/json-server/lib/cli/bin.js"
    command = (need("node"), program, "--host", "127.0.0.1", "--port", str(port), "--quiet", "db.json")
    with serve(port, *command, folder=folder) as url:
        yield f"{url}/users", users


@pytest.mark.parametrize("params", ["{}", '{"_page": 1, "_limit": 3}'], ids=["at-once", "in-pages"])
def test_jsonplaceholder_loads_its_ten_users(json_server, configure, params):
    """It works with one page and with Link headers."""
    url = json_server[0].replace("users", "placeholder")
    users = requests.get(url, timeout=10).json()
    expected = [(user["id"], user["name"], user["email"].lower(), user["address"]["city"]) for user in users]
    assert len(expected) == 10
    configure("users", url=url, mode="snapshot", params=params)
    for day in (DAY, DAY + dt.timedelta(days=1)):
        run_stages(USERS, day)
        assert query("select user_id, name, email, city from users order by user_id") == expected
    pages = 1 if params == "{}" else 4
    assert query("select inserted, unchanged, pages from loads order by date") == [(10, 0, pages), (0, 10, pages)]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"preset": "jsonplaceholder"},
        {"preset": "jsonplaceholder", "page_size": 7},
        {"params": {"_page": "1"}},
        {"params": {"_page": "1", "_limit": "10"}},
        {"params": {"_limit": "10"}},
        {"paginator": "page", "page_param": "_page", "size_param": "_limit", "page_size": 20},
        {"paginator": "page", "page_param": "_page", "requests_per_second": 1e6},
        {"paginator": "offset", "offset_param": "_start", "size_param": "_limit", "page_size": 20},
    ],
    ids=lambda keys: " ".join(f"{name}={value}" for name, value in keys.items()) or "auto",
)  # fmt: skip
def test_json_server_extracts_all_users(json_server: tuple[str, Users], keys: dict[str, Any]) -> None:
    """With a single page, links, page numbers, and the auto paginator."""
    url, users = json_server
    assert read(url, **keys) == users


@pytest.mark.parametrize("size", [5, 100])
def test_json_server_filter_covers_the_day(json_server: tuple[str, Users], size: int) -> None:
    """Its upper bound is inclusive, so the first second of the next day arrives too."""
    url, users = json_server
    params = {"_page": "1", "updated_at_gte": "{day_start}", "updated_at_lte": "{day_stop}"}
    keys = {"preset": "jsonplaceholder", "mode": "incremental", "params": params, "page_size": size}
    days = [record["updated_at"][:10] for record in read(url, **keys)]
    assert days == [str(DAY)] * 24 + [str(DAY + dt.timedelta(days=1))]
    assert sum(user["updated_at"].startswith(str(DAY)) for user in users) == 24


@pytest.fixture(scope="module")
def next_json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Users]]:
    """Run json-server 1, which wraps pages in objects and repeats the last page."""
    folder, port = tmp_path_factory.mktemp("json-server-1"), find_port()
    users = [user | {"id": str(user["id"])} for user in make_users(105)]
    (folder / "db.json").write_text(json.dumps({"users": users}))
    program = find(JSON_SERVER_1) / "node_modules/json-server/lib/bin.js"
    command = (need("node"), program, "--host", "127.0.0.1", "--port", str(port), "db.json")
    with serve(port, *command, folder=folder) as url:
        yield f"{url}/users", users


PAGED = {"paginator": "page", "page_param": "_page", "size_param": "_per_page", "data_selector": "data"}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"params": {"_page": "1"}},
        {"params": {"_page": "1", "_per_page": "21"}},
        {**PAGED, "page_size": 20, "total_path": "items"},
        {**PAGED, "page_size": 21, "total_path": "pages:pages", "requests_per_second": 1e6},
        {**PAGED, "page_size": 21, "more_path": "next"},
        {"params": {"_page": "1"}, "paginator": "cursor", "cursor_path": "next", "cursor_param": "_page"},
    ],
    ids=lambda keys: " ".join(f"{name}={value}" for name, value in keys.items()) or "auto",
)
def test_json_server_1_extracts_all_users(next_json_server: tuple[str, Users], keys: dict[str, Any]) -> None:
    """With the auto paginator, page numbers, each kind of total, and the next page."""
    url, users = next_json_server
    assert read(url, **keys) == users


def test_json_server_1_repeats_its_last_page(next_json_server: tuple[str, Users]) -> None:
    """Without a key for the end, the reader compares a full last page with the page after it."""
    url, _ = next_json_server
    assert "has the same records as page 5: the source repeats itself" in read_error(url, **PAGED, page_size=21)


@pytest.fixture(scope="module")
def scim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], tuple[str, Users]]]:
    """Run scim2-server, which stores users in memory. Return its URL and all users."""
    folder, port, installed = tmp_path_factory.mktemp("scim"), find_port(), find(SCIM)
    headers = {"Authorization": "Bearer scim-t0ken", "Content-Type": "application/scim+json"}
    users: Users = []
    command = (sys.executable, installed / "bin" / "scim2-server", "--port", str(port), "--bearer-token", "scim-t0ken")
    with serve(port, *command, folder=folder, PYTHONPATH=str(installed)) as url:

        def fill(number: int) -> tuple[str, Users]:
            while len(users) < number:
                name = f"user-{len(users)}"
                user = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name}
                answer = requests.post(f"{url}/v2/Users", json=user, headers=headers, timeout=10)
                answer.raise_for_status()
                users.append(answer.json())
            return f"{url}/v2/Users", users

        yield fill


@pytest.fixture
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIM_TOKEN", "scim-t0ken")


AS_SCIM = {"preset": "scim", "auth": "bearer:SCIM_TOKEN"}


@pytest.mark.usefixtures("_token")
@pytest.mark.parametrize("keys", [{}, {"page_size": 4}, {"page_size": 1, "requests_per_second": 1e6}], ids=str)
def test_scim_preset_extracts_all_users(scim: Callable[[int], tuple[str, Users]], keys: dict[str, Any]) -> None:
    """In one page or many, sequentially or ahead."""
    url, users = scim(13)
    records = read(url, **AS_SCIM, mode="snapshot", params={}, **keys)
    assert sorted(record["id"] for record in records) == sorted(user["id"] for user in users)


@pytest.mark.usefixtures("_token")
def test_scim_filter_excludes_older_changes(scim: Callable[[int], tuple[str, Users]]) -> None:
    """The filter uses meta.lastModified."""
    url, users = scim(13)
    moments = sorted(dt.datetime.fromisoformat(user["meta"]["lastModified"]) for user in users)
    for watermark, number in ((moments[0], 13), (moments[-1] + dt.timedelta(hours=1), 0)):
        reading = Reader(People(url=url, **AS_SCIM), DAY, watermark)
        assert sum(len(page) for page in reading) == number


def test_scim_wrong_token_fails_at_once(
    scim: Callable[[int], tuple[str, Users]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error does not show the token."""
    url, _ = scim(1)
    monkeypatch.setenv("SCIM_TOKEN", "another-t0ken")
    line = read_error(url, **AS_SCIM)
    assert ": 401 " in line
    assert "another-t0ken" not in line


@pytest.fixture(scope="module")
def datasette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Datasette with 105 users in a SQLite table."""
    folder, port, installed = tmp_path_factory.mktemp("datasette"), find_port(), find(DATASETTE)
    with closing(sqlite3.connect(folder / "people.db")) as db, db:
        db.execute("create table users (id integer primary key, name text, email text, updated_at text)")
        db.executemany("insert into users values (:id, :name, :email, :updated_at)", make_users(105))
    command = (sys.executable, installed / "bin" / "datasette", "people.db", "--port", str(port))
    with serve(port, *command, folder=folder, PYTHONPATH=str(installed)) as url:
        yield f"{url}/people/users.json"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"paginator": "next_url", "cursor_path": "next_url"},
        {"paginator": "next_url", "cursor_path": "next_url", "total_path": "filtered_table_rows_count"},
        {"paginator": "cursor", "cursor_path": "next", "cursor_param": "_next"},
        {"paginator": "link_header"},
    ],
    ids=lambda keys: " ".join(f"{name}={value}" for name, value in keys.items()) or "auto",
)
@pytest.mark.parametrize("size", ["10", "21", "105", "1000"])
def test_datasette_extracts_all_users(datasette: str, size: str, keys: dict[str, Any]) -> None:
    """By next URL, cursor, Link header, and the auto paginator."""
    params = {"_shape": "objects", "_size": size}
    assert read(datasette, data_selector="rows", params=params, **keys) == make_users(105)
