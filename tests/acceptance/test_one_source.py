"""A table holds one source (G11): a lost configuration loads nothing, and a new source needs approval."""

import datetime as dt
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.project import dump_tree, execute, luigi_run, query, run, run_here
from tests.support.reading import People
from tests.support.server import Answer, Server
from wholeday.clock import utc_now
from wholeday.errors import ConfigError, QualityError
from wholeday.extract.http.auth import name_source
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
CALM = {"PYTHONWARNINGS": "ignore"}  # without [core] Luigi warns about its default
COMMANDS = [
    ["status"],
    ["status", "--json"],
    ["report"],
    ["backfill", DAY, "2026-11-22"],
    ["plan", DAY, "2026-11-22"],
    ["check"],
    ["reprocess", DAY, "2026-11-22"],
    ["verify"],
    ["rebuild"],
    ["prune", "--older-than", "90", "--yes"],
    ["forget", "users", "42"],
    ["alert"],
]
TASKS = [
    ["LoadUsers"],
    ["LoadUsers", "--date", DAY],
    ["ExtractUsers", "--date", DAY],
    ["BackfillUsers", "--start", DAY, "--stop", "2026-11-22"],
    ["RangeDaily", "--of", "LoadUsers", "--start", DAY, "--stop", "2026-11-22"],
]


def lose_section(home: Path) -> str:
    text = (home / "luigi.cfg").read_text()
    start, stop = text.index("\n[users]"), text.index("\n[core]")
    (home / "luigi.cfg").write_text(text[:start] + text[stop:])
    return f"{home}/luigi.cfg has no section [users]"


def lose_url(home: Path) -> str:
    text = (home / "luigi.cfg").read_text()
    (home / "luigi.cfg").write_text(text.replace("url = demo", "# url = demo"))
    return f"section [users] of {home}/luigi.cfg has no url"


def empty_file(home: Path) -> str:
    (home / "luigi.cfg").write_text("")
    return f"{home}/luigi.cfg has no section [users]"


def remove_file(home: Path) -> str:
    (home / "luigi.cfg").unlink()
    return f"there is no luigi.cfg in {home}"


def stand_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Change the folder, like a cron line without `cd`."""
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    return f"there is no luigi.cfg in {home}/elsewhere"


@pytest.mark.parametrize("place", [lose_section, lose_url, empty_file, remove_file, stand_elsewhere])
@pytest.mark.parametrize("task", [TASKS[1], TASKS[3]], ids=lambda task: task[0])
def test_lost_configuration_loads_nothing(home, monkeypatch, place, task):
    """The error line names the missing key and the file. The run creates nothing."""
    where = place(home, monkeypatch) if place is stand_elsewhere else place(home)
    before = dump_tree(".")
    result = luigi_run(*task, "--local-scheduler", **CALM)
    assert (result.returncode, result.stdout) == (40, "")
    (line,) = result.stderr.splitlines()
    assert line == (
        f"ERROR: [users] url is missing: {where}. Run this in the project's folder, or set url in luigi.cfg"
    )
    assert dump_tree(".") == before
    assert not Path("data").exists()


def test_installed_package_needs_a_configuration(tmp_path, monkeypatch):
    """Run the files of a wheel in an empty folder."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "site" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    site = CALM | {"PYTHONPATH": str(tmp_path / "site")}
    for command in (["luigi", "--module", "pipeline", "LoadUsers"], ["python", "-m", "wholeday", "status"]):
        result = run(*command, **site)
        assert result.returncode != 0
        assert len(result.stderr.splitlines()) == 1
        assert f"there is no luigi.cfg in {tmp_path}/empty" in result.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("task", TASKS, ids=" ".join)
@pytest.mark.usefixtures("configure")
def test_every_task_needs_the_section(task):
    """Parse the task in this process, as `luigi` does."""
    get_config().remove_section("users")
    with CmdlineParser.global_instance(task) as parser, pytest.raises(ConfigError, match="url is missing"):
        parser.get_task_obj()
    assert not Path("data").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("configure")
def test_every_command_needs_the_section(command, capsys):
    get_config().remove_section("users")
    out, err, code = run_here(capsys, *command)
    assert (out, code) == ("", 1)
    assert err.startswith("ERROR: [users] url is missing: ")
    assert not Path("data").exists()


def test_url_may_be_a_flag():
    """With the URL as a flag, no luigi.cfg is needed."""
    Path("luigi.cfg").unlink()
    url = "demo://users?per_day=1&updated_since={day_start}&updated_before={day_stop}"
    result = luigi_run("LoadUsers", "--date", DAY, "--local-scheduler", "--users-url", url)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("url", ["", "  "])
def test_empty_url_is_missing(configure, url):
    """An empty environment variable gives an empty URL."""
    configure("users", url=url)
    with pytest.raises(ConfigError, match=r"section \[users\] of .* has no url"):
        USERS.config()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("demo://users?updated_since={day_start}", "demo://users"),
        ("https://API.example.com/v1/users/", "https://api.example.com/v1/users"),
        ("https://me:hunter2@api.example.com:8443/users?token=hunter2#top", "https://api.example.com:8443/users"),
        ("http://api.example.com:80", "http://api.example.com"),
        ("http://[::1]:9000/users", "http://[::1]:9000/users"),
        ("https://api.example.com/{date}/{day_start:epoch}/x", "https://api.example.com/{date}/{day_start}/x"),
        ("https://api.example.com/{id:x}/users", "https://api.example.com/{id:x}/users"),
        ("https://api.example.com/v1/hunter2/users?api_key=hunter2", "https://api.example.com/v1/***/users"),
    ],
)
def test_source_is_the_url_template(url, name):
    """It omits query, user and placeholder values, which vary by day or are secret."""
    assert name_source(People(url=url)) == name


@pytest.fixture
def read(configure, server: Server):
    """Return a function that extracts and transforms a day: read(day, "/a", "--users-accept")."""

    def extract(day: int, path: str, *flags: str) -> None:
        url = server.on(path, Answer([{"id": day, "name": path}]))
        configure("users", url=f"{url}?since={{day_start}}", paginator="single")
        with CmdlineParser.global_instance(["LoadUsers", *flags]):
            stages.extract(read_workspace(USERS), on(day))
            stages.transform(read_workspace(USERS), on(day))

    return extract


def on(day: int) -> dt.date:
    return dt.date(2026, 11, day)


def load(day: int, *flags: str) -> None:
    with CmdlineParser.global_instance(["LoadUsers", *flags]):
        stages.load(read_workspace(USERS), on(day))


def list_loads() -> list[tuple[int, str, str]]:
    """Return the loaded days, each with the path of its source and its accepted gates."""
    found = query("select date, source, accepted from loads order by date")
    return [(int(date[-2:]), source[source.rindex("/") :], accepted) for date, source, accepted in found]


def test_another_source_is_refused_before_the_first_request(read, server):
    """The error names both sources and the options. The run leaves no files."""
    read(20, "/a")
    load(20)
    server.requests.clear()
    with pytest.raises(QualityError) as caught:
        read(21, "/b")
    assert str(caught.value) == (
        f"users 2026-11-21: it comes from {server.url}/b, and the newest loaded day (2026-11-20) from {server.url}/a: "
        "a table holds one source. Give this source its own data_dir and database, or let this run through with "
        "--users-accept"
    )
    assert server.requests == []
    assert not read_workspace(USERS).folder("raw", on(21)).has_folder()


def test_accepted_source_becomes_the_source(read, server, caplog):
    """Manifest, marker and log line name the gate. The next day of the new source needs no flag."""
    caplog.set_level("INFO", "luigi-interface")
    read(20, "/a")
    load(20)
    read(21, "/b", "--users-accept")
    gate = next(
        gate
        for gate in read_workspace(USERS).folder("raw", on(21)).read_manifest(RawManifest).gates
        if gate.gate == "source"
    )
    assert (gate.passed, gate.reference) == (False, f"{server.url}/a")
    load(21)  # the manifest has the accepted gate, so no flag is needed
    assert "users 2026-11-21: loaded, 1 inserted; let through: source" in caplog.text
    read(22, "/b")
    load(22)
    with pytest.raises(QualityError, match="/a, and the newest loaded day"):
        read(23, "/a")
    assert list_loads() == [(20, "/a", ""), (21, "/b", "source"), (22, "/b", "")]


def test_query_changes_keep_the_source(read, configure, server):
    """Another window, filter or token is still the same source."""
    read(20, "/a")
    load(20)
    configure("users", url=f"{server.url}/a?since={{day_start}}&token=hunter2&per_page=100")
    stages.extract(read_workspace(USERS), on(21))
    assert read_workspace(USERS).folder("raw", on(21)).read_manifest(RawManifest).source == f"{server.url}/a"


def test_load_checks_source_of_existing_files(read):
    """No day was loaded when they were extracted. The current luigi.cfg does not matter."""
    read(21, "/b")
    read(20, "/a")
    load(20)
    with pytest.raises(QualityError, match=r"users 2026-11-21: it comes from http://.*/b, and the newest loaded day"):
        load(21)
    assert query("select count(*) from users") == [(1,)]
    read(19, "/a")
    read_last = USERS.config().url
    load(21, "--users-accept")
    assert read_last.startswith("http")
    assert list_loads() == [(20, "/a", ""), (21, "/b", "source")]


def test_gate_accepted_at_load_is_kept(read, capsys):
    """Only the marker records it. load, reprocess, rebuild and verify keep it."""
    read(21, "/b")
    read(20, "/a")
    load(20)
    load(21, "--users-accept")
    for command in (["reprocess", "2026-11-20", "2026-11-22", "--all"], ["rebuild"], ["verify"]):
        out, err, code = run_here(capsys, *command)
        assert (code, err) == (0, ""), out
        assert list_loads()[1] == (21, "/b", "source")
    load(21)
    assert list_loads()[1] == (21, "/b", "source")


def test_reprocess_and_rebuild_skip_another_source(read, capsys):
    """A warning names the skipped day, which was never loaded."""
    read(21, "/b")
    read(20, "/a")
    load(20)
    out, err, code = run_here(capsys, "reprocess", "2026-11-20", "2026-11-22")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("WARNING: users 2026-11-21: skipped: it comes from http://")
    out, err, code = run_here(capsys, "rebuild")
    assert code == 0
    assert err.startswith("WARNING: users 2026-11-21: skipped: it comes from http://")
    assert "users 2026-11-20: tables rebuilt from these days" in out
    assert list_loads() == [(20, "/a", "")]
    assert run_here(capsys, "rebuild", "--users-accept")[2] == 0
    assert list_loads() == [(20, "/a", ""), (21, "/b", "source")]


def test_rebuild_does_not_choose_between_sources(read, capsys):
    """Without a loaded day, no source has priority."""
    read(20, "/a")
    read(21, "/b")
    out, err, code = run_here(capsys, "rebuild")
    assert (out, code) == ("", 1)
    assert "the raw files come from several sources (http://" in err
    assert "/a: 2026-11-20; http://" in err
    assert "/b: 2026-11-21): a table holds one source." in err


@pytest.mark.usefixtures("database")
def test_concurrent_loads_of_two_sources_conflict(read):
    """The check runs in the transaction, under the lock of the dataset."""
    read(20, "/a")
    read(21, "/b")
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(stages.load, read_workspace(USERS), on(day)) for day in (20, 21)]
        errors = [error for error in (each.exception() for each in loads) if error]
    assert [type(error) for error in errors] == [QualityError]
    assert len(query("select * from loads")) == len(query("select * from users")) == 1


@pytest.mark.usefixtures("database")
def test_markers_without_source_accept_any_source(read, capsys):
    """Older versions stored no source."""
    read(20, "/a")
    load(20)
    execute("update loads set source = null")
    assert run_here(capsys, "status")[2] == 0
    read(21, "/b")
    load(21)
    assert query("select date, accepted from loads order by 1") == [("2026-11-20", ""), ("2026-11-21", "")]
    with pytest.raises(QualityError, match="/c, and the newest loaded day"):
        read(22, "/c")


def test_verify_compares_the_source(read, capsys):
    read(20, "/a")
    load(20)
    execute("update loads set source = 'demo://users'")
    out, _, code = run_here(capsys, "verify")
    assert code == 1
    assert "users 2026-11-20 loads: source is 'demo://users', should be 'http://" in out


def test_status_shows_the_source(read, server, capsys):
    """status shows the source of the newest loaded day, as text and as JSON."""
    read(20, "/a")
    load(20)
    assert f"source: {server.url}/a\n" in run_here(capsys, "status")[0]
    (found,) = json.loads(run_here(capsys, "status", "--json")[0])["datasets"]
    assert found["source"] == found["loads"][0]["source"] == f"{server.url}/a"


def test_trial_of_a_source_needs_its_own_database(server):
    """After the demo, another source needs its own data_dir and database. The guide shows the flags."""
    demo = ("--users-url", "demo://users?per_day=1&updated_since={day_start}&updated_before={day_stop}")
    assert luigi_run("LoadUsers", "--date", DAY, *demo).returncode == 0
    public = ("--users-url", server.on("/users", Answer([{"id": 1}])), "--users-mode", "snapshot")
    refused = luigi_run("LoadUsers", "--date", str(utc_now().date()), *public)
    assert (refused.returncode, refused.stderr.count("\n")) == (30, 1)
    assert "Give this source its own data_dir and database" in refused.stderr
    guide = (ROOT / "docs" / "how-to" / "your-own-api.md").read_text()
    flags = re.findall(r"(--pipeline-\S+ [^\s`]+)", guide)
    assert len(flags) == 2
    own = [word for flag in flags for word in flag.split()]
    assert luigi_run("LoadUsers", "--date", str(utc_now().date()), *public, *own).returncode == 0
    assert query("select count(*) from users where user_id = 1") == [(0,)]
