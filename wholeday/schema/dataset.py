"""Declare a dataset: its name and its record class.

Responsibilities: what a file of the workflow declares, and its section of luigi.cfg.
Non-goals: the settings of a run, and where files and tables are (`storage.workspace`).
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wholeday.config.source import Source, make_section
from wholeday.errors import DatasetError
from wholeday.schema.columns import Columns, read_columns
from wholeday.schema.conversion import Clean, Conversion
from wholeday.schema.record import Record

if TYPE_CHECKING:
    from wholeday.schema.tables import Declared


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

    def conversion(self, settings: Source) -> Conversion:
        """Return what decides which row a record becomes, with the settings of a run."""
        return Conversion(self.record_class, self.clean, settings.deleted_when, settings.timezone, settings.lenient)
