"""Some days under Luigi in one go, and what becomes of each of them.

Owns what passes between Luigi's worker and its scheduler, be that in this process or luigid: there it hears which day
is begun, loaded or failed, from whatever process, and there it stops the worker between two days. Refuses to judge: a
day is loaded when the warehouse says so.
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

from wholeday.log import luigi_talk
from wholeday.tasks.dataset import Dataset
from wholeday.tasks.day_tasks import Load
from wholeday.tasks.stop import Stop
from wholeday.transform import parts

Tell = Callable[[dt.date, str | None], None]
"""Hears of a day that it is loaded, or for what cause it failed."""

LIBRARIES = ("wholeday.transform.rows", "wholeday.load.warehouse", "pyarrow.parquet", "sqlalchemy")
NOTHING_MORE: dict[str, Any] = {
    "task_id": None,
    "running_tasks": [],
    "n_pending_tasks": 0,
    "n_unique_pending": 0,
    "worker_state": "active",
}


def run_block(load: type[Load], days: Sequence[dt.date], workers: int, stop: Stop, tell: Tell) -> None:
    """Run the Load tasks of these days, and all that they need; when asked to stop, to the end of the days begun."""
    factory = _Factory(load.get_task_family(), stop, tell)
    with luigi_talk.silence():
        luigi.build([load(date=day) for day in days], factory, workers=workers)


def prepare_children(dataset: Dataset) -> None:
    """Import the libraries of the stages, and check the dataset: each task is a child that would do so again.

    Raises DatasetError or ConfigError where no day of the dataset could be loaded.
    """
    if multiprocessing.get_start_method() == "fork":
        for name in LIBRARIES:
            importlib.import_module(name)
        parts.check_clean(dataset, dataset.config().deleted_when)
    else:  # it means nothing to spawn
        multiprocessing.set_forkserver_preload(["pipeline", *LIBRARIES])


class _Factory:
    """What Luigi makes its scheduler and its worker with."""

    def __init__(self, family: str, stop: Stop, tell: Tell) -> None:
        self._listen = lambda scheduler: _Listener(scheduler, family, stop, tell)

    def create_local_scheduler(self) -> "_Listener":
        return self._listen(Scheduler(prune_on_get_work=True, record_task_history=False))

    def create_remote_scheduler(self, url: str) -> "_Listener":
        return self._listen(RemoteScheduler(url))

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> Worker:
        return Worker(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


class _Listener:
    """A scheduler, to the worker; it passes everything on to the true one."""

    def __init__(self, scheduler: Any, family: str, stop: Stop, tell: Tell) -> None:
        self._scheduler, self._family, self._stop, self._tell = scheduler, family, stop, tell
        self._days: dict[str, dt.date] = {}
        self._open: set[dt.date] = set()
        """Days that are begun, and neither loaded nor failed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """In a process that is not forked there is nothing to be heard: it gets the true one."""
        return _pass, (self._scheduler,)

    def add_task(self, **said: Any) -> Any:
        if "params" in said:  # a tracking link comes without
            day = self._days[said["task_id"]] = dt.date.fromisoformat(said["params"]["date"])
            if said["status"] == FAILED:
                self._close(day, find_cause(json.loads(said["expl"])))
            elif said["status"] == DONE and said["family"] == self._family:
                self._close(day, None)
        return self._scheduler.add_task(**said)

    def announce_scheduling_failure(self, **said: Any) -> Any:
        self._close(dt.date.fromisoformat(said["params"]["date"]), find_cause(said["expl"]))
        return self._scheduler.announce_scheduling_failure(**said)

    def get_work(self, **asked: Any) -> Any:
        if self._stop and len(self._open) <= len(asked["current_tasks"]):
            return NOTHING_MORE
        work = self._scheduler.get_work(**asked)
        # What another worker of luigid has is waited for too, or it would be missing here and be loaded a moment later.
        work["n_pending_tasks"] += len(work["running_tasks"])
        if work["task_id"] in self._days:
            self._open.add(self._days[work["task_id"]])
        return work

    def _close(self, day: dt.date, cause: str | None) -> None:
        self._open.discard(day)
        self._tell(day, cause)


def _pass(scheduler: Any) -> Any:
    return scheduler


def find_cause(text: str) -> str:
    """The line of what Luigi is told of a failure: an expected error is one line, or the last of a traceback."""
    *_, line = text.strip().splitlines() or ["for no cause that it named"]
    return re.sub(r"^wholeday\.errors\.\w+: ", "", line)
