"""A storm: commands in random order from several processes at once, of which many are killed.

Responsibilities: choose and run the commands, kill some, keep what each printed, and keep a copy of each reading of the
source. Non-goals: what must hold afterwards.

A process imports the pipeline once, and forks for each command: a command costs milliseconds, not a second of imports.
"""

import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from conftest import ROOT, run
from pipeline import cli
from pipeline.targets import MANIFEST, DayFolder, RawManifest

PROCESSES = 3
KILLED = 0.6  # the share of commands that are meant to be killed; some end before
LOG = Path("storm.jsonl")
READINGS = Path("readings")
LIBRARIES = (
    *("extraction", "forget", "plan", "postgres", "prune", "report", "reprocess", "sqlite", "status", "transform"),
    *("users", "verify", "warehouse"),
)


class Operation(msgspec.Struct, frozen=True):
    """A command that ended: its words, its exit code (negative if killed), its seconds, and what it printed."""

    words: list[str]
    code: int
    seconds: float
    output: str


class Plan(msgspec.Struct, frozen=True):
    """What a storm does: so many commands, on these days (ISO, the last one exclusive), with these keys to forget."""

    seed: str
    size: int
    days: list[str]
    keys: list[str]
    prune: list[str]
    """The words of the command `prune`."""


def run_storm(plan: Plan) -> list[Operation]:
    """Run a storm in the current folder, until its last process is dead; returns the commands in order of their end."""
    LOG.touch()
    code = "import storm; storm.rage()"
    result = run("python", "-c", code, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", STORM=msgspec.json.encode(plan).decode())
    assert (result.returncode, result.stderr) == (0, "")
    return [msgspec.json.decode(line, type=Operation) for line in LOG.read_bytes().splitlines()]


def find_reading(date: str, extracted_at: Any) -> Path:
    """Where the copy of a reading lies."""
    return READINGS / f"{date} {extracted_at:%H%M%S.%f}"


def rage() -> None:
    """Fork the processes of a storm, and wait for them."""
    plan = msgspec.json.decode(os.environ["STORM"], type=Plan)
    for name in LIBRARIES:
        importlib.import_module(f"pipeline.{name}")
    DayFolder.publish = publish_and_keep  # type: ignore[method-assign]
    children = []
    for number in range(PROCESSES):
        if not (child := os.fork()):
            _run_some(plan, random.Random(f"{plan.seed} {number}"), len(range(number, plan.size, PROCESSES)))
            os._exit(0)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        sys.exit("a process of the storm failed")


publish = DayFolder.publish


def publish_and_keep(folder: DayFolder, manifest: msgspec.Struct) -> None:
    """Publish a day. Copy a reading before: a later command may erase lines of it, or all of it."""
    if isinstance(manifest, RawManifest):
        copy = find_reading(str(manifest.date), manifest.extracted_at)
        shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns(f"{MANIFEST}*"))
        (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    publish(folder, manifest)


def _run_some(plan: Plan, chance: random.Random, number: int) -> None:
    """Run commands one after the other. A command is killed within the time that it took before."""
    usual: dict[str, float] = {}
    for words in choose(plan, chance, number):
        wait = chance.uniform(0, usual.get(words[0], 0.2)) if chance.random() < KILLED else None
        done = _run_command(words, wait, chance.choice([os.kill, os.killpg]))
        if done.code >= 0:
            usual[words[0]] = (usual.get(words[0], done.seconds) + done.seconds) / 2
        with LOG.open("ab", 0) as log:  # one write: the lines of several processes do not mix
            log.write(msgspec.json.encode(done) + b"\n")


def choose(plan: Plan, chance: random.Random, number: int) -> Iterator[list[str]]:
    """Choose commands."""
    commands = {"load": 5, "backfill": 3, "reprocess": 3, "rebuild": 3, "prune": 2, "forget": 2, "verify": 2}
    commands |= {"report": 1, "status": 1}
    for name in chance.choices(list(commands), list(commands.values()), k=number):
        start, stop = sorted(chance.sample(range(len(plan.days)), 2))
        span = [plan.days[start], plan.days[stop]]
        yield {
            "load": lambda: ["load", chance.choice(plan.days[:-1])],
            "backfill": lambda: ["backfill", *span, *chance.choice([[], ["--workers", "2"]])],  # noqa: B023
            "reprocess": lambda: ["reprocess", *span, *chance.choice([[], ["--all"]])],  # noqa: B023
            "rebuild": lambda: ["rebuild", *chance.choice([[], ["--drop-missing"]])],
            "prune": lambda: plan.prune,
            "forget": lambda: ["forget", chance.choice(plan.keys), "--yes", "--unknown"],
        }.get(name, lambda: [name])()  # noqa: B023


def _run_command(words: list[str], wait: float | None, kill: Any) -> Operation:
    """Run a command in a child, and after `wait` seconds kill it: the child alone, or all that it started."""
    output, began = Path(f"output-{os.getpid()}"), time.monotonic()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os._exit(_be_command(words, output))
    if wait is not None:
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = output.read_text(errors="replace") if output.exists() else ""
    output.unlink(missing_ok=True)
    return Operation(words, code, time.monotonic() - began, said)


def _be_command(words: Sequence[str], output: Path) -> int:
    """Run a command with its output in a file; returns its exit code."""
    os.dup(1)  # whoever waits for the end of the storm's output waits for the children of a killed command, too
    with output.open("w") as sys.stdout, contextlib.redirect_stderr(sys.stdout):
        for stream in (1, 2):
            os.dup2(sys.stdout.fileno(), stream)
        try:
            cli.main(words)
        except SystemExit as end:
            if not isinstance(end.code, int | None):
                sys.stdout.write(f"{end.code}\n")
                return 1
            return end.code or 0
        except BaseException:  # noqa: BLE001 - the test looks for it
            traceback.print_exc()
            return 70
        finally:
            sys.stdout.flush()
    return 0
