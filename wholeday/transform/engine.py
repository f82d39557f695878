"""Maps a function over the parts of a day, on the cores of this machine or, by spark.py, on Spark.

Owns where the work is done, and refuses to know what it is: a function of one argument, importable by
its name, and a list of such arguments.
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
    "a process of the engine was killed, perhaps for want of memory: run the day again, "
    "with a smaller part_records or fewer engine_workers"
)

Job = TypeVar("Job")
Result = TypeVar("Result")

# Below so many parts a process of its own costs more (it imports pandas) than it gains.
FEW = 8
# Not fork: Luigi has threads running, and a fork among threads can hang.
CONTEXT = multiprocessing.get_context("forkserver")


def prepare(imports: Sequence[str]) -> None:
    """Have the process made from which workers come, and what they need imported there, while this one does other work.

    It is this process's own: one that was started for a task alone will not come to use it, and makes none.
    """
    if multiprocessing.parent_process() is None:
        CONTEXT.set_forkserver_preload(list(imports))
        forkserver.ensure_running()


def start(function: Callable[[], object]) -> Callable[[], None]:
    """Call a function in a process of its own; returns a function that raises its error, once there is one.

    A process that was started for a task alone calls it itself, as it makes no others. Memory: a process.
    """
    if multiprocessing.parent_process() is not None:
        function()
        return lambda: None
    pool = ProcessPoolExecutor(1, mp_context=CONTEXT, initializer=_begin)
    future = pool.submit(function)
    pool.shutdown(wait=False)

    def look() -> None:
        if future.done():
            try:
                future.result()
            except BrokenProcessPool as error:
                raise EngineError(KILLED) from error

    return look


def map_parts(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int = 0,
    imports: Sequence[str] = (),
    spark_master: str = "",
) -> list[Result]:
    """`function` of each job, in the order of the jobs; `workers` processes, 0 for one a core, or on Spark.

    `imports` names the modules that the function needs: they are imported once, and shared by all processes; where
    `prepare` was told of them, they are already.
    The first error is raised, and what has not begun by then is not begun. Memory: a job a worker.
    """
    if spark_master and len(jobs) >= FEW:
        from wholeday.transform import spark

        return spark.map_parts(function, jobs, spark_master)
    workers = count_workers(workers, len(jobs))
    if workers == 1:
        return [function(job) for job in jobs]
    CONTEXT.set_forkserver_preload(list(imports))
    with ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=_begin) as pool:
        try:
            return list(pool.map(function, jobs))
        except BrokenProcessPool as error:
            raise EngineError(KILLED) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def count_workers(workers: int, jobs: int) -> int:
    """How many processes work on so many jobs, of those that may, 0 for one a core; 1: this one alone."""
    return min(workers or os.cpu_count() or 1, jobs) if jobs >= FEW else 1


def _begin() -> None:
    """What a worker does first.

    It keeps the collector from what it shares with the others, of which it would make a copy of its own, 20 MB. And as
    it would wait for work for ever if its parent were killed, it ends with its parent.
    """
    gc.freeze()
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
