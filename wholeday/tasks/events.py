"""React to what Luigi reports about the tasks of a day: log context, recorded failures, alerts."""

import datetime as dt
from typing import TYPE_CHECKING, Any

from wholeday import log
from wholeday.errors import DayNotClosedError, NotRunError
from wholeday.schema.dataset import Dataset
from wholeday.tasks import alerts, console, failures

if TYPE_CHECKING:
    from wholeday.tasks.day_tasks import DayTask


def record_failure(dataset: Dataset, date: dt.date, stage: str, cause: BaseException | str) -> None:
    """Record that a day failed at a stage, and send the alert."""
    if isinstance(cause, BaseException):
        cause = console.describe_error(cause) or f"{type(cause).__name__}: {cause}"
    alerts.send_alert(dataset, failures.record_failure(dataset, date, stage, cause))


def on_start(task: "DayTask") -> None:
    """Name dataset, day and stage in the log lines that follow."""
    log.context.update(dataset=task.dataset.name, date=task.date, stage=task.stage)


def on_end(*_: Any) -> None:
    """Stop naming them."""
    log.context.clear()


def on_success(task: "DayTask") -> None:
    """Record the recovery of a day that failed before."""
    if task.stage == "load":
        alerts.record_recovery(task.dataset, task.date)


def on_failure(task: "DayTask", error: BaseException) -> None:
    """Record that a task failed or could not be scheduled. Luigi calls this in the process of the task."""
    if not isinstance(error, (DayNotClosedError, NotRunError)):  # the day was not tried
        record_failure(task.dataset, task.date, task.stage, error)


def on_process_failure(task: "DayTask", description: str) -> None:
    """Record that the process of a task died or was killed. Luigi calls this in the parent process."""
    line = description.replace(f"Task {task.task_id}", "its process")
    log.logger.error("%s failed: %s", task, line)
    record_failure(task.dataset, task.date, task.stage, line)
