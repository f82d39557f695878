"""Make projects with `wholeday init`."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.project import dump_tree, run, run_here
from wholeday.commands.init import FILES, list_names

# No test changes the path of the tests' own environment: `init` takes it for another kind of Python.
ALONE = """
import resource, sys
from wholeday.commands import cli
sys.prefix = sys.base_prefix
sys.dont_write_bytecode = True  # a limit would cut its files
if limit := int(sys.argv.pop(1)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
cli.main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this Python count as no virtual environment."""
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, and return it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return empty


def test_empty_folder_becomes_a_project(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The repository is such a project: it has the same package `pipeline`."""
    out, err, code = run_here(capsys, "init")
    assert (err, code) == ("", 0)
    assert out.startswith(f"{folder}: wrote pipeline/, luigi.cfg, tests/, README.md, .gitignore, crontab\n")
    assert out.endswith("next: wholeday new NAME URL, as in wholeday new orders https://api.example.com/orders\n")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == FILES.keys()
    assert Path("pipeline/__init__.py").read_bytes() == (ROOT / "pipeline" / "__init__.py").read_bytes()
    assert "# empty\n" in Path("README.md").read_text()
    assert not any("<" in Path(name).read_text() for name in ("README.md", "crontab"))
    assert set(Path(".gitignore").read_text().split()) - {".env"} <= set((ROOT / ".gitignore").read_text().split())


def test_missing_folder_is_created(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with its parents. The last line says how to go there."""
    out, _, code = run_here(capsys, "init", "data/sales")
    assert code == 0
    assert f"next: cd {folder}/data/sales, then wholeday new" in out
    assert Path("data/sales/luigi.cfg").exists()


def test_crontab_line_can_be_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """cron ends a command at a percent sign without a backslash, and the shell splits at spaces."""
    assert run_here(capsys, "init", "50% of it")[2] == 0
    *_, line = Path("50% of it/crontab").read_text().splitlines()
    command = line.split(maxsplit=5)[5]
    assert "%" not in command.replace("\\%", "")
    words = shlex.split(command.replace("\\%", "%"))
    assert words[:2] == ["cd", f"{folder}/50% of it"]
    assert str(Path(sys.executable).with_name("wholeday")) in words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("UTC", "20 0"),
        ("Australia/Brisbane", "20 10"),
        ("Asia/Kolkata", "50 5"),
        ("Europe/Berlin", "20 2"),
        ("America/New_York", "20 20"),
    ],
)
def test_crontab_line_runs_after_the_day_in_utc(folder: Path, zone: str, time: str) -> None:
    """`date -u` is then the day after the last closed one."""
    ran = run("python", "-c", ALONE, "0", "init", "made", TZ=zone)
    assert ran.returncode == 0
    assert f"\n{time} * * *  cd {folder}/made && " in Path("made/crontab").read_text()


@pytest.mark.parametrize("name", list_names())
def test_existing_file_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Whatever else is there, such as .venv or .git, does not matter."""
    Path(".venv").mkdir()
    path = folder / name
    path.mkdir() if name.endswith("/") else path.write_text("[core]\n")
    before = dump_tree(".")
    out, err, code = run_here(capsys, "init")
    assert (out, code) == ("", 1)
    assert err == f"ERROR: {folder} has {name}, which init would write: give another folder\n".removesuffix("\n")
    assert dump_tree(".") == before
    assert sorted(each.name for each in folder.iterdir()) == sorted([".venv", name.rstrip("/")])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made", "."])
def test_failed_write_leaves_nothing(folder: Path, name: str) -> None:
    """The README does not fit into the largest file that this process may write. Other files come before it."""
    ran = run("python", "-c", ALONE, "800", "init", name, PYTHONWARNINGS="")
    assert ran.returncode == 1
    path = (folder / name / "README.md").resolve()
    assert ran.stderr == f"ERROR: cannot write {path} (File too large): check disk space and permissions\n"
    assert list(folder.iterdir()) == []
