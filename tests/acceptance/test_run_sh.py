"""Run `run.sh` with good and with wrong words: its own commands, and what it passes on."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.project import need, query, run_here
from tests.support.server import Answer, Server
from wholeday.commands import cli

pytestmark = pytest.mark.slow


def test_run_sh_help_lists_every_command():
    """The commands of run.sh have a line each."""
    script = (ROOT / "run.sh").read_text()
    usage = script.split("USAGE")[1]
    *_, body = script.split('case "$command" in\n')
    own = re.findall(r"^([a-z-]+)\)", body, re.MULTILINE)
    assert {"bench", "test"} <= set(own)
    for command in own:
        assert f"./run.sh {command}" in usage
    (listed,) = re.findall(r"wholeday --help: ((?:[a-z, ]|\n {30})+)", usage)
    assert re.split(r",\s+", listed.strip()) == [entry.name for entry in cli.COMMANDS]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["load"], "ERROR: wholeday load: DATE is missing: see wholeday load --help"),
        (["backfill", "2026-11-01"], "ERROR: wholeday backfill: STOP is missing: see wholeday backfill --help"),
        (["lod"], "ERROR: wholeday: unknown command lod: did you mean load?"),
        (["xyz"], "ERROR: wholeday: unknown command xyz: give one of load, backfill, plan, "),
        (["--users-url", "x"], "ERROR: wholeday: a command is missing: see wholeday --help"),
        (["status", "--dais", "3"], "ERROR: wholeday status: unknown flag --dais: did you mean --days?"),
    ],
)
def test_incomplete_command_is_one_line(capsys, arguments, line):
    """The exit code is 2."""
    _, err, code = run_here(capsys, *arguments)
    (said,) = err.splitlines()
    assert (code, said[: len(line)]) == (2, line)


@pytest.mark.usefixtures("checkout")
def test_misspelt_task_is_one_line():
    """Luigi suggests the nearest tasks, and run.sh the command of another case."""
    for word in ("Load", "STATUS"):
        result = subprocess.run(["./run.sh", word], capture_output=True, text=True)
        line = f"ERROR: wholeday: unknown command {word}: did you mean {word.lower()}?\n"
        assert (result.returncode, result.stderr) == (2, line)
    for line in ("./run.sh LodUsers", ". .venv/bin/activate && luigi --module pipeline LodUsers"):
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert result.returncode != 0
        assert result.stderr.splitlines()[-1].startswith("ERROR: No task LodUsers. Did you mean: LoadUsers")
        assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("checkout")
def test_help_and_version_of_run_sh():
    """They print to standard output and exit with 0."""
    shown = [subprocess.run(["./run.sh", word], capture_output=True, text=True) for word in ("help", "-h", "--version")]
    assert [(each.returncode, each.stderr) for each in shown] == [(0, "")] * 3
    assert shown[0].stdout == shown[1].stdout
    assert shown[0].stdout.startswith("./run.sh   ")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", shown[2].stdout)


def test_every_command_finds_new_dataset_module(checkout):
    """With run.sh, and with Luigi's own command in the activated environment."""
    text = (ROOT / "tests" / "support" / "orders.py").read_text()
    (checkout / "pipeline" / "todos.py").write_text(
        text.replace('"orders"', '"todos"').replace("LoadOrders", "LoadTodos")
    )
    with Server() as server:
        url = server.on("/todos", Answer([{"number": "A", "line": 1, "changed": "2026-11-20T10:00:00Z"}]))
        (checkout / "luigi.cfg").write_text((ROOT / "luigi.cfg").read_text() + f"\n[todos]\nurl = {url}\n")
        for number, line in enumerate(
            (
                "./run.sh load 2026-11-18 --dataset todos",
                "./run.sh LoadTodos --date 2026-11-19",
                ". .venv/bin/activate && cp pipeline/todos.py . && luigi --module todos LoadTodos --date 2026-11-22",
            ),
            start=1,
        ):
            result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            assert query("select dataset, count(*) from loads group by dataset") == [("todos", number)]


def test_moved_folder_or_changed_lock_is_reinstalled(checkout):
    """A moved folder has dead paths in .venv. A changed lock needs other versions."""
    (checkout / "bin").mkdir()
    for tool in ("bash", "cat", "cmp", "dirname"):
        (checkout / "bin" / tool).symlink_to(need(tool))
    env = {"PATH": f"{checkout}/bin"}  # no Python except the one in .venv

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


@pytest.mark.usefixtures("checkout")
def test_unusable_configuration_stops_run_sh(monkeypatch):
    """Luigi would ignore the file with a warning, or print a traceback."""
    missing = ("centrall.cfg", None, "ERROR: LUIGI_CONFIG_PATH names centrall.cfg, which is not there")
    others = [
        (".venv", None, "ERROR: LUIGI_CONFIG_PATH names .venv, which is not a file"),
        (
            "my.cfg",
            "local_scheduler = true\n",
            "ERROR: my.cfg cannot be read: File contains no section headers. "
            r"file: 'my.cfg', line: 1 'local_scheduler = true\n'. Each line belongs to a [section], ",
        ),
        ("my.cfg", "[core]\n[core]\n", "ERROR: my.cfg cannot be read: While reading from 'my.cfg' [line 2]: section"),
    ]
    ways = (["--users-url", "x", "status"], ["LoadUsers"], [])
    for words, (name, text, line) in [
        *((words, missing) for words in ways),
        *((["status"], other) for other in others),
    ]:
        if text:
            Path(name).write_text(text)
        monkeypatch.setenv("LUIGI_CONFIG_PATH", name)
        result = subprocess.run(["./run.sh", *words], capture_output=True, text=True)
        (said,) = result.stderr.splitlines()
        assert (result.returncode, said[: len(line)]) == (2, line), words
