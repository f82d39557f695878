"""The workflow: one module per dataset. `luigi --module pipeline LoadUsers --date 2026-11-21` finds the tasks here."""

import importlib
import pkgutil

from wholeday.tasks.day_tasks import RangeDaily

__all__ = ["RangeDaily"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
