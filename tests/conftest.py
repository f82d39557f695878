"""Provide the fixtures of all tests: an empty folder with the shipped configuration, servers and databases."""

import gc
import itertools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from luigi.configuration import get_config

from tests.support import ROOT
from tests.support.clones import make_clone
from tests.support.cluster import MEMORY, Cluster, find_program
from tests.support.databases import DATABASES, ON_REQUEST
from tests.support.project import miss
from tests.support.server import Server
from tests.support.verified import load_days
from wholeday.extract import outage
from wholeday.extract.http import retries

if TYPE_CHECKING:
    from tests.support.bucket import Bucket


NUMBERS = itertools.count()
ROOM = 2 * 2**30  # bytes; the folders of all tests together take a quarter
SLOW_FILE = re.compile(r"^pytestmark = .*\b(slow|sweep)\b", re.MULTILINE)


def mark_databases(names: list[str]) -> list[Any]:
    """Return the parameters of a fixture that runs a test on these databases. A server makes a test slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name == "postgresql" else []) for name in names]


def pytest_configure() -> None:
    """Handle Ctrl-C in started commands, even if a shell in the background ignores it.

    Keep what hypothesis computes about Unicode, for seconds, in one place: tests change the current folder.
    Collect no garbage among the objects of four thousand tests: there is none.
    Keep the folders of the tests in memory if there is room: the disk would take a tenth of the time.
    """
    if MEMORY and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    gc.disable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_hypothesis_home_dir(ROOT / ".hypothesis")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file whose tests are all slow, where slow tests are left out: it would take a third of the time."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return SLOW_FILE.search(collection_path.read_text()) is not None or None


def pytest_collection_finish() -> None:
    """Collect garbage again, but never look at the tests."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder. The fixture of pytest looks through the folders of all tests before, for every test."""
    path = tmp_path_factory.getbasetemp() / str(next(NUMBERS))
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder with the shipped luigi.cfg and central.cfg, and return it."""
    for name in ("luigi.cfg", "central.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("LUIGI_CONFIG_PATH", "CI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    luigi.task_register.Register.clear_instance_cache()
    return tmp_path


@pytest.fixture
def copy_or_make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], None]], None]:
    """Return a function that makes the folder `data` the first time, and copies it for every further test."""

    def copy(name: str, make: Callable[[], None]) -> None:
        kept = tmp_path_factory.getbasetemp() / "kept" / name
        if kept.exists():
            shutil.copytree(kept, "data")
        else:
            make()
            shutil.copytree("data", kept)

    return copy


@pytest.fixture
def verified(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, copy_or_make: Callable[..., None]
) -> None:
    """Load four days, each extracted an hour after its end. Snapshot and incremental days alternate."""
    load_days(configure, monkeypatch, copy_or_make)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test in a folder in memory, if possible, that is deleted at once. SIGKILL loses no write on either."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        monkeypatch.chdir(folder)
        yield
        monkeypatch.undo()


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between attempts, and use no proxy of this machine."""
    monkeypatch.setattr(retries, "BACKOFF", 0.01)
    outage.forget()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a source on loopback with scripted responses."""
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
def running() -> "Iterator[Bucket]":
    """Run an S3 server, with its credentials in the environment."""
    from tests.support.bucket import ENVIRONMENT, open_bucket

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with open_bucket() as bucket:
            yield bucket


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL server."""
    if not find_program("initdb"):
        miss("the server of PostgreSQL is not installed")
    with Cluster.make() as made:
        yield made


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Configure a small Spark on loopback for the commands of a test."""
    if find_spec("pyspark") is None:
        miss("pyspark is not installed: .venv/bin/pip install -r requirements/scaling.txt")
    if shutil.which("java") is None:
        miss("java is not installed")
    conf = tmp_path_factory.mktemp("conf")
    (conf / "spark-defaults.conf").write_text("spark.executor.memory 512m\nspark.driver.memory 512m\n")
    for name, value in {
        "SPARK_CONF_DIR": str(conf),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # for short-lived processes
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)


@pytest.fixture(params=mark_databases(DATABASES))
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Run the test on each database. A call returns the URL of a new, empty one."""
    if request.param == "postgresql":
        yield request.getfixturevalue("cluster").make_url
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        numbers = itertools.count()
        yield lambda: f"sqlite:///{folder}/{next(numbers)}.db"


@pytest.fixture(params=mark_databases(DATABASES))
def database(request: pytest.FixtureRequest) -> str:
    """Run the test on each database, configured in luigi.cfg. Return its name."""
    if request.param == "postgresql":
        request.getfixturevalue("postgresql")
    return str(request.param)


@pytest.fixture(params=mark_databases(ON_REQUEST))
def database_on_request(request: pytest.FixtureRequest) -> str:
    """Run the test like `database`, but on the slower PostgreSQL only with PIPELINE_DATABASES=all."""
    if request.param == "postgresql":
        request.getfixturevalue("postgresql")
    return str(request.param)


@pytest.fixture
def postgresql(cluster: Cluster, home: Path, configure: Callable[..., None]) -> str:
    """Configure a PostgreSQL database in luigi.cfg and return its URL."""
    url = cluster.make_url()
    text = (home / "luigi.cfg").read_text()
    (home / "luigi.cfg").write_text(text.replace("sqlite:///data/warehouse.db", url))
    configure("pipeline", database=url)
    return url


@pytest.fixture
def checkout(home: Path) -> Path:
    """Create a clean clone in the current folder, with the environment of run.sh."""
    return make_clone(home)
