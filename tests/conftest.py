"""What every test stands on: an empty folder with the shipped configuration, and the real commands run in it."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import luigi
import pytest
import requests
from luigi.configuration import get_config

import databases
from clones import make_clone
from cluster import MEMORY, Cluster, find_program
from server import Server
from wholeday.commands import cli
from wholeday.config.settings import Pipeline
from wholeday.extract import outage
from wholeday.extract.http import client
from wholeday.load.database import find_database
from wholeday.storage.day_folder import DayFolder

if TYPE_CHECKING:
    from bucket import Bucket

ROOT = Path(__file__).parent.parent
DATABASES = ["sqlite", "postgresql"]
ON_REQUEST = DATABASES if os.environ.get("PIPELINE_DATABASES") == "all" else DATABASES[:1]


def pytest_configure() -> None:
    """Have Ctrl-C heeded by what is started, even where a shell runs the tests in the background, ignoring it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a test: empty but for luigi.cfg and central.cfg, as shipped."""
    for name in ("luigi.cfg", "central.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("LUIGI_CONFIG_PATH", "CI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    luigi.task_register.Register.clear_instance_cache()
    return tmp_path


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test in a folder in memory, if there is one: SIGKILL loses nothing that was written to a disk either."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        monkeypatch.chdir(folder)
        yield
        monkeypatch.undo()


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for long before it asks again, or goes through a proxy of this machine."""
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    outage.forget()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """A source on loopback that answers as the test tells it to."""
    with Server() as running:
        yield running


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Set keys of a section of luigi.cfg for this process: configure("users", mode="snapshot")."""
    conf = get_config()
    before = {section: dict(conf.items(section, raw=True)) for section in conf.sections()}

    def set_keys(section: str, **keys: Any) -> None:
        for key, value in keys.items():
            conf.set(section, key, str(value).replace("%", "%%"))

    yield set_keys
    for section in conf.sections():
        conf.remove_section(section)
    for section, keys in before.items():
        conf.add_section(section)
        for key, value in keys.items():
            conf.set(section, key, value)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Bucket]":
    """A server of S3, whose bucket the environment leads to."""
    from bucket import ENVIRONMENT, open_bucket

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with open_bucket(tmp_path_factory.mktemp("bucket")) as bucket:
            yield bucket


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    if not find_program("initdb"):
        miss("the server of PostgreSQL is not installed")
    with Cluster.make() as made:
        yield made


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Spark for the commands of a test: small, and on loopback."""
    if find_spec("pyspark") is None:
        miss("pyspark is not installed: .venv/bin/pip install -r requirements/scaling.txt")
    if shutil.which("java") is None:
        miss("java is not installed")
    conf = tmp_path_factory.mktemp("conf")
    (conf / "spark-defaults.conf").write_text("spark.executor.memory 512m\nspark.driver.memory 512m\n")
    for name, value in {
        "SPARK_CONF_DIR": str(conf),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # for what lives for seconds
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)


@pytest.fixture(params=DATABASES)
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Run the test on each database; a call gives the URL of a new, empty one."""
    if request.param == "postgresql":
        yield request.getfixturevalue("cluster").make_url
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        numbers = itertools.count()
        yield lambda: f"sqlite:///{folder}/{next(numbers)}.db"


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """Run the test on each database, which is that of luigi.cfg; its name."""
    if request.param == "postgresql":
        request.getfixturevalue("postgresql")
    return str(request.param)


@pytest.fixture(params=ON_REQUEST)
def database_on_request(request: pytest.FixtureRequest) -> str:
    """The same; but on PostgreSQL, where the test takes its time, with PIPELINE_DATABASES=all only."""
    if request.param == "postgresql":
        request.getfixturevalue("postgresql")
    return str(request.param)


@pytest.fixture
def postgresql(cluster: Cluster, home: Path, configure: Callable[..., None]) -> str:
    """Have PostgreSQL for the database of luigi.cfg; its URL."""
    url = cluster.make_url()
    text = (home / "luigi.cfg").read_text()
    (home / "luigi.cfg").write_text(text.replace("sqlite:///data/warehouse.db", url))
    configure("pipeline", database=url)
    return url


@pytest.fixture
def checkout(home: Path) -> Path:
    """A clean clone in the current folder, with the environment that run.sh makes."""
    return make_clone(home)


def start(*command: str, output: Any = subprocess.PIPE, **environment: str) -> "subprocess.Popen[str]":
    """A command in the current folder, with its output in pipes or elsewhere: `luigi` or `python` and what follows."""
    program = Path(sys.executable).with_name(command[0])
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"} | environment
    return subprocess.Popen([program, *command[1:]], env=env, text=True, stdout=output, stderr=output)


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The same, to its end."""
    process = start(*command, **environment)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_line(line: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A line of bash, which finds the commands of this environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path} | environment
    return subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, timeout=600)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    """`python -m wholeday` and what follows, in this process and by the test's clock: stdout, stderr, exit code."""
    try:
        cli.main(arguments)
        code: Any = 0
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    return (out, err, code) if isinstance(code, int) else (out, f"{err}{code}", 1)


def luigi_run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`luigi --module pipeline` and what follows."""
    return run("luigi", "--module", "pipeline", *arguments, **environment)


@contextlib.contextmanager
def start_scheduler() -> Iterator[dict[str, str]]:
    """luigid, with central.cfg and on a port of its own, the same one each time: the environment of its commands."""
    text = Path("central.cfg").read_text()
    if "scheduler_port = 8082" in text:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            text = text.replace("scheduler_port = 8082", f"scheduler_port = {probe.getsockname()[1]}")
        Path("central.cfg").write_text(text + "prune_on_get_work = true\n")
    url, environment = urlsplit(find_scheduler()), {"LUIGI_CONFIG_PATH": "central.cfg"}
    with Path("luigid.log").open("a") as log:  # it is talkative: a pipe that nobody reads would hold it up
        daemon = start("python", "-m", "wholeday.tasks.scheduler", "--port", str(url.port), output=log, **environment)
    try:
        deadline = time.monotonic() + 20
        while not _listens(url.port):
            assert time.monotonic() < deadline, "luigid did not come up"
            time.sleep(0.05)
        yield environment
    finally:
        daemon.terminate()
        daemon.communicate()


def find_scheduler() -> str:
    """The URL of the luigid that central.cfg names."""
    found = re.search(r"scheduler_port = (\d+)", Path("central.cfg").read_text())
    assert found
    return f"http://127.0.0.1:{found[1]}"


def ask_scheduler(method: str, **arguments: str) -> Any:
    """What that luigid answers to one of its methods: `task_list`, `fetch_error` and their like."""
    answer = requests.get(f"{find_scheduler()}/api/{method}", params={"data": json.dumps(arguments)})
    return answer.json()["response"]


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def query(sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of the warehouse, as SQLite has them."""
    return databases.query(Pipeline().database, sql, *values)


def execute(*statements: str) -> list[int]:
    """Do SQL to the warehouse by hand, all of it or nothing; how many rows each statement changed."""
    return databases.execute(Pipeline().database, *statements)


def has_table(name: str) -> bool:
    """Whether the warehouse has a table; it is not made by being asked."""
    url = Pipeline().database
    return find_database(url).exists() and name in databases.list_tables(url)


def remove_warehouse() -> None:
    """Have no warehouse."""
    databases.remove(Pipeline().database)


def dump_warehouse() -> dict[str, list[tuple[Any, ...]]]:
    """What the warehouse says, without the clock: users, rejects, and the markers less their times of running."""
    return {
        "users": query("select user_id, name, email, city, updated_at, load_date from users order by user_id"),
        "rejects": query(
            "select dataset, load_date, part, line, reason, field, key, record from rejects order by 1, 2, 3, 4"
        ),
        "loads": query("select dataset, date, mode, extracted, rejected, watermark from loads order by 1, 2"),
    }


def is_held(folder: DayFolder) -> bool:
    """Whether this process holds a day at a stage, as another one finds."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'ab'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))"
    where = map(str, (Path(folder.path).parent / ".lock", folder.date.toordinal()))
    asked = subprocess.run([sys.executable, "-c", code, *where], capture_output=True, text=True)
    return "BlockingIOError" in asked.stderr


def dump_tree(folder: str) -> dict[str, bytes]:
    """Every file below a folder, by path."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def need(program: str) -> str:
    """The path of an optional program; where it is missing the test is skipped, but in CI it fails."""
    path = shutil.which(program)
    if path is None:
        miss(f"{program} is not installed")
    return path


def miss(reason: str) -> None:
    """An optional part is missing: skip, but fail in CI, where everything is installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing may be missing: {reason}")
    pytest.skip(reason)
