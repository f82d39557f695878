"""Simulate loaded days, a year in a second: manifests, markers, rejects and the history of users.

Responsibilities: numbers that are the same in every run. Non-goals: parts. Code that reads parts needs loaded days.
"""

import datetime as dt
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from pipeline.users import USERS
from wholeday import clock
from wholeday.load.catalog import prepare_tables
from wholeday.load.warehouse import open_warehouse, write_marker
from wholeday.schema.marker import CLASSES, Marker
from wholeday.schema.tables import REJECTS
from wholeday.storage.day_folder import MANIFEST, DayFolder
from wholeday.storage.manifest import CleanManifest, RawManifest, digest
from wholeday.tasks.failures import Failure
from wholeday.tasks.stages import read_workspace

NIGHT = dt.timedelta(minutes=20)  # time of the load, after midnight
COLUMNS = {
    "rejects": REJECTS.columns,
    "_users_days": ["load_date", "mode", "as_of", "extracted_at"],
    "_users_events": ["load_date", "user_id", "at", "_state", "updated_at"],
    "_users_past": ["user_id", "updated_at", "valid_from", "valid_to"],
    "users": ["user_id", "updated_at", "valid_from", "ingested_at", "load_date"],
}
REASONS = ["email: has no @", "updated_at: Invalid RFC3339 encoded datetime", "id: Expected `int`, got `str`"]


def make_marker(**values: Any) -> Marker:
    """Return a marker with these values; the others are empty."""
    return Marker(**dict.fromkeys(Marker.__struct_fields__) | values)


def make_raw_manifest(date: dt.date, **values: Any) -> RawManifest:
    """Return the manifest of an extraction at noon with these values; the others are empty."""
    times = ("window_start", "window_stop", "started_at", "extracted_at", "as_of")
    empty: dict[str, Any] = dict.fromkeys(times, dt.datetime.combine(date, dt.time(12), dt.UTC))
    empty |= {"dataset": "users", "mode": "incremental", "url": "demo://users", "paginator": "single", "pages": 1}
    empty |= {"watermark": None, "records": 0, "keys": 0, "declared": None, "unknown_fields": [], "gates": []}
    return RawManifest(date=date, **{**empty, "parts": [], **values})


def make_days(start: dt.date, number: int) -> None:
    """Create `number` days from `start` on. Each day adds users, changes some and deletes a few."""
    dice, declared = random.Random(1), USERS.declared
    version, users = read_workspace(USERS).version, 0
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
    markers: list[Marker] = []
    present: dict[int, tuple[Any, ...]] = {}
    first = start.toordinal() * 100_000  # other keys than those of another call
    with open_warehouse(read_workspace(USERS)).database.connect(create=True) as db:
        for date in (start + dt.timedelta(days=n) for n in range(number)):
            marker = _make_marker(date, dice, users, version)
            new = range(first + users, first + users + marker.inserted)
            gone = [first + user for user in dice.sample(range(users), marker.deleted)]
            users, day, at = users + len(new), str(date), db.encode(marker.window_start + dt.timedelta(hours=9))
            markers.append(marker)
            rows["rejects"] += [("users", day, 0, n, *_pick_reject(dice), None, "{}") for n in range(marker.rejected)]
            rows["_users_days"].append((day, "incremental", None, db.encode(marker.extracted_at)))
            rows["_users_events"] += [(day, user, at, 0, at) for user in new] + [
                (day, user, at, 1, None) for user in gone
            ]
            ended = [present.pop(user) for user in gone if user in present]
            rows["_users_past"] += [(user, since, since, at) for user, since, *_ in ended]
            present |= {user: (user, at, at, db.encode(marker.extracted_at), day) for user in new}
            _write_manifests(date, marker)
        rows["users"] = [*present.values()]
        db.begin(USERS.name)
        prepare_tables(db, declared)
        for table, columns in COLUMNS.items():
            db.insert(table, columns, rows[table])
        for marker in markers:
            write_marker(db, marker)
        db.commit()


def edit_warehouse(sql: str, *values: object) -> None:
    """Change the warehouse without the pipeline."""
    with closing(sqlite3.connect("data/warehouse.db")) as db, db:
        db.execute(sql, values)


def write_failures(*failures: Failure) -> None:
    """Write failures to the failures file."""
    path = Path("data/failures/users.jsonl")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(msgspec.json.encode(failure) + b"\n" for failure in failures))


def _make_marker(date: dt.date, dice: random.Random, users: int, version: str) -> Marker:
    """Build a row of `loads`: fewer records at weekends, and sometimes a night with many rejects."""
    start = dt.datetime.combine(date, dt.time(), dt.UTC)
    stop = start + dt.timedelta(days=1)
    began = min(stop + NIGHT, clock.utc_now())  # a snapshot of today is loaded now
    inserted = dice.randint(15, 30) // (2 if date.weekday() > 4 else 1)
    counts = dict.fromkeys((*CLASSES, "vanished", "reverted"), 0) | {
        "inserted": inserted,
        "updated": 3 * inserted + dice.randint(0, 10),
        "deleted": min(dice.randint(0, 8), users),
        "unchanged": dice.randint(0, 5),
        "rejected": dice.choice([0, 0, 0, 0, 1, 1, 2, 12]),
    }
    return make_marker(
        dataset="users",
        date=date,
        mode="incremental",
        source="demo://users",
        window_start=start,
        window_stop=stop,
        as_of=began - dt.timedelta(minutes=15),
        started_at=began,
        extracted_at=began + dt.timedelta(seconds=dice.uniform(2, 6)),
        pages=3,
        extracted=sum(counts[name] for name in CLASSES),
        watermark=stop,
        raw_sha256=digest([]),
        clean_sha256=digest([]),
        transform_version=version,
        accepted="",
        loaded_at=began + dt.timedelta(seconds=10),
        seconds=round(dice.uniform(0.2, 1.5), 3),
        **counts,
    )


def _pick_reject(dice: random.Random) -> tuple[str, str]:
    """Choose a reason and its field."""
    field, reason = dice.choices(REASONS, [6, 2, 1])[0].split(": ", 1)
    return reason, field


def _write_manifests(date: dt.date, marker: Marker) -> None:
    """Write the manifests that match a marker."""
    same = ("mode", "window_start", "window_stop", "started_at", "extracted_at", "as_of", "pages")
    raw = make_raw_manifest(
        date,
        source="demo://users",
        records=marker.extracted,
        keys=marker.extracted,
        **{name: getattr(marker, name) for name in same},
    )
    clean = CleanManifest(
        dataset="users",
        date=date,
        raw_sha256=[],
        transform_version=marker.transform_version,
        rows=marker.extracted - marker.rejected,
        rejected=marker.rejected,
        reasons={},
        accepted=[],
        parts=[],
        rejects=[],
    )
    for stage, manifest in {"raw": raw, "clean": clean}.items():
        path = DayFolder("data", stage, "users", date).path
        path.mkdir(parents=True)
        (path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
