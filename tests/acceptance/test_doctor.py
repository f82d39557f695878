"""`python -m wholeday doctor URL`: the section that it prints is pasted and read by, and every user must arrive."""

import datetime as dt
import json
import re
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import User, Users
from tests.support.orders import Order, Orders
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

COUNT = 145
Configure = Callable[..., None]
pytestmark = pytest.mark.usefixtures("configure")  # puts back what doctor takes out of luigi.cfg


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vendor's secrets."""
    for shape in SHAPES.values():
        for name, value in shape.environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What doctor prints of a URL and flags."""

    def ask_doctor(url: str, *flags: str) -> str:
        cli.main(["doctor", url, *flags])
        return capsys.readouterr().out

    return ask_doctor


def parse(text: str) -> dict[str, str]:
    """The section in what doctor prints, as luigi.cfg would be read."""
    parser = ConfigParser()
    parser.read_string(text[text.index("\n[users]\n") :])
    return dict(parser["users"])


def read(section: dict[str, str], configure: Configure) -> list[Any]:
    """The records that the section brings."""
    configure("users", **section)
    return [json.loads(bytes(record)) for page in Reader(Users(), DAY) for record in page]


def find_row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def call_for(shape: Shape, name: str) -> list[str]:
    """The URL and the flags with which a person would ask for it."""
    flags = [] if shape.auth == "none" else ["--users-auth", shape.auth]
    if name == "zendesk":
        flags += ["--users-requests-per-second", "1000"]  # its preset has a pace
    return [shape.url, *flags]


@pytest.mark.parametrize("count", [1, COUNT])
@pytest.mark.parametrize("name", SHAPES)
def test_a_known_api_is_read_by_what_doctor_says(
    server: Server, ask: Callable[..., str], configure: Configure, name: str, count: int
) -> None:
    """A URL and a secret are enough: everybody arrives once."""
    traits = {"largest": 20} if name == "graph" else {}
    shape = SHAPES[name](server, count, **traits)
    text = ask(*call_for(shape, name))
    assert shape.asked <= MOST_REQUESTS
    assert sorted(find(record, shape.key) for record in read(parse(text), configure)) == sorted(shape.keys)


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
def test_an_api_at_another_address_is_found_out(
    server: Server, ask: Callable[..., str], configure: Configure, name: str, found: dict[str, str]
) -> None:
    """Without a known address it is the pages that tell, and page two that proves it."""
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


def test_what_is_found_is_shown_with_its_evidence(server: Server, ask: Callable[..., str]) -> None:
    """Show list, paginator, page size, key and total, each with its evidence; a class that fits leaves no doubt."""
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
def test_the_number_that_is_declared_is_named_by_its_header(
    server: Server, ask: Callable[..., str], header: str
) -> None:
    """The one that the source sends."""
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


def test_pages_without_end_are_unsure(server: Server, ask: Callable[..., str]) -> None:
    """One page is taken for everybody, and it says why; the key is found where it is nested."""
    text = ask(SHAPES["randomuser"](server, COUNT).url)
    assert "page=1000000 has records too, so they never end" in find_row(text, "unsure")
    assert "login.uuid" in find_row(text, "key")
    assert "only registered.date, which does not show changes" in find_row(text, "update field")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, True) for name in ("last_edited_time", "editedAt", "lastEditedTime", "SystemModstamp", "updated_at")),
        *((name, True) for name in ("LastModifiedDate", "date_modified", "changedOn")),
        *((name, False) for name in ("credited_at", "expedited_at", "visited_at", "CreatedDate")),
    ],
)
def test_update_field_is_known_by_its_name(server: Server, ask: Callable[..., str], name: str, found: bool) -> None:
    """Notion and Salesforce have their own words; a word that only contains one is another field."""
    users = [{"id": number, "CreatedDate": "2026-10-30", name: f"2026-10-31T06:00:0{number}Z"} for number in range(3)]
    shown = find_row(ask(server.on("/users", Answer(users))), "update field").split()
    assert shown[2] == (name if found else "none")


def test_filter_with_two_bounds_is_a_day_window(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """Both bounds are proven: nobody changed after 2100 or before 1970."""
    shape = JsonServer(server, COUNT)
    text = ask(shape.url)
    section = parse(text)
    assert section["mode"] == "incremental"
    assert json.loads(section["params"]) == {"updated_at_gte": "{day_start}", "updated_at_lte": "{day_stop}"}
    assert "backfill from the first day" in find_row(text, "unsure: a day has only")
    assert "cannot detect deletions" in find_row(text, "unsure: an incremental filter")
    assert len(read(section, configure)) == COUNT


def test_scim_filter_has_two_bounds(server: Server, ask: Callable[..., str]) -> None:
    """One parameter holds both of them."""
    shape = SHAPES["scim"](server, COUNT, path="/people")
    text = ask(shape.url, "--users-auth", shape.auth, "--users-headers", '{"Accept": "application/scim+json"}')
    bounds = 'meta.lastModified gt "{day_start}" and meta.lastModified lt "{day_stop}"'
    assert json.loads(parse(text)["params"]) == {"filter": bounds}


@pytest.mark.parametrize("obeyed", ["ignores", "always empty", "refuses"])
def test_filter_without_upper_bound_is_the_watermark(
    server: Server, ask: Callable[..., str], configure: Configure, obeyed: str
) -> None:
    """A day that has no end is not repeatable: the watermark reads each change once, and doctor says why."""
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


def test_a_filter_that_is_ignored_is_none(server: Server, ask: Callable[..., str]) -> None:
    """A server that sends everybody whatever it is asked is read as a snapshot."""
    shape = SHAPES["scim"](server, COUNT, path="/people", filters=False)
    text = ask(shape.url, "--users-auth", shape.auth, "--users-headers", '{"Accept": "application/scim+json"}')
    assert "meta.lastModified" in find_row(text, "update field")
    assert "none" in find_row(text, "filter")
    assert parse(text)["mode"] == "snapshot"


def test_doctor_names_the_key_for_a_source_behind_a_proxy(server: Server, ask: Callable[..., str]) -> None:
    """Its links lead to another host, and with the key the section reads all pages."""
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
    ],
)
def test_doctor_keeps_the_selector_of_other_bodies(
    server: Server, ask: Callable[..., str], body: Any, selector: str, key: str
) -> None:
    """The section that it prints reads the source as it did."""
    flags = ("--users-data-selector", selector) if selector in ("users.*", "@") else ()
    text = ask(server.on("/users", Answer(body)), *flags)
    assert find_row(text, "list").split()[1] == (f"'{selector}'" if selector else "the")
    assert find_row(text, "key").split()[1] == key
    assert parse(text).get("data_selector", "") == selector


def test_a_list_that_came_at_once_is_unsure(server: Server, ask: Callable[..., str]) -> None:
    """How another page would follow was not seen; so the section leaves it to each day, which decides anew."""
    text = ask(server.on("/users", Answer([{"id": 1}])))
    assert "all records came on one page, so paging was not seen" in find_row(text, "unsure")
    assert "unsure: the source declares no total" in text
    assert "paginator" not in parse(text)


@pytest.mark.parametrize("name", ["_per_page", "$top"])
def test_the_size_is_asked_for_under_any_usual_name(server: Server, ask: Callable[..., str], name: str) -> None:
    """The last of them too."""
    users = [{"id": number} for number in range(7)]
    section = parse(ask(server.on("/users", lambda request: Answer(users[: int(request.query.get(name, 7))]))))
    assert section["size_param"] == name


def test_a_page_that_is_too_large_is_not_asked_for_again(server: Server, ask: Callable[..., str]) -> None:
    """Stripe refuses 500, and gives 100."""
    shape = SHAPES["stripe"](server, COUNT)
    assert parse(ask(shape.url, "--users-auth", shape.auth))["page_size"] == "100"


def test_a_size_by_which_page_two_goes_wrong_is_not_taken(
    server: Server, ask: Callable[..., str], configure: Configure
) -> None:
    """What is proposed has been held against page two with that size."""

    def respond(request: Request) -> Answer:
        start = 0 if "limit" in request.query else int(request.query.get("skip", 0))
        users = [{"id": number} for number in range(700)][start:][: int(request.query.get("limit", 50))]
        return Answer({"users": users, "skip": start, "total": 700})

    section = parse(ask(server.on("/users", respond)))
    assert "size_param" not in section
    assert len(read(section, configure)) == 700


def test_a_parameter_that_always_gives_nobody_is_no_filter(server: Server, ask: Callable[..., str]) -> None:
    """From the far past on everybody has to come."""
    users = [{"id": number, "updated_at": "2026-10-31T06:00:00Z"} for number in range(7)]
    url = server.on("/users", lambda request: Answer([] if "updated_since" in request.query else users))
    assert parse(ask(url))["mode"] == "snapshot"


def test_questions_come_to_an_end(server: Server, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever there is still to ask."""
    monkeypatch.setattr(probe, "MOST_REQUESTS", 5)
    url = server.on("/users", Answer([{"id": number} for number in range(100)]))
    assert "stopped after 5 requests, so some questions are open" in ask(url)
    assert len(server.requests) == 5


def test_a_preset_that_does_not_hold_is_not_proposed(server: Server, ask: Callable[..., str]) -> None:
    """Looking like an API is not being it: page two has to follow."""
    text = ask(server.on("/users", Answer({"@odata.nextLink": "?$skiptoken=2", "value": [{"id": 1}]})))
    assert "looks like the preset graph, but with it page two does not follow" in text
    assert "preset" not in parse(text)


def test_deletions_are_pointed_out(server: Server, ask: Callable[..., str]) -> None:
    """A field that is named like one is taken, and said to be a guess; one that may mean it is only shown."""
    users = [{"id": number, "is_deleted": number == 3} for number in range(7)]
    text = ask(server.on("/users", Answer(users)))
    assert parse(text)["deleted_when"] == "is_deleted"
    assert "to judge by its name alone" in find_row(text, "unsure: 'is_deleted'")
    text = ask(server.on("/users", Answer([{"id": 1, "active": True}])))
    assert "'active' is true" in find_row(text, "deletions")
    assert "deleted_when" not in parse(text)


def test_a_contract_that_does_not_fit_is_named(server: Server, ask: Callable[..., str]) -> None:
    """What the API sends is held against users.py before the first day is read."""
    text = ask(server.on("/users", Answer([{"name": "Ada"}, {"id": "x"}])))
    assert "0 of 2 records fit" in find_row(text, "record class")
    assert "missing required field `id`" in text
    assert "the record class User does not fit" in text


def test_a_field_that_no_record_has_is_told_with_the_module_to_edit(server: Server) -> None:
    """That of the dataset which is asked for."""
    url = server.on("/list", Answer([{"id": 1, "number": "a", "line": 1}]))
    for section, record_class, module in ((Users, User, "pipeline.users"), (Orders, Order, "tests.support.orders")):
        unsure = diagnose(section(url=url), record_class).unsure
        line = rf"^no record has .*, so columns from there stay empty: edit the module {module}$"
        assert any(re.search(line, doubt) for doubt in unsure)


def test_what_cannot_be_decided_is_said(server: Server, ask: Callable[..., str]) -> None:
    """A hundred users whatever is asked for: there may be more, and no paginator is written down."""
    users = [{"id": number, "updated_at": "2026-10-31T06:00:00Z"} for number in range(100)]
    text = ask(server.on("/users", Answer(users)))
    assert "100 records came, a round number that may be a full page" in find_row(text, "unsure")
    assert "paginator" not in parse(text)
    assert len(server.requests) <= MOST_REQUESTS


def test_what_is_set_is_kept_and_proven(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """Flags go into the section, and a paginator that is set is held against page two."""
    url = server.on("/users", make_pages(7, 3, server, ""))
    text = ask(url, "--users-paginator", "page", "--users-timezone", "Europe/Berlin")
    assert "page two has 3 other keys" in find_row(text, "paginator")
    assert parse(text)["timezone"] == "Europe/Berlin"
    assert len(read(parse(text), configure)) == 7
    text = ask(url, "--users-paginator", "page", "--users-page-param", "p")
    assert "page two repeats keys of page one" in find_row(text, "unsure")


def test_luigi_cfg_is_of_another_url(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """What is set for the source that one has does not colour what is found out about this one."""
    configure("users", paginator="page", headers='{"X-Team": "7"}')
    section = parse(ask(server.on("/users", Answer([{"id": 1}]))))
    assert section.keys() == {"url", "mode"}
    assert "X-Team" not in server.requests[0].headers


def test_a_percent_sign_can_be_pasted(server: Server, ask: Callable[..., str], configure: Configure) -> None:
    """luigi.cfg wants it twice."""
    section = parse(ask(server.on("/users", Answer([{"id": 1}])) + "?team=a%20b"))
    assert read(section, configure) == [{"id": 1}]
    assert server.requests[-1].query["team"] == "a b"


def test_a_secret_in_the_url_is_not_shown(server: Server, ask: Callable[..., str]) -> None:
    """It is sent, and the next step is to name it."""
    text = ask(server.on("/users", Answer([{"id": 1}])) + "?api_key=s3cr3t-value")
    assert server.requests[0].query["api_key"] == "s3cr3t-value"
    assert "s3cr3t" not in text
    assert "name it in auth instead" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer({"message": "no"}, status=404), "404"),
        (Answer("<html>"), "HTML"),
        (Answer({"users": [{"id": 1}], "teams": [{"id": 2}]}), "'users', 'teams'"),
        (Answer(reset=True), "failed after"),
    ],
)
def test_a_url_that_gives_nothing_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], answer: Answer, said: str
) -> None:
    """It exits with 1 and says what is wrong with the first page."""
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", server.on("/users", answer), "--users-retries", "0"])
    assert str(left.value.code).startswith("ERROR: ")
    assert said in str(left.value.code)
    assert capsys.readouterr().out == ""


def test_a_question_that_breaks_the_source_is_not_the_end(server: Server, ask: Callable[..., str]) -> None:
    """Some answer 500 to a parameter that they do not know: that it does not work is all there is to say."""

    def respond(request: Request) -> Answer:
        return Answer(status=500) if request.query else Answer([{"id": number} for number in range(10)])

    text = ask(server.on("/users", respond), "--users-retries", "0")
    assert "none of page, offset" in find_row(text, "unsure")
    assert "key" in text


def test_the_command_prints_a_section_on_a_pipe(server: Server) -> None:
    """As a person runs it: exit code 0, no line of the section broken."""
    url = server.on("/users", Answer({"users": [{"id": 1}], "total": 1})) + "?team=" + "x" * 200
    ran = run("python", "-m", "wholeday", "doctor", url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert parse(ran.stdout)["url"] == url


@pytest.mark.parametrize("name", ["jsonserver", "reqres", "dummyjson"])
def test_printed_section_pasted_into_luigi_cfg_loads_the_source(server: Server, name: str) -> None:
    """As a person does it: run the command, replace the section of luigi.cfg, load a day."""
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
