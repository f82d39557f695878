"""Run one stage of a day, with all that the stage needs from the others."""

import datetime as dt
import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from wholeday.config.pipeline import Pipeline
from wholeday.schema.dataset import Dataset
from wholeday.storage.workspace import Workspace

if TYPE_CHECKING:
    from wholeday.extract.reader import Counts
    from wholeday.schema.census import Census
    from wholeday.storage.day_folder import DayFolder
    from wholeday.storage.manifest import Part
    from wholeday.storage.parents import Parent


GARBAGE = 50_000  # new objects before Python looks for cycles among them; by default 700


def read_workspace(dataset: Dataset) -> Workspace:
    """Read the settings of a dataset from luigi.cfg and the flags. Raises ConfigError."""
    return Workspace(dataset, dataset.config(), Pipeline())


def extract(workspace: Workspace, date: dt.date, *listeners: "Callable[[Counts], None]") -> None:
    """Extract a day: from the source to raw files. The listeners hear of each page.

    The parts of a large day are transformed meanwhile.
    """
    _collect_rarely()
    from wholeday.extract.day import extract_day
    from wholeday.load.parents import ParentTable
    from wholeday.load.warehouse import open_warehouse
    from wholeday.transform.ahead import transform_ahead

    parents = workspace.dataset.find_parents(workspace.settings)
    asking = ParentTable(workspace, parents) if parents else None
    with transform_ahead(workspace, date) as ahead:
        known, count = open_warehouse(workspace), partial(count_cleaned, workspace)
        extract_day(workspace, date, known, count, *listeners, ahead.update, follower=ahead, asking=asking)


def transform(workspace: Workspace, date: dt.date, engine: str | None = None) -> None:
    """Transform a day: from raw files to clean files, with the configured engine or with another one."""
    _collect_rarely()
    from wholeday.load.warehouse import open_warehouse
    from wholeday.transform.day import transform_day

    transform_day(workspace, date, lambda: open_warehouse(workspace).read_marker(date) is not None, engine)


def load(workspace: Workspace, date: dt.date) -> None:
    """Load a day: from clean files to the tables."""
    _collect_rarely()
    from wholeday.load.day import load_day

    load_day(workspace, date)


def _collect_rarely() -> None:
    """Look for garbage rarely in this process. A stage makes few cycles, and looking takes a tenth of a short run."""
    gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])


def count_cleaned(
    workspace: Workspace, folder: "DayFolder", parts: "Sequence[Part]", parents: "Sequence[Parent]"
) -> "Census":
    """Count the keys of a day after its transform."""
    from wholeday.transform import keys

    return keys.count_cleaned(workspace.conversion, folder, parts, parents)
