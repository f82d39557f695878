"""Cast the rows of clean files to the columns of a staging table.

Responsibilities: which values fit a column, and the time of a record that has none.
Non-goals: repairing values. That is the business of `clean`.
"""

import datetime as dt
from typing import TYPE_CHECKING, Any

from wholeday.config.days import SNAPSHOT
from wholeday.errors import WarehouseError
from wholeday.schema.kinds import describe_difference, to_arrow_type
from wholeday.schema.marker import Marker
from wholeday.schema.tables import Declared

if TYPE_CHECKING:
    import pyarrow as pa

MAX_INTEGER = 2**63 - 1
LIMITS = {  # of Python, and of the text of fixed width that times are in SQLite
    "date": (dt.date.min, dt.date.max),
    "timestamp": (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)),
}


class BatchCaster:
    """Casts batches of one day."""

    def __init__(self, declared: Declared, day: Marker) -> None:
        self._declared, self._day = declared, day
        self._what = f"{declared.name} {day.date}"

    def cast(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return a batch with the columns of a staging table. Raises WarehouseError if a value does not fit."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kinds = self._declared.key | self._declared.row
        names = [name for name in batch.schema.names if name != "deleted"]
        if sorted(names) != sorted(kinds):
            raise self._refuse(f"the rows have the columns {', '.join(names)}, the table has {', '.join(kinds)}")
        columns = {name: self._cast_column(batch.column(name), name, kind) for name, kind in kinds.items()}
        if nulls := [name for name in self._declared.key if columns[name].null_count]:
            raise self._refuse(f"a row has no {', '.join(nulls)}, which is its key")
        has_deleted = "deleted" in batch.schema.names
        deleted = batch.column("deleted") if has_deleted else pa.nulls(batch.num_rows, pa.bool_())
        columns["_state"] = pc.fill_null(deleted, False).cast(pa.int8())
        if self._day.mode != SNAPSHOT:
            # A record without a time changed some time in the window. A time after the extraction cannot be true.
            time_type = columns["updated_at"].type
            stop, read = pa.scalar(self._day.window_stop, time_type), pa.scalar(self._day.extracted_at, time_type)
            at = pc.fill_null(columns["updated_at"], stop)
            columns["at"] = pc.if_else(pc.greater(at, read), read, at)
        return pa.record_batch(columns)

    def _cast_column(self, column: "pa.Array[Any]", name: str, kind: str) -> "pa.Array[Any]":
        import pyarrow as pa
        import pyarrow.compute as pc

        type_ = to_arrow_type(kind)
        if difference := describe_difference(name, column, kind):
            raise WarehouseError(f"{self._what}: {difference}")
        try:
            column = column.cast(type_)  # to the width of the kind
        except pa.ArrowInvalid as error:
            raise self._refuse(
                f"column {name} holds {column.type}, and a value does not fit {type_}: {error}"
            ) from error
        if kind == "text" and pc.any(pc.match_substring(column, "\0")).as_py():
            raise self._refuse(f"the column {name} holds a NUL character, which not every database can store")
        if kind == "float":
            # NaN differs from itself: a row with it would change with every load.
            column = pc.if_else(pc.is_nan(column), None, column)
        if kind in LIMITS and column.null_count < len(column):
            found, (low, high) = pc.min_max(column), (pa.scalar(limit, type_) for limit in LIMITS[kind])
            if not low.value <= found["min"].value <= found["max"].value <= high.value:
                raise self._refuse(f"the column {name} holds a {kind} outside the years 1 to 9999")
        return column

    def _refuse(self, problem: str) -> WarehouseError:
        return WarehouseError(
            f"{self._what}: {problem}: run wholeday reprocess; if that does not help, correct clean or the record class"
        )
