"""The Spark engine writes the same bytes as local processes, survives lost workers, and fails with one line."""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from luigi.configuration import get_config

from pipeline.users import USERS
from tests.support import find_port
from tests.support.bucket import ENVIRONMENT, open_bucket
from tests.support.project import dump_tree, dump_warehouse, luigi_run, start_alone
from wholeday.errors import DatasetError, EngineError
from wholeday.storage.names import strip_run
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import parts
from wholeday.transform.executor import MIN_PARTS, map_parts
from wholeday.transform.parts import PartJob, PartResult

DAY = dt.date(2026, 10, 31)
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=500"
PARTS = 12

Configure = Callable[..., None]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]


class Cluster(NamedTuple):
    """A standalone Spark master and its workers."""

    master: str
    workers: "list[subprocess.Popen[bytes]]"


@contextlib.contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a master with two workers of one core."""
    port, web = find_port(), find_port()
    url = f"spark://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:

        def launch(*arguments: str) -> "subprocess.Popen[bytes]":
            program = Path(find_spec("pyspark").origin).parent / "bin" / "spark-class"
            log = stack.enter_context((folder / f"{arguments[0].rpartition('.')[2]}-{find_port()}.log").open("wb"))
            command = [program, f"org.apache.spark.deploy.{arguments[0]}", "--host", "127.0.0.1", *arguments[1:]]
            # A session of its own, so that killing it also stops its executors and their processes.
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
            stack.callback(process.wait)
            stack.callback(kill, process)
            return process

        launch("master.Master", "--port", str(port), "--webui-port", str(web))
        worker = ("worker.Worker", "--cores", "1", "--memory", "1g", "--work-dir", str(folder), url)
        workers = [launch(worker[0], "--webui-port", str(find_port()), *worker[1:]) for _ in range(2)]
        deadline = time.monotonic() + 60
        while count_workers(web) < len(workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield Cluster(url, workers)


def count_workers(web: int) -> int:
    """Return the number of workers that the master knows."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{web}/json/", timeout=5) as answer:
        return json.load(answer)["aliveworkers"]
    return 0


def kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_killed_worker_does_not_change_the_files(configure: Configure, tmp_path: Path) -> None:
    """Both workers have finished parts when one is killed. Spark repeats its unfinished parts."""
    extract(configure)
    stages.transform(read_workspace(USERS), DAY)
    clean = read_workspace(USERS).folder("clean", DAY).path
    local = dump_tree(str(clean))
    shutil.rmtree(clean)
    with open_cluster(tmp_path) as cluster:
        command = run_here(f"test_spark.transform({cluster.master!r})")
        deadline = time.monotonic() + 120
        done = 0
        while command.poll() is None and not (done and len(list_workers(clean)) == 2) and time.monotonic() < deadline:
            time.sleep(0.02)
            done = len(list(clean.glob("part-*.parquet")))
        kill(cluster.workers[0])
        _, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert 0 < done < PARTS - 3
    assert "Lost executor" in err
    assert "[Stage" not in err  # no progress bar in a log
    for note in clean.glob("note-*"):
        note.unlink()
    assert dump_tree(str(clean)) == local
    assert len(local) > PARTS


def list_workers(clean: Path) -> set[str]:
    """Return the processes that have transformed parts."""
    return {note.name.rpartition("-")[2] for note in clean.glob("note-*")}


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
def test_error_of_a_part_fails_the_day() -> None:
    """Covers an expected error, a bug with its traceback, and a killed process. Spark remains usable."""
    command = run_here("test_spark.tell(*map(test_spark.__dict__.get, ['fail', 'stumble', 'die', 'square']))")
    out, err = command.communicate(timeout=200)
    assert command.returncode == 0, err
    expected, bug, dead, results = map(json.loads, out.splitlines())
    assert expected[:2] == ["DatasetError", "part 3 is wrong"]
    assert bug[:2] == ["ZeroDivisionError", "integer division or modulo by zero"]
    assert "in stumble" in bug[2][0]
    assert dead[0] == "EngineError"
    assert dead[1].startswith("Spark at local[2]: ")
    assert dead[1].endswith("fix the cause, then run the day again")
    assert results == [number * number for number in range(8)]


def test_few_parts_are_transformed_locally() -> None:
    """No Spark master is contacted."""
    assert map_parts(square, range(MIN_PARTS - 1), spark_master="spark://127.0.0.1:1") == [0, 1, 4, 9, 16, 25, 36]


def test_missing_pyspark_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("py4j.protocol", "pyspark.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"engine = spark: pyspark is not installed: .*pip install .*'\.\[spark\]'"):
        map_parts(square, range(8), spark_master="local[2]")


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
