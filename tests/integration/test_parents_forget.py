"""Test `forget` where a source is asked for each row of another dataset."""

import contextlib
import datetime as dt
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import points
from tests.support.forge import ISSUES, ORGS, REPOS, START, TOKEN, Forge, show, write_sections
from tests.support.forgetting import MARK, check_markers, dump_days, find_mark, read_raw
from tests.support.project import dump_tree, execute, query, run_stages
from tests.support.reading import DAY
from tests.support.server import Server
from wholeday import clock
from wholeday.commands.forget import forget
from wholeday.commands.prune import prune
from wholeday.commands.rebuild import rebuild
from wholeday.errors import OutageError
from wholeday.extract.http.client import Client
from wholeday.schema.dataset import Dataset
from wholeday.storage.manifest import RawManifest
from wholeday.storage.parents import Parent, read_parents
from wholeday.storage.tombstones import Tombstones
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

Configure = Callable[..., None]
ALL = os.environ.get("PIPELINE_FAULTS") == "all"
DAYS = [DAY + dt.timedelta(days=number) for number in range(3)]


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    monkeypatch.setattr(Client, "_check_clock", lambda *_: None)
    configure("pipeline", part_records=7)


def stop_clock(monkeypatch: pytest.MonkeyPatch, day: dt.date) -> None:
    """Make it an hour after the end of a day."""
    now = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(1), dt.UTC)
    monkeypatch.setattr(clock, "utc_now", lambda: now)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server for all tests: the loaded days, which all tests copy, name its port."""
    with Server() as running:
        yield running


@pytest.fixture(params=["incremental", "snapshot"])
def forge(
    request: pytest.FixtureRequest,
    server: Server,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    copy_or_make: Callable[..., None],
) -> Forge:
    """Load organisations, repositories and issues on three days, on which issues change."""
    return load_days(server, configure, monkeypatch, copy_or_make, request.param)


def load_days(
    server: Server,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    copy_or_make: Callable[..., None],
    mode: str,
    days: Sequence[dt.date] = DAYS,
) -> Forge:
    forge = Forge(server, repos=6, issues=40, per_page=4)
    gates = {"max_drop_ratio": 1, "max_delete_ratio": 1, "max_reject_ratio": 1}
    write_sections(configure, forge, mode=mode, **gates)
    configure("orgs", **gates)
    configure("repos", url=f"{forge.url}/orgs/{{orgs.login}}/repos", **gates)

    def change(number: int) -> None:
        for issues in forge.issues.values():
            for issue in issues[number::3]:
                time = show(START + number * dt.timedelta(1))
                issue |= {"title": f"Changed on day {number}", "updated_at": time}

    def make() -> None:
        for number, day in enumerate(days):
            stop_clock(monkeypatch, day)
            change(number)
            for dataset in (ORGS, REPOS, ISSUES):
                run_stages(dataset, day)

    copy_or_make(f"children {mode} {len(days)}", make)
    stop_clock(monkeypatch, days[-1])
    for number, _ in enumerate(days):
        change(number)
    return forge


def read_parents_of(day: dt.date, dataset: Dataset = ISSUES) -> list[Parent]:
    folder = read_workspace(dataset).folder("raw", day)
    return read_parents(folder, folder.read_manifest(RawManifest))


def dump_tables(*datasets: str) -> dict[str, list[Any]]:
    names = [table for name in datasets for table in (name, f"_{name}_past", f"_{name}_events", f"_{name}_changes")]
    return {name: sorted(query(f"select * from {name}"), key=repr) for name in names}


def check_all() -> None:
    """Check that files, markers and tables agree, and that a rebuild changes nothing."""
    for dataset in (ORGS, REPOS, ISSUES):
        check_markers(dataset)
    before = dump_tables("issues", "repos")
    for dataset in (REPOS, ISSUES):
        rebuild(read_workspace(dataset))
    assert {name: [row[:3] for row in rows] for name, rows in dump_tables("issues", "repos").items()} == {
        name: [row[:3] for row in rows] for name, rows in before.items()
    }


def test_erased_child_leaves_the_list_of_parents(forge: Forge) -> None:
    """The list counts the lines that are left of each parent."""
    name, issues = max(forge.issues.items(), key=lambda item: len(item[1]))
    key = issues[0]["id"]
    before = {day: read_parents_of(day) for day in DAYS}
    result = forget(read_workspace(ISSUES), [str(key)])
    assert (result.problems, result.unknown) == ([], [])
    assert sum(result.days.values()) == len(DAYS)
    for day in DAYS:
        counts = {parent.values["name"]: parent.records for parent in read_parents_of(day)}
        assert counts == {
            parent.values["name"]: parent.records - (parent.values["name"] == name) for parent in before[day]
        }
    assert query("select * from issues_history where id = ?", key) == []
    check_all()


def test_erased_parent_takes_its_children_along(forge: Forge) -> None:
    """Nothing of its issues stays in a file or a table, and no other repository loses a row."""
    repo = max(forge.repos, key=lambda repo: len(forge.issues[repo["name"]]))
    name, own = repo["name"], {issue["id"] for issue in forge.issues[repo["name"]]}
    others = query("select * from issues_history where repo <> ? order by id, valid_from", name)
    result = forget(read_workspace(REPOS), [str(repo["id"])])
    assert (result.problems, result.unknown) == ([], [])
    assert sum(result.children["issues"].days.values()) == len(own) * len(DAYS)
    assert query("select * from issues_history order by id, valid_from") == others
    assert not own & {key for (key,) in query("select id from _issues_events union select id from _issues_changes")}
    for day in DAYS:
        assert name not in [parent.values["name"] for parent in read_parents_of(day)]
        assert not [line for line in read_raw(ISSUES, day) if f'"id": {min(own)},'.encode() in line]
    assert not any(f'"{name}"'.encode() in content for content in dump_tree("data").values())
    check_all()
    assert forget(read_workspace(REPOS), []).days == {}


def test_record_without_key_is_erased_with_its_parent(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be found by a key, so only the list names its parent."""
    day = DAYS[-1] + dt.timedelta(days=1)
    stop_clock(monkeypatch, day)
    forge.issues["repo 2"].append({"id": None, "title": MARK, "updated_at": show(START)})
    for dataset in (ORGS, REPOS, ISSUES):
        run_stages(dataset, day)
    assert len(find_mark()) == 3  # a raw part, rejects, the database
    assert forget(read_workspace(REPOS), ["2"]).problems == []
    assert find_mark() == []
    check_markers(ISSUES)


def test_erased_parent_is_not_asked_again(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = forge.repos[2]
    forget(read_workspace(REPOS), [str(repo["id"])])
    day = DAYS[-1] + dt.timedelta(days=1)
    stop_clock(monkeypatch, day)
    forge.asked.clear()
    for dataset in (ORGS, REPOS, ISSUES):
        run_stages(dataset, day)
    assert not [path for path in forge.asked if "repo%202" in path]
    assert query("select * from repos where name = ?", repo["name"]) == []
    assert len(query("select * from repos")) == 5


def test_two_levels_are_erased(forge: Forge) -> None:
    """The repositories of an organisation, and their issues."""
    repos = [repo for repo in forge.repos if repo["owner"]["login"] == "org/1"]
    issues = {issue["id"] for repo in repos for issue in forge.issues[repo["name"]]}
    result = forget(read_workspace(ORGS), ["org/1"])
    assert result.problems == []
    assert sorted(Tombstones("data", "repos").keys()) == sorted((repo["id"],) for repo in repos)
    assert sorted(Tombstones("data", "issues").keys()) == sorted((issue,) for issue in issues)
    assert {key for (key,) in query("select id from issues")} == {
        issue["id"] for some in forge.issues.values() for issue in some
    } - issues
    assert {name for (name,) in query("select owner from repos")} == {"org/0", "org/2"}
    check_all()


@pytest.mark.usefixtures("forge")
def test_parents_with_one_request_lose_a_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records came for the other row too."""
    day = DAYS[-1] + dt.timedelta(days=1)
    stop_clock(monkeypatch, day)
    execute("update repos set name = 'repo 1', owner = 'org/1' where id = 2")
    run_stages(ISSUES, day)
    count = len(read_raw(ISSUES, day))
    assert [[1], [2]] in [parent.keys for parent in read_parents_of(day)]
    before = len(query("select * from issues where repo = 'repo 1'"))
    assert before
    forget(read_workspace(REPOS), ["2"])
    keys = [parent.keys for parent in read_parents_of(day)]
    assert [[1]] in keys
    assert len(read_raw(ISSUES, day)) == count
    assert len(query("select * from issues where repo = 'repo 1'")) == before
    check_markers(ISSUES)


def test_children_of_pruned_days_are_erased(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rows are found by the column of the parent."""
    stop_clock(monkeypatch, DAYS[-1] + dt.timedelta(days=5))
    assert [outcome.what for outcome in prune(read_workspace(ISSUES), 0, 0, dry_run=False)] == ["pruned"] * len(DAYS)
    repo = max(forge.repos, key=lambda repo: len(forge.issues[repo["name"]]))
    own = {issue["id"] for issue in forge.issues[repo["name"]]}
    others = query("select * from issues_history where repo <> ? order by id, valid_from", repo["name"])
    assert forget(read_workspace(REPOS), [str(repo["id"])]).problems == []
    assert query("select * from issues_history order by id, valid_from") == others != []
    assert {key for (key,) in Tombstones("data", "issues").keys()} == own  # noqa: SIM118 - a method that reads the file


def test_rows_of_another_parent_with_the_same_values_stay(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The column of the parent has the same value for both."""
    stop_clock(monkeypatch, DAYS[-1] + dt.timedelta(days=5))
    list(prune(read_workspace(ISSUES), 0, 0, dry_run=False))
    execute("update repos set name = 'repo 1' where id = 2")
    before = query("select * from issues where repo = 'repo 1'")
    assert len(before) == len(forge.issues["repo 1"]) > 0
    forget(read_workspace(REPOS), ["2"])
    assert query("select * from issues where repo = 'repo 1'") == before


def test_unfinished_day_of_children_is_cleared(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frozen list names the parent."""
    day = DAYS[-1] + dt.timedelta(days=1)
    stop_clock(monkeypatch, day)
    for dataset in (ORGS, REPOS):
        run_stages(dataset, day)
    forge.broken_at = len(forge.asked) + 3
    with pytest.raises(OutageError):
        run_stages(ISSUES, day)
    folder = Path(str(read_workspace(ISSUES).folder("raw", day).path))
    assert any(folder.iterdir())
    assert forget(read_workspace(REPOS), ["2"]).problems == []
    assert not any(folder.iterdir())


def test_damaged_list_is_a_problem(forge: Forge) -> None:
    """The erasure stays pending, and the next run completes it."""
    repo = max(forge.repos, key=lambda repo: len(forge.issues[repo["name"]]))
    path = Path(str(read_workspace(ISSUES).folder("raw", DAYS[1]).path), "parents.json.gz")
    content = path.read_bytes()
    path.write_bytes(b"x")
    problems = forget(read_workspace(REPOS), [str(repo["id"])]).problems
    assert problems
    assert all(f"issues {DAYS[1]}: {path}: the file does not match its manifest" in line for line in problems)
    assert Tombstones("data", "repos").count_pending() == 1
    path.write_bytes(content)
    assert forget(read_workspace(REPOS), []).problems == []
    assert Tombstones("data", "repos").count_pending() == 0
    assert query("select * from issues where repo = ?", repo["name"]) == []
    check_all()


def test_unusable_section_of_children_is_a_problem(forge: Forge, configure: Configure) -> None:
    """Its files may hold children, and its section cannot be used to find out."""
    configure("issues", url=f"{forge.url}/repos/{{reposs.name}}/issues")
    (problem,) = forget(read_workspace(REPOS), ["2"]).problems
    assert problem.startswith("issues: its section does not name its parents: [issues] {reposs.name}")
    assert Tombstones("data", "repos").count_pending() == 1


def test_next_run_completes_a_run_killed_anywhere(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch, copy_or_make: Callable[..., None]
) -> None:
    """The kill comes before each point that changes the disk; by default, before one of each kind, writes left out."""
    load_days(server, configure, monkeypatch, copy_or_make, "incremental", DAYS[:2])
    kept = shutil.copytree("data", "before")

    def erase() -> None:
        forget(read_workspace(ORGS), ["org/1"])

    code, names = points.run(erase, points.Points())
    assert code == 0
    wanted = dump_files(), dump_database()
    changes = [(at, name) for at, name in enumerate(names, 1) if not name.startswith(("select", "pragma ", "close"))]
    kinds = {find_kind(name): (at, name) for at, name in changes if not name.startswith(("write", "fsync"))}
    assert len(kinds) > 20
    for at, name in changes if ALL else kinds.values():
        shutil.rmtree("data")
        shutil.copytree(kept, "data")
        assert points.run(erase, points.Points(at, "kill"))[0] < 0, name
        for dataset in (REPOS, ISSUES):
            for day in DAYS[:2]:
                assert sum(parent.records for parent in read_parents_of(day, dataset)) == len(read_raw(dataset, day))
        erase()
        assert (dump_files(), dump_database()) == wanted, name


def find_kind(point: str) -> str:
    """Return a statement without its table, and an action on a file without the number of the part and its digest."""
    return re.sub(r"^(delete|insert|update) .*", r"\1", re.sub(r"part-\d+|[0-9a-f]{12}", "", point))


def dump_files() -> dict[str, Any]:
    """Read the days, and the distinct lines of the tombstones. A killed run may have recorded its completion."""
    lines = [line for path in Path("data/forgotten").iterdir() for line in path.read_bytes().splitlines()]
    return dump_days() | {"tombstones": sorted(set(lines))}


def dump_database() -> list[str]:
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        return list(db.iterdump())
