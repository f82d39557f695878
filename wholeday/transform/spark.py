"""The map of engine.py on Spark: its executors do the parts, and redo those of an executor that died.

Owns how Spark is reached, what its executors need, and what it says in one line when it fails. What is mapped is the
same function as on this machine; executors find it in the same environment, and the days where this machine does.
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

PATIENCE = 5.0  # seconds in which a master answers; Spark itself would ask for more than a minute


def map_parts(function: Callable[[Job], Result], jobs: Sequence[Job], master: str) -> list[Result]:
    """`function` of each job, in the order of the jobs, on the cluster of `master`. Raises EngineError.

    The first error of a job is raised as it was, when all are done. Memory: a job a core of the executors.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
    except ModuleNotFoundError as error:
        raise EngineError(
            "[pipeline] engine = spark: pyspark is not installed: install the extra spark, as in "
            ".venv/bin/pip install --editable '.[spark]'"
        ) from error
    _check_java()
    _check_master(master)
    try:
        context = _open(master)
        done = context.parallelize(jobs, len(jobs)).map(functools.partial(_attempt, function)).collect()
    except (Py4JError, PySparkException) as error:
        _close()
        raise EngineError(f"Spark at {master}: {_explain(error)}: mend that and run the day again") from error
    for _, problem in done:
        if problem:
            raise problem
    return [result for result, _ in done]


def _attempt(function: Callable[[Job], Result], job: Job) -> tuple[Any, Exception | None]:
    """The result of a job, or the error: it is no reason for Spark to try again."""
    try:
        return function(job), None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the map was called
        error.add_note(traceback.format_exc())
        return None, error


@functools.cache
def _open(master: str) -> "SparkContext":
    """The connection to a master, for all days of this process."""
    from pyspark import SparkConf, SparkContext

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its part for pandas, which is not used, knows an older one
        SparkContext._ensure_initialized()  # so that spark-defaults.conf is read, and goes before what is set here
        conf = SparkConf().setMaster(master).setAppName("wholeday").set("spark.ui.showConsoleProgress", "false")
    conf.setIfMissing("spark.ui.enabled", "false")  # it has no password, and a button that ends the work
    conf.setIfMissing("spark.executorEnv.PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
    return SparkContext(conf=conf)


def _close() -> None:
    """Let go of a connection after a failure, so that the next day opens its own."""
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
    """Raise EngineError where none of the masters of a cluster of Spark's own listens."""
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
    """The line that tells most, of all that Spark, Java and Python say: the last error of Python's, else the first."""
    lines = [line.strip(" :") for line in str(error).splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    ours = [line for line in errors if not line.startswith(("org.", "java."))]
    return (ours[-1:] or errors[:1] or lines[:1])[0]
