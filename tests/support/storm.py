"""Run a storm: random commands from several concurrent processes, with many of them killed.

Responsibilities: choose and run the commands, kill some, record their output, and keep a copy of each extraction.
Non-goals: the expectations after a storm.

A process imports the pipeline once and forks for each command, so a command takes milliseconds, not a second.
"""

import contextlib
import datetime as dt
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

from pipeline.users import USERS
from tests.support.project import start_alone
from wholeday import clock
from wholeday.commands import cli
from wholeday.config.pipeline import Pipeline
from wholeday.storage.day_folder import MANIFEST, DayFolder
from wholeday.storage.manifest import RawManifest
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

PROCESSES = 3
KILLED = 0.5  # share of commands to kill; some end earlier
ROUND = 30  # commands; after a round no process runs, so an unloaded day is lost, not unfinished
LOG, UNLOADED = Path("storm.jsonl"), Path("unloaded.jsonl")
READINGS = Path("readings")
LIBRARIES = (
    *(f"wholeday.commands.{name}" for name in ("forget", "plan", "prune", "report", "reprocess", "status", "verify")),
    *("wholeday.extract.day", "wholeday.transform.rows", "wholeday.load.warehouse"),
    *("wholeday.load.postgres", "wholeday.load.sqlite", "pipeline.users"),
)


class Operation(msgspec.Struct, frozen=True):
    """A finished command: its words, exit code (negative if killed), start, seconds and output."""

    words: list[str]
    code: int
    began: dt.datetime
    seconds: float
    output: str


class Unloaded(msgspec.Struct, frozen=True):
    """A day with raw files but without a marker, and the time of this observation."""

    date: dt.date
    extracted_at: dt.datetime
    at: dt.datetime


class Plan(msgspec.Struct, frozen=True):
    """The plan of a storm: number of commands, days (ISO, the last one exclusive), and keys to erase."""

    seed: str
    size: int
    days: list[str]
    keys: list[str]
    prune: list[str]
    """The words of the command `prune`."""


def run_storm(plan: Plan) -> tuple[list[Operation], list[Unloaded]]:
    """Run a storm in the current folder until its last process ends.

    Return the commands in order of their end, and the unloaded days at the end of each round.
    """
    code = "from tests.support import storm; storm.rage()"
    said = msgspec.json.encode(plan).decode()
    with start_alone("python", "-c", code, STORM=said) as process:
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    operations = [msgspec.json.decode(line, type=Operation) for line in LOG.read_bytes().splitlines()]
    return operations, [msgspec.json.decode(line, type=Unloaded) for line in UNLOADED.read_bytes().splitlines()]


def find_reading(date: str, extracted_at: Any) -> Path:
    """Return the path of the copy of an extraction."""
    return READINGS / f"{date} {extracted_at:%H%M%S.%f}"


def rage() -> None:
    """Fork the processes of a storm and wait for them."""
    plan = msgspec.json.decode(os.environ["STORM"], type=Plan)
    for name in LIBRARIES:
        importlib.import_module(name)
    DayFolder.publish = publish_and_keep  # type: ignore[method-assign]
    for first in range(0, plan.size, ROUND):
        _rage_once(plan, first)
        with UNLOADED.open("ab", 0) as file:
            file.writelines(msgspec.json.encode(day) + b"\n" for day in _find_unloaded(plan))


def _rage_once(plan: Plan, first: int) -> None:
    """Fork the processes for one round of commands, and wait for all their descendants."""
    stop, children = min(first + ROUND, plan.size), []
    alive, end = os.pipe()
    for number in range(PROCESSES):
        if not (child := os.fork()):
            chance = random.Random(f"{plan.seed} {first} {number}")
            _run_some(plan, chance, len(range(first + number, stop, PROCESSES)))
            os._exit(0)
        children.append(child)
    os.close(end)
    with open(alive, "rb") as pipe:  # noqa: PTH123 - a file descriptor
        pipe.read()  # returns when the last process with the other end has died
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        sys.exit("a process of the storm failed")


def _find_unloaded(plan: Plan) -> list[Unloaded]:
    unloaded = []
    for date in map(dt.date.fromisoformat, plan.days[:-1]):
        raw = read_workspace(USERS).folder("raw", date)
        if raw.exists() and not LoadMarker(Pipeline().database, USERS.name, date).exists():
            unloaded.append(Unloaded(date, raw.read_manifest(RawManifest).extracted_at, clock.utc_now()))
    return unloaded


publish = DayFolder.publish


def publish_and_keep(folder: DayFolder, manifest: msgspec.Struct) -> None:
    """Publish a day. Copy the extraction first, because a later command may erase parts of it or all of it."""
    if isinstance(manifest, RawManifest):
        copy = find_reading(str(manifest.date), manifest.extracted_at)
        shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns(f"{MANIFEST}*"))
        (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    publish(folder, manifest)


def _run_some(plan: Plan, chance: random.Random, number: int) -> None:
    """Run commands one after the other. Kill some of them within their usual duration."""
    usual: dict[str, float] = {}
    for words in choose(plan, chance, number):
        wait = chance.uniform(0, usual.get(words[0], 0.2)) if chance.random() < KILLED else None
        done = _run_command(words, wait, chance.choice([os.kill, os.killpg]))
        if done.code >= 0:
            usual[words[0]] = (usual.get(words[0], done.seconds) + done.seconds) / 2
        with LOG.open("ab", 0) as log:  # a single write keeps lines of several processes apart
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
            "forget": lambda: ["forget", "users", chance.choice(plan.keys), "--yes", "--unknown"],
        }.get(name, lambda: [name])()  # noqa: B023


def _run_command(words: list[str], wait: float | None, kill: Any) -> Operation:
    """Run a command in a child. After `wait` seconds kill the child alone, or with all its descendants."""
    output, began = Path(f"output-{os.getpid()}"), clock.utc_now()
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
    return Operation(words, code, began, (clock.utc_now() - began).total_seconds(), said)


def _be_command(words: Sequence[str], output: Path) -> int:
    """Run a command with its output in a file; returns its exit code."""
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
