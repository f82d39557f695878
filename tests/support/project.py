"""Run commands of the project and luigid in the current folder, and read the warehouse and files."""

import contextlib
import datetime as dt
import http.client
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import ROOT, databases, find_port
from tests.support.launcher import Command
from wholeday.commands import cli
from wholeday.config.pipeline import Pipeline
from wholeday.load.database import find_database
from wholeday.schema.dataset import Dataset
from wholeday.storage.day_folder import DayFolder
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace


def start(*command: str, output: Any = subprocess.PIPE, **environment: str) -> "subprocess.Popen[str] | Command":
    """Start `luigi` or `python` with arguments in the current folder; its output goes to pipes or to `output`.

    The command is a fork of a process that has imported the libraries, unless it needs another locale.
    """
    if any(name.startswith(("LANG", "LC_")) for name in environment):
        return start_alone(*command, output=output, **environment)
    program, env = make_command(command[0], environment)
    return Command(
        [program, *command[1:]], env, () if output == subprocess.PIPE else (0, output.fileno(), output.fileno())
    )


def start_alone(*command: str, output: Any = subprocess.PIPE, **environment: str) -> "subprocess.Popen[str]":
    """Start a command like `start`, in a new interpreter, which imports its libraries itself."""
    program, env = make_command(command[0], environment)
    return subprocess.Popen([program, *command[1:]], env=env, text=True, stdout=output, stderr=output)


def make_command(program: str, environment: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the path of a program of this environment, and the variables for it."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"} | environment
    return str(Path(sys.executable).with_name(program)), env


def fork(work: Callable[..., object], *arguments: object) -> ForkProcess:
    """Start a function in a fork of this process, without the second that the start of Python takes."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the only other ones are the server's
        process.start()
    return process


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; see `start`."""
    process = start(*command, **environment)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_line(line: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash with the commands of this environment in its path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path} | environment
    return subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, timeout=600)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    """Run `python -m wholeday` in this process, with the test's clock. Return stdout, stderr and exit code."""
    try:
        cli.main(arguments)
        code: Any = 0
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    return (out, err, code) if isinstance(code, int) else (out, f"{err}{code}", 1)


def luigi_run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `luigi --module pipeline` with arguments."""
    return run("luigi", "--module", "pipeline", *arguments, **environment)


def run_stages(dataset: Dataset, *days: dt.date) -> None:
    """Extract, transform and load each day in this process."""
    for day in days:
        stages.extract(read_workspace(dataset), day)
        stages.transform(read_workspace(dataset), day)
        stages.load(read_workspace(dataset), day)


def add_dataset(name: str, code: str | None = None) -> dict[str, str]:
    """Write `pipeline/NAME.py` (default: orders.py) next to users.py in the current folder.

    Return the environment that lets Luigi's own command find the folder.
    """
    shutil.copytree(ROOT / "pipeline", "pipeline", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    code = (ROOT / "tests" / "support" / "orders.py").read_text() if code is None else code
    Path("pipeline", f"{name}.py").write_text(code)
    return {"PYTHONPATH": str(Path.cwd())}


@contextlib.contextmanager
def start_scheduler() -> Iterator[dict[str, str]]:
    """Run luigid with central.cfg on a free port, kept for later starts. Yield the environment for commands."""
    text = Path("central.cfg").read_text()
    if "scheduler_port = 8082" in text:
        text = text.replace("scheduler_port = 8082", f"scheduler_port = {find_port()}")
        Path("central.cfg").write_text(text + "prune_on_get_work = true\n")
    url, environment = urlsplit(find_scheduler()), {"LUIGI_CONFIG_PATH": "central.cfg"}
    with Path("luigid.log").open("a") as log:  # luigid logs a lot: an unread pipe would block it
        daemon = start("python", "-m", "wholeday", "luigid", "--port", str(url.port), output=log, **environment)
    try:
        deadline = time.monotonic() + 60
        while not _answers(url.port):
            assert time.monotonic() < deadline, "luigid did not come up"
            time.sleep(0.05)
        time.sleep(0.1)  # a signal while luigid closes the connection would log a traceback
        yield environment
    finally:
        while True:
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # Python drops a signal that arrives in a destructor
                daemon.communicate(timeout=10)
                break


def find_scheduler() -> str:
    """Return the URL of the luigid in central.cfg."""
    found = re.search(r"scheduler_port = (\d+)", Path("central.cfg").read_text())
    assert found
    return f"http://127.0.0.1:{found[1]}"


def ask_scheduler(method: str, **arguments: str) -> Any:
    """Call a method of luigid, such as `task_list` or `fetch_error`; return its result."""
    answer = requests.get(f"{find_scheduler()}/api/{method}", params={"data": json.dumps(arguments)})
    return answer.json()["response"]


def _answers(port: int | None) -> bool:
    """Return whether luigid answers: it listens before it can handle a signal."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    return False


def query(sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return rows of the warehouse, with values in the types of SQLite."""
    return databases.query(Pipeline().database, sql, *values)


def execute(*statements: str) -> list[int]:
    """Run SQL in one transaction of the warehouse; return the number of rows that each statement changed."""
    return databases.execute(Pipeline().database, *statements)


def has_table(name: str) -> bool:
    """Return whether the warehouse has a table, without creating the warehouse."""
    url = Pipeline().database
    return find_database(url).exists() and name in databases.list_tables(url)


def remove_warehouse() -> None:
    """Remove the warehouse."""
    databases.remove(Pipeline().database)


def dump_warehouse() -> dict[str, list[tuple[Any, ...]]]:
    """Return users, rejects and markers, without the times of the runs."""
    return {
        "users": query("select user_id, name, email, city, updated_at, load_date from users order by user_id"),
        "rejects": query(
            "select dataset, load_date, part, line, reason, field, key, record from rejects order by 1, 2, 3, 4"
        ),
        "loads": query("select dataset, date, mode, extracted, rejected, watermark from loads order by 1, 2"),
    }


def is_held(folder: DayFolder) -> bool:
    """Return whether this process holds the lock of a day and stage, as seen by another process."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'ab'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))"
    where = map(str, (Path(folder.path).parent / ".lock", folder.date.toordinal()))
    asked = subprocess.run([sys.executable, "-c", code, *where], capture_output=True, text=True)
    return "BlockingIOError" in asked.stderr


def dump_tree(folder: str) -> dict[str, bytes]:
    """Return the content of every file below a folder, by path."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def need(program: str) -> str:
    """Return the path of an optional program. If it is missing, skip the test, or fail it in CI."""
    path = shutil.which(program)
    if path is None:
        miss(f"{program} is not installed")
    return path


def miss(reason: str) -> None:
    """Skip a test whose optional part is missing, or fail it in CI, where everything is installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing may be missing: {reason}")
    pytest.skip(reason)
