"""Declare a dataset: its name and its record class.

Responsibilities: what a file of the workflow declares, and its section of luigi.cfg.
Non-goals: the settings of a run, and where files and tables are (`storage.workspace`).
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wholeday.config.placeholders import find_parent
from wholeday.config.source import Source, make_section
from wholeday.errors import DatasetError
from wholeday.schema.columns import Column, Columns, read_columns
from wholeday.schema.conversion import Clean, Conversion
from wholeday.schema.kinds import DATE, INTEGER, TEXT, UUID
from wholeday.schema.record import Record

if TYPE_CHECKING:
    from wholeday.schema.tables import Declared


SENDABLE = (INTEGER, TEXT, UUID, DATE)
"""The kinds of columns whose values can stand in a request."""


@dataclass(frozen=True)
class Dataset:
    """One kind of record: the name of its table and of its section of luigi.cfg, its record class, and `clean`.

    `clean`, where a record class does not say enough, takes a frame with the columns of the class. It returns the
    frame, or the frame and the rules that rows break: by column and reason, a boolean for each row.
    """

    name: str
    record_class: type[Record]
    clean: "Clean | None" = None

    def __post_init__(self) -> None:
        """Define the section, so that its keys are flags of Luigi's command line."""
        make_section(self.name)
        _datasets[self.name] = self

    @property
    def config(self) -> type[Source]:
        """The section of luigi.cfg."""
        return make_section(self.name)

    @property
    def columns(self) -> Columns:
        """The columns of the record class. Raises DatasetError."""
        return self._read[0]

    @property
    def declared(self) -> "Declared":
        """The tables. Raises DatasetError if no day could be loaded."""
        return self._read[1]

    @functools.cached_property
    def _read(self) -> "tuple[Columns, Declared]":
        from wholeday.schema.tables import Declared

        try:
            columns = read_columns(self.record_class)
            return columns, Declared.read(self.name, columns)
        except DatasetError as error:
            raise DatasetError(f"dataset {self.name}: {error}") from error

    def find_parent(self, settings: Source) -> "Dataset | None":
        """Return the dataset whose rows the source is asked for; None without one. Raises ConfigError."""
        named = find_parent(settings)
        return _datasets[named[0]] if named else None

    def find_parents(self, settings: Source) -> "Parents | None":
        """Return the dataset whose rows the source is asked for; None without one.

        Raises ConfigError, and DatasetError if a column does not fit.
        """
        named, taken = find_parent(settings), self.columns.of_parent
        if named is None:
            if taken:
                raise DatasetError(
                    f"dataset {self.name}: column {taken[0].name} is taken from a parent, and [{self.name}] asks for "
                    "each row of no dataset: put {DATASET.column} into url, params, body or headers"
                )
            return None
        parent, placeholders = _datasets[named[0]], named[1]
        known = {column.name: column for column in parent.columns}
        for name in placeholders:
            _check_column(self, parent, known.get(name), f"{{{parent.name}.{name}}}", SENDABLE)
        for column in taken:
            theirs = known.get(str(column.options.parent))
            _check_column(self, parent, theirs, f"Field(parent={column.options.parent!r})", (column.kind,))
            if theirs and theirs.is_nullable and not column.is_nullable:
                raise DatasetError(
                    f"dataset {self.name}: column {column.name} must not be null, and {theirs.name} of {parent.name} "
                    "may be: declare it | None"
                )
        columns = dict.fromkeys([*placeholders, *self.columns.taken])
        return Parents(parent, placeholders, tuple(columns))

    def conversion(self, settings: Source) -> Conversion:
        """Return what decides which row a record becomes, with the settings of a run."""
        return Conversion(self.record_class, self.clean, settings.deleted_when, settings.timezone, settings.lenient)


@dataclass(frozen=True)
class Parents:
    """The parents of a dataset: one series of requests is sent for each of their rows."""

    dataset: Dataset
    placeholders: tuple[str, ...]
    """The columns in the placeholders of the section."""
    columns: tuple[str, ...]
    """These columns, and those that the record class takes from the parent."""


_datasets: dict[str, Dataset] = {}


def list_datasets() -> list[Dataset]:
    """List the datasets that are declared, by name."""
    return [_datasets[name] for name in sorted(_datasets)]


def _check_column(dataset: Dataset, parent: Dataset, column: Column | None, what: str, kinds: Collection[str]) -> None:
    """Raise DatasetError unless the column that `what` names exists, with one of these kinds."""
    if column is None:
        raise DatasetError(
            f"dataset {dataset.name}: {what}: {parent.name} has no such column; it has "
            f"{', '.join(column.name for column in parent.columns)}"
        )
    if column.kind not in kinds:
        raise DatasetError(
            f"dataset {dataset.name}: {what}: the column of {parent.name} holds {column.kind}, and "
            f"{' or '.join(kinds)} is needed: choose another column, or declare the type of that one"
        )
