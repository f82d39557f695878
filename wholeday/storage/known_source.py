"""Hold a table to one source: the quality gate `source`.

Responsibilities: whether records of a source may be added to what is loaded, and the message if not.
Non-goals: reading manifests or markers.
"""

import datetime as dt
from typing import NamedTuple

SOURCE_GATE = "source"


class KnownSource(NamedTuple):
    """The newest loaded day that names its source."""

    date: dt.date
    source: str

    def refuse(self, source: str | None) -> str | None:
        """Return why the table must not take records of `source`, in one line; None if it may."""
        if source in (None, self.source):
            return None
        return f"it comes from {source}, and the newest loaded day ({self.date}) from {self.source}"


def describe_ways_out(dataset: str) -> str:
    """Describe what a person can do with a day of another source."""
    return (
        "a table holds one source. Give this source its own data_dir and database, or let this run through with "
        f"--{dataset}-accept"
    )


def is_let_through(accepted: str) -> bool:
    """Return whether a marker's `accepted` names SOURCE_GATE."""
    return SOURCE_GATE in accepted.split(", ")


def join_accepted(accepted: str, others: str) -> str:
    """Return `accepted`, with SOURCE_GATE added if it is among the `others`."""
    gates = [gate for gate in accepted.split(", ") if gate]
    if is_let_through(others) and SOURCE_GATE not in gates:
        gates.append(SOURCE_GATE)
    return ", ".join(gates)
