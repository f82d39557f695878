"""A day's rows and rejects into temporary tables and `rejects`: the first half of a load.

Owns which record of a day counts where several say something of one user and time, and the counts that
depend on the day alone.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.database import Connection, Rows
from wholeday.schema.kinds import describe_difference
from wholeday.schema.tables import REJECTS, Declared, Words

if TYPE_CHECKING:
    import pyarrow as pa

REJECTS_AT_ONCE = 10_000
MAX_INTEGER = 2**63 - 1
LIMITS = {  # of Python, and of times as text of fixed width
    "date": (dt.date.min, dt.date.max),
    "time": (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)),
}

Key = tuple[Any, ...]
Reject = tuple[int, int, str, str | None, str | None, str]


@dataclass(frozen=True)
class Day:
    """A day as its manifests describe it: what a load needs to know besides the rows. All times are aware, in UTC."""

    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    extracted: int
    rejected: int
    raw_sha256: str
    clean_sha256: str
    transform_version: str
    accepted: str = ""
    forgotten: int = 0
    """How many of the records raw no longer has."""
    source: str | None = None
    """The source as the raw manifest names it; None for a day extracted before manifests named one."""
    absent: dict[str, int] = field(default_factory=dict)
    """Fields that no record has though they usually come, for the marker's `details`."""


class Statements:
    """Runs the SQL of a load: its words are filled in, and the day's values are its parameters."""

    def __init__(self, db: Connection, declared: Declared, day: Day, first: bool = False) -> None:
        """Take a day; the `first` of all is staged in the table where it stays."""
        self.db, self.declared, self.day, self.first = db, declared, day, first
        self.snapshot = day.mode == SNAPSHOT
        self.staged_in = declared.temporary(self.snapshot)[0]
        self.given: dict[str, Any] = {}
        if first:
            stored = declared.stored()
            self.staged_in = stored.changes if self.snapshot else stored.events
            self.given = {"as_of": day.as_of} if self.snapshot else {"load_date": day.date}
        self.words = Words(declared)
        self.words["stage"] = f'"{self.staged_in.name}"'
        self.what = f"{declared.name} {day.date}"

    def execute(self, sql: str, **params: Any) -> Rows:
        return self.db.run(sql.format_map(self.words), **vars(self.day) | params)

    def one(self, sql: str, **params: Any) -> tuple[Any, ...]:
        """The only row of a query."""
        row: tuple[Any, ...] = self.execute(sql, **params).fetchone()
        return row


class Staging(Statements):
    """Makes the table `stage` where it is one of its own, and fills it; fills `rejects`."""

    def stage(self, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]) -> dict[str, Any]:
        """Fill `stage`, one record for each key and time, and `rejects`; returns the counts of the day alone."""
        tombstones = set(self.execute("select {key} from {forgotten}").fetchall())
        records, forgotten, deletions, newest = self._stage_rows(rows, tombstones)
        staged = self.one("select count(*) from {stage}")[0]
        rejected, forgotten_rejects = self._stage_rejects(rejects, tombstones)
        if deletions and self.first and self.snapshot:
            self.execute("delete from {stage} where _state = 1")  # to leave a user out says the same
        elif deletions:
            # Of a user who is gone nothing is known: two deletions never differ.
            self.execute("update {stage} set {nulls} where _state = 1")
        left = self.day.extracted - self.day.forgotten
        if (records + rejected, rejected) != (left, self.day.rejected):
            raise WarehouseError(
                f"{self.what}: the manifests say {left} records, {self.day.rejected} of them rejected, "
                f"the files hold {records} rows and {rejected} rejects: transform the day again"
            )
        return {
            "rejected": rejected - forgotten_rejects,
            "forgotten": self.day.forgotten + forgotten + forgotten_rejects,
            "duplicate": records - forgotten - staged,
            "watermark": min(newest, self.day.as_of) if newest else None,
            "staged": staged,
        }

    def _stage_rows(
        self, rows: "Iterable[pa.RecordBatch]", tombstones: set[Key]
    ) -> tuple[int, int, int, dt.datetime | None]:
        """How many rows came, of forgotten keys, as deletions of others; and the highest updated_at of the others."""
        import pyarrow.compute as pc

        records = forgotten = deletions = 0
        newest: dt.datetime | None = None

        def keep() -> "Iterator[pa.RecordBatch]":
            nonlocal records, forgotten, deletions, newest
            for batch in map(self._cast_batch, rows):
                kept = self._leave_out(batch, tombstones) if tombstones else batch
                records += batch.num_rows
                forgotten += batch.num_rows - kept.num_rows
                deletions += pc.sum(kept.column("_state")).as_py() or 0
                newest = max(filter(None, (newest, pc.max(kept.column("updated_at")).as_py())), default=None)
                yield kept

        if self.first:
            self.db.fill(self.staged_in, keep(), self.given)
        else:
            self.db.stage(self.staged_in, keep())
        return records, forgotten, deletions, newest

    def _leave_out(self, batch: "pa.RecordBatch", tombstones: set[Key]) -> "pa.RecordBatch":
        import pyarrow as pa

        keys = zip(*(batch.column(name).to_pylist() for name in self.declared.key), strict=True)
        return batch.filter(pa.array([key not in tombstones for key in keys], pa.bool_()))

    def _cast_batch(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """The batch with the columns of `stage`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kinds = self.declared.key | self.declared.row
        names = [name for name in batch.schema.names if name != "deleted"]
        if sorted(names) != sorted(kinds):
            raise self._refuse(f"the rows have the columns {', '.join(names)}, the table has {', '.join(kinds)}")
        columns = {name: self._cast(batch.column(name), name, kind) for name, kind in kinds.items()}
        if nulls := [name for name in self.declared.key if columns[name].null_count]:
            raise self._refuse(f"a row has no {', '.join(nulls)}, which is its key")
        said = "deleted" in batch.schema.names
        deleted = batch.column("deleted") if said else pa.nulls(batch.num_rows, pa.bool_())
        columns["_state"] = pc.fill_null(deleted, False).cast(pa.int8())
        if not self.snapshot:
            # Without a time it was some time in the window; a time after the day was read cannot be true.
            time_type = columns["updated_at"].type
            stop, read = pa.scalar(self.day.window_stop, time_type), pa.scalar(self.day.extracted_at, time_type)
            at = pc.fill_null(columns["updated_at"], stop)
            columns["at"] = pc.if_else(pc.greater(at, read), read, at)
        return pa.record_batch(columns)

    def _cast(self, column: "pa.Array[Any]", name: str, kind: str) -> "pa.Array[Any]":
        import pyarrow as pa
        import pyarrow.compute as pc

        types = {
            "integer": pa.int64(),
            "text": pa.string(),
            "boolean": pa.bool_(),
            "float": pa.float64(),
            "date": pa.date32(),
            "time": pa.timestamp("us", "UTC"),
        }
        if difference := describe_difference(name, column, kind):
            raise WarehouseError(f"{self.what}: {difference}")
        try:
            column = column.cast(types[kind])  # to the width of the kind
        except pa.ArrowInvalid as error:
            raise self._refuse(
                f"column {name} holds {column.type}, and a value does not fit {types[kind]}: {error}"
            ) from error
        if kind == "text" and pc.any(pc.match_substring(column, "\0")).as_py():
            raise self._refuse(f"the column {name} holds a NUL character, which not every database can keep")
        if kind == "float":
            # NaN is not even equal to itself: a row with it would change with every load.
            column = pc.if_else(pc.is_nan(column), None, column)
        if kind in LIMITS and column.null_count < len(column):
            found, (low, high) = pc.min_max(column), (pa.scalar(limit, types[kind]) for limit in LIMITS[kind])
            if not low.value <= found["min"].value <= found["max"].value <= high.value:
                raise self._refuse(f"the column {name} holds a {kind} outside the years 1 to 9999")
        return column

    def _refuse(self, problem: str) -> WarehouseError:
        return WarehouseError(f"{self.what}: {problem}: make cleaning and table agree, and transform the day again")

    def _stage_rejects(self, rejects: Iterable[Reject], tombstones: set[Key]) -> tuple[int, int]:
        """Write the day's rejects, and stage their keys where it is a snapshot.

        Returns how many came, and how many of them were of forgotten keys.
        """
        self.execute("delete from rejects where dataset = :name and load_date = :date", name=self.declared.name)
        day = self.declared.name, self.db.encode(self.day.date)
        rejected = forgotten = 0
        rejects = iter(rejects)
        while some := [(self._read_key(reject[4]), reject) for reject in islice(rejects, REJECTS_AT_ONCE)]:
            kept = [(key, reject) for key, reject in some if key not in tombstones]
            self.db.insert("rejects", REJECTS.columns, [day + reject for _, reject in kept])
            if self.snapshot:
                # A row with the same key is understood, and stays.
                values = 2, *map(self.db.encode, self.given.values())
                not_understood = [(*key, *values) for key, _ in kept if key]
                columns = *self.declared.key, "_state", *self.given
                self.db.insert(self.staged_in.name, columns, not_understood, skip_known=True)
            rejected += len(some)
            forgotten += len(some) - len(kept)
        return rejected, forgotten

    def _read_key(self, text: str | None) -> Key | None:
        """The key of a reject; None where it is none that a row could have."""
        try:
            values = json.loads(text) if text is not None else None
        except ValueError:  # a number of more digits than Python reads
            return None
        kinds = list(self.declared.key.values())
        if isinstance(values, list) and list(map(_find_key_kind, values)) == kinds:
            return tuple(values)
        return None


def _find_key_kind(value: Any) -> str | None:
    if type(value) is int and -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        return "integer"
    # NUL and lone surrogates are valid in JSON, but not in every database.
    return "text" if isinstance(value, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value) else None
