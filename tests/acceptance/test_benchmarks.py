"""Run the benchmark harness as documented. It accepts no run whose table is wrong."""

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from benchmarks import load, report, run
from benchmarks.contenders import CONTENDERS, FIRST, FLOOR, IN_SQLITE, OURS, Contender
from benchmarks.results import Failure, Group, Measure, Results
from benchmarks.source import make_day, make_everybody
from pipeline.users import USERS
from tests.support import ROOT
from tests.support.cluster import DATABASE, PASSWORD, USER
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.load.warehouse import Warehouse

pytestmark = pytest.mark.slow

SIZE = 1200
SCRIPT = "the plain script"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a source of SIZE users."""
    with run.serve(tmp_path, [SIZE]) as root:
        yield root


def attempt(contender: Contender, scenario: str, size: int, folder: Path, root: str) -> Measure | Failure:
    return run.run(contender, run.SCENARIOS[scenario], size, folder, root)


def test_command_measures_and_stores_results(tmp_path):
    """Each contender runs in its own process, from the source to the final table."""
    kept = tmp_path / "kept.json"
    flags = ("--scenarios", "1 % changed", "--sizes", str(SIZE), "--rounds", "1", "--results", str(kept))
    command = (sys.executable, "-m", "benchmarks.run", *flags, "--only", FLOOR.name, SCRIPT)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"1 % changed, {SIZE:,} users" in done.stdout
    group = Results.read(kept).groups["1 % changed"][SIZE]
    assert {name: [type(run) for run in found] for name, found in group.runs.items()} == {
        FLOOR.name: [Measure],
        SCRIPT: [Measure],
    }
    assert all(run.seconds > 0 and (run.cpu, run.bytes) == (0, 0) for (run,) in group.runs.values())
    assert group.watched.keys() == group.runs.keys()
    assert all(run.cpu > 0 and run.bytes > 10e6 for run in group.watched.values())


def test_changed_users_are_loaded(root, tmp_path):
    """The load of the day before is not measured."""
    assert isinstance(attempt(OURS, "1 % changed", SIZE, tmp_path, root), Measure)


@pytest.mark.parametrize("contender", [OURS, FLOOR])
def test_backfill_loads_every_day(root, tmp_path, contender):
    """Each day has a hundred users."""
    assert isinstance(attempt(contender, "backfill", 3, tmp_path, root), Measure)


def test_postgresql_run_starts_empty_and_is_verified(root, tmp_path, cluster):
    """The SQLite contender runs in the same scenario."""
    server = f"{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{cluster.port}/{DATABASE}"
    for contender in (OURS, OURS, IN_SQLITE):
        found = run.run(contender, run.SCENARIOS["postgresql"], SIZE, tmp_path, root, server)
        assert isinstance(found, Measure), found


def test_postgresql_scenario_needs_a_server():
    """It must not fall back to a file."""
    command = (sys.executable, "-m", "benchmarks.run", "--scenarios", "postgresql")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs --postgresql user:password@host:port/name" in done.stderr


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (SIZE - 1, f"the table has {SIZE - 1} users, 0 of them changed; should be {SIZE}, 0"),
        (SIZE + 1, f"the table has {SIZE + 1} users, 0 of them changed; should be {SIZE}, 0"),
        (None, "the table cannot be read: no such table: users"),
    ],
)
def test_wrong_table_is_a_failure(root, tmp_path, rows, why):
    """A fast but wrong run does not count."""
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1])\n"
        f"if {rows}: db.execute('create table users (updated_at)')\n"
        f"if {rows}: db.executemany('insert into users values (?)', [('2025-01-01',)] * {rows}); db.commit()"
    )
    liar = Contender("liar", {FIRST: ("{bin}/python", "-c", code, "{database}")}, "the work")
    assert attempt(liar, "first", SIZE, tmp_path, root) == Failure(why)


def test_failed_contender_has_its_reason(root, tmp_path):
    """The reason is its last output line, or the missing program."""
    fails = Contender("fails", {FIRST: ("{bin}/python", "-c", "raise SystemExit('no disk')")}, "")
    missing = Contender("missing", fails.commands, "", programs=("no-such-program",))
    failures = [attempt(contender, "first", SIZE, tmp_path, root) for contender in (fails, missing)]
    assert failures == [Failure("failed (1): no disk"), Failure("no-such-program not installed")]


def test_source_changes_one_percent_and_dates_days():
    """`check` relies on both."""
    users = [user for page in make_everybody(SIZE, "changed") for user in page]
    changed = [user["id"] for user in users if user["updated_at"] >= run.CHANGED_FROM]
    assert (len(users), changed) == (SIZE, list(range(100, SIZE + 1, 100)))
    (day,) = make_day(dt.date(2015, 1, 2))
    assert {str(user["updated_at"])[:10] for user in day} == {"2015-01-02"}
    assert [day[0]["id"], day[-1]["id"]] == [101, 200]


def test_page_shows_medians_ratios_and_failures(tmp_path, monkeypatch):
    """Ratios are computed within a round, because a slow machine slows both contenders."""
    monkeypatch.setattr(report, "describe_versions", lambda: ["versions"])
    runs = {
        OURS.name: [Measure(seconds) for seconds in (2.0, 20.0, 2.2)],
        FLOOR.name: [Measure(seconds) for seconds in (1.0, 10.0, 2.0)],
        "dlt, REST source": [Failure("failed (1): a | b")],
    }
    many = {OURS.name: [Measure(22.0)], FLOOR.name: [Measure(20.0)]}
    watched = {OURS.name: Measure(9.0, 1.5, 10**8), FLOOR.name: Failure("killed")}
    few = Group(0.5, runs, watched | {"dlt, REST source": Failure("failed (1)")})
    report.write(Results({"first": {1000: few, 10_000: Group(0.5, many, watched)}}), tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| this pipeline | 2.20 | 1.00 | 2.00 | 1.50 | 100 | nothing |" in page
    assert re.search(r"\| the floor \| 2\.00 \| 0\.50 \| 1\.00 \| - \| - \| .*; and once: killed \|", page)
    assert "| dlt, REST source | - | - | - | - | - | failed (1): a / b |" in page
    assert re.findall(r">(this pipeline|the floor|dlt, REST source)<", (tmp_path / "benchmarks.svg").read_text()) == [
        "this pipeline",
        "the floor",
    ]


def test_every_contender_states_its_gaps():
    """The scripts in its commands exist."""
    for contender in CONTENDERS:
        assert contender.leaves_out, contender.name
        for command in contender.commands.values():
            assert all(Path(word).is_file() for word in command if word.startswith(str(ROOT))), contender.name


def test_each_load_is_compared_with_a_bare_upsert():
    """Each case loads a day as the pipeline would."""
    found = load.measure(2 * load.EVERY, 1)
    assert found.keys() == load.CASES.keys()
    assert all(seconds > 0 and ratio > 0 for seconds, ratio in found.values())


def test_load_days_match_their_names(tmp_path):
    """One user in a hundred changed, and all users are present."""
    store = Warehouse(f"sqlite:///{tmp_path}/w.db", USERS)
    parts = {who: load.make_rows(1000, who) for who in ("all", "changed", "some")}
    inserted, updated = [], []
    for day in (load.FIRST, (2, SNAPSHOT, "changed"), (3, INCREMENTAL, "some")):
        load.load(store, day, parts)
        marker = store.read_markers()[-1]
        inserted.append(marker.inserted)
        updated.append(marker.updated)
    assert (inserted, updated) == ([1000, 0, 0], [0, 10, 0])
