"""Run a batch of days under Luigi, and report the result of each day as it comes.

*Responsibilities*: the messages between Luigi's worker and its scheduler, which is in this process or luigid. They say
which day starts, is loaded or fails, in any process. A worker is stopped between two days.
*Non-goals*: deciding whether a day is loaded. The warehouse says so.
"""

import datetime as dt
import importlib
import json
import multiprocessing
import re
from collections.abc import Callable, Sequence
from typing import Any

import luigi
from luigi.rpc import RemoteScheduler
from luigi.scheduler import Scheduler
from luigi.task_status import DONE, FAILED
from luigi.worker import Worker

from wholeday.schema.dataset import Dataset
from wholeday.tasks.console import luigi_messages
from wholeday.tasks.day_tasks import Load
from wholeday.tasks.stop import Stop
from wholeday.transform import parts

OnResult = Callable[[dt.date, str | None], None]
"""Called with a day and the cause of its failure; the cause is None if the day is loaded."""

LIBRARIES = ("wholeday.transform.rows", "wholeday.load.warehouse", "pyarrow.parquet", "sqlalchemy")
NO_WORK: dict[str, Any] = {
    "task_id": None,
    "running_tasks": [],
    "n_pending_tasks": 0,
    "n_unique_pending": 0,
    "worker_state": "active",
}
"""A scheduler's answer that ends a worker."""


def run_batch(load: type[Load], days: Sequence[dt.date], workers: int, stop: Stop, on_result: OnResult) -> None:
    """Run the Load tasks of some days, with all tasks that they need. On `stop`, finish the running days only."""
    factory = _Factory(load.get_task_family(), stop, on_result)
    with luigi_messages.hide_summary():
        luigi.build([load(date=day) for day in days], factory, workers=workers)


def prepare_children(dataset: Dataset) -> None:
    """Import the libraries of the stages and check the dataset, once for all child processes.

    Raises DatasetError or ConfigError if no day of the dataset can be loaded.
    """
    if multiprocessing.get_start_method() == "fork":
        for name in LIBRARIES:
            importlib.import_module(name)
        parts.check_clean(dataset, dataset.config().deleted_when)
    else:  # has no effect with spawn
        multiprocessing.set_forkserver_preload(["pipeline", *LIBRARIES])


class _Factory:
    """Creates the scheduler and the worker for Luigi."""

    def __init__(self, family: str, stop: Stop, on_result: OnResult) -> None:
        self._listen = lambda scheduler: _Listener(scheduler, family, stop, on_result)

    def create_local_scheduler(self) -> "_Listener":
        return self._listen(Scheduler(prune_on_get_work=True, record_task_history=False))

    def create_remote_scheduler(self, url: str) -> "_Listener":
        return self._listen(RemoteScheduler(url))

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> Worker:
        return Worker(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


class _Listener:
    """Stands between a worker and its scheduler, passes every call on, and reports the results of days."""

    def __init__(self, scheduler: Any, family: str, stop: Stop, on_result: OnResult) -> None:
        self._scheduler, self._family, self._stop, self._on_result = scheduler, family, stop, on_result
        self._days: dict[str, dt.date] = {}
        self._running: set[dt.date] = set()
        """Days that have started and are neither loaded nor failed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give a process that is not forked the real scheduler: it cannot report to this one."""
        return _identity, (self._scheduler,)

    def add_task(self, **kwargs: Any) -> Any:
        if "params" in kwargs:  # absent when the task sets its tracking link
            day = self._days[kwargs["task_id"]] = dt.date.fromisoformat(kwargs["params"]["date"])
            if kwargs["status"] == FAILED:
                self._finish(day, extract_cause(json.loads(kwargs["expl"])))
            elif kwargs["status"] == DONE and kwargs["family"] == self._family:
                self._finish(day, None)
        return self._scheduler.add_task(**kwargs)

    def announce_scheduling_failure(self, **kwargs: Any) -> Any:
        self._finish(dt.date.fromisoformat(kwargs["params"]["date"]), extract_cause(kwargs["expl"]))
        return self._scheduler.announce_scheduling_failure(**kwargs)

    def get_work(self, **kwargs: Any) -> Any:
        if self._stop and len(self._running) <= len(kwargs["current_tasks"]):
            return NO_WORK
        work = self._scheduler.get_work(**kwargs)
        # Wait for the days of other workers of luigid, too: else a day would be reported as not loaded, and load later.
        work["n_pending_tasks"] += len(work["running_tasks"])
        if work["task_id"] in self._days:
            self._running.add(self._days[work["task_id"]])
        return work

    def _finish(self, day: dt.date, cause: str | None) -> None:
        self._running.discard(day)
        self._on_result(day, cause)


def _identity(scheduler: Any) -> Any:
    return scheduler


def extract_cause(text: str) -> str:
    """Return the cause in Luigi's explanation of a failure: its last line, as an expected error is one line."""
    *_, line = text.strip().splitlines() or ["no cause was given"]
    return re.sub(r"^wholeday\.errors\.\w+: ", "", line)
