"""The program `wholeday`: what a wrong word leaves alone, exit codes, and what a start costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, databases
from tests.support.project import run

DATABASE = "sqlite:///data/my warehouse.db"


def test_a_wrong_flag_changes_nothing(home):
    """Neither a file nor a table is made."""
    before = sorted(home.rglob("*"))
    result = run("python", "-m", "wholeday", "report", "--users-settel", "20 minutes")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert sorted(home.rglob("*")) == before


def test_load_takes_flags_and_gives_the_exit_codes_of_luigi():
    """The database of a flag may have a space in its name. A day in the future fails with 30."""
    loaded = run("python", "-m", "wholeday", "load", "2026-11-20", "--pipeline-database", DATABASE)
    assert loaded.returncode == 0, loaded.stderr
    assert databases.query(DATABASE, "select count(*) from loads") == [(1,)]
    flags = ("--pipeline-database", DATABASE, "--users-settle", "20 minutes")
    shown = run("python", "-m", "wholeday", "status", *flags)
    assert "my warehouse.db: 1 day, 2026-11-20" in shown.stdout
    assert run("python", "-m", "wholeday", "report", *flags).stdout.startswith("data/report.html:")
    assert not Path("20 minutes").exists()
    early = run("python", "-m", "wholeday", "load", "2099-01-01")
    assert early.returncode == 30


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import pipeline", {"typer", "rich", "wholeday.commands"}),
        ("from wholeday.commands import cli; cli.main(['--version'])", {"luigi", "pipeline", "rich", "pydantic"}),
        ("from wholeday.commands import cli; cli.main(['--help'])", {"luigi", "pipeline", "sqlalchemy"}),
        (
            "from wholeday.commands import cli; cli.main(['status'])",
            {"pandas", "pyarrow", "matplotlib", "jinja2", "wholeday.commands.report"},
        ),
    ],
)
def test_a_start_imports_only_what_it_needs(code, without):
    """Luigi's own command, help and version are quick; a command does not pay for the others."""
    code = f"import sys; {code}; print(*sorted(set({sorted(without)}) & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout.splitlines()[-1]) == (0, ""), shown.stderr
