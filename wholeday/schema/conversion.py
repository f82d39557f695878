"""Decide which row a record becomes: the record class, `clean`, and three keys of the section."""

import ast
import enum
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from wholeday.schema.census import Census
from wholeday.schema.columns import Columns, read_columns
from wholeday.schema.keys import make_key_readers
from wholeday.schema.raw_fields import KeyReader
from wholeday.schema.record import Record
from wholeday.schema.structs import make_tree

if TYPE_CHECKING:
    import pandas as pd

    Rules: TypeAlias = dict[tuple[str, str], pd.Series[bool]]
    """The rejected rows, by column and reason."""

Clean: TypeAlias = "Callable[[pd.DataFrame], pd.DataFrame | tuple[pd.DataFrame, Rules]]"

LIBRARY_VERSION = 1
"""The version of the transform itself. Raise it with any change after which the golden records differ."""


@dataclass(frozen=True)
class Conversion:
    """All that decides which row a record becomes."""

    record_class: type[Record]
    clean: "Clean | None" = None
    deleted_when: str = ""
    timezone: str = "UTC"
    lenient: bool = False

    @property
    def columns(self) -> Columns:
        """The columns of the record class. Raises DatasetError."""
        return read_columns(self.record_class)

    @property
    def key_readers(self) -> list[KeyReader]:
        """Readers of the key in raw records."""
        return make_key_readers(self.columns.key, self.lenient)

    def make_census(self, parent: Mapping[str, Any] | None = None) -> Census:
        """Return a census of raw records, which counts none yet; with values, of the records of one parent."""
        readers = make_key_readers(self.columns.key, self.lenient, parent)
        return Census(readers, self.deleted_when, make_tree(self.columns))

    @property
    def version(self) -> str:
        """A digest of everything that decides which row a record becomes, without comments and formatting."""
        rules = self.deleted_when, self.timezone, self.lenient, LIBRARY_VERSION
        text = f"{rules} {_describe(self.columns)} {_outline_module(self.clean) if self.clean else ''}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _describe(columns: Columns) -> list[Any]:
    """Describe columns without the name of their class."""
    return [
        (
            *(column.name, column.path, column.kind, column.is_nullable, column.options),
            _describe(column.children) if column.children else _describe_type(column.type),
        )
        for column in columns
    ]


def _describe_type(type_: Any) -> str:
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return str([member.value for member in type_])
    return str(type_)


@functools.cache
def _outline_module(clean: Any) -> str:
    """Describe the code of a module that `clean` may use: everything but classes."""
    tree = ast.parse(inspect.getsource(sys.modules[clean.__module__]))
    return json.dumps(_outline([node for node in tree.body if not isinstance(node, ast.ClassDef)]))


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
