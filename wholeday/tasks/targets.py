"""Tell Luigi when a task is done."""

import datetime as dt

import luigi

from wholeday.load.markers import find_loaded


class LoadMarker(luigi.Target):
    """The row of a day in the table `loads` of the warehouse."""

    def __init__(self, database: str, dataset: str, date: dt.date) -> None:
        self.database, self.dataset, self.date = database, dataset, date

    def exists(self) -> bool:
        return bool(find_loaded(self.database, self.dataset, [self.date]))
