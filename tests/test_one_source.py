"""A table holds one source (G11): a lost configuration loads nothing, and another source needs a person's word."""

import shutil
from pathlib import Path

import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from conftest import ROOT, dump_tree, luigi_run, run, run_here
from pipeline.errors import ConfigError
from pipeline.users import Users

DAY = "2026-11-20"
CALM = {"PYTHONWARNINGS": "ignore"}  # without [core] Luigi warns of a default of its own
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
    ["forget", "42"],
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
    """As a cron line without `cd` does."""
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    return f"there is no luigi.cfg in {home}/elsewhere"


@pytest.mark.parametrize("place", [lose_section, lose_url, empty_file, remove_file, stand_elsewhere])
@pytest.mark.parametrize("task", [TASKS[1], TASKS[3]], ids=lambda task: task[0])
def test_lost_configuration_loads_nothing(home, monkeypatch, place, task):
    """One line that says what is missing and where it was looked for; nothing is made, not even a folder."""
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
    """The files of a wheel, in an empty folder."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "site" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    site = CALM | {"PYTHONPATH": str(tmp_path / "site")}
    for command in (["luigi", "--module", "pipeline", "LoadUsers"], ["python", "-m", "pipeline", "status"]):
        result = run(*command, **site)
        assert result.returncode != 0
        assert len(result.stderr.splitlines()) == 1
        assert f"there is no luigi.cfg in {tmp_path}/empty" in result.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("task", TASKS, ids=" ".join)
@pytest.mark.usefixtures("configure")
def test_every_task_needs_the_section(task):
    """In this process, by the function that `luigi` calls."""
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
    """Whoever names the source on the command line needs no file."""
    Path("luigi.cfg").unlink()
    url = "demo://users?per_day=1&updated_since={day_start}&updated_before={day_stop}"
    result = luigi_run("LoadUsers", "--date", DAY, "--local-scheduler", "--users-url", url)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("url", ["", "  "])
def test_empty_url_is_a_missing_one(configure, url):
    """As of a variable that is empty."""
    configure("users", url=url)
    with pytest.raises(ConfigError, match=r"section \[users\] of .* has no url"):
        Users()
