"""Define RangeDaily: a task for each day of a range, with no day left out silently."""

import copy
import datetime as dt
import sys
from typing import Any

import luigi
from luigi.parameter import ParameterException, ParameterVisibility
from luigi.tools import range as ranges

from wholeday import clock, log
from wholeday.days import name_days
from wholeday.errors import DayNotClosedError, PastDayError
from wholeday.schema.dataset import Dataset
from wholeday.tasks.day_tasks import DayParameter, DayTask, Load, check_section, find_task, record_failure


def _hide(parameter: Any) -> Any:
    """Return a copy of a parameter of Luigi that luigid does not show."""
    hidden = copy.copy(parameter)
    hidden.visibility = ParameterVisibility.PRIVATE
    return hidden


class RangeDaily(ranges.RangeDaily):
    """Run a task for every day from `start` to the day before `stop`, or to the last closed day; oldest first.

    Luigi runs the most derived class of a name, so `RangeDaily` means this class. Luigi's own class silently clips a
    range to the last hundred days and to fifty tasks. Parameters that would do so are refused here.
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
    reverse = _hide(ranges.RangeDaily.reverse)
    days_back = _hide(ranges.RangeDaily.days_back)
    days_forward = _hide(ranges.RangeDaily.days_forward)

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
        """Return the missing days, without past snapshots. `run` fails on these, after the others."""
        missing = super().missing_datetimes(finite_datetimes)
        if issubclass(self.of, DayTask):
            self._past = self.of.workspace().list_past(sorted(day.date() for day in missing), clock.utc_now())
            if self._past:  # logged here too, as `run` is not called if another day fails
                log.logger.error("", exc_info=self._refuse_past())
        return [day for day in missing if day.date() not in self._past]

    def complete(self) -> bool:
        return bool(super().complete()) and not self._past

    def run(self) -> None:
        """Fail if days were left out."""
        if self._past:
            raise self._refuse_past()

    def _refuse_past(self) -> PastDayError:
        settings = self.of.dataset.config()
        return PastDayError(f"{settings.section} {name_days(self._past)}: {settings.describe_past(clock.utc_now())}")

    def moving_start(self, now: dt.datetime) -> dt.datetime:  # noqa: ARG002 - Luigi's
        """Return the first day, however long ago it is."""
        return self.parameter_to_datetime(self.start)

    def moving_stop(self, now: dt.datetime) -> dt.datetime:
        """Return the day after the last closed day at `now` (UTC), by the timezone and `settle` of the dataset."""
        if not issubclass(self.of, DayTask):
            return super().moving_stop(now)
        last = self.of.dataset.config().last_closed_day(now.replace(tzinfo=dt.UTC))
        return self.parameter_to_datetime(last + dt.timedelta(days=1))


class Backfill(RangeDaily):
    """The Load task of a dataset for every day of a range."""

    _visible_in_registry = False

    def __init_subclass__(cls, dataset: Dataset | None = None, **kwargs: Any) -> None:
        """Take the dataset, as in class BackfillUsers(Backfill, dataset=USERS)."""
        super().__init_subclass__(**kwargs)
        cls._visible_in_registry = dataset is not None
        if dataset is not None:
            cls.of = luigi.TaskParameter(default=find_task(dataset, Load.stage), description="the task of each day")
            cls.of.__set_name__(cls, "of")  # Python does this only for attributes in the body of a class


def on_broken_range(task: RangeDaily, error: BaseException) -> None:
    """Record that a range could not be scheduled, as a failure of its newest day."""
    if issubclass(task.of, DayTask):
        stop = task.stop or task.moving_stop(clock.utc_now().replace(tzinfo=None)).date()
        record_failure(task.of.dataset, stop - dt.timedelta(days=1), Load.stage, error)


RangeDaily.event_handler(luigi.Event.BROKEN_TASK)(on_broken_range)
