"""Luigi's view: the three tasks of a day for any dataset, and the ranges of days.

Owns what Luigi must be told (what a task needs, when it is done, in which order, what a child process must
carry) and refuses to do the work: a `run` calls one function of stages.
"""

import copy
import datetime as dt
import sys
import traceback
from collections.abc import Iterable
from typing import Any, ClassVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.interface import core
from luigi.parameter import ParameterException, ParameterVisibility
from luigi.setup_logging import InterfaceLogging
from luigi.task import MixinNaiveBulkComplete
from luigi.tools import range as ranges

from wholeday import clock, log
from wholeday.config.pipeline import Pipeline
from wholeday.config.placeholders import find_placeholders
from wholeday.errors import (
    ConfigError,
    DayNotClosedError,
    FolderError,
    NotRunError,
    PastDayError,
    UnreachableError,
    WarehouseError,
)
from wholeday.extract import outage
from wholeday.load.markers import find_loaded
from wholeday.schema.dataset import Dataset
from wholeday.storage.workspace import Workspace
from wholeday.tasks import alerts, console, failures, progress, stages, workflow
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import FolderTarget, LoadMarker
from wholeday.text import clean_lines
from wholeday.transform import day as transform_stage

UNREACHABLE = "source unreachable"  # how the explanation of a failure begins, for those who hear of it


class DayParameter(luigi.DateParameter):
    """A day, as 2026-11-21."""

    def parse(self, text: str) -> dt.date:
        try:
            day = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
        except ValueError as error:
            raise ConfigError(f"{text!r} is not a day: give it as 2026-11-21") from error
        if not 1970 <= day.year < dt.MAXYEAR:
            raise ConfigError(f"{text} is no day of a source: give one from 1970 on")
        return day


class DayTask(luigi.Task):
    """A stage of one day of a dataset."""

    dataset: ClassVar[Dataset]
    stage: ClassVar[str]
    _visible_in_registry = False

    date = DayParameter(description="the day, as 2026-11-21; default: the last closed day")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._visible_in_registry = "dataset" in vars(cls)

    @property
    def priority(self) -> int:  # type: ignore[override]
        """The oldest day first: Luigi prefers the higher number, and takes no negative one seriously."""
        return dt.date.max.toordinal() - self.date.toordinal()

    @property
    def resources(self) -> dict[str, int]:  # type: ignore[override]
        """Where a day starts from the watermark of the day before it, one task at a time, in the order of the days."""
        in_order = "watermark" in find_placeholders(self.dataset.config())
        return {f"{self.dataset.name}_in_order": 1} if in_order else {}

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """Take the last closed day if no date is given. Raises ConfigError if the section names no source."""
        check_section(cls.dataset)
        if not args and not kwargs and not cls.date.has_task_value(cls.get_task_family(), "date"):
            kwargs = {"date": cls.dataset.config().last_closed_day(clock.utc_now())}
        return super().get_param_values(params, args, kwargs)

    @classmethod
    def workspace(cls) -> Workspace:
        """Read the settings of the dataset."""
        return read_workspace(cls.dataset)

    def complete(self) -> bool:
        """Whether the day is done at this stage. Luigi has no event for an error in here."""
        try:
            return self.is_done()
        except (FolderError, WarehouseError) as error:
            note_failure(self, error)
            raise

    def is_done(self) -> bool:
        """Whether it is done, and nothing else."""
        return super().complete()

    def on_failure(self, exception: BaseException) -> str:
        """What the visualiser shows: the line of an expected error, the traceback of a bug."""
        line = console.describe_error(exception) or clean_lines(traceback.format_exc())
        return f"{UNREACHABLE}: {line}" if isinstance(exception, UnreachableError) else line

    def __getstate__(self) -> dict[str, Any]:
        """A child process that is not forked knows nothing of this one's command line: the task takes it along."""
        return self.__dict__ | {"_cmdline": CmdlineParser.get_instance()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cmdline = state.pop("_cmdline")
        self.__dict__.update(state)
        if CmdlineParser.get_instance() is None and cmdline is not None:
            CmdlineParser._instance = cmdline
            InterfaceLogging.setup(core())


def check_section(dataset: Dataset) -> None:
    """Raise ConfigError if the section of a dataset names no source, before a task makes anything.

    Any other mistake in the section fails the task, so that it is noted as a failure of its day and sent as an alert.
    """
    if not dataset.config.has_url():
        dataset.config()


def _note(dataset: Dataset, date: dt.date, stage: str, cause: BaseException | str) -> None:
    if isinstance(cause, BaseException):
        cause = console.describe_error(cause) or f"{type(cause).__name__}: {cause}"
    alerts.send_alert(dataset, failures.record_failure(dataset, date, stage, cause))


def enter(task: DayTask) -> None:
    """Have the lines that follow say what they are about."""
    log.context.update(dataset=task.dataset.name, date=task.date, stage=task.stage)


def leave(*_: Any) -> None:
    """Have them say so no more."""
    log.context.clear()


def note_success(task: DayTask) -> None:
    """Have it known that a day is well."""
    if task.stage == "load":
        alerts.record_recovery(task.dataset, task.date)


def note_failure(task: DayTask, error: BaseException) -> None:
    """Have it on record that a task failed, or could not be scheduled. This runs where the error was met."""
    if not isinstance(error, (DayNotClosedError, NotRunError)):  # nothing failed: it was not tried
        _note(task.dataset, task.date, task.stage, error)


def note_death(task: DayTask, what: str) -> None:
    """The same of a task whose process died, or was ended: only the one that started it can tell."""
    line = what.replace(f"Task {task.task_id}", "its process")
    log.logger.error("%s failed: %s", task, line)
    _note(task.dataset, task.date, task.stage, line)


for event, handler in [
    (luigi.Event.START, enter),
    (luigi.Event.SUCCESS, note_success),
    (luigi.Event.SUCCESS, leave),
    (luigi.Event.FAILURE, note_failure),
    (luigi.Event.FAILURE, leave),
    (luigi.Event.BROKEN_TASK, note_failure),
    (luigi.Event.PROCESS_FAILURE, note_death),
    (luigi.Event.TIMEOUT, note_death),
]:
    DayTask.event_handler(event)(handler)


class Extract(MixinNaiveBulkComplete, DayTask):
    """The raw files of a day."""

    stage = "extract"

    @property
    def resources(self) -> dict[str, int]:  # type: ignore[override]
        """Where `[resources]` says how many days of an API may be read at once, one of these: else Luigi allows one."""
        name = f"{self.dataset.name}_api"
        return super().resources | ({name: 1} if get_config().has_option("resources", name) else {})

    def output(self) -> FolderTarget:
        return FolderTarget(self.workspace().folder("raw", self.date))

    def run(self) -> None:
        with self.output().folder.lock():
            if not self.is_done():
                setters = self.set_status_message, self.set_progress_percentage, self.set_tracking_url
                workspace = self.workspace()
                with outage.watch(workspace.name, self.date), progress.track_reading(*setters) as tell:
                    stages.extract(workspace, self.date, tell, transform_stage.preparing(workspace))


class Transform(MixinNaiveBulkComplete, DayTask):
    """The clean files of a day."""

    stage = "transform"

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "dataset" in vars(cls):
            workflow.register(cls.dataset.name, cls.__module__)

    def output(self) -> LoadMarker:
        return LoadMarker(self.workspace().pipeline.database, self.dataset.name, self.date)

    def run(self) -> None:
        stages.load(self.workspace(), self.date)

    @classmethod
    def bulk_complete(cls, parameter_tuples: Iterable[dt.date]) -> list[dt.date]:
        """Those of the days that are loaded. Luigi hands over a partial for `cls`, and an iterator to be read once."""
        dataset: Dataset = getattr(cls, "func", cls).dataset
        days = list(parameter_tuples)
        try:
            loaded = find_loaded(Pipeline().database, dataset.name, days)
        except WarehouseError as error:  # of which Luigi tells no event either
            _note(dataset, max(days), "load", error)
            raise
        return [day for day in days if day in loaded]


def _keep_to_ourselves(parameter: Any) -> Any:
    """A parameter of Luigi's own that has one value only: luigid is not told of it, nor who looks at its pages."""
    kept = copy.copy(parameter)
    kept.visibility = ParameterVisibility.PRIVATE
    return kept


class RangeDaily(ranges.RangeDaily):
    """Every day from `start` to `stop`, which is exclusive, oldest first; without `stop`, to the last closed day.

    Luigi runs the most derived class of a name, so this one answers to `RangeDaily`. Luigi's own would clip the
    range to the last hundred days and fifty tasks without a word; what would do so here is refused.
    """

    start = DayParameter(default=None, description="the first day")  # type: ignore[arg-type, assignment]
    stop = DayParameter(  # type: ignore[assignment]
        default=None,  # type: ignore[arg-type]
        description="the day after the last one; default: to the last closed day",
    )
    param_name = luigi.OptionalParameter(  # type: ignore[assignment]  # Luigi's own warns of its own default
        default=None, positional=False, description="the parameter of the task that takes the day; default: its first"
    )
    task_limit = luigi.IntParameter(
        default=sys.maxsize, visibility=ParameterVisibility.PRIVATE, description="how many days to work at most"
    )
    reverse = _keep_to_ourselves(ranges.RangeDaily.reverse)
    days_back = _keep_to_ourselves(ranges.RangeDaily.days_back)
    days_forward = _keep_to_ourselves(ranges.RangeDaily.days_forward)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raise ConfigError if the section of the dataset names no source."""
        super().__init__(*args, **kwargs)
        self._past: list[dt.date] = []
        if issubclass(self.of, DayTask):
            check_section(self.of.dataset)

    def requires(self) -> Any:
        if not self.start:
            raise ParameterException("give --start, the first day")
        for name, default in {"reverse": False, "task_limit": sys.maxsize, "days_back": 100, "days_forward": 0}.items():
            if getattr(self, name) != default:
                raise ParameterException(f"--{name.replace('_', '-')} would leave days undone: give --start and --stop")
        now = dt.datetime.fromtimestamp(self.now, dt.UTC) if self.now else clock.utc_now()
        stop = self.moving_stop(now.replace(tzinfo=None)).date()
        if self.start > stop or (self.stop and self.stop > stop):
            raise DayNotClosedError(
                f"{f'--stop {self.stop}' if self.stop else f'--start {self.start}'} is past the last closed day, "
                f"{stop - dt.timedelta(days=1)}: give --stop {stop} (the day after the last one), or leave --stop out"
            )
        return super().requires()

    def missing_datetimes(self, finite_datetimes: Any) -> list[dt.datetime]:
        """The missing days, less those of snapshots that are past. `run` fails on these, after the others."""
        missing = super().missing_datetimes(finite_datetimes)
        if issubclass(self.of, DayTask):
            self._past = self.of.workspace().list_past(sorted(day.date() for day in missing), clock.utc_now())
            if self._past:  # also if another day fails, and this task is not run
                log.logger.error("", exc_info=self._refuse_past())
        return [day for day in missing if day.date() not in self._past]

    def complete(self) -> bool:
        return bool(super().complete()) and not self._past

    def run(self) -> None:
        """Fail if days were left out."""
        if self._past:
            raise self._refuse_past()

    def _refuse_past(self) -> PastDayError:
        from wholeday.days import name_days

        settings = self.of.dataset.config()
        return PastDayError(f"{settings.section} {name_days(self._past)}: {settings.describe_past(clock.utc_now())}")

    def moving_start(self, now: dt.datetime) -> dt.datetime:  # noqa: ARG002 - Luigi's
        """The first day asked for, however long ago."""
        return self.parameter_to_datetime(self.start)

    def moving_stop(self, now: dt.datetime) -> dt.datetime:
        """The day after the last closed one at `now` (UTC), by the time zone and the patience of the dataset."""
        if not issubclass(self.of, DayTask):
            return super().moving_stop(now)
        last = self.of.dataset.config().last_closed_day(now.replace(tzinfo=dt.UTC))
        return self.parameter_to_datetime(last + dt.timedelta(days=1))


def note_broken_range(task: RangeDaily, error: BaseException) -> None:
    """Have it on record that a range could not be scheduled, as without a scheduler: its newest day is late."""
    if issubclass(task.of, DayTask):
        stop = task.stop or task.moving_stop(clock.utc_now().replace(tzinfo=None)).date()
        _note(task.of.dataset, stop - dt.timedelta(days=1), Load.stage, error)


RangeDaily.event_handler(luigi.Event.BROKEN_TASK)(note_broken_range)
