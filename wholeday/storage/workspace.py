"""Hold a dataset together with the settings of a run: all that the stages of a day need to know."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from wholeday.config.pipeline import Pipeline
from wholeday.config.source import Source
from wholeday.schema.conversion import Conversion
from wholeday.schema.dataset import Dataset
from wholeday.storage.day_folder import DayFolder, Stage
from wholeday.storage.tombstones import Tombstones


@dataclass(frozen=True)
class Workspace:
    """A dataset, its section of luigi.cfg, and the section `[pipeline]`."""

    dataset: Dataset
    settings: Source
    pipeline: Pipeline
    trial_of: str = ""
    """In a trial, the data_dir of the days that are kept: the quality gates compare with these."""

    @property
    def history_dir(self) -> str:
        """The data_dir whose days the quality gates compare a day with."""
        return self.trial_of or self.pipeline.data_dir

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.dataset.name

    @cached_property
    def conversion(self) -> Conversion:
        """What decides which row a record becomes."""
        return self.dataset.conversion(self.settings)

    @cached_property
    def version(self) -> str:
        """The version of the conversion."""
        return self.conversion.version

    def folder(self, stage: Stage, date: dt.date) -> DayFolder:
        """Return the folder of a day at a stage, whether or not it exists."""
        return DayFolder(self.pipeline.data_dir, stage, self.name, date, self.pipeline.is_private)

    def tombstones(self) -> Tombstones:
        """Return the keys that must not be stored again."""
        return Tombstones(self.pipeline.data_dir, self.name, self.pipeline.is_private)

    def list_past(self, days: Iterable[dt.date], now: dt.datetime) -> list[dt.date]:
        """List the days that cannot be extracted any more: past snapshots without raw files."""
        return [day for day in days if self.settings.is_past(day, now) and not self.folder("raw", day).exists()]
