"""Build multi-row INSERT statements from Arrow batches.

Responsibilities: the values of many rows and the text of the statement that takes them.
Non-goals: running statements; see connection.py.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from wholeday.schema.kinds import parse_decimal
from wholeday.schema.tables import Table, join_names
from wholeday.schema.texts import write_timestamps

if TYPE_CHECKING:
    import pyarrow as pa

VALUES_AT_ONCE = 1000  # in one INSERT; more gain little


class Values(NamedTuple):
    """Rows to be inserted."""

    places: Mapping[str, int]
    """The number of the value in each column, from 1: first the shared values, then the own values of the row."""
    shared: Sequence[Any]
    """Values that all rows have."""
    own: Sequence[Any]
    """The other values, row after row."""

    def list_statements(self, table: str, on_conflict: str) -> Iterator[tuple[str, list[Any]]]:
        """Yield INSERT statements with their values, many rows each: to run one costs as much as to write a row.

        A row that breaks a constraint ends the transaction, so SQLite need not be able to undo a single statement.
        """
        insert = f'insert or rollback into "{table}" ({join_names(self.places)})'
        width = max(self.places.values()) - len(self.shared)
        step = max(1, VALUES_AT_ONCE // width) * width
        for start in range(0, len(self.own), step):
            some = self.own[start : start + step]
            rows = _write_rows(tuple(self.places.values()), len(self.shared), width, len(some) // width)
            yield f"{insert} values {rows} {on_conflict}", [*self.shared, *some]


def encode(value: Any) -> Any:
    """Return the value to store. Times are text of fixed width in UTC, so that they sort by time."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, dt.date) else value


def prepare_rows(
    table: Table, batches: "Iterable[pa.RecordBatch]", given: Mapping[str, Any]
) -> "Iterator[tuple[Values, bool]]":
    """Yield the rows of each batch, and whether all rows so far came in the order of their keys."""
    order = [column for column in table.key if column not in given]
    last: list[Any] = []
    in_order = True
    for batch in filter(len, batches):
        first, end = ([batch.column(name)[row].as_py() for name in order] for row in (0, -1))
        in_order = in_order and last <= first and _is_sorted(batch, order)
        last = end
        yield _lay_out(table, batch, given), in_order


def _lay_out(table: Table, batch: "pa.RecordBatch", given: Mapping[str, Any]) -> Values:
    """Lay out the values of a batch. A value that all rows share, or a time that two columns share, is there once."""
    import pyarrow.compute as pc

    shared = {name: encode(value) for name, value in given.items()}
    own: list[str] = []
    twins: dict[str, str] = {}
    for name, kind in table.columns.items():
        if name in given:
            continue
        column = batch.column(name)
        same = (x for x in own if kind == table.columns[x] == "timestamp" and batch.column(x).equals(column))
        if kind == "integer" and not column.null_count and len(set(pc.min_max(column).as_py().values())) == 1:
            shared[name] = column[0].as_py()
        elif twin := next(same, None):
            twins[name] = twin
        else:
            own.append(name)
    values = [None] * (len(own) * batch.num_rows)  # row after row, filled by columns
    for place, name in enumerate(own):
        values[place :: len(own)] = _encode_column(batch.column(name), table.columns[name])
    places = {name: number for number, name in enumerate([*shared, *own], 1)}
    return Values(places | {name: places[twin] for name, twin in twins.items()}, list(shared.values()), values)


def _encode_column(column: "pa.Array[Any]", kind: str) -> list[Any]:
    import pyarrow as pa

    if parse_decimal(kind):
        # By way of text: Arrow's own cast to a float misses the nearest one, as for 0.35.
        return column.cast(pa.string()).cast(pa.float64()).to_pylist()
    if kind == "timestamp":
        return write_timestamps(column).to_pylist()
    return (column.cast(pa.string()) if kind in ("date", "time") else column).to_pylist()


def _is_sorted(batch: "pa.RecordBatch", key: Iterable[str]) -> bool:
    import pyarrow.compute as pc

    order = pc.sort_indices(batch, sort_keys=[(column, "ascending") for column in key])
    return bool(pc.all(pc.less(order[:-1], order[1:]), min_count=0).as_py())


@lru_cache
def _write_rows(places: Sequence[int], shared: int, width: int, rows: int) -> str:
    """Return the placeholders of so many rows."""
    return ", ".join(
        f"({', '.join(f'?{place if place <= shared else place + row * width}' for place in places)})"
        for row in range(rows)
    )
