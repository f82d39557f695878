"""Tell Luigi when a task is done."""

import datetime as dt

import luigi

from wholeday.load.markers import find_loaded
from wholeday.storage.day_folder import DayFolder


class FolderTarget(luigi.Target):
    """A finished day folder."""

    def __init__(self, folder: DayFolder) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def exists(self) -> bool:
        return self.folder.exists()


class LoadMarker(luigi.Target):
    """The row of a day in the table `loads`."""

    def __init__(self, database: str, dataset: str, date: dt.date) -> None:
        self.database, self.dataset, self.date = database, dataset, date

    def exists(self) -> bool:
        return bool(find_loaded(self.database, self.dataset, [self.date]))
