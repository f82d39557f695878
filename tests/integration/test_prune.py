"""Prune removes the files of old loaded days, and other commands distinguish pruned days from lost ones."""

import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.users import USERS, LoadUsers, TransformUsers
from tests.support import points
from tests.support.project import dump_tree, dump_warehouse, execute, query, run, run_stages, start
from wholeday.commands.forget import forget
from wholeday.commands.prune import prune
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.screen import Outcome
from wholeday.commands.verify import verify
from wholeday.errors import FolderError, WarehouseError
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(6)]
OLD, LATER = DAYS[:3], DAYS[3:]
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=40"


@pytest.fixture(autouse=True)
def loaded(configure, copy_or_make) -> None:
    """Load six days. The source is unreachable afterwards."""
    configure("users", url=URL)
    copy_or_make("prune", lambda: run_stages(USERS, *DAYS))
    configure("users", url="http://127.0.0.1:9/nobody-listens")


def prune_old(keep: int = 3) -> list[Outcome]:
    return list(prune(read_workspace(USERS), 0, keep, dry_run=False))


def list_files(day: dt.date) -> list[str]:
    return [path for path in dump_tree("data") if f"date={day}" in path]


def tell(outcomes: list[Outcome]) -> dict[int, str]:
    return {outcome.date.day: f"{outcome.what} {outcome.why}".strip() for outcome in outcomes}


def dump() -> tuple[object, ...]:
    return dump_warehouse(), query("select * from users_history order by user_id, valid_from")


def test_pruned_days_keep_their_rows():
    """The raw and clean folders are removed. The marker stays, and stores the time."""
    before = dump()
    found = prune_old()
    assert tell(found) == {1: "pruned", 2: "pruned", 3: "pruned"}
    assert all(outcome.bytes > 2000 for outcome in found)
    assert [list_files(day) for day in OLD] == [[], [], []]
    assert not list(Path("data").rglob(f"date={OLD[0]}"))
    assert all(len(list_files(day)) >= 4 for day in LATER)
    assert query("select date from loads where pruned_at is not null order by 1") == [(str(day),) for day in OLD]
    assert dump() == before
    assert prune_old() == []


def test_age_counts_from_the_last_closed_day(monkeypatch):
    """The newest days are kept at any age."""
    monkeypatch.setattr("wholeday.clock.utc_now", lambda: dt.datetime(2026, 10, 7, 1, tzinfo=dt.UTC))  # closed: the 6th
    cases = [(3, 0, [1, 2, 3]), (3, 4, [1, 2]), (0, 0, [1, 2, 3, 4, 5, 6]), (6, 0, []), (0, 9, [])]
    for older_than, keep, days in cases:
        assert [outcome.date.day for outcome in prune(read_workspace(USERS), older_than, keep, dry_run=True)] == days


def test_prune_without_yes_changes_nothing():
    """The command prints the days that it would prune."""
    files, rows = dump_tree("data/raw") | dump_tree("data/clean"), query("select * from loads")
    command = ("python", "-m", "wholeday", "prune", "--older-than", "10", "--keep", "3")
    looked = run(*command)
    assert looked.returncode == 0, looked.stderr
    size = looked.stdout.split(", ")[1]
    days = "users 2026-10-01..2026-10-03: 3 days"
    assert looked.stdout == f"{days}, {size}, would be pruned; nothing is touched without --yes\n"
    assert (dump_tree("data/raw") | dump_tree("data/clean"), query("select * from loads")) == (files, rows)
    done = run(*command, "--yes")
    assert (done.returncode, done.stdout) == (0, f"{days}, {size}, pruned\n")
    assert run(*command).stdout == "users: no day is to be pruned\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "wholeday prune: --older-than is missing"),
        (("--older-than", "-1"), "wholeday prune: --older-than=-1: Input should be greater than or equal to 0"),
        (("--older-than", "30", "--keep", "x"), "wholeday prune: --keep=x: Input should be a valid integer"),
    ],
)
def test_invalid_argument_is_one_line(arguments, line):
    """The exit code is 2."""
    result = run("python", "-m", "wholeday", "prune", *arguments)
    assert result.returncode == 2
    assert line in result.stderr.splitlines()[-1]


def manifest(stage: str, day: dt.date) -> Path:
    return Path(f"data/{stage}/users/date={day}/manifest.json")


def read_again(day: dt.date) -> None:
    shutil.rmtree(f"data/raw/users/date={day}")
    Path(f"data/raw/users/date={OLD[1]}").rename(f"data/raw/users/date={day}")


def set_marker(change: str) -> Callable[[dt.date], object]:
    return lambda day: execute(f"update loads set {change} where date = '{day}'")


NOT_HELD: dict[str, tuple[Callable[[dt.date], object], str]] = {
    "never loaded": (lambda day: execute(f"delete from loads where date = '{day}'"), "not loaded"),
    "other raw files": (read_again, "loaded from other files"),
    "the same from another reading": (set_marker("as_of = '2026-10-01T12:00:00.000000Z'"), "loaded from other files"),
    "a clean day of other code": (set_marker("clean_sha256 = 'x'"), "loaded from other files"),
    "being read": (lambda day: manifest("raw", day).unlink(), "its files are incomplete"),
    "being cleaned": (lambda day: manifest("clean", day).unlink(), "its files are incomplete"),
    "a damaged manifest": (lambda day: manifest("clean", day).write_text("{"), "is not a manifest"),
}


@pytest.mark.parametrize("how", NOT_HELD)
@pytest.mark.parametrize("dry_run", [True, False])
def test_day_missing_from_the_warehouse_is_kept(how, dry_run):
    """The files may be its only copy."""
    change, why = NOT_HELD[how]
    change(OLD[0])
    files = list_files(OLD[0])
    found = tell(list(prune(read_workspace(USERS), 0, 5 if how == "other raw files" else 4, dry_run)))
    assert why in found.pop(1)
    assert set(found.values()) <= {"pruned"}
    assert list_files(OLD[0]) == files
    assert query(f"select pruned_at from loads where date = '{OLD[0]}'") in ([], [(None,)])


@pytest.mark.parametrize("stage", ["raw", "clean"])
def test_prune_waits_for_a_locked_day(stage):
    """A day in another process is checked once its lock is released."""
    with read_workspace(USERS).folder(stage, OLD[0]).lock():
        pruning = start("python", "-m", "wholeday", "prune", "--older-than", "0", "--keep", "3", "--yes")
        with pytest.raises(subprocess.TimeoutExpired):
            pruning.wait(4)
        assert list_files(OLD[0])
    _, err = pruning.communicate(timeout=60)
    assert (pruning.returncode, err) == (0, "")
    assert not list_files(OLD[0])


def test_failed_removal_does_not_stop_other_days():
    """The error names the file, and the exit code is 1. The next run completes the day."""
    stuck = Path(f"data/clean/users/date={OLD[1]}/part-of-something-else")
    stuck.mkdir()
    command = ("python", "-m", "wholeday", "prune", "--older-than", "10", "--keep", "3", "--yes")
    result = run(*command)
    assert result.returncode == 1
    assert result.stderr.startswith(f"ERROR: users {OLD[1]}: failed, {stuck}: ")
    assert result.stdout.startswith(f"users {OLD[0]}, {OLD[2]}: 2 days, ")
    stuck.rmdir()
    assert tell(prune_old()) == {2: "pruned"}
    assert list_files(OLD[1]) == []


def test_pruned_day_is_complete():
    """Its Load task is complete because of the marker. A backfill does not extract the day again."""
    prune_old()
    assert LoadUsers(date=OLD[0]).complete()
    assert not TransformUsers(date=OLD[0]).complete()
    nowhere = ("--users-url", "http://127.0.0.1:9/nobody-listens")
    result = run("python", "-m", "wholeday", "backfill", str(DAYS[0]), str(DAYS[-1]), "--workers", "2", *nowhere)
    assert (result.returncode, result.stderr) == (0, "")
    assert "users: 5 of 5 days are loaded" in result.stdout
    planned = run("python", "-m", "wholeday", "plan", str(DAYS[0]), str(DAYS[-1]))
    assert " ".join(planned.stdout.split()).endswith("why nothing 5 2026-10-01..2026-10-05 loaded")
    assert list_files(OLD[0]) == []


def test_verify_distinguishes_pruned_from_lost_days():
    """A lost day is a difference, a pruned day is not. The tables are still compared with each other."""
    prune_old()
    assert list(verify(read_workspace(USERS))) == []
    shutil.rmtree(f"data/raw/users/date={LATER[0]}")
    lost = [(finding.date, finding.what, finding.remark) for finding in verify(read_workspace(USERS))]
    assert lost == [(LATER[0], "the files are missing: restore them from a copy", False)]
    execute("update _users_events set city = 'x' where load_date = '2026-10-01'")
    assert len(list(verify(read_workspace(USERS)))) > 1


def test_rebuild_refuses_to_drop_pruned_days():
    """--drop-missing rebuilds the other days."""
    prune_old()
    before = dump()
    days = r"2026-10-01\.\.2026-10-03"
    with pytest.raises(WarehouseError, match=rf"users {days}: .* \(pruned: {days}\): .*--drop-"):
        rebuild(read_workspace(USERS))
    assert dump() == before
    rebuild(read_workspace(USERS), drop_missing=True)
    assert query("select date, pruned_at from loads order by 1") == [(str(day), None) for day in LATER]


def test_reprocess_skips_pruned_days():
    """A pruned day stays as loaded. Without a marker it would be missing."""
    prune_old()
    execute(f"update loads set pruned_at = loaded_at where date = '{LATER[0]}'")  # whose files were restored
    outcomes = list(reprocess(read_workspace(USERS), DAYS[0], DAYS[-1], everything=True))
    assert [outcome.what for outcome in outcomes] == ["pruned"] * 3 + ["done"] * 2
    result = run("python", "-m", "wholeday", "reprocess", str(DAYS[0]), str(DAYS[-1]))
    assert result.returncode == 0, result.stderr
    assert "users 2026-10-01..2026-10-03: pruned, left as loaded" in result.stdout
    execute(f"delete from loads where date = '{OLD[0]}'")
    assert next(iter(reprocess(read_workspace(USERS), DAYS[0], DAYS[-1]))).what == "missing"


def test_user_is_erased_from_pruned_days():
    """Only the tables still hold rows of these days. Verify reports no differences afterwards."""
    (user,) = query(f"select user_id from _users_events where load_date = '{OLD[0]}' limit 1")[0]
    prune_old()
    done = forget(read_workspace(USERS), [str(user)])
    assert (done.problems, done.unknown) == ([], [])
    for table in ("users", "users_history", "_users_events"):
        assert query(f"select count(*) from {table} where user_id = {user}") == [(0,)]
    assert list(verify(read_workspace(USERS))) == []
    assert not list_files(OLD[0])


def test_new_extraction_resets_pruned_at(configure):
    prune_old()
    execute(f"delete from loads where date = '{OLD[0]}'")
    configure("users", url=URL)
    run_stages(USERS, OLD[0])
    assert query(f"select pruned_at from loads where date = '{OLD[0]}'") == [(None,)]
    assert list(verify(read_workspace(USERS))) == []


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_interrupted_prune_is_completed_by_the_next_run(how):
    """The marker records a pruned day before its files are removed, so verify never reports a difference."""
    before, point, code = dump(), 0, 1
    whole = shutil.copytree("data", "whole")
    while code:
        point += 1
        shutil.rmtree("data")
        shutil.copytree(whole, "data")
        code, said = points.run(lambda: raise_failed(prune_old(keep=5)), points.Points(point, how))
        assert [finding for finding in verify(read_workspace(USERS), OLD[0], OLD[1]) if not finding.remark] == [], said
        ((pruned_at,),) = query(f"select pruned_at from loads where date = '{OLD[0]}'")
        raw, clean = read_workspace(USERS).folder("raw", OLD[0]), read_workspace(USERS).folder("clean", OLD[0])
        assert pruned_at or (raw.exists() and clean.exists()), said
        assert raw.exists() or not clean.has_folder(), said  # no clean day without the raw one: forget must reach both
        assert dump() == before
        prune_old(keep=5)
        assert list_files(OLD[0]) == []
    assert list(verify(read_workspace(USERS))) == []
    assert point > 15


def raise_failed(outcomes: list[Outcome]) -> None:
    """Raise the error of a day that could not be pruned."""
    for outcome in outcomes:
        if outcome.what == "failed":
            raise FolderError(outcome.why)
