"""Reprocess outdated days from raw, report the outcome of each day, and never call the source."""

import datetime as dt
import shutil
from pathlib import Path

import pytest

from pipeline.users import USERS, LoadUsers, User
from tests.support import points
from tests.support.points import Points
from tests.support.project import dump_tree, dump_warehouse, execute, is_held, query, remove_warehouse, run_here
from tests.support.server import Answer, Server
from wholeday.commands.plan import plan
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.errors import ConfigError, FolderError
from wholeday.load import day as load_stage
from wholeday.load.warehouse import RejectReason, open_warehouse
from wholeday.schema.dataset import Dataset
from wholeday.schema.record import Field
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("database_on_request")]

DAYS = [dt.date(2026, 10, 1) + dt.timedelta(days=n) for n in range(3)]
STOP = DAYS[-1] + dt.timedelta(days=1)
OTHER_CODE = "transformed by another version"
HISTORY = "select user_id, name, email, city, updated_at, valid_from, valid_to from users_history order by 1, 6"


class Fixed(User):
    """The record class after a fix: the source sends some addresses as text."""

    city: str | None = Field(strip_whitespace=True)


FIXED = Dataset("users", Fixed)


def load_days(dataset: Dataset = USERS, days: list[dt.date] = DAYS) -> None:
    for day in days:
        if not read_workspace(dataset).folder("raw", day).exists():
            stages.extract(read_workspace(dataset), day)
        stages.transform(read_workspace(dataset), day)
        stages.load(read_workspace(dataset), day)


def serve_days(server: Server, configure) -> None:
    """Serve users 1 and 7, who change every day.

    On day two the address of user 7 is text. The email of user 9 is wrong.
    """

    def respond(request):
        day = dt.date.fromisoformat(request.query["on"])
        name, time = {"name": ["first", "second", "third"][DAYS.index(day)]}, {"updated_at": f"{day}T09:00:00Z"}
        return Answer(
            [
                {"id": 1} | name | time,
                {"id": 7} | name | time | ({"address": "Lima"} if day == DAYS[1] else {}),
                {"id": 9, "email": "nobody"} | time,
            ]
        )

    configure("users", url=server.on("/users", respond) + "?on={date}", max_reject_ratio=0.9)


def clean_otherwise(users):
    """Clean into other rows."""
    return users.assign(name="another")


OTHER = Dataset("users", Fixed, clean_otherwise)


def tell(outcomes) -> list[tuple[str, str]]:
    return [(str(outcome.date), outcome.what) for outcome in outcomes]


def test_fix_restores_rejected_rows_at_their_times(server, configure):
    """The API is not called. The warehouse equals one whose days had the fixed transform from the start."""
    serve_days(server, configure)
    load_days()
    before, raw = query(HISTORY), dump_tree("data/raw")
    first, second, third = (f"{day}T09:00:00.000000Z" for day in DAYS)
    assert [row for row in before if row[0] == 7] == [
        (7, "first", None, None, first, first, third),
        (7, "third", None, None, third, third, None),
    ]
    server.requests.clear()
    assert read_status(read_workspace(FIXED)).outdated == dict.fromkeys(DAYS, OTHER_CODE)
    assert [(date, remark) for date, _, _, remark in verify(read_workspace(FIXED))] == [(day, True) for day in DAYS]
    assert tell(reprocess(read_workspace(FIXED), DAYS[0], STOP)) == [(str(day), "done") for day in DAYS]
    assert server.requests == []
    assert dump_tree("data/raw") == raw
    after = query(HISTORY)
    assert [row for row in after if row[0] == 7] == [
        (7, "first", None, None, first, first, second),
        (7, "second", None, None, second, second, third),
        (7, "third", None, None, third, third, None),
    ]
    assert [row for row in after if row[0] != 7] == [row for row in before if row[0] != 7]
    assert query("select field, count(*) from rejects group by 1") == [("email", 3)]
    assert list(verify(read_workspace(FIXED))) == []
    fixed = dump_warehouse()
    remove_warehouse()
    load_days(FIXED)
    assert (dump_warehouse(), query(HISTORY)) == (fixed, after)


def test_outdated_days_are_listed_with_a_reason():
    """A day is outdated if it is not loaded, or if its code, clean files or raw files have changed."""
    load_days()
    assert read_status(read_workspace(USERS)).outdated == {}
    assert read_status(read_workspace(FIXED)).outdated == dict.fromkeys(DAYS, OTHER_CODE)
    execute(
        f"delete from loads where date = '{DAYS[0]}'", f"update loads set clean_sha256 = 'x' where date = '{DAYS[1]}'"
    )
    shutil.rmtree(read_workspace(USERS).folder("clean", DAYS[2]).path)
    unfinished = read_workspace(USERS).folder("raw", DAYS[2] + dt.timedelta(days=1))
    unfinished.clear()
    assert read_status(read_workspace(USERS)).outdated == {
        DAYS[0]: "not loaded",
        DAYS[1]: "loaded from other files",
        DAYS[2]: "its clean files are missing or outdated",
    }
    reasons = list(read_status(read_workspace(USERS)).outdated.values())
    assert [outcome.why for outcome in reprocess(read_workspace(USERS), DAYS[0], STOP)] == reasons
    assert read_status(read_workspace(USERS)).outdated == {}
    # The same bytes of another extraction, and the same rows of other bytes.
    execute(
        f"update loads set as_of = '2026-01-01T00:00:00.000000Z' where date = '{DAYS[1]}'",
        f"update loads set raw_sha256 = 'x' where date = '{DAYS[2]}'",
    )
    assert read_status(read_workspace(USERS)).outdated == dict.fromkeys(DAYS[1:], "loaded from other files")
    assert [entry.what for entry in plan(read_workspace(USERS), DAYS[1], DAYS[2])] == ["reprocess"]


def test_current_days_are_skipped_unless_all_requested():
    load_days()
    manifest = read_workspace(USERS).folder("clean", DAYS[0]).path / "manifest.json"
    written = manifest.stat().st_mtime_ns
    assert tell(reprocess(read_workspace(USERS), DAYS[0], STOP)) == [(str(day), "current") for day in DAYS]
    assert manifest.stat().st_mtime_ns == written
    before = dump_warehouse()
    assert tell(reprocess(read_workspace(USERS), DAYS[0], STOP, everything=True)) == [
        (str(day), "done") for day in DAYS
    ]
    assert manifest.stat().st_mtime_ns > written
    assert dump_warehouse() == before


def test_day_is_locked_while_it_is_reprocessed(monkeypatch):
    """Transform, load and forget wait, as they do for the Transform task."""
    load_days(days=DAYS[:1])
    transform, held = stages.transform, []

    def watch(workspace: Workspace, date: dt.date) -> None:
        held.append(is_held(workspace.folder("clean", date)))
        transform(workspace, date)

    monkeypatch.setattr(stages, "transform", watch)
    assert tell(reprocess(read_workspace(USERS), DAYS[0], DAYS[1], everything=True)) == [(str(DAYS[0]), "done")]
    assert held == [True]


def test_failed_or_missing_day_does_not_stop_others(server, configure):
    """Each day has an outcome, the oldest first. The quality gates apply."""
    serve_days(server, configure)
    load_days()
    configure("users", max_reject_ratio=0.4)  # only the second day exceeds it, as user 7 is rejected too
    outcomes = list(reprocess(read_workspace(USERS), DAYS[0] - dt.timedelta(days=1), STOP, everything=True))
    assert [outcome.what for outcome in outcomes] == ["missing", "done", "failed", "done"]
    assert outcomes[0].why == "no raw files: run its Load task, which extracts the day"
    assert "2 of 3 records are rejected, more than max_reject_ratio 0.4" in outcomes[2].why
    assert query("select count(*) from loads") == [(3,)]
    (read_workspace(USERS).folder("raw", DAYS[0]).path / "manifest.json").write_text("{")
    damaged, *others = reprocess(read_workspace(USERS), DAYS[0], STOP)
    assert [outcome.what for outcome in (damaged, *others)] == ["failed", "current", "current"]
    assert "manifest.json is not a manifest" in damaged.why


def test_command_exits_with_1_if_days_fail(server, configure, capsys):
    """Only these days are printed on stderr."""
    serve_days(server, configure)
    load_days()
    configure("users", max_reject_ratio=0.4)
    first, second, third = map(str, DAYS)
    done = f"users {first}: requested; reprocessed from raw\n"
    assert run_here(capsys, "reprocess", first, second, "--all") == (done, "", 0)
    assert run_here(capsys, "reprocess", first, second) == (f"users {first}: current, nothing to do\n", "", 0)
    out, err, code = run_here(capsys, "reprocess", second, third, "--all")
    assert (out, code) == ("", 1)
    assert err.startswith(f"ERROR: users {second}: 2 of 3 records are rejected")
    out, err, code = run_here(capsys, "reprocess", "2026-09-29", second, "--all")
    missing = "ERROR: users 2026-09-29..2026-09-30: no raw files: run its Load task, which extracts the day\n"
    assert (out, err, code) == (done, missing, 1)
    shutil.rmtree(read_workspace(USERS).folder("raw", DAYS[0]).path)
    out, err, code = run_here(capsys, "reprocess", first, second)
    gone = "the raw files are missing: restore them from a copy, or delete the row in loads and run the day again"
    assert (out, err, code) == ("", f"ERROR: users {first}: {gone}\n", 1)


@pytest.mark.parametrize("stage", ["raw", "clean"])
def test_remedy_in_the_error_repairs_a_damaged_day(server, configure, stage):
    """Damaged raw files of a loaded day require deleting the marker too, as a loaded day is not extracted."""
    serve_days(server, configure)
    load_days()
    folder, before = read_workspace(USERS).folder(stage, DAYS[0]), query(HISTORY)
    (folder.path / "manifest.json").write_text("{")
    with pytest.raises(FolderError) as damage:
        folder.read_manifest(RawManifest)
    shutil.rmtree(folder.path)
    if stage == "raw":
        assert str(damage.value).endswith("delete the folder and the day's row of loads, then run the day again")
        execute(f"delete from loads where date = '{DAYS[0]}'")
        assert not LoadUsers(DAYS[0]).complete()
        load_days(days=DAYS[:1])
    else:
        assert str(damage.value).endswith("delete the folder, then reprocess the day")
        outcomes = reprocess(read_workspace(USERS), DAYS[0], DAYS[0] + dt.timedelta(days=1))
        assert tell(outcomes) == [(str(DAYS[0]), "done")]
    assert query(HISTORY) == before
    assert list(verify(read_workspace(USERS))) == []


def test_empty_range_is_an_error():
    """STOP is the day after the last one."""
    with pytest.raises(ConfigError, match="STOP 2026-10-01 is not after START 2026-10-01: STOP is the day after"):
        list(reprocess(read_workspace(USERS), DAYS[0], DAYS[0]))


def test_rejects_are_counted_by_reason(server, configure):
    """Each reason has the number of records and days. The most frequent reason comes first."""
    assert open_warehouse(read_workspace(USERS)).count_rejects() == []
    serve_days(server, configure)
    load_days()
    assert open_warehouse(read_workspace(USERS)).count_rejects() == [
        RejectReason("email: does not match the pattern @", 3, 3),
        RejectReason("address: Expected `object | null`, got `str`", 1, 1),
    ]


def damage_raw(date: dt.date) -> None:
    """Flip a bit in the middle of a raw part."""
    folder = read_workspace(USERS).folder("raw", date)
    path = Path(folder.path, folder.read_manifest(RawManifest).parts[-1].name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("everything", [False, True])
def test_damaged_raw_part_keeps_the_clean_files(configure, everything):
    """The day cannot be transformed again, but its clean files suffice for a rebuild."""
    configure("pipeline", part_records=40)
    load_days()
    damage_raw(DAYS[0])
    before, code = dump_tree("data/clean"), USERS if everything else FIXED
    assert tell(reprocess(read_workspace(code), DAYS[0], DAYS[1], everything)) == [(str(DAYS[0]), "failed")]
    assert dump_tree("data/clean") == before
    remove_warehouse()
    assert [outcome.what for outcome in rebuild(read_workspace(USERS))] == ["done"] * 3


def test_unchanged_clean_files_keep_their_names():
    """A damaged file is replaced under the same name."""
    load_days()
    before = dump_tree("data/clean")
    (part, *_) = sorted(Path(read_workspace(USERS).folder("clean", DAYS[1]).path).glob("part-*"))
    part.write_bytes(b"damaged")
    assert {what for _, what in tell(reprocess(read_workspace(USERS), DAYS[0], STOP, everything=True))} == {"done"}
    assert dump_tree("data/clean") == before
    assert list(verify(read_workspace(USERS))) == []


def test_killed_reprocess_leaves_a_complete_clean_day(configure):
    """The clean day is the old or the new one. A plain run then completes the new one."""
    configure("pipeline", part_records=40, engine_workers=1)
    load_days(days=DAYS[:1])
    folder, kept = read_workspace(USERS).folder("clean", DAYS[0]), Path("aside")
    shutil.copytree("data", kept)

    def work() -> None:
        stages.transform(read_workspace(OTHER), DAYS[0])

    code, names = points.run(work, Points())
    assert code == 0
    for at in range(1, len(names) + 1):
        shutil.rmtree("data")
        shutil.copytree(kept, "data")
        points.run(work, Points(at, "kill"))
        read = load_stage.read_clean(read_workspace(OTHER), DAYS[0])
        assert sum(batch.num_rows for batch in read.rows) + len(list(read.rejects)) == 100, names[at - 1]
        assert folder.read_manifest(CleanManifest).transform_version in {
            read_workspace(USERS).version,
            read_workspace(OTHER).version,
        }
        work()
        made = folder.read_manifest(CleanManifest)
        assert made.transform_version == read_workspace(OTHER).version
        assert folder.list_parts() == {part.name for part in (*made.parts, *made.rejects)}
