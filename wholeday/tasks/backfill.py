"""Load the missing days of a range of any length, in batches, and report the result of each day as it comes.

Responsibilities: the days of one dataset to run, their batches, and the result of each day. Luigi's scheduling takes
quadratic time in the number of tasks; batches make it linear. A batch may also load days that its days need. The
messages between Luigi's worker and its scheduler, which is in this process or luigid, say which day starts, is loaded
or fails, in any process. A worker is stopped between two days.
Non-goals: deciding whether a day is loaded. The warehouse says so.
"""

import datetime as dt
import importlib
import json
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import luigi
from luigi.interface import core
from luigi.rpc import RemoteScheduler
from luigi.scheduler import Scheduler
from luigi.task import task_id_str
from luigi.task_status import DONE, FAILED
from luigi.worker import Worker

from wholeday import clock
from wholeday.days import list_span
from wholeday.extract import outage
from wholeday.log import count, logger
from wholeday.tasks.console import luigi_messages
from wholeday.tasks.day_tasks import STAGES, UNREACHABLE, Load, find_task
from wholeday.tasks.needs import list_needed
from wholeday.tasks.stop import Stop
from wholeday.transform import parts

BATCH_SIZE = 20  # days
DAYS_PER_WORKER = 10  # in a batch, at least: workers wait for each other at its end
NOT_RUN = ": not run, as"  # in the cause of a day that was not tried
NEEDS = f"{NOT_RUN} it needs "  # as a day of its parents is not loaded

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


class BackfillRun:
    """The days of a range, sorted by what is to be done with them.

    Before the run: `skipped` are loaded already, `not_closed` are not over yet, `past` are snapshots that cannot be
    fetched again, `todo` are to be run. After the run, each day of `todo` is in `done`, in `failed` with its cause, or
    in `not_run` with the reason, which is empty if the run was stopped before.
    """

    def __init__(self, load: type[Load], start: dt.date, stop: dt.date, undone: Sequence[Load] = ()) -> None:
        """Ask the warehouse once which days from `start` to the day before `stop` are loaded.

        The days that need one of the Load tasks in `undone` are not tried. Raises ConfigError, WarehouseError.
        """
        days = list_span(start, stop)
        loaded = set(load.bulk_complete(days))
        missing = [day for day in days if day not in loaded]
        settings, now = load.dataset.config(), clock.utc_now()
        list_needed(load.dataset)  # before anything is written, as this may raise
        self.load = load
        self.last_closed = settings.last_closed_day(now)
        self.past = load.workspace().list_past(missing, now)
        self.why_past = settings.describe_past(now)
        self.skipped = [day for day in days if day in loaded]
        self.todo = [day for day in missing if day <= self.last_closed and day not in self.past]
        self.not_closed = [day for day in missing if day > self.last_closed]
        self.done: list[dt.date] = []
        self.failed: dict[dt.date, str] = {}
        self.not_run: dict[dt.date, str] = dict(self._find_blocked(undone)) if undone else {}
        self.todo = [day for day in self.todo if day not in self.not_run]

    def _find_blocked(self, undone: Sequence[Load]) -> Iterator[tuple[dt.date, str]]:
        """Yield each day that needs one of these tasks, with the reason for not running it."""
        for day in self.todo:
            extract = find_task(self.load.dataset, "extract")(date=day)
            for task in extract.deps():
                if task in undone and not extract.complete():
                    days = "the same days" if task.date == day else task.date
                    yield day, f"needs {days} of {task.dataset.name}, not loaded"

    def list_undone(self) -> list[Load]:
        """List the Load tasks of the days that are not loaded after the run."""
        days = [*self.past, *self.not_closed, *self.failed, *self.not_run]
        return [self.load(date=day) for day in days]

    def run(self, workers: int, stop: Stop, on_result: OnResult) -> None:
        """Load the days, oldest first, and call `on_result` for each.

        An unreachable source ends the run at the first such day; after loaded days, at the second such day in a row.
        Failed days are tried again at the end, as an outage may be over by then. They are not if every day failed, nor
        under luigid, which has its own retries. `done`, `failed` and `not_run` are set even if this raises. Raises
        DatasetError or ConfigError if no day of the dataset can be loaded.
        """

        loaded_here: set[dt.date] = set()
        blocked: dict[dt.date, str] = {}
        """The days that need a day of the parents that failed in this run."""

        def note_result(day: dt.date, cause: str | None) -> None:
            if cause is None:
                loaded_here.add(day)
            elif NEEDS in cause:
                blocked[day] = cause.partition(NOT_RUN)[2].removeprefix(" it ")
                if UNREACHABLE in cause and core().local_scheduler:
                    stop.outage = cause
            elif NOT_RUN in cause:  # a worker had already taken the day when the outage began
                return
            else:
                self.failed[day] = cause
                if cause.startswith(UNREACHABLE) and core().local_scheduler:
                    stop.outage = cause
            on_result(day, cause)

        def run_batches(days: Sequence[dt.date]) -> None:
            size = max(BATCH_SIZE, DAYS_PER_WORKER * workers)
            for number in range(0, len(days), size):
                if not stop:
                    run_batch(self.load, days[number : number + size], workers, stop, note_result)

        try:
            if self.todo:
                _ = self.load.dataset.declared
                self.load.dataset.find_parents(self.load.dataset.config())
            if workers > 1 and self.todo:
                prepare_children(self.load)
            run_batches(self.todo)
            loaded_before = 0
            while stop.outage and not stop.asked and len(loaded_here) > loaded_before:
                loaded_before = len(loaded_here)
                logger.warning("%s: %s. Trying the next day", self.load.dataset.name, stop.outage)
                stop.outage = None
                outage.forget()
                tried = loaded_here | self.failed.keys() | blocked.keys()
                run_batches([day for day in self.todo if day not in tried])
            again = sorted({*self.failed, *blocked} - loaded_here)
            if core().local_scheduler and 0 < len(again) < len(self.todo) and not stop:
                days = count(len(again), "day")
                logger.warning("%s: %s failed. Trying again, as an outage may be over", self.load.dataset.name, days)
                run_batches(again)
        finally:
            loaded = set(self.load.bulk_complete(self.todo))
            self.done = [day for day in self.todo if day in loaded]
            self.failed = {day: self.failed[day] for day in sorted(self.failed.keys() - loaded)}
            left = [day for day in self.todo if day not in loaded and day not in self.failed]
            self.not_run |= {day: blocked.get(day, "") for day in left}


def run_batch(load: type[Load], days: Sequence[dt.date], workers: int, stop: Stop, on_result: OnResult) -> None:
    """Run the Load tasks of some days, with all tasks that they need. On `stop`, finish the running days only."""
    factory = _Factory(load, stop, on_result)
    with luigi_messages.hide_summary():
        luigi.build([load(date=day) for day in days], factory, workers=workers)


def prepare_children(load: type[Load]) -> None:
    """Import the libraries of the stages and check the dataset, once for all child processes.

    Raises DatasetError or ConfigError if no day of the dataset can be loaded.
    """
    if multiprocessing.get_start_method() == "fork":
        for name in LIBRARIES:
            importlib.import_module(name)
        parts.check_clean(load.workspace().conversion)
    else:  # has no effect with spawn
        multiprocessing.set_forkserver_preload(["pipeline", *LIBRARIES])


class _Factory:
    """Creates the scheduler and the worker for Luigi."""

    def __init__(self, load: type[Load], stop: Stop, on_result: OnResult) -> None:
        self._listen = lambda scheduler: _Listener(scheduler, load, stop, on_result)

    def create_local_scheduler(self) -> "_Listener":
        return self._listen(Scheduler(prune_on_get_work=True, record_task_history=False))

    def create_remote_scheduler(self, url: str) -> "_Listener":
        return self._listen(RemoteScheduler(url))

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> Worker:
        return Worker(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)


class _Listener:
    """Stands between a worker and its scheduler, passes every call on, and reports the results of days."""

    def __init__(self, scheduler: Any, load: type[Load], stop: Stop, on_result: OnResult) -> None:
        self._scheduler, self._stop, self._on_result = scheduler, stop, on_result
        self._name = load.dataset.name
        needed = list_needed(load.dataset)
        self._others = {find_task(each, stage).get_task_family(): each.name for each in needed for stage in STAGES}
        """The datasets of the tasks of other datasets, by their families."""
        self._loads = {load.get_task_family(), *(find_task(each, Load.stage).get_task_family() for each in needed)}
        self._days: dict[str, tuple[str, dt.date]] = {}
        """The dataset and the day of each task."""
        self._needs: dict[str, list[str]] = {}
        self._running: set[tuple[str, dt.date]] = set()
        """Days that have started and are neither loaded nor failed, of each dataset."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give a process that is not forked the real scheduler: it cannot report to this one."""
        return _identity, (self._scheduler,)

    def add_task(self, **kwargs: Any) -> Any:
        if "params" in kwargs:  # absent when the task sets its tracking link
            task = self._note_task(kwargs["family"], kwargs["params"])
            self._needs[task] = kwargs.get("deps") or self._needs.get(task, [])
            if kwargs["status"] == FAILED:
                self._finish(task, extract_cause(json.loads(kwargs["expl"])))
            elif kwargs["status"] == DONE and kwargs["family"] in self._loads:
                self._finish(task, None)
        return self._scheduler.add_task(**kwargs)

    def announce_scheduling_failure(self, **kwargs: Any) -> Any:
        self._finish(self._note_task(kwargs["family"], kwargs["params"]), extract_cause(kwargs["expl"]))
        return self._scheduler.announce_scheduling_failure(**kwargs)

    def _note_task(self, family: str, params: dict[str, str]) -> str:
        """Note the dataset and the day of a task. Return its id."""
        task = task_id_str(family, params)
        self._days[task] = self._others.get(family, self._name), dt.date.fromisoformat(params["date"])
        return task

    def get_work(self, **kwargs: Any) -> Any:
        if self._stop and len(self._running) <= len(kwargs["current_tasks"]):
            return NO_WORK
        work = self._scheduler.get_work(**kwargs)
        # Wait for the days of other workers of luigid, too: else a day would be reported as not loaded, and load later.
        work["n_pending_tasks"] += len(work["running_tasks"])
        if work["task_id"] in self._days:
            self._running.add(self._days[work["task_id"]])
        return work

    def _finish(self, task: str, cause: str | None) -> None:
        """Report a day that is loaded or failed. A failed day of another dataset is one of the days that need it."""
        name, day = self._days[task]
        self._running.discard((name, day))
        if name == self._name:
            self._on_result(day, cause)
        elif cause is not None and NOT_RUN not in cause:
            why = cause.replace(f"{name} {day}: ", "", 1)
            for waiting in self._list_waiting(task):
                self._on_result(waiting, f"{self._name} {waiting}{NEEDS}{name} {day}: {why}")

    def _list_waiting(self, task: str) -> list[dt.date]:
        """List the days of the dataset that need a task of another one."""
        waiting, size = {task}, 0
        while len(waiting) > size:
            size = len(waiting)
            waiting |= {each for each, needs in self._needs.items() if not waiting.isdisjoint(needs)}
        return sorted({day for name, day in map(self._days.__getitem__, waiting) if name == self._name})


def _identity(scheduler: Any) -> Any:
    return scheduler


def extract_cause(text: str) -> str:
    """Return the cause in Luigi's explanation of a failure: its last line, as an expected error is one line."""
    *_, line = text.strip().splitlines() or ["no cause was given"]
    return re.sub(r"^wholeday\.errors\.\w+: ", "", line)
