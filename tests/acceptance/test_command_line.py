"""Run the program `wholeday`: wrong flags, exit codes, and startup cost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, databases
from tests.support.project import run

DATABASE = "sqlite:///data/my warehouse.db"


@pytest.mark.slow
def test_wrong_flag_changes_nothing(home):
    before = sorted(home.rglob("*"))
    result = run("python", "-m", "wholeday", "report", "--users-settel", "20 minutes")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
def test_load_accepts_flags_and_returns_luigi_exit_codes():
    """The database path may contain a space. A future day exits with 30."""
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


@pytest.mark.slow
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
def test_start_imports_only_needed_modules(code, without):
    """Help, version and Luigi's own command start quickly."""
    code = f"import sys; {code}; print(*sorted(set({sorted(without)}) & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout.splitlines()[-1]) == (0, ""), shown.stderr
