"""Check the findings of `check` for good and for faulty sources."""

import dataclasses
import datetime as dt
import itertools
import logging
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from pipeline.users import USERS
from tests.support.project import dump_tree, has_table, run
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import AHEAD, FAILED, OK, UNTESTED, Finding
from wholeday.errors import DayNotClosedError
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

DAY = dt.date(2026, 11, 20)
SECRET = 's3cr3t/+to "k&n='
WINDOW = '{"since": "{day_start}", "until": "{day_stop}"}'
NAMES = [
    "configuration",
    "authentication",
    "paging",
    "unique keys",
    "filter",
    "window",
    "record class",
    "load",
    "repeatability",
    "quality gates",
    "secrets",
]

Users = list[dict[str, Any]]
Change = Callable[[Users, Request], Users | Answer]


def serve(
    server: Server, configure: Callable[..., None], change: Change = lambda users, _: users, **keys: object
) -> None:
    """Serve 30 users who changed on DAY, ten a page. `change` edits the users that match the request's window."""

    def respond(request: Request) -> Answer:
        users = [make_user(number) for number in range(1, 31)]
        since, until = request.query.get("since", ""), request.query.get("until", "9")
        users = [user for user in users if since <= str(user["updated_at"]) < until]
        page = int(request.query.get("page", 1))
        shown = change(users, request)
        if isinstance(shown, Answer):
            return shown
        return Answer({"total": len(shown), "data": shown[10 * page - 10 : 10 * page]})

    keys = {"params": WINDOW, "paginator": "page", "total_path": "total", "retries": 0} | keys
    configure("users", **{"url": server.on("/users", respond)} | keys)


def ask() -> dict[str, Finding]:
    return check_source(read_workspace(USERS), DAY)


def find_failed() -> dict[str, Finding]:
    return {name: finding for name, finding in ask().items() if finding.verdict == FAILED}


def demand_secret(users: Users, request: Request) -> Users | Answer:
    """Answer 401 without the bearer token SECRET."""
    known = request.headers["Authorization"] == f"Bearer {SECRET}"
    return users if known else Answer({"error": "who are you?"}, status=401)


def test_good_source_passes_every_question(server, configure):
    serve(server, configure)
    found = ask()
    assert list(found) == NAMES
    assert {finding.verdict for finding in found.values()} == {OK}
    assert found["configuration"].evidence == "[users] is valid"
    assert found["paging"].evidence.startswith("3 pages, 30 records in 0.")
    assert found["paging"].evidence.endswith(" s; the source declares 30; page")
    assert found["unique keys"].evidence == "30 records with distinct keys (id)"
    assert found["filter"].evidence == f"no records for {DAY + AHEAD}"
    assert found["window"].evidence == ("30 of 30 rows changed from 2026-11-19T00:00Z to 2026-11-22T00:00Z")
    assert found["record class"].evidence == "0 rejects of 30 records, max_reject_ratio is 0.05"
    assert found["repeatability"].evidence == "30 records, the same both times"
    assert found["quality gates"].evidence == "30 records came; min_records is 0"


@pytest.mark.slow
def test_check_extracts_twice_and_writes_nothing(server, configure):
    """It also requests one page of a day far ahead. Existing files and tables do not change."""
    serve(server, configure)
    before = dump_tree(".")
    ask()
    assert dump_tree(".") == before
    assert len(server.requests) == 4 + 4 + 1  # the last page is full, so each extraction requests one more
    for work in (stages.extract, stages.transform, stages.load):
        work(read_workspace(USERS), DAY)
    before = dump_tree(".")
    assert "data/warehouse.db" in before
    ask()
    assert dump_tree(".") == before


def test_default_day_is_last_closed_day(server, configure):
    """An open day is refused."""
    serve(server, configure)
    check_source(read_workspace(USERS))
    last = USERS.config().last_closed_day(dt.datetime.now(dt.UTC))
    assert server.requests[0].query["until"] == f"{last + dt.timedelta(days=1)}T00:00:00Z"
    with pytest.raises(DayNotClosedError):
        check_source(read_workspace(USERS), dt.date(2100, 1, 1))


@pytest.mark.slow
def test_ignored_filter_fails(server, configure):
    """A day far ahead returns the same records as this day."""
    serve(server, configure, params='{"from": "{day_start}"}')
    (name, finding), *others = find_failed().items()
    assert (name, others) == ("filter", [])
    assert finding.evidence == f"a page for {DAY + AHEAD} has 10 records, as for {DAY}: the filter is ignored"


def test_records_of_the_future_fail_filter(server, configure):
    """The filter changes the answer, but a day far ahead still has records."""
    future = str(DAY + AHEAD)

    def change(users: Users, _: Request) -> Users:
        return users or [make_user(1), make_user(99, future)]

    serve(server, configure, change)
    assert find_failed()["filter"].evidence == f"a page for {future} has 2 records"


def test_missing_filter_fails_without_request(server, configure):
    """The configuration alone shows that every day would extract all users."""
    serve(server, configure, params="{}")
    assert "name no day" in find_failed()["filter"].evidence
    assert len(server.requests) == 8


def test_refused_future_day_leaves_filter_untested(server, configure):
    serve(server, configure, lambda users, request: Answer(status=422) if request.query["since"] > "2030" else users)
    found = ask()["filter"]
    assert found.verdict == UNTESTED
    assert "422" in found.evidence


def test_watermark_filter_is_tested(server, configure):
    """The test uses the watermark of a day far ahead. The window stays untested without a loaded day."""
    serve(server, configure, params='{"since": "{watermark}"}')
    found = ask()
    assert found["filter"] == (OK, f"no records for {DAY + AHEAD}", "")
    assert found["window"].verdict == UNTESTED
    serve(server, configure, params='{"from": "{watermark}"}')
    assert set(find_failed()) == {"filter"}


def test_date_placeholder_is_a_window(server, configure):
    """`{date}` sets both bounds."""
    serve(server, configure, params='{"since": "{date}", "until": "{date}T99"}')
    assert ask()["window"].evidence.endswith("T00:00Z to 2026-11-22T00:00Z")


@pytest.mark.slow
def test_records_before_window_fail(server, configure):
    """Later records pass, because a source may filter by creation time."""

    def change(users: Users, _: Request) -> Users:
        return [user | {"updated_at": "2026-11-01T00:00:00Z"} if user["id"] in moved else user for user in users]

    moved = {1, 2}
    serve(server, configure, change)
    assert find_failed()["window"].evidence == (
        "28 of 30 rows changed from 2026-11-19T00:00Z to 2026-11-22T00:00Z, 2 earlier"
    )
    configure("users", lookback="30 days")
    assert not find_failed()
    serve(server, configure, lambda users, _: [user | {"updated_at": "2026-11-23T00:00:00Z"} for user in users])
    found = ask()["window"]
    assert found.verdict == OK
    assert found.evidence.startswith("0 of 30 rows")
    assert found.evidence.endswith(", 30 later")


def test_different_second_answer_fails_repeatability(server, configure):
    """The evidence counts the differing records and keys."""
    reads = itertools.count()

    def change(users: Users, _: Request) -> Users:
        number = next(reads) // 3
        return [user | ({"email": f"new{number}@example.com"} if user["id"] == 7 else {}) for user in users]

    serve(server, configure, change)
    (name, finding), *others = find_failed().items()
    assert (name, others) == ("repeatability", [])
    assert finding.evidence == "1 of 30 records missing the second time, 1 new; 0 keys differ"


def test_snapshot_changes_pass_repeatability(server, configure):
    """Users may change between two snapshots. A snapshot has no filter and no window."""
    reads = itertools.count()

    def change(users: Users, _: Request) -> Users:
        return [*users, make_user(99)] if next(reads) >= 4 else users

    serve(server, configure, change, mode="snapshot", params="{}")
    found = ask()
    assert list(found) == [name for name in NAMES if name not in ("filter", "window")]
    assert found["repeatability"] == (
        OK,
        "0 of 30 records missing the second time, 1 new; 1 keys differ",
        "nothing, if this many records change between two runs",
    )


def test_repeated_key_fails(server, configure):
    """Keys repeat if records move while the client turns pages."""
    serve(server, configure, lambda users, _: [*users, *users[:2]], total_path="")
    (name, finding), *others = find_failed().items()
    assert (name, others) == ("unique keys", [])
    assert finding.evidence == "2 of 32 records repeat a key (id)"


def test_rejects_above_ratio_fail(server, configure):
    """The evidence counts the rejects by reason. No line names the temporary folder, which is deleted."""

    def change(users: Users, _: Request) -> Users:
        return [user | ({"email": "nowhere"} if int(str(user["id"])) <= bad else {}) for user in users]

    serve(server, configure, change)
    bad = 2
    findings = ask()
    assert findings["record class"].evidence == (
        "2 rejects of 30 records, max_reject_ratio is 0.05: 2 times email: does not match the pattern @"
    )
    assert findings["load"] == (UNTESTED, "too many records are rejected", "")
    bad = 1
    assert not find_failed()


def test_rejects_at_exact_ratio_pass(server, configure):
    """`check` and the quality gate of a day apply the same limit."""

    def change(users: Users, _: Request) -> Users:
        emails = ["nowhere"] * bad + ["a@example.com"] * (50 - bad)
        return [make_user(number, email=email) for number, email in enumerate(emails, 1)] if users else []

    serve(server, configure, change, max_reject_ratio=0.58)
    for bad, verdict in ((29, OK), (30, FAILED)):
        finding = ask()["record class"]
        assert finding.verdict == verdict
        assert finding.evidence.startswith(f"{bad} rejects of 50 records, max_reject_ratio is 0.58: ")


@pytest.mark.parametrize("part_records", [7, 1000])
def test_required_secret_passes_and_is_not_written(server, configure, monkeypatch, part_records):
    """The source answers 401 without the secret."""
    monkeypatch.setenv("USERS_TOKEN", SECRET)
    configure("pipeline", part_records=part_records)
    serve(server, configure, demand_secret, auth="bearer:USERS_TOKEN")
    found = ask()
    assert {finding.verdict for finding in found.values()} == {OK}
    assert found["configuration"].evidence == "[users] is valid, and the secret of auth = bearer:USERS_TOKEN is set"
    assert found["authentication"].evidence == "received the first page; without the secret the source answers 401"
    files = -(-30 // part_records) + 1
    assert found["secrets"].evidence.startswith(f"not found in {files} files and ")
    assert found["window"].evidence.startswith("30 of 30 rows")
    assert SECRET not in repr(found)


def test_source_open_without_secret_passes_with_note(server, configure, monkeypatch):
    """A public source may be intended."""
    monkeypatch.setenv("USERS_TOKEN", SECRET)
    serve(server, configure, auth="bearer:USERS_TOKEN")
    found = ask()["authentication"]
    assert found.verdict == OK
    assert "also answers without the secret" in found.evidence
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {SECRET}", None}


@pytest.mark.parametrize(("status", "verdict"), [(404, OK), (503, UNTESTED)])
def test_other_status_without_secret_is_reported(server, configure, monkeypatch, status, verdict):
    """Some sources hide resources behind 404. A source in trouble leaves the question untested."""
    monkeypatch.setenv("USERS_TOKEN", SECRET)
    known = f"Bearer {SECRET}"
    serve(
        server,
        configure,
        lambda users, request: users if request.headers["Authorization"] == known else Answer(status=status),
        auth="bearer:USERS_TOKEN",
    )
    found = ask()["authentication"]
    assert found.verdict == verdict
    assert f"without the secret: users {DAY}: " in found.evidence
    assert f": {status} " in found.evidence


def test_credentials_in_url_are_removed_too(server, configure):
    """The password in a URL is a secret as well."""
    serve(server, configure, lambda users, request: users if request.headers["Authorization"] else Answer(status=403))
    configure("users", url=f"{server.url}/users".replace("//", "//ann:p4ssw0rd@"))
    found = ask()
    assert found["authentication"].evidence == "received the first page; without the secret the source answers 403"
    assert found["secrets"].evidence.startswith("not found in 2 files and ")


def test_wrong_secret_leaves_other_questions_untested(server, configure, monkeypatch):
    monkeypatch.setenv("USERS_TOKEN", "another")
    serve(server, configure, demand_secret, auth="bearer:USERS_TOKEN")
    found = ask()
    assert found["authentication"].verdict == FAILED
    assert "401" in found["authentication"].evidence
    others = {name: finding.verdict for name, finding in found.items() if name in NAMES[2:-1]}
    assert others == dict.fromkeys(NAMES[2:-1], UNTESTED)
    assert found["secrets"].verdict == OK
    assert len(server.requests) == 1


def test_unset_secret_fails_configuration_without_request(server, configure):
    serve(server, configure, auth="bearer:USERS_TOKEN")
    found = ask()
    assert [(name, finding.verdict) for name, finding in found.items()] == [("configuration", FAILED)]
    assert "USERS_TOKEN is not set" in found["configuration"].evidence
    assert not server.requests


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [str, quote, partial(quote, safe=""), quote_plus, str.upper, lambda text: b64encode(text.encode()).decode()],
    ids=["plain", "path", "percent", "plus", "case", "base64"],
)
def test_secret_in_response_is_found(server, configure, monkeypatch, write):
    """Every raw file would contain the secret, in some encoding."""
    monkeypatch.setenv("USERS_TOKEN", SECRET)
    note = {"note": f"https://example.com/?again={write(SECRET)}"}
    serve(server, configure, lambda users, _: [user | note for user in users], auth="bearer:USERS_TOKEN")
    (name, finding), *others = find_failed().items()
    assert (name, others) == ("secrets", [])
    assert finding.evidence.startswith("found in part-00000.jsonl.gz (searched 2 files and ")


@pytest.mark.parametrize("name", ["luigi-interface", "of.a.package"])
def test_secret_in_log_is_found(server, configure, monkeypatch, name):
    """Any logger counts, at any level."""
    monkeypatch.setenv("USERS_TOKEN", SECRET)
    serve(server, configure, auth="bearer:USERS_TOKEN")

    def clean(users: Any) -> Any:
        logging.getLogger(name).debug("asked with %s", SECRET)
        return users

    found = check_source(read_workspace(dataclasses.replace(USERS, clean=clean)), DAY)["secrets"]
    assert found.verdict == FAILED
    assert found.evidence.startswith("found in the log (searched 2 files and ")


def test_quality_gates_are_evaluated(server, configure):
    """After a failed gate the second extraction has no result to compare."""
    serve(server, configure)
    configure("users", min_records=31)
    found = ask()
    assert found["quality gates"].verdict == FAILED
    assert found["quality gates"].evidence.startswith("30 records came; min_records is 31")
    assert found["repeatability"].verdict == UNTESTED


def test_interrupted_extraction_fails_paging_with_its_error(server, configure):
    """The first page arrived, so authentication passes."""
    serve(server, configure, lambda users, request: users[: 29 if request.query.get("page") == "3" else 30])
    found = ask()
    assert found["authentication"].verdict == OK
    assert found["paging"].verdict == FAILED
    assert "the source declared 30 records, and now 29" in found["paging"].evidence
    assert found["unique keys"] == (UNTESTED, "the first extraction failed", "")


def test_day_without_records_leaves_questions_untested(server, configure):
    """An untested question is not a failure."""
    serve(server, configure, lambda *_: [])
    found = ask()
    assert not find_failed()
    untested = {name for name, finding in found.items() if finding.verdict == UNTESTED}
    assert untested == {"unique keys", "filter", "window", "record class", "load"}


@pytest.mark.slow
def test_command_prints_table_and_exits_1_on_failure(server, configure):
    """In a pipe each finding takes one line. Flags override the configuration."""
    serve(server, configure)
    flags = ("--users-url", f"{server.url}/users?since={{day_start}}&until={{day_stop}}", "--users-total-path", "total")
    good = run("python", "-m", "wholeday", "check", "--date", str(DAY), "--users-paginator", "page", *flags)
    assert good.returncode == 0, good.stderr
    assert [line[: len(name)] for line, name in zip(good.stdout.splitlines(), NAMES, strict=True)] == NAMES
    assert "30 records with distinct keys (id)" in good.stdout
    assert good.stderr == ""
    bad = run("python", "-m", "wholeday", "check", "--date", str(DAY), "--users-paginator", "single", *flags)
    assert bad.returncode == 1
    assert "the source declares 30 records, and 10 came" in " ".join(bad.stdout.split())


def break_clean(_: Any) -> Any:
    return None


def make_times(users: Any) -> Any:
    return users.assign(city=users["updated_at"])


@pytest.mark.parametrize(
    ("clean", "line"),
    [
        (break_clean, "break_clean (test_check.py, line "),
        (make_times, "clean: column city holds timestamp"),
    ],
)
def test_dataset_that_cannot_load_fails(server, configure, clean, line):
    """Transform or load may refuse it. The configured data folder stays untouched."""
    serve(server, configure)
    found = check_source(read_workspace(dataclasses.replace(USERS, clean=clean)), DAY)
    assert found["load"].verdict == FAILED
    assert line in found["load"].evidence
    assert not Path("data").exists()


@pytest.mark.slow
def test_day_is_loaded_into_temporary_database(server, configure, database):
    """For PostgreSQL the evidence says that the configured database was not tried."""
    serve(server, configure)
    other = "" if database == "sqlite" else "; the configured database was not tried"
    assert ask()["load"] == (OK, f"loaded, 30 inserted, into a temporary SQLite database{other}", "")
    assert not has_table("users")
    assert not Path("data").exists()


def test_missing_key_field_fails(server, configure):
    """Without keys the other questions have nothing to compare."""
    serve(server, configure, lambda users, _: [{"uid": user["id"], "updated_at": user["updated_at"]} for user in users])
    found = ask()
    assert {name for name in found if found[name].verdict == FAILED} >= {"unique keys", "record class"}
    assert found["load"].verdict == UNTESTED
