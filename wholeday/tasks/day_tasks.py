"""Define the Luigi tasks of a day, for any dataset.

Responsibilities: what Luigi must know of a task: its parameters, when it is complete, in which order tasks run, and
what a child process needs. Non-goals: the work, which `stages` does.
"""

import datetime as dt
import functools
import traceback
from collections.abc import Iterable
from typing import Any, ClassVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.interface import core
from luigi.setup_logging import InterfaceLogging
from luigi.task import MixinNaiveBulkComplete

from wholeday import clock, errors, log
from wholeday.config.pipeline import Pipeline
from wholeday.config.placeholders import find_placeholders
from wholeday.extract import outage
from wholeday.load.markers import find_loaded
from wholeday.load.needs import check_snapshot, find_needed_day
from wholeday.schema.dataset import Dataset
from wholeday.storage.workspace import Workspace
from wholeday.tasks import alerts, console, failures, progress, stages, workflow
from wholeday.tasks.needs import list_needed
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import FolderTarget, LoadMarker
from wholeday.text import clean_lines
from wholeday.transform import day as transform_stage

STAGES = ("extract", "transform", "load")
UNREACHABLE = "source unreachable"  # begins the explanation of a failure; the backfill reads it


class DayParameter(luigi.DateParameter):
    """A day, such as 2026-11-21."""

    def parse(self, text: str) -> dt.date:
        try:
            day = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
        except ValueError as error:
            raise errors.ConfigError(f"{text!r} is not a day: write it as 2026-11-21") from error
        if not 1970 <= day.year < dt.MAXYEAR:
            raise errors.ConfigError(f"{text} is out of range: give a day from 1970 on")
        return day

    def next_in_enumeration(self, value: dt.date | None) -> dt.date | None:
        """Return the next day; None if the day is left out, where Luigi's own method fails."""
        return value and super().next_in_enumeration(value)


_stages: dict[tuple[Dataset, str], "type[DayTask]"] = {}
"""The task of each dataset and stage."""


def find_task(dataset: Dataset, stage: str) -> "type[DayTask]":
    """Return the task of a stage of a dataset. Raises DatasetError."""
    if task := _stages.get((dataset, stage)):
        return task
    base = stage.title()
    raise errors.DatasetError(
        f"dataset {dataset.name} has no task for the stage {stage}: write, in its file, "
        f"class {base}{dataset.name.title().replace('_', '')}({base}, dataset=…)"
    )


class DayTask(luigi.Task):
    """A stage of one day of a dataset."""

    dataset: ClassVar[Dataset]
    stage: ClassVar[str]
    _visible_in_registry = False

    date = DayParameter(description="the day, as 2026-11-21; default: the last closed day")

    def __init_subclass__(cls, dataset: Dataset | None = None, **kwargs: Any) -> None:
        """Take the dataset, as in class LoadUsers(Load, dataset=USERS)."""
        super().__init_subclass__(**kwargs)
        cls._visible_in_registry = dataset is not None
        if dataset is not None:
            cls.dataset = dataset
            _stages[dataset, cls.stage] = cls

    @property
    def priority(self) -> int:  # type: ignore[override]
        """Run the oldest day first. Luigi prefers higher numbers and ignores negative ones."""
        return dt.date.max.toordinal() - self.date.toordinal()

    @property
    def resources(self) -> dict[str, int]:  # type: ignore[override]
        """Run one task at a time if a day starts at the watermark of the day before."""
        in_order = "watermark" in find_placeholders(self.dataset.config())
        return {f"{self.dataset.name}_in_order": 1} if in_order else {}

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """Use the last closed day if no date is given. Raises ConfigError if the section has no url."""
        check_section(cls.dataset)
        if not args and not kwargs and not cls.date.has_task_value(cls.get_task_family(), "date"):
            kwargs = {"date": cls.dataset.config().last_closed_day(clock.utc_now())}
        return super().get_param_values(params, args, kwargs)

    @classmethod
    @functools.cache
    def get_params(cls) -> list[tuple[str, luigi.Parameter[Any]]]:
        """List the parameters of the class. Luigi searches all attributes for them, about eighty times a day."""
        return super().get_params()

    @classmethod
    def workspace(cls) -> Workspace:
        """Read the settings of the dataset."""
        return read_workspace(cls.dataset)

    def complete(self) -> bool:
        """Return whether the day is done at this stage. Luigi has no event for an error here, so it is recorded."""
        try:
            return self.is_done()
        except (errors.FolderError, errors.WarehouseError) as error:
            on_failure(self, error)
            raise

    def is_done(self) -> bool:
        """Return whether the day is done, and record nothing."""
        return super().complete()

    def on_failure(self, exception: BaseException) -> str:
        """Return what the visualiser shows: one line for an expected error, a traceback for a bug."""
        line = console.describe_error(exception) or clean_lines(traceback.format_exc())
        return f"{UNREACHABLE}: {line}" if isinstance(exception, errors.UnreachableError) else line

    def __getstate__(self) -> dict[str, Any]:
        """Take the command line along: a child process that is spawned does not know it."""
        return self.__dict__ | {"_cmdline": CmdlineParser.get_instance()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cmdline = state.pop("_cmdline")
        self.__dict__.update(state)
        if CmdlineParser.get_instance() is None and cmdline is not None:
            CmdlineParser._instance = cmdline
            InterfaceLogging.setup(core())


def check_section(dataset: Dataset) -> None:
    """Raise ConfigError if the section of a dataset has no url, before a task writes anything.

    Any other mistake in the section fails the task, so it is recorded as a failure of its day and sent as an alert.
    """
    if not dataset.config.has_url():
        dataset.config()


def record_failure(dataset: Dataset, date: dt.date, stage: str, cause: BaseException | str) -> None:
    """Record that a day failed at a stage, and send the alert."""
    if isinstance(cause, BaseException):
        cause = console.describe_error(cause) or f"{type(cause).__name__}: {cause}"
    alerts.send_alert(dataset, failures.record_failure(dataset, date, stage, cause))


def on_start(task: DayTask) -> None:
    """Name dataset, day and stage in the log lines that follow."""
    log.context.update(dataset=task.dataset.name, date=task.date, stage=task.stage)


def on_success(task: DayTask) -> None:
    """Record the recovery of a day that failed before."""
    if task.stage == "load":
        alerts.record_recovery(task.dataset, task.date)


def on_failure(task: DayTask, error: BaseException) -> None:
    """Record that a task failed or could not be scheduled. Luigi calls this in the process of the task."""
    if not isinstance(error, (errors.DayNotClosedError, errors.NotRunError)):  # the day was not tried
        record_failure(task.dataset, task.date, task.stage, error)


def on_process_failure(task: DayTask, description: str) -> None:
    """Record that the process of a task died or was killed. Luigi calls this in the parent process."""
    line = description.replace(f"Task {task.task_id}", "its process")
    log.logger.error("%s failed: %s", task, line)
    record_failure(task.dataset, task.date, task.stage, line)


def on_end(*_: Any) -> None:
    """Stop naming dataset, day and stage in the log lines."""
    log.context.clear()


for _event, _handlers in {
    luigi.Event.START: (on_start,),
    luigi.Event.SUCCESS: (on_success, on_end),
    luigi.Event.FAILURE: (on_failure, on_end),
    luigi.Event.BROKEN_TASK: (on_failure,),
    luigi.Event.PROCESS_FAILURE: (on_process_failure,),
    luigi.Event.TIMEOUT: (on_process_failure,),
}.items():
    for _handler in _handlers:
        DayTask.event_handler(_event)(_handler)


class Extract(MixinNaiveBulkComplete, DayTask):
    """The raw files of a day."""

    stage = "extract"

    @property
    def resources(self) -> dict[str, int]:  # type: ignore[override]
        """Take one of `[resources] NAME_api`, if set: the number of days of an API that are extracted at once."""
        name = f"{self.dataset.name}_api"
        return super().resources | ({name: 1} if get_config().has_option("resources", name) else {})

    def requires(self) -> list[DayTask]:
        """Load the parents first, if the source is asked for each of them."""
        return [
            find_task(parent, "load")(date=day)
            for parent in list_needed(self.dataset)[:1]
            if (day := find_needed_day(self.workspace(), read_workspace(parent), self.date, clock.utc_now()))
        ]

    def output(self) -> FolderTarget:
        return FolderTarget(self.workspace().folder("raw", self.date))

    def run(self) -> None:
        with self.output().folder.lock():
            if not self.is_done():
                setters = self.set_status_message, self.set_progress_percentage, self.set_tracking_url
                workspace = self.workspace()
                for parent in list_needed(self.dataset)[:1]:
                    check_snapshot(workspace, read_workspace(parent), self.date, clock.utc_now())
                with outage.watch(workspace.name, self.date), progress.track_extraction(*setters) as tell:
                    stages.extract(workspace, self.date, tell)


class Transform(MixinNaiveBulkComplete, DayTask):
    """The clean files of a day."""

    stage = "transform"

    def requires(self) -> DayTask:
        return self.clone(find_task(self.dataset, "extract"))

    def output(self) -> FolderTarget:
        return FolderTarget(self.workspace().folder("clean", self.date))

    def is_done(self) -> bool:
        return transform_stage.is_current(self.workspace(), self.date)

    def run(self) -> None:
        with self.output().folder.lock():
            if not self.is_done():
                stages.transform(self.workspace(), self.date)


class Load(DayTask):
    """The rows of a day in the warehouse."""

    stage = "load"

    def __init_subclass__(cls, dataset: Dataset | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(dataset, **kwargs)
        if dataset is not None:
            workflow.register(dataset.name, cls.__module__)

    def requires(self) -> DayTask:
        return self.clone(find_task(self.dataset, "transform"))

    def output(self) -> LoadMarker:
        return LoadMarker(self.workspace().pipeline.database, self.dataset.name, self.date)

    def run(self) -> None:
        stages.load(self.workspace(), self.date)

    @classmethod
    def bulk_complete(cls, parameter_tuples: Iterable[dt.date]) -> list[dt.date]:
        """Return the days that are loaded. Luigi passes a partial as `cls`, and an iterator."""
        dataset: Dataset = getattr(cls, "func", cls).dataset
        days = list(parameter_tuples)
        try:
            loaded = find_loaded(Pipeline().database, dataset.name, days)
        except errors.WarehouseError as error:  # Luigi has no event for an error here either
            record_failure(dataset, max(days), "load", error)
            raise
        return [day for day in days if day in loaded]
