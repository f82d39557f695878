"""Write sets of days as text."""

import datetime as dt
from collections.abc import Iterable


def name_days(days: Iterable[dt.date]) -> str:
    """Return days as text, oldest first: `2026-11-02, 2026-11-05..2026-11-09`."""
    runs: list[list[dt.date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == dt.timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
