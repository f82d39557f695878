"""Import the tasks of all datasets, one module each.

`luigi --module pipeline LoadUsers --date 2026-11-21` finds the tasks here.
"""

from wholeday.tasks.range_daily import RangeDaily
from wholeday.tasks.workflow import import_datasets

__all__ = ["RangeDaily"]

import_datasets(__name__)
