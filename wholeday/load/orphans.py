"""Find the rows of a dataset without their parent: no row of the parents' table has the values that they took."""

from typing import Any

import msgspec

from wholeday.load.database import connect_existing, find_database
from wholeday.schema.columns import Column
from wholeday.schema.tables import join_names, quote
from wholeday.storage.tombstones import to_key
from wholeday.storage.workspace import Workspace

ORPHANS = """
with missing as (select distinct {own} from {children}{parents})
select {key}, count(*) over () from {children} c join missing m on {same} order by {key} limit 1
"""


class Orphans(msgspec.Struct, frozen=True, kw_only=True):
    """Rows without their parent: their number, and the key of the first."""

    parents: str
    """The dataset of the parents."""
    rows: int
    example: list[Any]


def find_orphans(workspace: Workspace) -> Orphans | None:
    """Return the rows of the present without their parent; None if each has one, or if no column comes from a parent.

    Raises ConfigError, WarehouseError.
    """
    dataset = workspace.dataset
    parents, taken = dataset.find_parent(workspace.settings), dataset.columns.of_parent
    if parents is None or not taken:
        return None
    with connect_existing(find_database(workspace.pipeline.database)) as db:
        if db is None or not {column.name for column in taken} <= db.describe(dataset.name).columns.keys():
            return None  # not loaded since the class took the columns
        theirs = [str(column.options.parent) for column in taken]
        has_parents = set(theirs) <= db.describe(parents.name).columns.keys()
        words = {
            "own": join_names(column.name for column in taken),
            "key": ", ".join(f"c.{quote(column)}" for column in dataset.declared.key),
            "children": quote(dataset.name),
            "parents": f" except select {join_names(theirs)} from {quote(parents.name)}" if has_parents else "",  # noqa: S608
            "same": " and ".join(map(_compare, taken)),
        }
        row = db.run(ORPHANS.format_map(words)).fetchone()
    return Orphans(parents=parents.name, rows=row[-1], example=list(to_key(row[:-1]))) if row else None


def _compare(column: Column) -> str:
    c, m = f"c.{quote(column.name)}", f"m.{quote(column.name)}"
    return f"({c} = {m} or ({c} is null and {m} is null))" if column.is_nullable else f"{c} = {m}"
