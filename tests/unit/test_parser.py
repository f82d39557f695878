"""The words of a command line: which are flags, which are their values, and what an unknown word leads to."""

import argparse
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT, databases
from tests.support.project import run
from wholeday.commands import cli

DATABASE = "sqlite:///data/my warehouse.db"


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Parse words that are a usage error; returns the lines on standard error."""
    with pytest.raises(SystemExit) as end:
        cli.parse(words)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "keys", "flags"),
    [
        (["--", "-Nabc"], ["-Nabc"], []),
        (["--", "--Nabc", "-", "--"], ["--Nabc", "-", "--"], []),
        (["42", "--", "-Nabc", "43"], ["42", "-Nabc", "43"], []),
        (["-7", "-"], ["-7", "-"], []),
        (["--pipeline-database", "sqlite:///x.db", "--", "-N"], ["-N"], ["--pipeline-database=sqlite:///x.db"]),
        (["a", "--pipeline-database", DATABASE], ["a"], [f"--pipeline-database={DATABASE}"]),
        (["a", "b", f"--pipeline-database={DATABASE}"], ["a", "b"], [f"--pipeline-database={DATABASE}"]),
        (["--users-settle", "20 minutes"], [], ["--users-settle=20 minutes"]),
        (["--users-settle=20 minutes", "a"], ["a"], ["--users-settle=20 minutes"]),
        (["--users-max-wait", "-1 day", "a"], ["a"], ["--users-max-wait=-1 day"]),
        (["--users-deleted-when", "-gone", "a"], ["a"], ["--users-deleted-when=-gone"]),
        (["--users-accept", "a"], ["a"], ["--users-accept"]),
        (["a", "--users-keep-params"], ["a"], ["--users-keep-params"]),
        (["a", "--users-keep-params=false"], ["a"], ["--users-keep-params=false"]),
        (["--"], [], []),
    ],
)
def test_flags_and_keys_of_forget(words, keys, flags):
    """A word is a key only where no flag can take it, as a wrong key stays forgotten."""
    options = cli.parse(["forget", *words])
    assert (options.keys, options.flags) == (keys, flags)


def test_flags_stand_before_or_behind_the_command():
    """Their order is that of the command line, as the last of two equal flags counts."""
    options = cli.parse(["--users-url", "a", "--module", "x", "report", "--users-settle", "20 minutes", "page.html"])
    assert options.flags == ["--users-url=a", "--users-settle=20 minutes"]
    assert (str(options.file), options.module) == ("page.html", "x")
    assert cli.parse(["status", "--module=y"]).module == "y"
    assert cli.parse(["status"]).module == "pipeline"


@pytest.mark.parametrize(
    "flag",
    [["--pipeline-database", "sqlite:///x.db"], ["--pipeline-database=x"], ["--module", "x"], ["--no-lock"], ["--yes"]],
)
def test_a_known_flag_is_never_a_key(capsys, flag):
    """Behind -- it would have no effect, and the command would change another warehouse."""
    assert f"give the flag {flag[0]} before --" in fail(capsys, "forget", "--", "-Nabc", *flag)[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lod"], "there is no command lod: did you mean load?"),
        (["Status"], "there is no command Status: did you mean status?"),
        (["xyz"], "there is no command xyz: load, status, report,"),
        (["status", "--dais", "3"], "status: error: there is no flag --dais: did you mean --days?"),
        (["--usrs-url", "x", "status"], "there is no flag --usrs-url: did you mean --users-url?"),
        (["report", "--users-setle=20 minutes"], "there is no flag --users-setle: did you mean --users-settle?"),
        (["forget", "a", "--pipeline-databse", DATABASE], "did you mean --pipeline-database?"),
        (["forget", "3", "-x"], "forget: error: there is no flag -x: see --help"),
        (["--days", "3", "status"], "there is no flag --days: a flag of one command stands behind the command"),
        (["status", "--date", "2026-11-20"], "there is no flag --date:"),
        (["status", "--users-url", "--days", "3"], "argument --users-url: expected one argument"),
        (["status", "now"], "status: error: unexpected argument 'now'"),
        (["load"], "load: error: the following arguments are required: DATE"),
    ],
)
def test_a_wrong_word_is_a_usage_error(capsys, words, line):
    """It names the word and the nearest known one; the usage is that of the command."""
    lines = fail(capsys, *words)
    assert line in lines[-1]
    assert lines[0].startswith(f"usage: python -m wholeday{' ' + words[0] if ' error' in line[:15] else ''}")


def test_every_command_has_help(capsys):
    """It lists the arguments, and says that keys of luigi.cfg are flags."""
    (commands,) = (each for each in cli.make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    for command in commands.choices:
        with pytest.raises(SystemExit) as end:
            cli.parse([command, "--help"])
        assert end.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith(f"usage: python -m wholeday {command} [-h]")
        assert "Every key of luigi.cfg is a flag too" in shown


def test_version(capsys):
    """It is the version of the installed package."""
    with pytest.raises(SystemExit) as end:
        cli.parse(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (
        0,
        f"{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}\n",
    )


def test_a_wrong_flag_changes_nothing(home):
    """Neither a file nor a table is made."""
    before = sorted(home.rglob("*"))
    result = run("python", "-m", "wholeday", "report", "--users-settel", "20 minutes")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert sorted(home.rglob("*")) == before


def test_load_takes_flags_and_gives_the_exit_codes_of_luigi():
    """The database of a flag is used, whatever its name holds; a day that is not over yet is Luigi's 35."""
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
