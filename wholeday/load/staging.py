"""Stage a day: its rows in a temporary table, its rejects in `rejects`. The first half of a load.

Responsibilities: which of several records of one user and time is kept, and the counts that depend on this day alone.
Non-goals: what other days say; see merge.py.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.load.cast import MAX_INTEGER, BatchCaster
from wholeday.load.database import Connection, Rows
from wholeday.load.sql import Words
from wholeday.schema.kinds import INTEGER
from wholeday.schema.marker import Marker
from wholeday.schema.reject import Reject
from wholeday.schema.tables import REJECTS, Declared
from wholeday.storage.tombstones import Key, to_key

if TYPE_CHECKING:
    import pyarrow as pa

REJECTS_AT_ONCE = 10_000


@dataclass
class _Rows:
    """Counts of the staged rows."""

    records: int = 0
    forgotten: int = 0
    deletions: int = 0
    newest: dt.datetime | None = None
    """The highest `updated_at`."""


class Statements:
    """Run SQL with the names of a dataset's tables and columns, and a day as parameters."""

    def __init__(self, db: Connection, declared: Declared, day: Marker, first: bool = False) -> None:
        """Take a day. The `first` day of a dataset is staged in the table where its records stay."""
        self.db, self.declared, self.day, self.first = db, declared, day, first
        self.snapshot = day.mode == SNAPSHOT
        self.staged_in = declared.temporary(self.snapshot)[0]
        self.given: dict[str, Any] = {}
        if first:
            stored = declared.stored
            self.staged_in = stored.changes if self.snapshot else stored.events
            self.given = {"as_of": day.as_of} if self.snapshot else {"load_date": day.date}
        self.params = {
            "date": day.date,
            "mode": day.mode,
            "as_of": day.as_of,
            "snapshot_at": day.as_of if self.snapshot else None,
            "extracted_at": day.extracted_at,
        }
        self.words = Words(declared, stage=f'"{self.staged_in.name}"')
        self.what = f"{declared.name} {day.date}"

    def execute(self, sql: str, words: Mapping[str, str] | None = None, **params: Any) -> Rows:
        """Run a statement. `words` are more words of it, which may hold words themselves."""
        more = {name: text.format_map(self.words) for name, text in (words or {}).items()}
        return self.db.run(sql.format_map(self.words | more), **self.params | params)

    def one(self, sql: str, **params: Any) -> tuple[Any, ...]:
        """Return the only row of a query."""
        row: tuple[Any, ...] = self.execute(sql, **params).fetchone()
        return row


class Staging(Statements):
    """Fills the staging table and `rejects`."""

    def stage(self, rows: "Iterable[pa.RecordBatch]", rejects: Iterable[Reject]) -> Marker:
        """Stage rows and rejects. Return the marker with the counts that depend on the day alone.

        Raises WarehouseError if rows and rejects do not fit the table or the manifests.
        """
        tombstones = {to_key(row) for row in self.execute("select {key} from {forgotten}").fetchall()}
        found = self._stage_rows(rows, tombstones)
        staged = self.one("select count(*) from {stage}")[0]
        rejected, forgotten_rejects = self._stage_rejects(rejects, tombstones)
        if found.deletions and self.first and self.snapshot:
            self.execute("delete from {stage} where _state = 1")  # a user who is not listed is absent, too
        elif found.deletions:
            # Two deletions never differ: nothing is known of an absent user.
            self.execute("update {stage} set {nulls} where _state = 1")
        left = self.day.extracted - self.day.forgotten
        if (found.records + rejected, rejected) != (left, self.day.rejected):
            raise WarehouseError(
                f"{self.what}: the manifests say {left} records, {self.day.rejected} of them rejected, "
                f"the files hold {found.records} rows and {rejected} rejects: transform the day again"
            )
        return self.day.replace(
            rejected=rejected - forgotten_rejects,
            forgotten=self.day.forgotten + found.forgotten + forgotten_rejects,
            duplicate=found.records - found.forgotten - staged,
            watermark=min(found.newest, self.day.as_of) if found.newest else None,
        )

    def _stage_rows(self, rows: "Iterable[pa.RecordBatch]", tombstones: set[Key]) -> _Rows:
        import pyarrow.compute as pc

        found = _Rows()
        caster = BatchCaster(self.declared, self.day)

        def keep() -> "Iterator[pa.RecordBatch]":
            for batch in map(caster.cast, rows):
                kept = self._leave_out(batch, tombstones) if tombstones else batch
                found.records += batch.num_rows
                found.forgotten += batch.num_rows - kept.num_rows
                found.deletions += pc.sum(kept.column("_state")).as_py() or 0
                times = found.newest, pc.max(kept.column("updated_at")).as_py()
                found.newest = max(filter(None, times), default=None)
                yield kept

        if self.first:
            self.db.fill(self.staged_in, keep(), self.given)
        else:
            self.db.stage(self.staged_in, keep())
        return found

    def _leave_out(self, batch: "pa.RecordBatch", tombstones: set[Key]) -> "pa.RecordBatch":
        """Return a batch without the rows of erased users."""
        import pyarrow as pa

        keys = zip(*(batch.column(name).to_pylist() for name in self.declared.key), strict=True)
        return batch.filter(pa.array([to_key(key) not in tombstones for key in keys], pa.bool_()))

    def _stage_rejects(self, rejects: Iterable[Reject], tombstones: set[Key]) -> tuple[int, int]:
        """Replace the rejects of the day. A snapshot knows nothing of their keys.

        Return how many there were, and how many of them were of erased users.
        """
        self.execute("delete from rejects where dataset = :name and load_date = :date", name=self.declared.name)
        day = self.declared.name, self.db.encode(self.day.date)
        rejected = forgotten = 0
        rejects = iter(rejects)
        while some := [(self._parse_key(reject.key), reject) for reject in islice(rejects, REJECTS_AT_ONCE)]:
            kept = [(key, reject) for key, reject in some if key not in tombstones]
            self.db.insert("rejects", REJECTS.columns, [day + list_values(reject) for _, reject in kept])
            if self.snapshot:
                self._stage_unknown([key for key, _ in kept if key])
            rejected += len(some)
            forgotten += len(some) - len(kept)
        return rejected, forgotten

    def _stage_unknown(self, keys: Iterable[Key]) -> None:
        """Stage these users as unknown. A row with the same key stays unchanged."""
        values = 2, *map(self.db.encode, self.given.values())
        columns = *self.declared.key, "_state", *self.given
        self.db.insert(self.staged_in.name, columns, [(*key, *values) for key in keys], skip_known=True)

    def _parse_key(self, text: str | None) -> Key | None:
        """Return the key of a reject; None if no row can have such a key."""
        try:
            values = json.loads(text) if text is not None else None
        except ValueError:  # a number with more digits than Python reads
            return None
        kinds = list(self.declared.key.values())
        if isinstance(values, list) and len(values) == len(kinds) and all(map(_is_of_kind, values, kinds)):
            return tuple(values)
        return None


def list_values(reject: Reject) -> tuple[Any, ...]:
    """Return a reject as a row of `rejects`, without dataset and date."""
    return reject.part, reject.line, reject.reason, reject.field, reject.key, reject.record


def _is_of_kind(value: Any, kind: str) -> bool:
    """Return whether a key of this kind can have a value, and the databases can store it."""
    if kind == INTEGER:
        return type(value) is int and -MAX_INTEGER - 1 <= value <= MAX_INTEGER
    # JSON may hold NUL and lone surrogates; some databases cannot. Dates and UUIDs are text in a key.
    return isinstance(value, str) and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
