"""Look up which days are loaded, without the libraries that a load needs."""

import datetime as dt
from collections.abc import Iterable

from wholeday.load.database import find_database


def find_loaded(database: str, dataset: str, dates: Iterable[dt.date]) -> set[dt.date]:
    """Those of `dates` that the warehouse at the URL `database` holds: one SELECT, whatever their number.

    A database that is not there holds nothing, and is not made by being asked.
    """
    dates = set(dates)
    return dates & find_database(database).find_loaded(dataset, min(dates), max(dates)) if dates else dates
