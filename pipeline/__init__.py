"""Import the tasks of all datasets, one module each.

`luigi --module pipeline LoadUsers --date 2026-11-21` finds the tasks here; LoadAll loads every dataset.
"""

from wholeday.tasks.load_all import LoadAll
from wholeday.tasks.range_daily import RangeDaily
from wholeday.tasks.workflow import import_datasets

__all__ = ["LoadAll", "RangeDaily"]

import_datasets(__name__)
