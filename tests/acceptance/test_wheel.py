"""Build the wheel, check its content, and run every command in another project."""

import ast
import datetime as dt
import re
import resource
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT, databases
from tests.support.apis.served import ENDPOINTS
from tests.support.clones import copy_sources, link
from tests.support.server import Answer, Server
from wholeday.commands.cli import COMMANDS

pytestmark = pytest.mark.slow

SECTION = """
[members]
url = demo://users?updated_since={day_start}&updated_before={day_stop}
"""

QUERY = "select id, name, total_price, updated_at from orders order by id"
ASK = f"import sqlite3; print(sqlite3.connect('data/warehouse.db').execute({QUERY!r}).fetchall())"
YESTERDAY = dt.datetime.combine(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1), dt.time(6), dt.UTC)

END = "the end of a command\n"
RUN = f"""
import sys
from wholeday.commands import cli
for line in sys.argv[1:]:
    cli.main(line.split())
    print({END!r}, end="", flush=True)
"""


class Project:
    """A project folder with luigi.cfg and a package `pipeline`, and an environment with the wheel installed."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder)}

    def start(self, *words: str, **variables: str) -> "subprocess.Popen[str]":
        """Start a program of the environment in the folder."""
        command, env, pipe = [self.programs / words[0], *words[1:]], self.variables | variables, subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=env, text=True, stdout=pipe, stderr=pipe)

    def run(self, *words: str, **variables: str) -> str:
        """Run a program of the environment, and return its standard output. It must exit with 0."""
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, f"{words}\n{out}\n{err}"
        return out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources."""
    sources = copy_sources(tmp_path_factory.mktemp("sources"))
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(sources / "dist"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(sources)], check=True)
    (built,) = (sources / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install requirements.txt and the wheel into an empty environment, and return the folder of its programs."""
    programs = make_environment(tmp_path_factory.mktemp("environment"))
    install(wheel, programs)
    return programs


@pytest.fixture(scope="module")
def project(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make a project with `init`, and add the dataset `members`."""
    project = Project(tmp_path_factory.mktemp("project"), programs)
    project.run("wholeday", "init")
    text = (ROOT / "pipeline" / "users.py").read_text()
    for name, other in (("Users", "Members"), ("USERS", "MEMBERS"), ('"users"', '"members"')):
        text = text.replace(name, other)
    (project.folder / "pipeline" / "members.py").write_text(text)
    config = project.folder / "luigi.cfg"
    config.write_text(config.read_text().replace("[pipeline]\n", "[pipeline]\nwebhook = HOOK\n") + SECTION)
    return project


def make_environment(folder: Path) -> Path:
    """Make an environment with the packages of requirements.txt, and return the folder of its programs."""
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    link(venv, re.findall(r"^[\w.-]+==.*", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    return venv / "bin"


def install(wheel: Path, programs: Path) -> None:
    """Install the wheel with pip, without an index."""
    options = ("install", "--quiet", "--no-index", "--no-deps", str(wheel))
    subprocess.run([sys.executable, "-m", "pip", "--python", str(programs / "python"), *options], check=True)


def test_wheel_contains_only_the_library(wheel: Path) -> None:
    """It has every file of `wholeday` and the license, but no tests and no datasets."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "wholeday").rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == {s for s in sources if "__pycache__" not in s}
    assert {"wholeday/py.typed", "wholeday/config/presets.ini", "wholeday/commands/report.html"} <= set(names)
    assert sum(name.endswith(".dist-info/licenses/LICENSE") for name in names) == 1


@pytest.mark.timeout(600)
def test_four_commands_lead_from_url_to_rows(wheel: Path, tmp_path: Path, server: Server) -> None:
    """From an empty folder and an empty environment: install the wheel, `init`, `new`, and a query; edit no file.

    The commands of wholeday cost a few starts of Python with the libraries, whatever the speed of the machine.
    """
    orders = ENDPOINTS["shopify"](server, 120, moments=lambda number: YESTERDAY + dt.timedelta(minutes=number))
    folder = tmp_path / "shop"
    shop = Project(folder, make_environment(folder))
    start = measure(lambda: shop.run("python", "-c", "import luigi, pandas, pyarrow, requests, sqlalchemy, typer"))
    install(wheel, shop.programs)
    spent = measure(lambda: shop.run("wholeday", "init"))
    flags = ("--auth", orders.auth)
    spent += measure(lambda: shop.run("wholeday", "new", "orders", orders.url, *flags, **orders.environment))
    rows = shop.run("python", "-c", ASK)
    assert spent < 10 * start
    assert ast.literal_eval(rows) == [
        (each["id"], each["name"], float(each["total_price"]), each["updated_at"].replace("Z", ".000000Z"))
        for each in orders.records
    ]
    again = shop.run("luigi", "--module", "pipeline", "LoadOrders", "--date", f"{YESTERDAY:%Y-%m-%d}")
    assert again == "INFO: nothing to do: all requested tasks are complete\n"
    assert orders.environment["SHOPIFY_TOKEN"] not in "".join(map(str, dump_texts(folder)))


def measure(run: Callable[[], object]) -> float:
    """Return the processor seconds of the programs that a function starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def dump_texts(folder: Path) -> list[bytes]:
    """Return the content of each file of a project, without its environment."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".venv" not in path.parts]


def test_project_of_init_passes_its_test(project: Project) -> None:
    """pytest comes from the tests' own environment."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    ran = subprocess.run(command, cwd=project.folder, env=project.variables, capture_output=True, text=True)
    assert "1 passed" in ran.stdout, ran.stdout


@pytest.mark.timeout(600)
def test_every_command_works_in_another_project(project: Project, server) -> None:
    """`wholeday`, `python -m wholeday` and Luigi's own command find the package `pipeline` that `init` wrote.

    One process runs several commands, as each start takes a second or two.
    """
    tried = set()

    def run(*lines: str) -> list[str]:
        tried.update(line.split()[0] for line in lines)
        printed = project.run("python", "-c", RUN, *lines, HOOK=server.on("/hook", Answer("ok")))
        return printed.split(END)[:-1]

    assert "members 2026-11-20: loaded, 100 inserted" in project.run("wholeday", "load", "2026-11-20")
    checked, planned, loaded, status, _, _, done = run(
        "check",
        "plan 2026-11-20 2026-11-22",
        "backfill 2026-11-20 2026-11-22",
        "status --dataset members",
        "report",
        "alert",
        "reprocess 2026-11-20 2026-11-22 --all",
    )
    assert "repeatability   ok" in checked
    assert "load" in planned
    assert "members: 2 of 2 days are loaded" in loaded
    assert "2026-11-21" in status
    assert "members" in (project.folder / "data" / "report.html").read_text()
    assert "members 2026-11-21" in done
    url = f"sqlite:///{project.folder}/data/warehouse.db"
    ((key, count),) = databases.query(url, "select min(user_id), count(*) from members")
    lines = (
        f"explain members {key}",
        f"forget members {key} --yes",
        "rebuild",
        "verify",
        "prune --older-than 0 --keep 1 --yes",
    )
    explained, _, _, verified, pruned = run(*lines)
    assert f"members {key}: " in explained
    assert databases.query(url, "select count(*) from members") == [(count - 1,)]
    assert "nothing differs" in verified
    assert "2026-11-20" in pruned
    project.run("python", "-m", "wholeday", "load", "2026-11-22")
    project.run("luigi", "--module", "pipeline", "LoadMembers", "--date", "2026-11-23")
    assert databases.query(url, "select count(*) from loads") == [(4,)]
    assert "paginator" in project.run("wholeday", "doctor", "demo://users")
    assert run_luigid(project)
    assert tried | {"init", "new", "load", "doctor", "luigid"} == {entry.name for entry in COMMANDS}


def run_luigid(project: Project) -> bool:
    """Start luigid, return whether it listens within 30 seconds, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = project.start("wholeday", "luigid", "--port", str(port))
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and daemon.poll() is None:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            time.sleep(0.1)
        return False
    finally:
        daemon.terminate()
        daemon.communicate()
