"""Declare a dataset: its source, its record class and its table.

Responsibilities: the declaration of a dataset, and the version of the code that transforms its records.
Non-goals: the settings of a run, and where files and tables are (`storage.workspace`).
"""

import ast
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

import wholeday
from wholeday.config.source import Source
from wholeday.errors import DatasetError
from wholeday.schema.record import check_key

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa

    from wholeday.schema.tables import Declared

    Rules: TypeAlias = dict[tuple[str, str], pd.Series[bool]]
    """The rejected rows, by column and reason."""
    Clean: TypeAlias = Callable[[pd.DataFrame], tuple[pd.DataFrame, Rules]]

LIBRARY = Path(wholeday.__file__).parent


@dataclass(frozen=True)
class Dataset:
    """A section of luigi.cfg, a record class, `clean` and a table: all that is particular to one kind of record.

    `key` holds the dotted paths of the natural key in a record.
    """

    config: type[Source]
    record_class: type[msgspec.Struct]
    clean: "Clean"
    table: "Callable[[sa.MetaData], sa.Table]"
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.config.section

    def compute_version(self, settings: Source) -> str:
        """Digest everything that decides which row a record becomes.

        The digest covers the code, without comments and formatting, and the keys `deleted_when` and `timezone`.
        """
        rules = f"{settings.deleted_when} {settings.timezone}"
        return hashlib.sha256(f"{self._code} {rules}".encode()).hexdigest()[:16]

    @functools.cached_property
    def _code(self) -> str:
        module = sys.modules[self.record_class.__module__]
        own = ast.parse(inspect.getsource(module))
        own.body = [node for node in own.body if not _is_task(module, node)]
        # Read as text: an import would load pandas.
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


def _is_task(module: Any, node: ast.stmt) -> bool:
    """Return whether a definition is a section or a task of Luigi. Neither decides which row a record becomes."""
    return isinstance(node, ast.ClassDef) and hasattr(getattr(module, node.name), "get_task_family")


def _outline(node: Any) -> Any:
    """Convert a syntax tree to plain lists, without docstrings, the same in every version of Python."""
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    body = fields.get("body")
    if isinstance(body, list) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        fields["body"] = body[1:]
    return [type(node).__name__, {name: _outline(value) for name, value in sorted(fields.items())}]
