"""Run the examples of a documentation page in order, as a reader does, in one shell and one clean clone.

These rules compare the page with the output:

- The command prints each shown line, in the same order. It may print other lines before, between and after them.
- `…` stands for any text that depends on the clock or the machine. Decimals of seconds are ignored.
- A command succeeds, or ends with the exit code in `# exits with N` after it.
- `-->` after a query, and `# …` after a `print`, shows the whole result.
- A command with `# in another terminal` continues to run during the next examples.
- The first line of an `ini` block may name its file; otherwise its sections go into luigi.cfg. The section of a dataset
  replaces the existing one; the keys of any other section are added.
- A block of `text` is not an example.
"""

import configparser
import contextlib
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd
import requests

from tests.support import ROOT, databases
from tests.support.clones import VENV, fork_commands

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = re.compile(r"\b\d+\.\d+(?=$| s\b)")


# Commands of the pages that no test runs, with the reason.
NOT_RUN = {
    "./run.sh test": "it runs these tests",
    "git clone https://github.com/wholeday/wholeday && cd wholeday": "the reader begins in a clone",
    "pip install git+https://github.com/wholeday/wholeday": "test_wheel.py installs the wheel",
    "wholeday backfill 2026-10-25 2026-11-01 & sleep 1; kill -9 $!": "it would kill the proxy of a command only",
    "ssh -N -L 8082:127.0.0.1:8082 scheduler.example.com         # on each of the others: luigid has no password": (
        "there is one machine, and no server of ssh"
    ),
    "python3 -m venv .venv-airflow": "it takes minutes; .ci/run does it",
    ".venv-airflow/bin/pip install --requirement requirements/airflow.txt": "it takes minutes; .ci/run does it",
    "./run.sh test tests/acceptance/test_airflow.py": "it runs these tests",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    place: str
    """Page and line."""
    language: str
    text: str


class Example(NamedTuple):
    """A command or a query with the output that the page shows."""

    code: str
    shown: list[str]


def read_blocks(name: str) -> list[Block]:
    """List the fenced blocks of a page in their order."""
    text = (ROOT / name).read_text()
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [
        Block(f"{name}:{text.count(chr(10), 0, block.start()) + 1}", block[2], textwrap.dedent(block[3]))
        for block in found
    ]


def read_console(text: str) -> list[Example]:
    """List the commands of a `console` block."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [Example(command, shown.splitlines()) for command, shown in found]


def read_queries(text: str) -> list[Example]:
    """List the statements of an `sql` block."""
    found = re.findall(r"^((?:(?!-->).*\n)*?.*;)\n((?:--> .*\n)*)", text, re.MULTILINE)
    return [Example(sql, [row.removeprefix("--> ") for row in shown.splitlines()]) for sql, shown in found]


class Reader:
    """A reader who follows a page in the current folder, a clone. `replace` maps texts to replace in every block."""

    def __init__(self, replace: Mapping[str, str] | None = None, **variables: str) -> None:
        self.replace = replace or {}
        self._own = Path(".venv", "reader").resolve()
        """The folder of the reader's own files."""
        self._own.mkdir()
        fork_commands(Path.cwd())
        path = ":".join(part for part in os.environ["PATH"].split(":") if Path(part) != VENV / "bin")
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "LUIGI_CONFIG_PATH", "CI")
        self._environment = {name: text for name, text in os.environ.items() if name not in hidden}
        self._environment |= {"PATH": path, "HOME": str(self._own), **variables}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
            process.wait(30)

    def follow(self, page: str) -> None:
        """Run the blocks of a page in order, except the commands in NOT_RUN."""
        for block in read_blocks(page):
            text = block.text
            for old, new in self.replace.items():
                text = text.replace(old, new)
            getattr(self, f"run_{block.language}")(block._replace(text=text))

    def run_console(self, block: Block) -> None:
        """Run each command and compare its output."""
        for command, shown in read_console(block.text):
            if command not in NOT_RUN:
                self._check_output(block.place, command, self.run(block.place, command), shown)

    def run_sh(self, block: Block) -> None:
        """Run each command of a script. Commands for another terminal continue to run."""
        for command in block.text.replace("\\\n", " ").splitlines():
            if re.search(r"# (in another terminal|on one of them)", command):
                self._start(command)
            elif command not in NOT_RUN:
                self.run(block.place, command)

    def run_python(self, block: Block) -> None:
        """Run a script and compare its output with the comments after `print`."""
        (self._own / "block.py").write_text(block.text)
        printed = self.run(block.place, f"python {self._own}/block.py")
        shown = re.findall(r"^ *print\(.*\)  # (.*)$", block.text, re.MULTILINE)
        assert printed.splitlines() == shown, f"{block.place}\n{printed}"

    def run_sql(self, block: Block) -> None:
        """Run each statement; compare the rows of a query. Other statements change the warehouse."""
        with contextlib.chdir(self.run(block.place, "pwd").strip()):  # the page may have changed the folder
            self._run_statements(block)

    def _run_statements(self, block: Block) -> None:
        url = _read_ini(Path("luigi.cfg").read_text())["pipeline"]["database"]
        for sql, shown in read_queries(block.text):
            rows = show_rows(databases.query(url, sql))
            assert rows == shown, f"{block.place}\n{sql}\n{rows}"
            if "from users_history" in sql:  # the pages promise the same result in DuckDB
                frame = pd.DataFrame(
                    databases.query(url, "select * from users_history"),
                    columns=databases.list_columns(url, "users_history"),
                )
                with duckdb.connect() as db:
                    db.register("users_history", frame)
                    assert show_rows(db.execute(sql).fetchall()) == shown, f"{block.place}\n{sql}"

    def run_ini(self, block: Block) -> None:
        """Write the keys into luigi.cfg, or into the file named in the first line."""
        found = re.match(r"# (\S+\.cfg)", block.text)
        place = Path(found[1] if found else "luigi.cfg")
        config, added = _read_ini(place.read_text()), _read_ini(block.text)
        for section in added.sections():
            if section == "users":
                config.remove_section(section)
            if not config.has_section(section):
                config.add_section(section)
            config[section].update(added[section])
        with place.open("w") as file:
            config.write(file)

    def run_diff(self, block: Block) -> None:
        """Apply a change to the code."""
        (self._own / "change.diff").write_text(block.text)
        self.run(block.place, f"git apply {self._own}/change.diff")

    def run_cron(self, block: Block) -> None:
        """Run each line as cron does. It must print nothing, as cron mails any output."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._own), "SHELL": "/bin/sh", "LOGNAME": "root"}
        for line in block.text.splitlines():
            command = re.sub(r"^(\S+ +){5}", "", line)
            ran = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), block.place

    def run_text(self, _: Block) -> None:
        """Skip a block that is not an example."""

    def run(self, place: str, command: str) -> str:
        """Run a command in the shell of the page. Fail if its exit code differs from the page."""
        state = self._own / "state"
        keep = f'code=$?; export -p >{state}; printf "cd %q\\n" "$PWD" >>{state}; exit $code'
        script = f"[ ! -e {state} ] || source {state}; trap '{keep}' EXIT\n{command}\n"
        ran = subprocess.run(
            ["bash", "-c", script],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        expected = re.search(r"  # exits with (\d+)$", command)
        assert ran.returncode == (int(expected[1]) if expected else 0), f"{place}\n$ {command}\n{ran.stdout}"
        return COLOUR.sub("", ran.stdout)

    def _check_output(self, place: str, command: str, printed: str, shown: list[str]) -> None:
        lines = iter(printed.splitlines())
        for line in shown:
            pattern = re.compile(".*".join(map(re.escape, _normalise(line).split("…"))))
            assert any(pattern.fullmatch(_normalise(each)) for each in lines), (
                f"{place}: not printed, or not in this order:\n{line}\n$ {command}\n{printed}"
            )

    def _start(self, command: str) -> None:
        """Start a command for another terminal, and wait until it listens."""
        with (self._own / "terminal.log").open("wb") as log:
            state = self._own / "state"  # of the shell
            arguments = ["bash", "-c", f"[ ! -e {state} ] || source {state}; exec {command}"]
            self._running.append(subprocess.Popen(arguments, env=self._environment, stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        port = _read_ini(Path("central.cfg").read_text())["core"]["scheduler_port"]
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/", timeout=5)
                return
            except requests.ConnectionError:
                assert time.monotonic() < deadline, f"{command} does not listen on {port}"
                time.sleep(0.1)


def show_rows(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Write the rows of a query as the pages show them."""
    return [" | ".join("null" if value is None else str(value) for value in row) for row in rows]


def _normalise(line: str) -> str:
    return SECONDS.sub("0.0", line.rstrip())


def _read_ini(text: str) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser()
    config.read_string(text)
    return config
