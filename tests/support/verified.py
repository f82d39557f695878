"""Load days for `verify`, damage their files, and compare findings."""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.users import USERS
from wholeday import clock
from wholeday.config.pipeline import Pipeline
from wholeday.load.audit import Finding
from wholeday.storage.manifest import CleanManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

DAYS = [dt.date(2017, 10, 1) + dt.timedelta(days=n) for n in range(4)]
SNAPSHOT, RECORDS = map(str, DAYS[2:])  # the last of each mode
MODES = {"snapshot": "", "incremental": "&updated_since={day_start}&updated_before={day_stop}"}


def load_days(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, copy_or_make: Callable[..., None]
) -> None:
    """Load four days, each extracted an hour after its end. Snapshot and incremental days alternate."""
    configure("pipeline", part_records=700)

    def run(*works: Callable[[Workspace, dt.date], object]) -> None:
        for n, day in enumerate(DAYS):
            now = dt.datetime.combine(day, dt.time(1), dt.UTC) + dt.timedelta(days=1)
            monkeypatch.setattr(clock, "utc_now", lambda now=now: now)
            mode, window = list(MODES.items())[n % 2]
            configure("users", mode=mode, url=f"demo://users?per_day=10{window}")
            for work in works:
                work(read_workspace(USERS), day)

    if Pipeline().database.startswith("sqlite"):
        copy_or_make("verified", lambda: run(stages.extract, stages.transform, stages.load))
        run()
    else:
        copy_or_make("extracted", lambda: run(stages.extract, stages.transform))
        run(stages.load)


def tell(findings: Iterator[Finding], remark: bool = False) -> list[str]:
    return [f"{date} {thing}: {what}" for date, thing, what, remarked in findings if remarked == remark]


def check(found: list[str], expected: list[str]) -> None:
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def path(stage: str, day: str, name: str = "part-00000.*") -> Path:
    (found,) = Path(f"data/{stage}/users/date={day}").glob(name)
    return found


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert re.search(old, text)
    file.write_text(re.sub(old, new, text, count=1))


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def adopt(day: str, name: str = "part-00000.*") -> None:
    """Write the current size and hash of a clean part into its manifest."""
    folder, file = read_workspace(USERS).folder("clean", dt.date.fromisoformat(day)), path("clean", day, name)
    manifest = folder.read_manifest(CleanManifest)
    (part,) = (part for part in (*manifest.parts, *manifest.rejects) if part.name == file.name)
    new = folder.write(part.name, [(part.records, file.read_bytes())])
    edit(path("clean", day, "manifest.json"), part.sha256, new.sha256)
    edit(path("clean", day, "manifest.json"), f'"bytes": {part.bytes}', f'"bytes": {new.bytes}')


USER = "where user_id = (select max(user_id) from users)"
EVENT = f"where load_date = '{RECORDS}' and user_id = (select max(user_id) from _users_events)"
REJECT = f"where load_date = '{SNAPSHOT}' and record = (select min(record) from rejects where load_date = '{SNAPSHOT}')"
