"""The Spark engine writes the same bytes as local processes, survives lost workers, and fails with one line."""

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from luigi.configuration import get_config

from pipeline.users import USERS
from tests.support import read_extra
from tests.support.bucket import ENVIRONMENT, open_bucket
from tests.support.forge import ISSUES, REPOS, TOKEN, Forge, write_sections
from tests.support.project import dump_tree, dump_warehouse, luigi_run, run_stages, start_alone
from tests.support.reading import DAY as FORGE_DAY
from tests.support.server import Server
from wholeday import clock
from wholeday.errors import DatasetError, EngineError
from wholeday.extract.http.client import Client
from wholeday.storage.names import strip_run
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import parts, spark
from wholeday.transform.executor import MIN_PARTS, map_parts
from wholeday.transform.parts import PartJob, PartResult

DAY = dt.date(2026, 10, 31)
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=500"
PARTS = 12

Configure = Callable[..., None]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]


def extract(configure: Configure) -> None:
    """Extract a day into many raw parts."""
    configure("users", url=URL)
    configure("pipeline", part_records=500 // PARTS, engine_workers=1)
    stages.extract(read_workspace(USERS), DAY)


def transform_part_slowly(job: PartJob) -> PartResult:
    """Transform a part in an executor, and create a file that names the process."""
    time.sleep(0.2)
    Path(job.clean.path, f"note-{job.number}-{os.getpid()}").touch()
    return parts.transform_part(job)


def transform(master: str) -> None:
    """Transform the day on a cluster."""
    for key, value in {"engine": "spark", "spark_master": master}.items():
        get_config().set("pipeline", key, value)
    parts.transform_part = transform_part_slowly
    stages.transform(read_workspace(USERS), DAY)
    spark._close()


def fail(number: int) -> int:
    if number == 3:
        raise DatasetError("part 3 is wrong")
    return number


def stumble(number: int) -> int:
    return 1 // (number - 3)


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def square(number: int) -> int:
    return number * number


def tell(*functions: Callable[[int], int]) -> None:
    """Map each function on Spark, and print its results, or its error with notes."""
    for function in functions:
        try:
            print(map_parts(function, range(8), spark_master="local[2]"))
        except Exception as error:  # noqa: BLE001 - printed for the test
            print(json.dumps([type(error).__name__, str(error), getattr(error, "__notes__", [])]))


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_killed_executor_and_failed_parts(configure: Configure) -> None:
    """Both executors have begun parts when one is killed. Spark repeats its unfinished parts: the files are the same.

    The cluster is Spark's own for tests: its master and two workers of one core share the process of the driver. The
    same process then meets an expected error, a bug with its traceback, and a killed process. Spark remains usable.
    """
    extract(configure)
    stages.transform(read_workspace(USERS), DAY)
    clean = read_workspace(USERS).folder("clean", DAY).path
    local = dump_tree(str(clean))
    shutil.rmtree(clean)
    failing = "test_spark.tell(*map(test_spark.__dict__.get, ['fail', 'stumble', 'die', 'square']))"
    command = run_here(f"test_spark.transform('local-cluster[2,1,1024]'); {failing}")
    deadline = time.monotonic() + 120
    done = 0
    while command.poll() is None and not (done and len(list_workers(clean)) == 2) and time.monotonic() < deadline:
        time.sleep(0.02)
        done = len(list(clean.glob("part-*.parquet")))
    kill_executor(int(min(list_workers(clean))))
    out, err = command.communicate(timeout=200)
    assert command.returncode == 0, err
    assert 0 < done < PARTS - 3
    assert "Lost executor" in err
    assert "[Stage" not in err  # no progress bar in a log
    for note in clean.glob("note-*"):
        note.unlink()
    assert dump_tree(str(clean)) == local
    assert len(local) > PARTS
    expected, bug, dead, results = map(json.loads, out.splitlines())
    assert expected[:2] == ["DatasetError", "part 3 is wrong"]
    assert bug[:2] == ["ZeroDivisionError", "integer division or modulo by zero"]
    assert "in stumble" in bug[2][0]
    assert dead[0] == "EngineError"
    assert dead[1].startswith("Spark at local[2]: ")
    assert dead[1].endswith("fix the cause, then run the day again")
    assert results == [number * number for number in range(8)]


def list_workers(clean: Path) -> set[str]:
    """Return the processes that have transformed parts."""
    return {note.name.rpartition("-")[2] for note in clean.glob("note-*")}


def kill_executor(worker: int) -> None:
    """Kill the executor of a process that transforms parts."""
    (executor,) = (each for each in psutil.Process(worker).parents() if "ExecutorBackend" in " ".join(each.cmdline()))
    executor.kill()


def run_here(code: str) -> "subprocess.Popen[str]":
    """Start a process that imports this file and runs code, so that its JVM ends with it."""
    return start_alone(
        "python", "-c", f"from tests.integration import test_spark; {code}", PYTHONPATH=os.environ["PYTHONPATH"]
    )


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_spark_with_a_bucket_equals_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are equal, and the parts have the same names and bytes."""
    flags = ("LoadUsers", "--date", str(DAY), "--users-url", URL, "--pipeline-part-records", "50")
    assert luigi_run(*flags).returncode == 0
    local, rows = dump_tree("data/clean"), dump_warehouse()
    shutil.rmtree("data")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with open_bucket() as bucket:
        place = bucket.make_place()
        spark_flags = ("--pipeline-engine", "spark", "--pipeline-spark-master", "local[2]")
        done = luigi_run(*flags, *spark_flags, "--pipeline-data-dir", place)
        assert done.returncode == 0, done.stderr
        there = bucket.dump(place)
    assert dump_warehouse() == rows
    parts = {path.removeprefix("data/"): content for path, content in local.items() if "/part" in path}
    assert {
        strip_run(key): content for key, content in there.items() if key.startswith("clean") and "/part" in key
    } == parts
    assert len(parts) >= MIN_PARTS


@pytest.mark.usefixtures("spark")
def test_columns_of_parents_reach_the_workers(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local processes make the same rows."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    forge = Forge(server, repos=12, issues=60, per_page=10)
    write_sections(configure, forge)
    configure("pipeline", part_records=60 // MIN_PARTS, engine_workers=1)
    now = dt.datetime.combine(FORGE_DAY + dt.timedelta(days=1), dt.time(1), dt.UTC)
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    monkeypatch.setattr(Client, "_check_clock", lambda *_: None)
    for dataset in (REPOS, ISSUES):
        run_stages(dataset, FORGE_DAY)
    before = dump_tree("data/clean/issues")
    assert len(before) > MIN_PARTS
    read_workspace(ISSUES).folder("clean", FORGE_DAY).remove()
    configure("pipeline", spark_master="local[2]")
    stages.transform(read_workspace(ISSUES), FORGE_DAY, "spark")
    spark._close()
    assert dump_tree("data/clean/issues") == before


def test_few_parts_are_transformed_locally() -> None:
    """No Spark master is contacted."""
    assert map_parts(square, range(MIN_PARTS - 1), spark_master="spark://127.0.0.1:1") == [0, 1, 4, 9, 16, 25, 36]


def test_missing_pyspark_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("py4j.protocol", "pyspark.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"pyspark is not installed: pip install '{read_extra('spark')}'$"):
        map_parts(square, range(8), spark_master="local[2]")


def test_one_master_that_answers_is_enough() -> None:
    """A cluster may name several masters. One of them is in charge."""
    with socket.create_server(("127.0.0.1", 0)) as master:
        spark._check_master(f"spark://127.0.0.1:1,127.0.0.1:{master.getsockname()[1]}")


@pytest.mark.usefixtures("spark")
def test_missing_java_or_master_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Spark itself takes more than a minute, and prints a long log."""
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"spark_master = spark://127.0.0.1:1,nowhere: no master answers.*refused"):
        map_parts(square, range(8), spark_master="spark://127.0.0.1:1,nowhere")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match=r"JAVA_HOME = .* has no bin/java: install Java 17"):
        map_parts(square, range(8), spark_master="local[2]")
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"there is no java on the PATH: install Java 17"):
        map_parts(square, range(8), spark_master="local[2]")
    assert time.monotonic() - began < 60
