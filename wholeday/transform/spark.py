"""Map a function over the parts of a day on Spark, whose executors repeat the parts of an executor that died.

Responsibilities: connect to Spark, pass executors what they need, and turn a failure into one line.
Non-goals: another function than on this machine. Executors need the same environment and the same paths to the days.
"""

import functools
import os
import re
import shutil
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wholeday.errors import EngineError

if TYPE_CHECKING:
    from pyspark import SparkContext

Job = TypeVar("Job")
Result = TypeVar("Result")

PATIENCE = 5.0  # seconds to wait for a master; Spark itself would wait for more than a minute


def map_parts(function: Callable[[Job], Result], jobs: Sequence[Job], master: str) -> list[Result]:
    """Return the result of `function` for each job, in their order, from the cluster of `master`. Raises EngineError.

    The first error of a job is raised unchanged once all jobs are done. Memory: one job per core of the executors.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
    except ModuleNotFoundError as error:
        raise EngineError(
            "[pipeline] engine = spark: pyspark is not installed: pip install 'pyspark>=4.3,<4.4'"
        ) from error
    _check_java()
    _check_master(master)
    try:
        context = _open(master)
        done = context.parallelize(jobs, len(jobs)).map(functools.partial(_attempt, function)).collect()
    except (Py4JError, PySparkException) as error:
        _close()
        raise EngineError(f"Spark at {master}: {_explain(error)}: fix the cause, then run the day again") from error
    for _, problem in done:
        if problem:
            raise problem
    return [result for result, _ in done]


def _attempt(function: Callable[[Job], Result], job: Job) -> tuple[Any, Exception | None]:
    """Return the result of a job, or its error, so that Spark does not try the job again."""
    try:
        return function(job), None
    except Exception as error:  # noqa: BLE001 - `map_parts` raises it
        error.add_note(traceback.format_exc())
        return None, error


@functools.cache
def _open(master: str) -> "SparkContext":
    """Connect to a master. All days of this process share the connection."""
    from pyspark import SparkConf, SparkContext

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about pandas, which is not used through Spark
        SparkContext._ensure_initialized()  # reads spark-defaults.conf, which takes precedence
        conf = SparkConf().setMaster(master).setAppName("wholeday").set("spark.ui.showConsoleProgress", "false")
    conf.setIfMissing("spark.ui.enabled", "false")  # it has no password, and a button that stops the work
    conf.setIfMissing("spark.executorEnv.PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
    return SparkContext(conf=conf)


def _close() -> None:
    """Close the connection after a failure, so that the next day opens a new one."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context:
        SparkContext._active_spark_context.stop()
    _open.cache_clear()


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if shutil.which(Path(home, "bin", "java") if home else "java") is None:
        where = f"JAVA_HOME = {home} has no bin/java" if home else "there is no java on the PATH"
        raise EngineError(f"[pipeline] engine = spark: {where}: install Java 17, or set JAVA_HOME to its folder")


def _check_master(master: str) -> None:
    """Raise EngineError if `master` names masters of a Spark cluster and none of them answers."""
    problems = []
    for place in master.removeprefix("spark://").split(",") if master.startswith("spark://") else ():
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except (OSError, ValueError) as error:
            problems.append(f"{place}: {error}")
        else:
            return
    if problems:
        raise EngineError(
            f"[pipeline] spark_master = {master}: no master answers there ({'; '.join(problems)}): start it, or name "
            f"another"
        )


def _explain(error: Exception) -> str:
    """Pick the most useful line of a Spark error: the last Python error, else the first line."""
    lines = [line.strip(" :") for line in str(error).splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    ours = [line for line in errors if not line.startswith(("org.", "java."))]
    return (ours[-1:] or errors[:1] or lines[:1])[0]
