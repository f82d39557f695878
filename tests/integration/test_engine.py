"""Test the executor, which maps a function over parts in local processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.project import run
from tests.support.reading import DAY
from wholeday.errors import DatasetError, EngineError
from wholeday.schema.dataset import Dataset
from wholeday.tasks.stages import read_workspace
from wholeday.transform.ahead import Ahead
from wholeday.transform.executor import MIN_PARTS, map_parts

pytestmark = pytest.mark.slow


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def square_in_company(number: int) -> tuple[int, int]:
    """Return only after two processes have started."""
    Path(f"pid-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path.cwd().glob("pid-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return square(number)


def fail(number: int) -> int:
    if number == 3:
        raise DatasetError("part 3 is wrong")
    return number


def test_results_keep_the_order_of_the_jobs():
    """Two processes share the jobs. The order of parts does not depend on them."""
    results = map_parts(square_in_company, range(20), workers=2)
    assert [value for value, _ in results] == [n * n for n in range(20)]
    assert len({pid for _, pid in results}) == 2
    assert os.getpid() not in {pid for _, pid in results}


def test_few_parts_run_in_this_process():
    """Starting a process would take longer than the work."""
    assert {pid for _, pid in map_parts(square, range(MIN_PARTS - 1), workers=2)} == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_error_of_a_part_is_raised_unchanged(workers):
    """No worker process is left behind."""
    with pytest.raises(DatasetError, match="part 3 is wrong"):
        map_parts(fail, range(20), workers=workers)
    assert multiprocessing.active_children() == []


def kill_oneself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_fails_with_one_line():
    """The system kills processes when memory runs out."""
    with pytest.raises(EngineError, match="a worker process was killed, perhaps for lack of memory"):
        map_parts(kill_oneself, range(8), workers=2)


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from wholeday.transform.executor import map_parts
from tests.integration.test_engine import tell_and_wait
map_parts(tell_and_wait, range(8), workers=2)
"""


def tell_and_wait(_: int) -> None:
    os.write(1, f"{os.getpid()}\n".encode())  # one call, so that lines of two processes do not mix
    time.sleep(60)


def test_workers_end_with_a_killed_parent():
    """No worker may hold memory or write files after its parent gets SIGKILL."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(is_alive, workers)):
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PREPARED = """
import sys
from multiprocessing import forkserver
from types import SimpleNamespace
from typing import Any
from wholeday.transform import executor
from wholeday.transform.ahead import Ahead
from pipeline.users import USERS
from wholeday.tasks.stages import read_workspace

import datetime as dt
tell = Ahead(read_workspace(USERS), dt.date(2026, 10, 31)).update
def prepare(records, total):
    tell(SimpleNamespace(records=records, total=total))
    return forkserver._forkserver._forkserver_pid

few = executor.MIN_PARTS * 16_000 - 16_000
early = prepare(1000, few + 1)
assert early and prepare(few + 1, None) == early
assert not {"pandas", "pyarrow"} & set(sys.modules)
executor.map_parts(abs, range(executor.MIN_PARTS), workers=2)
assert forkserver._forkserver._forkserver_pid == early
"""


SMALL = PREPARED.partition("early =")[0] + "assert prepare(1000, None) is prepare(few, few) is None"


def test_fork_server_starts_during_a_large_extraction():
    """It starts once, as soon as the declared total or the records so far show that the day is large."""
    done = subprocess.run([sys.executable, "-c", PREPARED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small = run("python", "-c", SMALL)
    assert small.returncode == 0, small.stderr


def misspell(_: pd.DataFrame) -> None:
    raise DatasetError("clean: no column nmae")


def test_large_day_checks_clean_in_another_process():
    """This process saves memory for the load, because it does not import pandas."""
    users = Dataset(USERS.name, USERS.record_class, misspell)
    tell, reading = Ahead(read_workspace(users), DAY).update, SimpleNamespace(records=1000, total=10**6)
    tell(reading)
    with pytest.raises(DatasetError, match="clean: no column nmae"):
        tell_for_a_minute(tell, reading)


def tell_for_a_minute(tell: Any, reading: Any) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        tell(reading)
        time.sleep(0.05)


ALONE = """
import multiprocessing
from multiprocessing import forkserver
from wholeday.transform import executor

def prepare():
    executor.prepare([])
    print(forkserver._forkserver._forkserver_pid)

process = multiprocessing.get_context("fork").Process(target=prepare)
process.start()
process.join()
"""


def test_worker_of_luigi_starts_no_fork_server():
    """A worker of Luigi runs a single task, and another process runs the next stage of the day."""
    done = run("python", "-c", ALONE)
    assert (done.stdout, done.stderr) == ("None\n", "")
