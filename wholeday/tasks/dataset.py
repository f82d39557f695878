"""What is particular to the records of an API, in one value, and where its days are kept.

Owns what the stages of a day have in common. The libraries of a stage are imported when it runs: to find out
that nothing is to be done costs none of them.
"""

import ast
import datetime as dt
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
import msgspec

import wholeday
from wholeday.config.pipeline import Pipeline
from wholeday.config.source import Source
from wholeday.errors import DatasetError
from wholeday.schema.record import check_key
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.tombstones import Tombstones
from wholeday.tasks.targets import LoadMarker

if TYPE_CHECKING:
    import sqlalchemy as sa

    from wholeday.load.warehouse import Warehouse
    from wholeday.schema.tables import Declared
    from wholeday.transform.cleaning import Clean


DEFAULT_MODULE = "pipeline"
LIBRARY = Path(wholeday.__file__).parent
MODULES: dict[str, str] = {}
"""The module of each dataset's Load task, by the name of the dataset."""


def spell_command(dataset: str, *words: Any) -> str:
    """Return the command that does something to one dataset: `./run.sh backfill START STOP --module orders`.

    The module is left out where the default module holds no other dataset.
    """
    module = MODULES.get(dataset, DEFAULT_MODULE)
    modules = {dataset: module} | MODULES
    in_default = [name for name, where in modules.items() if f"{where}.".startswith(f"{DEFAULT_MODULE}.")]
    flag = [] if in_default == [dataset] else ["--module", module]
    return " ".join(map(str, ["./run.sh", *words, *flag]))


@dataclass(frozen=True)
class Dataset:
    """A section of luigi.cfg, a record class, a cleaning and a table: all that is particular to the records of an API.

    `key` names the fields of a record that are its natural key, nested ones by a dotted path.
    """

    config: type[Source]
    record_class: type[msgspec.Struct]
    clean: "Clean"
    table: "Callable[[sa.MetaData], sa.Table]"
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.config.section

    @property
    def version(self) -> str:
        """A digest of what makes rows of records: the code less comments and formatting, deleted_when and timezone."""
        settings = self.config()
        rules = f"{settings.deleted_when} {settings.timezone}"
        return hashlib.sha256(f"{self._code} {rules}".encode()).hexdigest()[:16]

    @functools.cached_property
    def _code(self) -> str:
        module = sys.modules[self.record_class.__module__]
        own = ast.parse(inspect.getsource(module))
        own.body = [node for node in own.body if not _is_task(module, node)]
        # Not imported: transform brings pandas.
        shared = [
            ast.parse((LIBRARY / name).read_text(encoding="utf-8"))
            for name in (
                *("schema/record.py", "schema/raw_fields.py"),
                *("transform/cleaning.py", "transform/rows.py", "transform/times.py"),
            )
        ]
        return json.dumps([_outline(own), _outline(shared)])

    def check(self) -> "Declared":
        """Read record class, key and table. Raise DatasetError or ConfigError if no day could be loaded."""
        return self._declared

    @functools.cached_property
    def _declared(self) -> "Declared":
        from wholeday.schema.tables import Declared

        try:
            check_key(self.record_class, self.key)
        except DatasetError as error:
            raise DatasetError(f"dataset {self.name}: {error}") from error
        return Declared.read(self.name, self.table)

    def folder(self, stage: Any, date: dt.date) -> DayFolder:
        return DayFolder(Pipeline().data_dir, stage, self.name, date)

    def list_past(self, days: Iterable[dt.date], now: dt.datetime) -> list[dt.date]:
        """List those of the days that a range cannot load any more: past snapshots without raw files."""
        settings = self.config()
        return [day for day in days if settings.is_past(day, now) and not self.folder("raw", day).exists()]

    def marker(self, date: dt.date) -> LoadMarker:
        return LoadMarker(Pipeline().database, self.name, date)

    def warehouse(self) -> "Warehouse":
        from wholeday.load.warehouse import Warehouse

        settings = Pipeline()
        tombstones = Tombstones(settings.data_dir, self.name)
        return Warehouse(settings.database, self.name, self.table, tombstones.keys, settings.is_private)


def _is_task(module: Any, node: ast.stmt) -> bool:
    """Whether a definition is one of Luigi's: a section or a task, which say nothing of how a row is made."""
    return isinstance(node, ast.ClassDef) and issubclass(getattr(module, node.name), luigi.Task)


def _outline(node: Any) -> Any:
    """A syntax tree as plain lists, without docstrings, and alike in every version of Python."""
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    body = fields.get("body")
    if isinstance(body, list) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        fields["body"] = body[1:]
    return [type(node).__name__, {name: _outline(value) for name, value in sorted(fields.items())}]
