"""The README and the pages in docs/: their commands run as written, and say what is shown."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas as pd
import pytest

from conftest import ROOT, luigi_run, need, query
from pipeline.config import Pipeline
from pipeline.schema import LOADS, Declared
from pipeline.targets import CleanManifest, RawManifest
from pipeline.transform import Reject
from pipeline.users import Users
from pipeline.users import table as users_table
from server import Answer, Server

README = (ROOT / "README.md").read_text()
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def normalise(line: str) -> str:
    """A line without what differs from run to run: numbers, lists of days, widths, and which counts are not zero.

    These depend on the day before today, which the first command loads.
    """
    line = re.sub(r"#[#.,]*", "#", re.sub(r"\s+", " ", re.sub(r"\d", "#", line))).strip()
    line = re.sub(r"#-#-#(?:[- ]#-#-#|-#-#)+", "#-#-#", line)  # which days, where yesterday is one of them
    return re.sub(r"(loaded, # inserted).*", r"\1", line)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("checkout")
def test_the_commands_of_the_readme_run_and_say_what_it_shows():
    """In the order of the page; every line shown is printed, but for numbers; then its Python finds the files."""
    commands = [
        (command, shown)
        for block in blocks("console")
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        if command != "./run.sh test"
    ]
    assert len(commands) == 12
    for command, shown in commands:
        line = f". .venv/bin/activate && {command}" if command.startswith("luigi") else command
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        printed = {normalise(line) for line in (result.stdout + result.stderr).splitlines()}
        assert {normalise(line) for line in shown.splitlines()} <= printed, command
    (code,) = blocks("python")
    check = """
assert len(raw) == len(clean[clean["date"].astype(str) == "2026-11-20"]) == 100
assert min(len(users), len(rejects), len(history)) > 0
"""
    result = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_queries_of_the_readme_give_what_it_shows():
    """In SQLite and in DuckDB, over the week of the page; once a snapshot lists nobody of it, all are deleted."""
    week = luigi_run("BackfillUsers", "--start", "2026-11-15", "--stop", "2026-11-22")
    assert week.returncode == 0, week.stderr
    (block,) = blocks("sql")
    queries = re.findall(r"^-- .*\n((?:(?!--).+\n)+)((?:--> .*\n)*)", block, re.MULTILINE)
    assert len(queries) == block.count(";") == 5
    with closing(sqlite3.connect("data/warehouse.db")) as db:
        users_history = pd.read_sql("select * from users_history", db)
    with closing(duckdb.connect()) as duck:
        duck.register("users_history", users_history)
        for sql, shown in queries:
            assert show_rows(query(sql)) == shown, sql
            assert show_rows(duck.execute(sql).fetchall()) == shown, sql

    users = query("select user_id from users order by user_id")
    url = "demo://users?as_of=2016-01-02T00:00:00Z"  # its first twenty users, none of them of that week
    flags = ("--users-url", url, "--users-mode", "snapshot", "--users-accept")
    snapshot = luigi_run("LoadUsers", "--date", "2026-11-22", *flags)
    assert snapshot.returncode == 0, snapshot.stderr
    ((as_of,),) = query("select as_of from loads where mode = 'snapshot'")
    assert query(queries[-1][0]) == [(user_id, as_of) for (user_id,) in users]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("page", ["concepts.md", "operating.md"])
def test_the_commands_and_queries_of_a_page_give_what_it_shows(page):
    """From top to bottom, to the letter; where it says so, a command fails with an exit code."""
    text = (ROOT / "docs" / page).read_text()
    for language, block in re.findall(r"^```(console|sql)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        pattern = (
            r"^\$ (.*)\n((?:(?!\$ ).*\n)*)" if language == "console" else r"^((?:(?!-->).+\n)*.+;)\n((?:--> .*\n)*)"
        )
        for command, shown in re.findall(pattern, block, re.MULTILINE):
            if language == "console":
                check_command(command, shown)
            else:
                check_query(command, shown)


def check_command(command: str, shown: str) -> None:
    """Every line shown is printed, among others; an ellipsis in it stands for anything."""
    expected = re.search(r"  # exits with (\d+)$", command)
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.returncode == (int(expected[1]) if expected else 0), result.stderr
    printed = [line.rstrip() for line in COLOUR.sub("", result.stdout + result.stderr).splitlines()]
    for line in shown.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert any(re.fullmatch(pattern, other) for other in printed), f"{command}\n{line}\n{result.stdout}"


def check_query(sql: str, shown: str) -> None:
    """The rows of a query; another statement changes the warehouse, as a person would by hand."""
    with closing(sqlite3.connect("data/warehouse.db")) as db, db:
        rows = db.execute(sql).fetchall()
    assert show_rows(rows) == shown, sql


def show_rows(rows: list[tuple[Any, ...]]) -> str:
    """The answer of a query as the pages show it."""
    lines = (" | ".join("null" if value is None else str(value) for value in row) for row in rows)
    return "".join(f"--> {line}\n" for line in lines)


def test_every_key_is_in_the_readme():
    """Of the sections [users] and [pipeline]."""
    for section in (Users, Pipeline):
        for name, _ in section.get_params():
            assert f"`{name}`" in README, name


def test_every_command_of_run_sh_is_in_its_help():
    """And what is not a command goes to Luigi."""
    script = (ROOT / "run.sh").read_text()
    (body,) = re.findall(r'^case "\$command" in\n"".*?^esac', script, re.DOTALL | re.MULTILINE)
    commands = [
        name for names in re.findall(r"^(\w+(?: \| \w+)*)\)", body, re.MULTILINE) for name in names.split(" | ")
    ]
    assert len(commands) == 16
    for command in commands:
        assert f"./run.sh {command}" in script.split("USAGE")[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["load"], "load: error: the following arguments are required: DATE"),
        (["backfill", "2026-11-01"], "the following arguments are required: STOP"),
        (["lod"], "run.sh: there is no command lod: did you mean ./run.sh load? ./run.sh help lists all"),
        (["Load"], "run.sh: there is no task Load: did you mean ./run.sh load? ./run.sh help lists all"),
        (["STATUS"], "run.sh: there is no task STATUS: did you mean ./run.sh status? ./run.sh help lists all"),
        (["benhc"], "did you mean ./run.sh bench?"),
        (["xyz"], "run.sh: there is no command xyz: ./run.sh help lists all"),
        (["--users-url", "x"], "run.sh: give a command or a task before the flag --users-url: ./run.sh help lists"),
        (["status", "--dais", "3"], "status: error: there is no flag --dais: did you mean --days?"),
    ],
)
@pytest.mark.usefixtures("checkout")
def test_a_command_that_lacks_something_says_what(arguments, line):
    """One line, below the usage where a command is known; exit code 2."""
    result = subprocess.run(["./run.sh", *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert line in result.stderr.splitlines()[-1]


@pytest.mark.usefixtures("checkout")
def test_a_misspelt_task_is_one_line_of_luigi():
    """Luigi names the nearest tasks."""
    for line in ("./run.sh LodUsers", ". .venv/bin/activate && luigi --module pipeline LodUsers"):
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert result.returncode != 0
        assert result.stderr.splitlines()[-1].startswith("ERROR: No task LodUsers. Did you mean: LoadUsers")
        assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("checkout")
def test_help_and_version_of_run_sh():
    """They exit with 0 and print on standard output."""
    shown = [subprocess.run(["./run.sh", word], capture_output=True, text=True) for word in ("help", "-h", "--version")]
    assert [(each.returncode, each.stderr) for each in shown] == [(0, "")] * 3
    assert shown[0].stdout == shown[1].stdout
    assert shown[0].stdout.startswith("./run.sh   ")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", shown[2].stdout)


def test_a_module_of_the_folder_is_found_by_every_command(checkout):
    """By run.sh, and by Luigi's own command in the activated environment."""
    text = (ROOT / "tests" / "orders.py").read_text()
    (checkout / "todos.py").write_text(text.replace('"orders"', '"todos"').replace("LoadOrders", "LoadTodos"))
    with Server() as server:
        url = server.on("/todos", Answer([{"number": "A", "line": 1, "changed": "2026-11-20T10:00:00Z"}]))
        (checkout / "luigi.cfg").write_text((ROOT / "luigi.cfg").read_text() + f"\n[todos]\nurl = {url}\n")
        for number, line in enumerate(
            (
                "./run.sh load 2026-11-18 --module todos",
                "./run.sh LoadTodos --module todos --date 2026-11-19",
                ". .venv/bin/activate && luigi --module todos LoadTodos --date 2026-11-20",
                ". .venv/bin/activate && python -m pipeline --module todos load 2026-11-21",
            ),
            start=1,
        ):
            result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            assert query("select dataset, count(*) from loads group by dataset") == [("todos", number)]


def test_what_was_installed_elsewhere_or_by_another_lock_is_installed_anew(checkout):
    """A folder that was moved has dead paths in its .venv; a newer lock has other versions."""
    (checkout / "bin").mkdir()
    for tool in ("bash", "cat", "cmp", "dirname"):
        (checkout / "bin" / tool).symlink_to(need(tool))
    env = {"PATH": f"{checkout}/bin"}  # no Python but that of .venv

    def run_status(**more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["./run.sh", "status"], env=env | more, capture_output=True, text=True)

    assert "users: no day is loaded" in run_status().stdout
    (checkout / ".venv" / "installed.path").write_text("/somewhere/else\n")
    moved = run_status()
    assert moved.returncode == 2
    assert "no Python 3.11 to 3.13" in moved.stderr
    (checkout / ".venv" / "installed.path").write_text(f"{checkout}\n")
    (checkout / "requirements.txt").write_text("no-such-package-of-ours==0\n")
    changed = run_status(PIP_NO_INDEX="1")
    assert changed.returncode != 0
    assert "installing requirements.txt into .venv" in changed.stderr


@pytest.mark.parametrize(("name", "problem"), [("centrall.cfg", "which is not there"), (".venv", "which is no file")])
@pytest.mark.usefixtures("checkout")
def test_a_configuration_that_is_not_there_stops_run_sh(monkeypatch, name, problem):
    """Luigi would warn and go on with the local one."""
    monkeypatch.setenv("LUIGI_CONFIG_PATH", name)
    result = subprocess.run(["./run.sh", "status"], capture_output=True, text=True)
    assert result.returncode == 2
    assert f"LUIGI_CONFIG_PATH names {name}, {problem}" in result.stderr


@pytest.mark.usefixtures("checkout")
def test_a_configuration_that_begins_with_no_section_is_told_what_may_be_wrong_with_it(monkeypatch):
    """Where, in the words of Python; then what it can be."""
    Path("my.cfg").write_text("local_scheduler = true\n")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "my.cfg")
    result = subprocess.run(["./run.sh", "status"], capture_output=True, text=True)
    assert result.returncode == 2
    where, line = result.stderr.splitlines()
    assert "line: 1 'local_scheduler = true" in where
    assert line.startswith("run.sh: my.cfg cannot be read: a line stands before the first [section], ")


def test_every_column_and_field_is_in_the_dictionary():
    """Of every stored table, of the view, of both manifests and of a reject."""
    declared = Declared.read("users", users_table)
    page = (ROOT / "docs" / "data.md").read_text()
    sections = dict(re.findall(r"^###? (.+)\n((?:(?!##).*\n)+)", page, re.MULTILINE))
    for table in (*declared.stored(), LOADS):
        for column in table.columns:
            assert f"`{column}`" in sections[table.name], f"{table.name}.{column}"
    for column in ("user_id", *declared.row, "valid_from", "valid_to"):
        assert f"`{column}`" in sections["users_history"]
    for name, kind in (("The raw manifest", RawManifest), ("The clean manifest", CleanManifest)):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in sections[name], f"{name}: {field.name}"
    for field in ("date", "part", *Reject._fields):
        assert f"`{field}`" in sections["A reject"]


def test_the_pages_lead_to_what_is_there():
    """Every relative link of the README and of the pages is a file of the repository."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", page.read_text()):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"
