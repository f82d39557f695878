"""Define LoadAll: one day of every dataset of the workflow."""

import functools
from collections.abc import Iterable

import luigi
from luigi.task_register import Register

from wholeday import clock
from wholeday.errors import ConfigError, PastDayError, PipelineError
from wholeday.log import logger
from wholeday.tasks.day_tasks import DayParameter, Load
from wholeday.tasks.needs import list_needed, sort_by_needs
from wholeday.tasks.workflow import WORKFLOW, broken


def list_loads() -> dict[str, type[Load]]:
    """Return the Load task of each dataset of the workflow, by the name of the dataset."""
    classes = [Register.get_task_cls(name) for name in Register.task_names()]
    return {
        cls.dataset.name: cls for cls in classes if issubclass(cls, Load) and cls.__module__.startswith(f"{WORKFLOW}.")
    }


def sort_loads(loads: Iterable[type[Load]]) -> list[type[Load]]:
    """Sort Load tasks in the order of the needs of their datasets, by the settings in effect."""
    by_dataset = {load.dataset: load for load in loads}
    return [by_dataset[dataset] for dataset in sort_by_needs(by_dataset)]


class LoadAll(luigi.WrapperTask):
    """The Load task of every dataset for one day.

    A dataset that cannot be loaded does not stop the others. It fails this task, after them.
    """

    date = DayParameter(
        default=None,  # type: ignore[arg-type]
        description="the day, as 2026-11-21; default: the last closed day of each dataset",
    )

    def requires(self) -> list[Load]:
        return self._plan[0]

    def complete(self) -> bool:
        return bool(super().complete()) and not self._plan[1]

    def run(self) -> None:
        """Fail if a dataset was left out."""
        if lines := self._plan[1]:
            several = f"not run: {', '.join(lines)}: the log says why"
            raise PipelineError(several if len(lines) > 1 else next(iter(lines.values())))

    @functools.cached_property
    def _plan(self) -> tuple[list[Load], dict[str, str]]:
        """The tasks, and the reason for each dataset that is left out, by its name.

        The reasons are logged here too, as `run` is not called if a task fails.
        """
        tasks = []
        lines = {name.removeprefix(f"{WORKFLOW}."): line for name, line in broken.items()}  # reported by the import
        for cls in sort_loads(list_loads().values()):
            name = cls.dataset.name
            try:
                tasks.append(self._make_task(cls))
            except PipelineError as error:  # datasets that need another one have its errors
                lines[name] = f"{name}: not run, see above" if str(error) in lines.values() else str(error)
                logger.error("", exc_info=PipelineError(lines[name]))
        if not tasks and not lines:
            raise ConfigError(f"{WORKFLOW}/ has no dataset: write one with wholeday new NAME URL")
        return tasks, lines

    def _make_task(self, cls: type[Load]) -> Load:
        """Make the task of a dataset. Raises ConfigError, or PastDayError for a snapshot that is missing and past."""
        settings, now = cls.dataset.config(), clock.utc_now()
        list_needed(cls.dataset)
        task = cls(date=self.date or settings.last_closed_day(now))
        if cls.workspace().list_past([task.date], now) and not task.complete():
            raise PastDayError(f"{cls.dataset.name} {task.date}: {settings.describe_past(now)}")
        return task
