"""Load typical APIs by sections and record classes, from the source to the table."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.support.project import query, run
from tests.support.reading import make_user, read_error
from tests.support.server import Answer, Request, Server
from tests.support.things import TODAY
from wholeday.schema.dataset import Dataset
from wholeday.schema.record import Field, Record
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]


class Star(Record):
    user_id: int = Field("user.id", primary_key=True)
    repo_id: int = Field("repo.id", primary_key=True)
    updated_at: datetime | None = Field("starred_at")


class Camel(Record):
    user_id: int = Field("userId", primary_key=True)
    kind: str = Field("@type")
    updated_at: datetime | None = Field("lastUpdated")


class Edge(Record):
    id: str = Field("node.id", primary_key=True)
    updated_at: datetime | None = Field("node.updatedAt")


class Amount(Record):
    id: int = Field(primary_key=True)
    value: float
    updated_at: datetime | None


class OwnAmount(Record):
    id: int = Field(primary_key=True)
    value: float
    org: str | None
    updated_at: datetime | None


class Value(Record):
    value: str = Field(primary_key=True)
    updated_at: datetime | None


class Member(Record):
    key: str = Field("_key", primary_key=True)
    name: str | None
    updated_at: datetime | None


def load(
    configure: Configure, record_class: type[Record], clean: Callable[..., Any] | None = None, **section: Any
) -> list[tuple[Any, ...]]:
    """Load a snapshot of today. Return the rows, with the columns of the class in its order."""
    dataset = Dataset("gh-members", record_class, clean)
    texts = {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in section.items()}
    configure("gh-members", **{"mode": "snapshot", "paginator": "single", **texts})
    stages.extract(read_workspace(dataset), TODAY)
    stages.transform(read_workspace(dataset), TODAY)
    stages.load(read_workspace(dataset), TODAY)
    return query(f'select {", ".join(dataset.columns.kinds)} from "gh-members" order by 1, 2')


@pytest.mark.parametrize("space", ["", " "])
def test_graphql_connection(server: Server, configure: Configure, space: str) -> None:
    """Braces in the query stay text. The cursor is a query variable."""
    text = "query($after:String){users(first:2,after:$after){edges{node{id}}pageInfo{hasNextPage}}}"
    text = text.replace("{", f"{{{space}").replace("}", f"{space}}}")

    def respond(request: Request) -> Answer:
        body = json.loads(request.body)
        assert body["query"] == text
        first = body["variables"]["after"] is None
        nodes = [{"id": name, "updatedAt": "2026-11-20T10:00:00Z"} for name in ("ab" if first else "c")]
        info = {"hasNextPage": first, "endCursor": "b" if first else "c"}
        return Answer({"data": {"users": {"edges": [{"node": node} for node in nodes], "pageInfo": info}}})

    rows = load(
        configure,
        Edge,
        url=server.on("/graphql", respond),
        method="POST",
        body={"query": text, "variables": {"after": None}},
        data_selector="data.users.edges",
        paginator="cursor",
        cursor_path="data.users.pageInfo.endCursor",
        cursor_param="variables.after",
        cursor_in="body",
        more_path="data.users.pageInfo.hasNextPage",
    )
    assert rows == [(name, "2026-11-20T10:00:00.000000Z") for name in "abc"]


def test_key_of_nested_fields(server: Server, configure: Configure) -> None:
    """Each part of the key is a path into an object."""
    records = [{"starred_at": f"2026-11-2{day}T10:00:00Z", "user": {"id": day}, "repo": {"id": 9}} for day in (1, 2)]
    rows = load(configure, Star, url=server.on("/stars", Answer(records)))
    assert rows == [(day, 9, f"2026-11-2{day}T10:00:00.000000Z") for day in (1, 2)]


@pytest.mark.slow
def test_renamed_fields(server: Server, configure: Configure) -> None:
    """A column may have a name of its own."""
    records = [{"userId": 1, "lastUpdated": "2026-11-20T10:00:00Z", "@type": "person"}]
    rows = load(configure, Camel, url=server.on("/users", Answer(records)))
    assert rows == [(1, "person", "2026-11-20T10:00:00.000000Z")]


def test_large_number_in_a_float(server: Server, configure: Configure) -> None:
    """An integer beyond 64 bits fits a float column. The raw file keeps its digits."""
    url = server.on("/users", Answer(b'[{"id": 1, "value": 12345678901234567890}, {"id": 2, "value": 0.1}]'))
    rows = load(configure, Amount, url=url)
    assert [row[:2] for row in rows] == [(1, 12345678901234567890.0), (2, 0.1)]


def test_members_of_one_organization(server: Server, configure: Configure) -> None:
    """The URL has the parent, and `clean` writes it to a column."""
    url = server.on("/orgs/acme/members", Answer([{"id": 1, "value": 7}]))
    rows = load(configure, OwnAmount, lambda frame: frame.assign(org="acme"), url=url)
    assert rows == [(1, 7.0, "acme", None)]


def test_list_of_texts(server: Server, configure: Configure) -> None:
    """The record class declares `value`."""
    url = server.on("/members", Answer({"ok": True, "members": ["U023", "W012"]}))
    rows = load(configure, Value, url=url)
    assert [row[0] for row in rows] == ["U023", "W012"]


def test_members_of_an_object(server: Server, configure: Configure) -> None:
    """Their names are the key."""
    url = server.on("/users.json", Answer({"users": {"u1": {"name": "Ada"}, "u2": {"name": "Bob"}}}))
    rows = load(configure, Member, url=url, data_selector="users.*")
    assert [row[:2] for row in rows] == [("u1", "Ada"), ("u2", "Bob")]


@pytest.mark.slow
def test_two_secrets(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comes from auth and one from a header. Both are masked."""
    monkeypatch.setenv("DD_KEY", "key-of-nobody")
    monkeypatch.setenv("DD_APP", "app-of-nobody")
    secrets = {"auth": "header:DD-API-KEY:DD_KEY", "headers": {"DD-APPLICATION-KEY": "${DD_APP}"}}
    url = server.on("/users", Answer([{"id": 1, "value": 7}]))
    load(configure, Amount, url=url, **secrets)
    sent = server.requests[0].headers
    assert (sent["DD-API-KEY"], sent["DD-APPLICATION-KEY"]) == ("key-of-nobody", "app-of-nobody")
    keys = {"auth": "header:DD-API-KEY:DD_KEY", "headers": {"DD-APPLICATION-KEY": "app-of-nobody"}}
    line = read_error(server.on("/users", Answer({"you sent": ["key-of-nobody", "app-of-nobody"]}, status=400)), **keys)
    assert "of-nobody" not in line


@pytest.mark.slow
def test_sideloaded_records(server: Server, configure: Configure) -> None:
    """data_selector chooses between two lists, because the reader does not guess."""
    body = {"tickets": [{"id": 1, "value": 2}], "users": [{"id": 7, "value": 8}], "count": 1, "next_page": None}
    url = server.on("/tickets.json", Answer(body))
    rows = load(configure, Amount, url=f"{url}?include=users", data_selector="tickets")
    assert [row[:2] for row in rows] == [(1, 2.0)]
    assert "the page has lists at 'tickets', 'users'" in read_error(url)


@pytest.mark.slow
def test_keys_shared_by_sections(server: Server, home: Any) -> None:
    """[DEFAULT] holds them, and %(name)s inserts a value. Luigi's warning would show the value of a variable."""
    server.on("/v1/users", Answer([make_user(1)]))
    (home / "luigi.cfg").write_text(
        f"[DEFAULT]\nbase = {server.url}/v1\nauth = bearer:API_TOKEN\nkey_of_app = ${{API_TOKEN}}\n"
        "[users]\nurl = %(base)s/users\nmode = snapshot\npaginator = single\n"
        'headers = {"X-App": "%(key_of_app)s"}\n'
        "[core]\nlocal_scheduler = true\nautoload_range = true\n"
    )
    for command in ("luigi --module pipeline LoadUsers", "python -m wholeday check"):
        done = run(*command.split(), API_TOKEN="token-of-nobody")
        assert (done.returncode, done.stderr) == (0, "")
    assert server.requests[0].headers["X-App"] == "token-of-nobody"
    assert server.requests[0].headers["Authorization"] == "Bearer token-of-nobody"
    assert query("select user_id from users") == [(1,)]
