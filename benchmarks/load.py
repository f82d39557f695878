"""Measure the load alone beside a bare `executemany` of the same rows, in SQLite.

    python -m benchmarks.load                     100,000 users, three rounds
    python -m benchmarks.load --users 1000000

A case loads days into a new warehouse and measures the last one. In every round, before each case, the bare upsert
writes the same users from tuples in memory into an empty table, in one transaction. The table shows the median of the
seconds and of the ratios.
"""

import argparse
import datetime as dt
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from pipeline.users import USERS
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.load.clean_day import CleanDay
from wholeday.load.warehouse import Warehouse
from wholeday.schema.marker import Marker

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
PER_BATCH = 16_000
EVERY = 100  # one in this many users changes

# The number of a day, its mode and its users: all, all with some or every one changed, or only the changed ones.
FIRST = 1, SNAPSHOT, "all"
# The days of each case in the order of loading. The last one is measured.
CASES = {
    "first snapshot": [FIRST],
    "unchanged snapshot": [FIRST, (2, SNAPSHOT, "all")],
    "snapshot, 1 % changed": [FIRST, (2, SNAPSHOT, "changed")],
    "snapshot, all changed": [FIRST, (2, SNAPSHOT, "every")],
    "snapshot between two": [FIRST, (3, SNAPSHOT, "all"), (2, SNAPSHOT, "changed")],
    "first incremental": [(1, INCREMENTAL, "all")],
    "incremental, 1 %": [FIRST, (2, INCREMENTAL, "some")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000, help="how many")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table("", "seconds", "to the bare upsert", title=f"Loads of {options.users:,} users", box=None)
    for name, (seconds, ratio) in measure(options.users, options.rounds).items():
        table.add_row(name, f"{seconds:.2f}", f"{ratio:.2f}")
    Console().print(table)


def measure(users: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each case, and their ratio to the bare upsert."""
    parts = {who: make_rows(users, who) for who in ("all", "changed", "every", "some")}
    rows = [
        (*row, at.isoformat()) for batch in parts["all"] for *row, at in zip(*batch.to_pydict().values(), strict=True)
    ]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, (*before, last) in CASES.items():
            with tempfile.TemporaryDirectory(prefix="load-") as folder:
                bare = clock(upsert, Path(folder, "bare.db"), rows)
                store = Warehouse(f"sqlite:///{folder}/warehouse.db", USERS)
                for day in before:
                    load(store, day, parts)
                seconds = clock(load, store, last, parts)
                found[name].append((seconds, seconds / bare))
    return {
        name: (statistics.median(s for s, _ in some), statistics.median(r for _, r in some))
        for name, some in found.items()
    }


def clock(do: Callable[..., None], *arguments: Any) -> float:
    start = time.perf_counter()
    do(*arguments)
    return time.perf_counter() - start


def make_rows(users: int, who: str) -> list[pa.RecordBatch]:
    """Build batches of users in the order of their keys; see CASES for `who`."""
    keys = range(EVERY, users + 1, EVERY) if who == "some" else range(1, users + 1)
    batches = []
    for start in range(0, len(keys), PER_BATCH):
        some = keys[start : start + PER_BATCH]
        moved = [who == "every" or (who != "all" and key % EVERY == 0) for key in some]
        columns = {
            "user_id": pa.array(some, pa.int64()),
            "name": pa.array([f"Name {key % 997} Surname {key % 4093}" for key in some]),
            "email": pa.array([f"user{key:08d}@example.com" for key in some]),
            "city": pa.array([f"City {(key + move) % 1009}" for key, move in zip(some, moved, strict=True)]),
            "updated_at": pa.array(
                [START + dt.timedelta(seconds=-key + 100_000 * move) for key, move in zip(some, moved, strict=True)],
                pa.timestamp("us", "UTC"),
            ),
        }
        batches.append(pa.record_batch(columns))
    return batches


def upsert(path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Write rows as the plainest script would."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table users (user_id integer primary key, name, email, city, updated_at)")
        db.executemany(
            "insert into users values (?, ?, ?, ?, ?) on conflict (user_id) do update set name = excluded.name, "
            "email = excluded.email, city = excluded.city, updated_at = excluded.updated_at",
            rows,
        )


def load(store: Warehouse, day: tuple[int, str, str], parts: dict[str, list[pa.RecordBatch]]) -> None:
    """Load a day as the pipeline does, but from memory."""
    number, mode, who = day
    stop = START + dt.timedelta(days=number)
    draft = Marker(
        dataset="users",
        date=(stop - dt.timedelta(days=1)).date(),
        mode=mode,
        window_start=stop - dt.timedelta(days=1),
        window_stop=stop,
        started_at=stop + dt.timedelta(minutes=15),
        extracted_at=stop + dt.timedelta(minutes=30),
        as_of=stop,
        pages=1,
        extracted=sum(map(len, parts[who])),
        raw_sha256=who,
        clean_sha256=who,
        transform_version="",
    )
    store.load(CleanDay(draft, parts[who], []))


if __name__ == "__main__":
    main()
