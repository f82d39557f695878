"""Map a function over the parts of a day: in processes of this machine or, through `spark`, on a cluster.

Responsibilities: where and in how many processes the work runs.
Non-goals: the work itself. It is any function of one argument that can be imported by its name.
"""

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import TypeVar

from wholeday.errors import EngineError

KILLED = (
    "a worker process was killed, perhaps for lack of memory: run the day again, "
    "with a smaller part_records or fewer engine_workers"
)

Job = TypeVar("Job")
Result = TypeVar("Result")

# With fewer parts, worker processes cost more (each imports pandas) than they save.
MIN_PARTS = 8
# Not fork: Luigi has running threads, and a fork among threads can hang.
CONTEXT = multiprocessing.get_context("forkserver")


def prepare(imports: Sequence[str]) -> None:
    """Start the server from which workers are forked, with these modules imported, while this process does other work.

    Do nothing in a process that was itself started for one task: it starts no workers.
    """
    if multiprocessing.parent_process() is None:
        CONTEXT.set_forkserver_preload(list(imports))
        forkserver.ensure_running()


def start(function: Callable[[], object]) -> Callable[[], None]:
    """Call a function in a process of its own. Return a function that raises its error, as soon as there is one.

    A process that was itself started for one task calls the function directly. Memory: one process.
    """
    if multiprocessing.parent_process() is not None:
        function()
        return lambda: None
    pool = ProcessPoolExecutor(1, mp_context=CONTEXT, initializer=_initialise)
    future = pool.submit(function)
    pool.shutdown(wait=False)

    def check() -> None:
        if future.done():
            try:
                future.result()
            except BrokenProcessPool as error:
                raise EngineError(KILLED) from error

    return check


def map_parts(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int = 0,
    imports: Sequence[str] = (),
    spark_master: str = "",
) -> list[Result]:
    """Return the result of `function` for each job, in their order. Memory: one job per worker.

    `workers` processes do the work, 0 for one per core; Spark does it if `spark_master` is given. `imports` names the
    modules that the function needs; the workers share them, and `prepare` may have imported them already. The first
    error is raised, and no further job begins.
    """
    if spark_master and len(jobs) >= MIN_PARTS:
        from wholeday.transform import spark

        return spark.map_parts(function, jobs, spark_master)
    workers = count_workers(workers, len(jobs))
    if workers == 1:
        return [function(job) for job in jobs]
    CONTEXT.set_forkserver_preload(list(imports))
    with open_pool(workers) as pool:
        try:
            return list(pool.map(function, jobs))
        except BrokenProcessPool as error:
            raise EngineError(KILLED) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def open_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of worker processes, which share what `prepare` has imported."""
    return ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=_initialise)


def count_workers(workers: int, jobs: int) -> int:
    """Return how many processes share the jobs, at most `workers` (0: one per core). 1 means this process alone."""
    return min(workers or os.cpu_count() or 1, jobs) if jobs >= MIN_PARTS else 1


def _initialise() -> None:
    """Set up a worker process.

    Freeze the objects it shares with the other workers: the garbage collector would copy them, 20 MB a worker. End the
    worker when its parent ends; after a SIGKILL of the parent it would wait for work for ever.
    """
    gc.freeze()
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
