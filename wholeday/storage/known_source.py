"""Know the one source that a table holds: the quality gate `source`."""

import datetime as dt
from typing import NamedTuple

SOURCE_GATE = "source"  # the quality gate by which a table holds one source


class KnownSource(NamedTuple):
    """The source of the newest loaded day of which the source is known."""

    date: dt.date
    source: str

    def refuse(self, source: str | None) -> str | None:
        """Say in one line why the table must not take records of `source`; None if it may."""
        if source in (None, self.source):
            return None
        return f"it comes from {source}, and the newest loaded day ({self.date}) from {self.source}"


def tell_ways_out(name: str) -> str:
    """What to do with a day of another source."""
    return (
        "a table holds one source. Give this source its own data_dir and database, or let this run through with "
        f"--{name}-accept"
    )
