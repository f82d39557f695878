"""Load typical APIs by sections and record classes, from the source to the table."""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import luigi
import msgspec
import pandas as pd
import pytest
import sqlalchemy as sa

from tests.support.project import luigi_run, query
from tests.support.reading import make_user, read_error
from tests.support.server import Answer, Request, Server
from tests.support.things import TIME, TODAY
from wholeday.config.source import Source
from wholeday.schema.dataset import Dataset
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform.day import prepare_transform

Configure = Callable[..., None]


class Members(Source):
    section = "gh-members"
    url = luigi.Parameter(default="")


class Ref(msgspec.Struct):
    id: int


class Star(msgspec.Struct):
    user: Ref
    repo: Ref
    starred_at: dt.datetime | None = None


class Camel(msgspec.Struct, rename="camel"):
    user_id: int
    kind: str = msgspec.field(name="@type")
    last_updated: dt.datetime | None = None


class Node(msgspec.Struct, rename="camel"):
    id: str
    updated_at: dt.datetime | None = None


class Edge(msgspec.Struct):
    node: Node


class Amount(msgspec.Struct):
    id: int
    value: float


class Value(msgspec.Struct):
    value: str


class Member(msgspec.Struct):
    key: str = msgspec.field(name="_key")
    name: str | None = None


def load(
    configure: Configure,
    record_class: type[msgspec.Struct],
    key: Sequence[str],
    columns: Mapping[str, Any],
    names: Mapping[str, str] = {},
    constants: Mapping[str, Any] = {},
    **section: Any,
) -> list[tuple[Any, ...]]:
    """Load a snapshot of today. Return the rows of a table of `columns`, key columns first.

    `names` renames fields, and `constants` adds constant columns.
    """

    def clean(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
        frame = frame.rename(columns=dict(names)).assign(**constants)
        if "updated_at" not in frame:
            frame["updated_at"] = pd.Series(pd.NaT, frame.index, "datetime64[us, UTC]")
        return frame, {}

    def table(metadata: sa.MetaData) -> sa.Table:
        parts = [sa.Column(name, kind, primary_key=at < len(key)) for at, (name, kind) in enumerate(columns.items())]
        return sa.Table("gh-members", metadata, *parts, sa.Column("updated_at", TIME))

    dataset = Dataset(Members, record_class, clean, table, tuple(key))
    texts = {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in section.items()}
    configure("gh-members", **{"mode": "snapshot", "paginator": "single", **texts})
    stages.extract(read_workspace(dataset), TODAY, prepare_transform(read_workspace(dataset)))
    stages.transform(read_workspace(dataset), TODAY)
    stages.load(read_workspace(dataset), TODAY)
    return query(f'select {", ".join(columns)}, updated_at from "gh-members" order by 1, 2')


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
        ["node.id"],
        {"id": sa.Text},
        {"node.id": "id", "node.updated_at": "updated_at"},
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
    names = {"user.id": "user_id", "repo.id": "repo_id", "starred_at": "updated_at"}
    columns = {"user_id": sa.BigInteger, "repo_id": sa.BigInteger}
    rows = load(configure, Star, ["user.id", "repo.id"], columns, names, url=server.on("/stars", Answer(records)))
    assert rows == [(day, 9, f"2026-11-2{day}T10:00:00.000000Z") for day in (1, 2)]


@pytest.mark.slow
def test_renamed_fields(server: Server, configure: Configure) -> None:
    """A class renames all fields or one."""
    records = [{"userId": 1, "lastUpdated": "2026-11-20T10:00:00Z", "@type": "person"}]
    columns = {"user_id": sa.BigInteger, "kind": sa.Text}
    url = server.on("/users", Answer(records))
    rows = load(configure, Camel, ["userId"], columns, {"last_updated": "updated_at"}, url=url)
    assert rows == [(1, "person", "2026-11-20T10:00:00.000000Z")]


def test_large_number_in_a_float(server: Server, configure: Configure) -> None:
    """An integer beyond 64 bits fits a float column. The raw file keeps its digits."""
    url = server.on("/users", Answer(b'[{"id": 1, "value": 12345678901234567890}, {"id": 2, "value": 0.1}]'))
    rows = load(configure, Amount, ["id"], {"id": sa.BigInteger, "value": sa.Float}, url=url)
    assert [row[:2] for row in rows] == [(1, 12345678901234567890.0), (2, 0.1)]


def test_members_of_one_organization(server: Server, configure: Configure) -> None:
    """The URL has the parent, and `clean` writes it to a column."""
    url = server.on("/orgs/acme/members", Answer([{"id": 1, "value": 7}]))
    columns = {"org": sa.Text, "id": sa.BigInteger, "value": sa.Float}
    assert load(configure, Amount, ["id"], columns, constants={"org": "acme"}, url=url) == [("acme", 1, 7.0, None)]


def test_list_of_texts(server: Server, configure: Configure) -> None:
    """The record class declares `value`."""
    url = server.on("/members", Answer({"ok": True, "members": ["U023", "W012"]}))
    rows = load(configure, Value, ["value"], {"value": sa.Text}, url=url)
    assert [row[0] for row in rows] == ["U023", "W012"]


def test_members_of_an_object(server: Server, configure: Configure) -> None:
    """Their names are the key."""
    url = server.on("/users.json", Answer({"users": {"u1": {"name": "Ada"}, "u2": {"name": "Bob"}}}))
    columns = {"key": sa.Text, "name": sa.Text}
    rows = load(configure, Member, ["_key"], columns, url=url, data_selector="users.*")
    assert [row[:2] for row in rows] == [("u1", "Ada"), ("u2", "Bob")]


@pytest.mark.slow
def test_two_secrets(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comes from auth and one from a header. Both are masked."""
    monkeypatch.setenv("DD_KEY", "key-of-nobody")
    monkeypatch.setenv("DD_APP", "app-of-nobody")
    secrets = {"auth": "header:DD-API-KEY:DD_KEY", "headers": {"DD-APPLICATION-KEY": "${DD_APP}"}}
    url = server.on("/users", Answer([{"id": 1, "value": 7}]))
    load(configure, Amount, ["id"], {"id": sa.BigInteger, "value": sa.Float}, url=url, **secrets)
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
    columns = {"id": sa.BigInteger, "value": sa.Float}
    rows = load(configure, Amount, ["id"], columns, url=f"{url}?include=users", data_selector="tickets")
    assert [row[:2] for row in rows] == [(1, 2.0)]
    assert "the page has lists at 'tickets', 'users'" in read_error(url)


@pytest.mark.slow
def test_keys_shared_by_sections(server: Server, home: Any) -> None:
    """[DEFAULT] holds them, and %(name)s inserts a value."""
    server.on("/v1/users", Answer([make_user(1)]))
    (home / "luigi.cfg").write_text(
        f"[DEFAULT]\nbase = {server.url}/v1\nauth = bearer:API_TOKEN\n"
        "[users]\nurl = %(base)s/users\nmode = snapshot\npaginator = single\n"
        "[core]\nlocal_scheduler = true\nautoload_range = true\n"
    )
    done = luigi_run("LoadUsers", "--date", str(TODAY), API_TOKEN="token-of-nobody", PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    assert server.requests[0].headers["Authorization"] == "Bearer token-of-nobody"
    assert query("select user_id from users") == [(1,)]
