"""What every test stands on: an empty folder with the shipped configuration, and the real commands run in it."""

import itertools
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
import pytest
from luigi.configuration import get_config

from tests.support import ROOT
from tests.support.clones import make_clone
from tests.support.cluster import MEMORY, Cluster, find_program
from tests.support.databases import DATABASES, ON_REQUEST
from tests.support.project import miss
from tests.support.server import Server
from wholeday.extract import outage
from wholeday.extract.http import retries

if TYPE_CHECKING:
    from tests.support.bucket import Bucket


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
    monkeypatch.setattr(retries, "BACKOFF", 0.01)
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
    from tests.support.bucket import ENVIRONMENT, open_bucket

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
        "PYTHONPATH": str(ROOT),
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
