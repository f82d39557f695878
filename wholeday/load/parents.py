"""Answer what the extraction of a dataset asks the warehouse about its parents: who they are, and what came of them."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from wholeday.config.days import Window
from wholeday.errors import ConfigError, QualityError
from wholeday.load.database import Connection, connect_existing, decode, find_database
from wholeday.load.markers import read_markers
from wholeday.schema.dataset import Parents
from wholeday.schema.kinds import BOOLEAN
from wholeday.schema.tables import join_names
from wholeday.storage.manifest import RawManifest
from wholeday.storage.parents import Parent, unpack_parents
from wholeday.storage.workspace import Workspace

# The last version of each parent that has one which ends after the start of the window, or not at all.
ALL = """
select {columns} from (
  select {columns}, row_number() over (
           partition by {key} order by case when valid_to is null then 1 else 0 end desc, valid_from desc) as _last
    from "{dataset}_history" where (valid_to is null or valid_to > :start) and {is_kept}) versions
 where _last = 1 order by {key}
"""
CHANGED = """
select {columns} from "{dataset}" where (updated_at is null or updated_at >= :since) and {is_kept} order by {key}
"""
KEPT = '({key}) not in (select {key} from "_{dataset}_forgotten")'  # `forget` may not be finished
WATERMARKS = """
select {columns}, max(case when e.updated_at > l.as_of then l.as_of else e.updated_at end)
  from "_{dataset}_events" e join loads l on l.dataset = :dataset and l.date = e.load_date
 where e.load_date < :date and e.updated_at is not null group by {columns}
"""


class ParentTable:
    """The parents of a dataset in the warehouse."""

    def __init__(self, workspace: Workspace, parents: Parents) -> None:
        self._workspace, self._parents = workspace, parents
        self.name: str = parents.dataset.name
        self.placeholders: Sequence[str] = parents.placeholders
        self._database = find_database(workspace.pipeline.database)

    def list_parents(
        self, window: Window, changed_since: dt.datetime | None
    ) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """Yield key and values of each parent that may have children in a window, by key.

        These are the rows whose history reaches into the window or is still open, with their last values. A row that
        was first seen later counts too: it may have existed. With `changed_since`, only rows of the present that
        changed since then, or that have no time of a change. Raises QualityError, WarehouseError.
        """
        declared = self._parents.dataset.declared
        kinds = declared.key | declared.row
        columns = list(dict.fromkeys([*declared.key, *self._parents.columns]))
        words = {"columns": join_names(columns), "key": join_names(declared.key), "dataset": self.name}
        words["is_kept"] = KEPT.format_map(words)
        query = ALL if changed_since is None else CHANGED
        with connect_existing(self._database) as db:
            if db is None or not db.describe(self.name).columns:
                raise QualityError(f"{self._workspace.name}: no day of {self.name} is loaded: load one first")
            for row in db.stream(query.format_map(words), start=window.start, since=changed_since):
                values = {
                    name: _to_json(db, name, value, kinds[name]) for name, value in zip(columns, row, strict=True)
                }
                yield [values[name] for name in declared.key], {name: values[name] for name in self._parents.columns}

    def list_asked(self, date: dt.date) -> Iterator[Sequence[Parent]]:
        """Yield the parents that each loaded day before `date` asked, the latest day first.

        A day whose files are gone yields none: what is not known to have been asked is asked again.
        """
        with connect_existing(self._database) as db:
            markers = read_markers(db, self._workspace.name, "and date < :before", before=date) if db else []
        for marker in reversed(markers):
            folder = self._workspace.folder("raw", marker.date)
            part = folder.read_manifest(RawManifest).parents if folder.exists() else None
            yield unpack_parents(folder.read(part)) if part else []

    def read_watermarks(self, date: dt.date) -> dict[tuple[Any, ...], dt.datetime]:
        """Return the highest watermark of the loaded days before `date`, by the values of the placeholders.

        Raises ConfigError unless the record class takes these columns from the parent.
        """
        dataset = self._workspace.dataset
        taken = {str(column.options.parent): column for column in dataset.columns.of_parent}
        if missing := [name for name in self.placeholders if name not in taken]:
            raise ConfigError(
                f"[{dataset.name}] {{watermark}} is kept for each parent, so the record class needs its column: add "
                f"{missing[0]} = Field(parent={missing[0]!r})"
            )
        columns = [taken[name] for name in self.placeholders]
        words = {"columns": join_names(column.name for column in columns), "dataset": dataset.name}
        with connect_existing(self._database) as db:
            if db is None or not db.describe(dataset.declared.stored.events.name).columns:
                return {}
            found = db.run(WATERMARKS.format_map(words), dataset=dataset.name, date=date).fetchall()
            return {
                tuple(
                    _to_json(db, column.name, value, column.kind) for column, value in zip(columns, row, strict=False)
                ): decode(db, "updated_at", row[-1], "timestamp")
                for row in found
            }


def _to_json(db: Connection, column: str, value: Any, kind: str) -> Any:
    """Return a stored value as JSON has it. SQLite stores booleans as integers."""
    found = decode(db, column, value, kind)
    return bool(found) if kind == BOOLEAN and found is not None else msgspec.to_builtins(found)
