"""The words of a command line: which are flags, which are their values, and what an unknown word leads to."""

import re
import shlex
import tomllib

import pytest

from tests.support import ROOT
from tests.support.command_line import parse
from wholeday.commands import cli

DATABASE = "sqlite:///data/my warehouse.db"


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run words that are a usage error; returns the one line on standard error."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert not out
    return line


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
    context = parse(["forget", "users", *words])
    assert context.params["dataset"] == "users"
    assert (context.params["keys"] or [], context.obj.flags) == (keys, flags)


def test_flags_stand_before_or_behind_the_command():
    """They keep the order of the command line, as the last of two equal flags counts."""
    words = ["--users-url", "a", "--dataset", "x", "report", "--users-settle", "20 minutes", "page.html"]
    context = parse(words)
    assert context.obj.flags == ["--users-url=a", "--users-settle=20 minutes"]
    assert (str(context.params["file"]), context.obj.dataset) == ("page.html", "x")
    assert parse(["status", "--dataset=y"]).obj.dataset == "y"
    assert parse(["--dataset", "x", "status", "--dataset=y"]).obj.dataset == "y"
    assert parse(["status"]).obj.dataset is None


@pytest.mark.parametrize(
    "flag",
    [["--pipeline-database", "sqlite:///x.db"], ["--pipeline-database=x"], ["--no-lock"], ["--yes"]],
)
def test_a_known_flag_is_never_a_key(capsys, flag):
    """Behind -- it would have no effect, and the command would change another warehouse."""
    line = f"give the flag {flag[0].partition('=')[0]} before --"
    assert line in fail(capsys, "forget", "users", "--", "-Nabc", *flag)


def test_a_known_flag_is_never_a_file(capsys):
    assert "give the flag --days before --" in fail(capsys, "report", "--", "--days=3")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lod"], "wholeday: unknown command lod: did you mean load?"),
        (["Status"], "wholeday: unknown command Status: did you mean status?"),
        (["xyz"], "wholeday: unknown command xyz: give one of load, backfill, plan, "),
        (["--", "status"], "wholeday: unknown flag --: give a flag of one command behind the command"),
        (["status", "--dais", "3"], "wholeday status: unknown flag --dais: did you mean --days?"),
        (["--usrs-url", "x", "status"], "wholeday: unknown flag --usrs-url: did you mean --users-url?"),
        (["report", "--users-setle=20 minutes"], "unknown flag --users-setle: did you mean --users-settle?"),
        (["forget", "users", "a", "--pipeline-databse", DATABASE], "did you mean --pipeline-database?"),
        (["forget", "users", "3", "-x"], "wholeday forget: unknown flag -x: see wholeday forget --help"),
        (["forget", "--dataset", "users", "3"], "wholeday forget: unknown flag --dataset"),
        (["--dataset", "users", "forget", "users", "3"], "wholeday forget: unknown flag --dataset"),
        (["--days", "3", "status"], "unknown flag --days: give a flag of one command behind the command"),
        (["status", "--date", "2026-11-20"], "wholeday status: unknown flag --date:"),
        (["status", "--users-url", "--days", "3"], "wholeday status: --users-url needs a value"),
        (["status", "--days", "--users-url", "3"], "wholeday status: --days needs a value"),
        (["status", "--days"], "wholeday status: --days needs a value"),
        (["status", "--json=yes"], "wholeday status: --json takes no value"),
        (["status", "--no-lock=yes"], "wholeday status: --no-lock takes no value"),
        (["status", "now"], "wholeday status: unexpected argument 'now': see wholeday status --help"),
        (["verify", "2026-11-20", "2026-11-21", "-7"], "wholeday verify: unexpected argument '-7'"),
        (["load"], "wholeday load: DATE is missing: see wholeday load --help"),
        (["load", "today"], "wholeday load: DATE: 'today' is not a day"),
        (["prune"], "wholeday prune: --older-than is missing"),
        (["load", "2026-11-20", "--module", "orders"], "wholeday load: unknown flag --module: give --dataset NAME"),
        (["--module=orders", "status"], "wholeday: unknown flag --module: give --dataset NAME"),
        (["status", "--days", "0"], "wholeday status: --days=0: Input should be greater than or equal to 1"),
        (["status", "--max-age", "soon"], "wholeday status: --max-age=soon: write it as"),
    ],
)
def test_a_wrong_word_is_a_usage_error(capsys, words, line):
    """The line names the command, the word and the nearest known one."""
    assert line in fail(capsys, *words)


@pytest.mark.parametrize("entry", cli.COMMANDS, ids=lambda entry: entry.name)
def test_every_command_has_help(capsys, entry):
    """It has a description, an example that can be parsed, the arguments, and a word on the keys of luigi.cfg."""
    parse(shlex.split(entry.example))
    cli.main([entry.name, "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert shown.startswith(f"Usage: wholeday {entry.name} [OPTIONS]")
    assert " ".join(entry.summary.split()) in shown
    assert f"Example: wholeday {entry.example}" in shown
    assert "Every key of luigi.cfg is a flag too" in shown
    assert ("--dataset" in shown) == (entry.name not in cli.OF_ONE_DATASET)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_commands_in_groups(capsys, words):
    cli.main(words)
    shown = capsys.readouterr().out
    groups = re.findall(r"─ ([A-Z][a-z ]+) ─", shown)
    assert groups == ["Options", "Run", "Look", "Keep", "Set up"]
    for entry in cli.COMMANDS:
        assert re.search(rf"^│ {entry.name} +{re.escape(entry.summary[:30])}", shown, re.MULTILINE)


def test_version(capsys):
    """It is the version of the installed package."""
    cli.main(["--version"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"{version}\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("wholeday re", ["reprocess", "rebuild", "report"]),
        ("wholeday --users-ur", ["--users-url"]),
        ("wholeday --users-url x status --max", ["--max-age"]),
        ("wholeday forget users --pipeline-database", ["--pipeline-database"]),
        ("wholeday load --wrong x --dat", ["--dataset"]),
    ],
)
def test_a_shell_completes_commands_and_flags(capsys, monkeypatch, words, found):
    """This includes the flags of luigi.cfg. A wrong word before does not matter."""
    monkeypatch.setenv("_WHOLEDAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    with pytest.raises(SystemExit) as end:
        cli.main(words.split()[1:])
    assert (end.value.code, capsys.readouterr().out.split()) == (0, found)
