"""Test `python -m wholeday doctor URL`: the printed section must extract every user."""

import datetime as dt
import json
import re
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipeline.users import USERS
from tests.support.orders import ORDERS
from tests.support.project import luigi_run, query, run
from tests.support.reading import DAY, make_pages
from tests.support.server import Answer, Request, Server
from tests.support.shapes import SHAPES, JsonServer
from tests.support.vendor import Shape, find
from wholeday.commands import cli
from wholeday.commands.doctor import probe
from wholeday.commands.doctor.examination import diagnose
from wholeday.commands.doctor.probe import MOST_REQUESTS
from wholeday.extract.reader import Reader
from wholeday.schema.paths import put

COUNT = 145
LIKELIEST = ("updated_since", "updated_after", "updated_at[gte]", "updated_at_min", "since", "modified_since")
Configure = Callable[..., None]
pytestmark = pytest.mark.usefixtures("configure")  # restores the keys that doctor removes from luigi.cfg


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the secrets of every vendor."""
    for shape in SHAPES.values():
        for name, value in shape.environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run doctor with a URL and flags, and return its output."""

    def ask_doctor(url: str, *flags: str) -> str:
        cli.main(["doctor", url, *flags])
        return capsys.readouterr().out

    return ask_doctor


def parse(text: str) -> dict[str, str]:
    """Parse the printed section as luigi.cfg is parsed."""
    parser = ConfigParser()
    parser.read_string(text[text.index("\n[users]\n") :])
    return dict(parser["users"])


def read(section: dict[str, str], configure: Configure) -> list[Any]:
    """Extract the records with the given section."""
    configure("users", **section)
    return [json.loads(bytes(record)) for page in Reader(USERS.config(), DAY) for record in page]


def find_row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def call_for(shape: Shape, name: str) -> list[str]:
    """Return the URL and flags that a user would type."""
    flags = [] if shape.auth == "none" else ["--users-auth", shape.auth]
    if name == "zendesk":
        flags += ["--users-requests-per-second", "1000"]  # its preset limits the rate
    return [shape.url, *flags]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, COUNT])
@pytest.mark.parametrize("name", SHAPES)
def test_section_for_known_api_extracts_every_user(
    server: Server, ask: Callable[..., str], configure: Configure, name: str, count: int
) -> None:
    """A URL and a secret are enough."""
    traits = {"largest": 20} if name == "graph" else {}
    shape = SHAPES[name](server, count, **traits)
    text = ask(*call_for(shape, name))
    assert shape.asked <= MOST_REQUESTS
    assert sorted(find(record, shape.key) for record in read(parse(text), configure)) == sorted(shape.keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("jsonplaceholder", {"paginator": "page", "page_param": "_page", "page_start": "1", "size_param": "_limit"}),
        ("dummyjson", {"paginator": "offset", "offset_param": "skip", "page_size": "500", "total_path": "total"}),
        ("reqres", {"paginator": "page", "size_param": "per_page", "page_size": "100", "total_path": "total"}),
        ("randomuser", {"preset": "randomuser"}),
        ("github", {"paginator": "link_header", "size_param": "per_page", "page_size": "100"}),
        ("gitlab", {"paginator": "link_header", "size_param": "per_page", "page_size": "100"}),
        ("scim", {"paginator": "offset", "offset_param": "startIndex", "page_start": "1", "mode": "incremental"}),
        ("keycloak", {"paginator": "offset", "offset_param": "first", "size_param": "max", "page_size": "500"}),
        ("zendesk", {"preset": "zendesk"}),
        ("stripe", {"paginator": "last_id", "cursor_param": "starting_after", "more_path": "has_more"}),
        ("hubspot", {"paginator": "cursor", "cursor_path": "paging.next.after", "cursor_in": "body"}),
        ("graph", {"preset": "graph"}),
    ],
)
def test_api_at_unknown_address_is_recognized(
    server: Server, ask: Callable[..., str], configure: Configure, name: str, found: dict[str, str]
) -> None:
    """doctor recognizes the API by its pages and confirms the paginator with page two."""
    traits = {"largest": 20} if name == "graph" else {}
    shape = SHAPES[name](server, COUNT, path="/people", **traits)
    url, *flags = call_for(shape, name)
    url += "?start_time=0" if name == "zendesk" else ""
    if name == "scim":
        flags += ["--users-headers", '{"Accept": "application/scim+json"}']
    elif name == "hubspot":
        flags += ["--users-method", "POST", "--users-body", '{"filterGroups": []}']
    section = parse(ask(url, *flags))
    assert shape.asked <= MOST_REQUESTS
    assert section.items() >= found.items()
    assert section.get("mode", "snapshot") == found.get("mode", "snapshot")
    assert sorted(find(record, shape.key) for record in read(section, configure)) == sorted(shape.keys)


def test_findings_have_evidence(server: Server, ask: Callable[..., str]) -> None:
    """A record class that fits adds no doubt."""
    shape = SHAPES["dummyjson"](server, COUNT)
    text = ask(shape.url)
    assert "'users'" in find_row(text, "list")
    assert "asked with skip=30 it gave 30 other keys" in find_row(text, "paginator")
    assert "requested 500 with limit, received 145" in find_row(text, "page size")
    assert "id  " in find_row(text, "key")
    assert "with 145 distinct keys" in find_row(text, "complete")
    assert "145 of 145 records fit" in find_row(text, "record class")
    assert "no record has name, updated_at" in find_row(text, "unsure")


@pytest.mark.parametrize("header", ["X-Total-Count", "X-Total"])
def test_declared_total_names_its_header(server: Server, ask: Callable[..., str], header: str) -> None:
    text = ask(server.on("/users", Answer([{"id": 1}], headers={header: "1"})))
    assert find_row(text, "complete").split() == [
        "complete",
        "with",
        "1",
        "distinct",
        "keys",
        "declared",
        "by",
        header,
    ]


def test_endless_pages_are_unsure(server: Server, ask: Callable[..., str]) -> None:
    """doctor takes one page for all users and says why. It finds a nested key."""
    text = ask(SHAPES["randomuser"](server, COUNT).url)
    assert "page=1000000 has records too, so they never end" in find_row(text, "unsure")
    assert "login.uuid" in find_row(text, "key")
    assert "only registered.date, which does not show changes" in find_row(text, "update field")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, True) for name in ("last_edited_time", "editedAt", "lastEditedTime", "SystemModstamp", "updated_at")),
        *((name, True) for name in ("LastModifiedDate", "date_modified", "changedOn")),
        *((name, False) for name in ("credited_at", "expedited_at", "visited_at", "CreatedDate")),
    ],
)
def test_update_field_is_recognized_by_name(server: Server, ask: Callable[..., str], name: str, found: bool) -> None:
    """Vendors such as Notion and Salesforce use other names. Part of a longer word does not count."""
    users = [{"id": number, "CreatedDate": "2026-10-30", name: f"2026-10-31T06:00:0{number}Z"} for number in range(3)]
    shown = find_row(ask(server.on("/users", Answer(users))), "update field").split()
    assert shown[2] == (name if found else "none")


def test_filter_with_two_bounds_is_a_day_window(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """doctor verifies both bounds: the source has no changes after 2100 or before 1970."""
    shape = JsonServer(server, COUNT)
    text = ask(shape.url)
    section = parse(text)
    assert section["mode"] == "incremental"
    assert json.loads(section["params"]) == {"updated_at_gte": "{day_start}", "updated_at_lte": "{day_stop}"}
    assert "backfill from the first day" in find_row(text, "unsure: a day has only")
    assert "cannot detect deletions" in find_row(text, "unsure: an incremental filter")
    assert len(read(section, configure)) == COUNT


def test_scim_filter_has_two_bounds(server: Server, ask: Callable[..., str]) -> None:
    """One parameter holds both bounds."""
    shape = SHAPES["scim"](server, COUNT, path="/people")
    text = ask(shape.url, "--users-auth", shape.auth, "--users-headers", '{"Accept": "application/scim+json"}')
    bounds = 'meta.lastModified gt "{day_start}" and meta.lastModified lt "{day_stop}"'
    assert json.loads(parse(text)["params"]) == {"filter": bounds}


@pytest.mark.slow
@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize(
    ("field", "lower", "upper"),
    [
        ("updated_at", "updated_since", None),
        ("updated_at", "updated_after", "updated_before"),
        ("updated_at", "updated_at[gte]", "updated_at[lt]"),
        ("updated_at", "updated_at_min", "updated_at_max"),
        ("updated_at", "since", "until"),
        ("meta.lastUpdated", "_since", None),
        ("last_modified", "gt_last_modified", "lt_last_modified"),
        ("last_modified", "last_modified_since", None),
        ("modified", "modified_since", None),
        ("updatedAt", "updatedAfter", "updatedBefore"),
        ("updatedAt", "filters[updatedAt][$gte]", "filters[updatedAt][$lt]"),
    ],
)
def test_usual_filter_is_found(
    server: Server, ask: Callable[..., str], field: str, lower: str, upper: str | None, is_strict: bool
) -> None:
    """Also at a source that refuses unknown parameters, if the name is one of the likeliest."""
    users = [put({"id": number}, field, f"2026-10-31T06:00:0{number}Z") for number in range(7)]

    def respond(request: Request) -> Answer:
        if is_strict and request.query.keys() - {lower, upper}:
            return Answer(status=400)
        bounds = request.query.get(lower, ""), request.query.get(upper or "", "~")
        return Answer([user for user in users if bounds[0] <= find(user, field) < bounds[1]])

    params = json.loads(parse(ask(server.on("/users", respond))).get("params", "{}"))
    if is_strict and lower not in (*LIKELIEST, "last_modified_since"):
        assert params == {}
    elif upper:
        assert params == {lower: "{day_start}", upper: "{day_stop}"}
    else:
        assert params == {lower: "{watermark}"}
    assert len(server.requests) <= MOST_REQUESTS


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("$filter", "changed/at ge {day_start} and changed/at lt {day_stop}"),
        ("at", ["gte.{day_start}", "lt.{day_stop}"]),
        ("_lastUpdated", ["ge{day_start}", "lt{day_stop}"]),
    ],
)
def test_operator_within_value_is_found(
    server: Server, ask: Callable[..., str], param: str, value: str | list[str]
) -> None:
    """As OData, PostgREST and FHIR have it."""
    users = [{"id": number, "changed": {"at": f"2026-10-31T06:00:0{number}Z"}} for number in range(7)]

    def respond(request: Request) -> Answer:
        text = " ".join(item for name, item in parse_qsl(urlsplit(request.target).query) if name == param)
        lowers, uppers = re.findall(r"gt?e\W?([12]\S+)", text), re.findall(r"lt\W?([12]\S+)", text)
        kept = [user for user in users if [*lowers, ""][0] <= user["changed"]["at"] < [*uppers, "~"][0]]
        return Answer(kept)

    assert json.loads(parse(ask(server.on("/users", respond)))["params"]) == {param: value}


def test_filter_by_creation_is_not_taken(server: Server, ask: Callable[..., str]) -> None:
    """`since` may mean the creation. The record that changed last must pass the filter."""
    users = [{"id": n, "created_at": f"2026-10-0{n}", "updated_at": f"2026-10-31T06:00:0{n}Z"} for n in range(1, 8)]

    def respond(request: Request) -> Answer:
        return Answer([user for user in users if str(user["created_at"]) >= request.query.get("since", "")])

    assert parse(ask(server.on("/users", respond)))["mode"] == "snapshot"


@pytest.mark.parametrize(
    ("time", "form"), [("2026-10-31 06:00:00", ":%Y-%m-%d %H:%M:%S"), ("2026-10-31", ":date"), (1793400000, ":epoch")]
)
def test_filter_writes_times_as_the_records_do(
    server: Server, ask: Callable[..., str], configure: Configure, time: str | int, form: str
) -> None:
    users = [{"id": number, "updated_at": time} for number in range(7)]

    def respond(request: Request) -> Answer:
        since = request.query.get("updated_since")
        return Answer([user for user in users if since is None or user["updated_at"] >= type(time)(since)])

    section = parse(ask(server.on("/users", respond)))
    assert json.loads(section["params"]) == {"updated_since": f"{{watermark{form}}}"}
    assert len(read(section, configure)) == 7


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Next-Page", {"paginator": "cursor", "cursor_path": "Next-Page", "cursor_param": "page"}),
        ("X-Next-Page", {"paginator": "next_url", "cursor_path": "X-Next-Page"}),
        ("X-Pagination", {"paginator": "next_url", "cursor_path": "X-Pagination.NextPageLink"}),
        ("x-pagination", {"paginator": "next_url", "total_path": "X-Pagination.TotalCount"}),
    ],
)
def test_paging_in_headers_is_recognized(
    server: Server, ask: Callable[..., str], configure: Configure, name: str, keys: dict[str, str]
) -> None:
    """A cursor, a link, or an object in JSON."""

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        link = f"/users?page={page + 1}" if page < 4 else None
        text = link
        if name == "Next-Page":
            text = str(page + 1) if page < 4 else None
        elif name.lower() == "x-pagination":
            text = json.dumps({"TotalCount": 10, "HasNext": page < 4, "NextPageLink": link})
        users = [{"id": number} for number in range(10)][3 * page - 3 :][:3]
        return Answer(users, headers={} if text is None else {name: text})

    section = parse(ask(server.on("/users", respond)))
    assert section.items() >= keys.items()
    assert len(read(section, configure)) == 10


@pytest.mark.parametrize("obeyed", ["ignores", "always empty", "refuses"])
def test_filter_without_upper_bound_uses_watermark(
    server: Server, ask: Callable[..., str], configure: Configure, obeyed: str
) -> None:
    """A window without an end is not repeatable. The watermark extracts each change once."""
    users = [{"id": number, "updated_at": "2026-10-31T06:00:00Z"} for number in range(7)]

    def respond(request: Request) -> Answer:
        if obeyed != "ignores" and "updated_before" in request.query:
            return Answer([]) if obeyed == "always empty" else Answer(status=400)
        return Answer([user for user in users if str(user["updated_at"]) > request.query.get("updated_since", "")])

    text = ask(server.on("/users", respond))
    section = parse(text)
    assert json.loads(section["params"]) == {"updated_since": "{watermark}"}
    assert "no usual parameter sets an upper bound, so the filter uses {watermark}" in text
    assert len(read(section, configure)) == 7


def test_ignored_filter_gives_snapshot(server: Server, ask: Callable[..., str]) -> None:
    shape = SHAPES["scim"](server, COUNT, path="/people", filters=False)
    text = ask(shape.url, "--users-auth", shape.auth, "--users-headers", '{"Accept": "application/scim+json"}')
    assert "meta.lastModified" in find_row(text, "update field")
    assert "none" in find_row(text, "filter")
    assert parse(text)["mode"] == "snapshot"


def test_next_link_is_suggested_behind_a_proxy(server: Server, ask: Callable[..., str]) -> None:
    """Its links name an internal host. With next_link = path the section extracts all pages."""
    users = [{"id": number} for number in range(10)]
    first, last = Answer({"users": users[:5], "next": "http://api-svc/two"}), Answer({"users": users[5:], "next": None})
    server.on("/two", last)
    url = server.on("/users", first)
    assert "set next_link = path" in find_row(ask(url), "unsure: ")
    section = parse(ask(url, "--users-next-link", "path"))
    assert (section["paginator"], section["next_link"]) == ("next_url", "path")


@pytest.mark.parametrize(
    ("body", "selector", "key"),
    [
        ({"members": ["U1", "U2"]}, "members", "value"),
        ({"users": {"u1": {"name": "Ada"}, "u2": {"name": "Bob"}}}, "users.*", "_key"),
        ({"id": 1, "name": "Ada", "total": 7}, "@", "id"),
        ('{"id": 1}\n{"id": 2}', "", "id"),
        ({"hits": {"total": {"value": 1}, "hits": [{"_id": "a"}]}}, "hits.hits", "_id"),
        ({"_embedded": {"people": [{"id": 1}]}, "page": {"number": 0}}, "_embedded.people", "id"),
        ({"query": {"members": [{"id": 1}]}}, "query.members", "id"),
        ({"data": [{"id": 1}], "included": [{"id": 2}]}, "data", "id"),
        ({"teams": [{"id": 1}], "data": [{"id": 3}], "users": [{"id": 2}]}, "users", "id"),
        ({"result": {"fields": [{"type": "text"}], "records": [{"id": 1}]}}, "result.records", "id"),
    ],
)
def test_selector_of_unusual_body_is_kept(
    server: Server, ask: Callable[..., str], body: Any, selector: str, key: str
) -> None:
    """The printed section needs the selector that doctor used."""
    flags = ("--users-data-selector", selector) if selector in ("users.*", "@") else ()
    text = ask(server.on("/users", Answer(body)), *flags)
    assert find_row(text, "list").split()[1] == (f"'{selector}'" if selector else "the")
    assert find_row(text, "key").split()[1] == key
    assert parse(text).get("data_selector", "") == selector


def test_likeliest_of_several_lists_is_a_doubt(server: Server, ask: Callable[..., str]) -> None:
    """JSON:API sends related records next to the list."""
    text = ask(server.on("/users", Answer({"data": [{"id": 1}], "included": [{"id": 2}]})))
    assert "the list at 'data' is the likeliest of several" in text
    assert "'included'" in find_row(text, "unsure: the list")


def test_single_page_leaves_paging_unsure(server: Server, ask: Callable[..., str]) -> None:
    """The section sets no paginator, so each day detects it."""
    text = ask(server.on("/users", Answer([{"id": 1}])))
    assert "all records came on one page, so paging was not seen" in find_row(text, "unsure")
    assert "unsure: the source declares no total" in text
    assert "paginator" not in parse(text)


@pytest.mark.parametrize("name", ["_per_page", "$top"])
def test_page_size_is_found_under_usual_names(server: Server, ask: Callable[..., str], name: str) -> None:
    """Includes the last name in the list."""
    users = [{"id": number} for number in range(7)]
    section = parse(ask(server.on("/users", lambda request: Answer(users[: int(request.query.get(name, 7))]))))
    assert section["size_param"] == name


def test_refused_page_size_is_lowered(server: Server, ask: Callable[..., str]) -> None:
    """Stripe refuses 500 and allows 100."""
    shape = SHAPES["stripe"](server, COUNT)
    assert parse(ask(shape.url, "--users-auth", shape.auth))["page_size"] == "100"


def test_page_size_that_breaks_page_two_is_dropped(
    server: Server, ask: Callable[..., str], configure: Configure
) -> None:
    """doctor requests page two with the proposed size before it prints the size."""

    def respond(request: Request) -> Answer:
        start = 0 if "limit" in request.query else int(request.query.get("skip", 0))
        users = [{"id": number} for number in range(700)][start:][: int(request.query.get("limit", 50))]
        return Answer({"users": users, "skip": start, "total": 700})

    section = parse(ask(server.on("/users", respond)))
    assert "size_param" not in section
    assert len(read(section, configure)) == 700


def test_parameter_with_always_empty_answer_is_ignored(server: Server, ask: Callable[..., str]) -> None:
    """A filter from the distant past must return all users."""
    users = [{"id": number, "updated_at": "2026-10-31T06:00:00Z"} for number in range(7)]
    url = server.on("/users", lambda request: Answer([] if "updated_since" in request.query else users))
    assert parse(ask(url))["mode"] == "snapshot"


def test_number_of_requests_is_limited(
    server: Server, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MOST_REQUESTS", 5)
    url = server.on("/users", Answer([{"id": number} for number in range(100)]))
    assert "stopped after 5 requests, so some questions are open" in ask(url)
    assert len(server.requests) == 5


def test_preset_without_working_page_two_is_dropped(server: Server, ask: Callable[..., str]) -> None:
    """A body that resembles the preset's is not enough."""
    text = ask(server.on("/users", Answer({"@odata.nextLink": "?$skiptoken=2", "value": [{"id": 1}]})))
    assert "looks like the preset graph, but with it page two does not follow" in text
    assert "preset" not in parse(text)


def test_deletion_fields_are_reported(server: Server, ask: Callable[..., str]) -> None:
    """A field named like a deletion is a comment for a person to switch on. An ambiguous one is only shown."""
    users = [{"id": number, "is_deleted": number == 3} for number in range(7)]
    text = ask(server.on("/users", Answer(users)))
    assert "\n# is_deleted: true in 1 of 7 records" in text
    assert "\n# deleted_when = is_deleted\n" in text
    assert "deleted_when" not in parse(text)
    assert "to judge by its name alone" in find_row(text, "unsure: 'is_deleted'")
    text = ask(server.on("/users", Answer([{"id": 1, "active": True}])))
    assert "'active' is true" in find_row(text, "deletions")
    assert "deleted_when" not in parse(text)


def test_unfit_record_class_is_reported(server: Server, ask: Callable[..., str]) -> None:
    """The user can fix users.py before the first day."""
    text = ask(server.on("/users", Answer([{"name": "Ada"}, {"id": "x"}])))
    assert "0 of 2 records fit" in find_row(text, "record class")
    assert "missing required field `id`" in text
    assert "the record class User does not fit" in text


def test_missing_field_names_module_of_its_dataset(server: Server) -> None:
    url = server.on("/list", Answer([{"id": 1, "number": "a", "line": 1}]))
    for dataset, module in ((USERS, "pipeline.users"), (ORDERS, "tests.support.orders")):
        unsure = diagnose(dataset.config(url=url), dataset).unsure
        line = rf"^no record has .*, so columns from there stay empty: edit the module {module}$"
        assert any(re.search(line, doubt) for doubt in unsure)


def test_undecided_paging_is_reported(server: Server, ask: Callable[..., str]) -> None:
    """Exactly 100 users may be one full page, so the section sets no paginator."""
    users = [{"id": number, "updated_at": "2026-10-31T06:00:00Z"} for number in range(100)]
    text = ask(server.on("/users", Answer(users)))
    assert "100 records came, a round number that may be a full page" in find_row(text, "unsure")
    assert "paginator" not in parse(text)
    assert len(server.requests) <= MOST_REQUESTS


def test_flags_are_kept_and_verified(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """The section includes the flags. doctor verifies a given paginator with page two."""
    url = server.on("/users", make_pages(7, 3, server, ""))
    text = ask(url, "--users-paginator", "page", "--users-timezone", "Europe/Berlin")
    assert "page two has 3 other keys" in find_row(text, "paginator")
    assert parse(text)["timezone"] == "Europe/Berlin"
    assert len(read(parse(text), configure)) == 7
    text = ask(url, "--users-paginator", "page", "--users-page-param", "p")
    assert "page two repeats keys of page one" in find_row(text, "unsure")


def test_keys_of_luigi_cfg_are_ignored(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """luigi.cfg describes another source."""
    configure("users", paginator="page", headers='{"X-Team": "7"}')
    section = parse(ask(server.on("/users", Answer([{"id": 1}]))))
    assert section.keys() == {"url", "mode"}
    assert "X-Team" not in server.requests[0].headers


def test_percent_sign_is_escaped(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """luigi.cfg needs a doubled percent sign."""
    section = parse(ask(server.on("/users", Answer([{"id": 1}])) + "?team=a%20b"))
    assert read(section, configure) == [{"id": 1}]
    assert server.requests[-1].query["team"] == "a b"


def test_secret_in_url_is_not_shown(server: Server, ask: Callable[..., str]) -> None:
    """doctor sends the secret and recommends the key `auth`."""
    text = ask(server.on("/users", Answer([{"id": 1}])) + "?api_key=s3cr3t-value")
    assert server.requests[0].query["api_key"] == "s3cr3t-value"
    assert "s3cr3t" not in text
    assert "name it in auth instead" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer({"message": "no"}, status=404), "404"),
        (Answer("<html>"), "HTML"),
        (Answer({"lads": [{"id": 1}], "teams": [{"id": 2}]}), "'lads', 'teams'"),
        (Answer({"a": {"items": [{"id": 1}], "rows": [{"id": 2}]}}), "'a.items', 'a.rows'"),
        (Answer({"user": {"name": "a", "roles": [{"id": 2}]}}), "'user.roles'"),
        (Answer(reset=True), "failed after"),
    ],
)
def test_url_without_records_is_one_error_line(
    server: Server, capsys: pytest.CaptureFixture[str], answer: Answer, said: str
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", server.on("/users", answer), "--users-retries", "0"])
    assert str(left.value.code).startswith("ERROR: ")
    assert said in str(left.value.code)
    assert capsys.readouterr().out == ""


def test_failing_question_does_not_end_doctor(server: Server, ask: Callable[..., str]) -> None:
    """Some sources answer 500 to an unknown parameter."""

    def respond(request: Request) -> Answer:
        return Answer(status=500) if request.query else Answer([{"id": number} for number in range(10)])

    text = ask(server.on("/users", respond), "--users-retries", "0")
    assert "none of page, offset" in find_row(text, "unsure")
    assert "key" in text


@pytest.mark.slow
def test_section_is_not_wrapped_in_a_pipe(server: Server) -> None:
    url = server.on("/users", Answer({"users": [{"id": 1}], "total": 1})) + "?team=" + "x" * 200
    ran = run("python", "-m", "wholeday", "doctor", url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert parse(ran.stdout)["url"] == url


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsonserver", "reqres", "dummyjson"])
def test_pasted_section_loads_the_source(server: Server, name: str) -> None:
    """Run the command, replace the section in luigi.cfg, and load a day, as a user would."""
    kind = {"jsonserver": JsonServer, **SHAPES}[name]
    shape = kind(server, COUNT, path="/people")
    flags = [] if shape.auth == "none" else ["--users-auth", shape.auth]
    printed = run("python", "-m", "wholeday", "doctor", shape.url, *flags)
    assert printed.returncode == 0, printed.stderr
    config = Path("luigi.cfg").read_text()
    pasted = printed.stdout[printed.stdout.index("[users]\n") :]
    Path("luigi.cfg").write_text(re.sub(r"\[users\]\n.*?(?=^\[)", lambda _: pasted + "\n", config, flags=re.S | re.M))
    day = DAY if "day_start" in pasted else dt.datetime.now(dt.UTC).date()
    loaded = luigi_run("LoadUsers", "--date", str(day))
    assert loaded.returncode == 0, loaded.stderr
    assert query("select extracted from loads") == [(COUNT,)]


def test_total_is_found_beside_a_given_paginator(server, ask):
    """In a field or in a header. Without it, a missing page would not be noticed."""
    users = [{"id": n, "updated_at": "2026-11-20T10:00:00Z"} for n in range(1, 6)]
    for fields, headers, key in (
        ({"total": 5}, {}, "total_path = total"),
        ({}, {"Total-Records": "5"}, "total_header = Total-Records"),
    ):
        pages = {None: {"data": users[:3], "next": "b"}, "b": {"data": users[3:], "next": None}}
        url = server.on(
            f"/{key[:8]}",
            lambda request, pages=pages, fields=fields, headers=headers: Answer(
                pages.get(request.query.get("after"), pages[None]) | fields, headers=headers
            ),
        )
        text = ask(url, "--paginator", "cursor", "--cursor-path", "next", "--cursor-param", "after")
        assert key in text
        assert "declares no total" not in text
