"""Fuzz answers of a source. Each record reaches the warehouse, or the run fails with one line.

PIPELINE_FUZZ is the number of cases. PIPELINE_FUZZ_SEED=SEED runs one case, and `NUMBER-` runs the cases from this
number on.
"""

import contextlib
import datetime as dt
import itertools
import logging
import os
import resource
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import ExtractUsers, LoadUsers, TransformUsers
from tests.support.cluster import MEMORY
from tests.support.mutations import KINDS as SECTIONS
from tests.support.mutations import Case, make_case
from tests.support.oracle import canonicalise, find_row, read_days
from tests.support.project import luigi_run
from tests.support.wire import Wire
from wholeday.extract import outage
from wholeday.extract.http import body, deadline, retries
from wholeday.storage.lines import unpack
from wholeday.tasks import console

pytestmark = pytest.mark.sweep

DAY = dt.date(2026, 10, 31)
CASES = int(os.environ.get("PIPELINE_FUZZ", "100"))
SEED = os.environ.get("PIPELINE_FUZZ_SEED", "0-")
SECONDS = 60.0  # seconds for a case; each of its few requests ends after at most LIMIT seconds
LIMIT = 3.0
GROWTH = 200 * 2**20  # bytes of memory; the largest body has 1 MiB
MOST = 20  # failed cases before it stops

Lines = list[logging.LogRecord]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set small limits, and a data folder in memory."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    monkeypatch.setattr(body, "MAX_BODY", 2**20)
    monkeypatch.setattr(deadline, "MAX_SECONDS", LIMIT)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, contextlib.chdir(folder):
        yield


class Keeper(logging.Handler):
    """Stores log records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Lines = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


class Fuzz:
    """Runs cases against one server, each in an empty data folder."""

    def __init__(self, wire: Wire, configure: Callable[..., None]) -> None:
        self.wire, self._configure, self._keeper = wire, configure, Keeper()
        self.outcomes: Counter[str] = Counter()

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Capture Luigi's log without printing it."""
        logger = logging.getLogger("luigi-interface")
        before = logger.propagate, logger.level
        logger.addHandler(self._keeper)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self._keeper)
            logger.propagate = before[0]
            logger.setLevel(before[1])

    def check(self, case: Case) -> str:
        """Run a case. Return the problem with its outcome, if any."""
        defaults = {"paginator": "auto", "cursor_path": "", "data_selector": "auto", "total_path": "", "page_start": ""}
        self._configure("users", url=self.wire.url + "/u", retries=1, timeout=case.timeout, max_wait="1 seconds")
        self._configure("users", max_reject_ratio=1.0)
        self._configure("users", **defaults | SECTIONS[case.kind])
        self.wire.show(case.answers)
        shutil.rmtree("data", ignore_errors=True)
        started = time.monotonic()
        error = self._run()
        seconds = time.monotonic() - started
        problem = self._find_problem(case, error)
        if seconds > SECONDS:
            problem = problem or f"it took {seconds:.1f} s"
        return f"{problem}\n{error!r}" if problem else ""

    def _run(self) -> Exception | None:
        """Run the tasks of a day as Luigi does. Return the error that ended them."""
        outage.forget()
        self._keeper.lines.clear()
        try:
            for task in (ExtractUsers(date=DAY), TransformUsers(date=DAY), LoadUsers(date=DAY)):
                task.run()
                if not task.complete():
                    return AssertionError(f"{task} is not complete")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            return error
        return None

    def _find_problem(self, case: Case, error: Exception | None) -> str:
        said = [record.getMessage() for record in self._keeper.lines]
        if any(record.exc_info for record in self._keeper.lines):
            return "a traceback in the log"
        if error is None:
            self.outcomes["loaded"] += 1
            return self._find_loss(case)
        line = console.describe_error(error)
        self.outcomes["failed"] += 1
        if line is None:
            return "a traceback"
        if case.sound:
            return "a sound answer is refused"
        if bad := next((each for each in (line, *said) if not each.isprintable() or len(each) > 2000), ""):
            return f"no clean line: {bad[:3000]!r}"
        if Path("data/warehouse.db").exists() and _query("select 1 from loads where dataset = 'users'"):
            return "the day failed, and has a marker"
        return ""

    def _find_loss(self, case: Case) -> str:
        """Return the difference between the answers, the raw files and the tables."""
        files = sorted(Path("data/raw/users").glob(f"date={DAY}/part-*"))
        lines = [line for file in files for line in unpack(file.read_bytes())]
        days = read_days(case)
        if canonicalise(lines) not in days:
            return f"{len(lines)} records came, and the answers mean {sorted(map(len, days))}"
        rejected = {line for (line,) in _query("select line from rejects where dataset = 'users'")}
        users = {user: (user, *rest) for user, *rest in _query("select user_id, name, email, city from users")}
        ((extracted, *counts),) = _query("select extracted, rejected from loads where dataset = 'users'")
        if extracted != len(lines) or counts != [len(rejected)]:
            return f"the marker says {extracted} and {counts}, and {len(lines)} came, {len(rejected)} of them rejects"
        kept: dict[int, list[Any]] = {}
        unsure = False
        for number, line in enumerate(lines, start=1):
            row = find_row(line)
            if row is None and number not in rejected:
                return f"this is no user, and no reject: {line[:200]!r}"
            if isinstance(row, tuple) and number in rejected:
                return f"a reject that is a user: {line[:200]!r}"
            unsure = unsure or (row == "?" and number not in rejected)
            if isinstance(row, tuple):
                kept.setdefault(row[0], []).append(row)
        if any(user not in users for user in kept) or (not unsure and users.keys() != kept.keys()):
            return f"the table has {sorted(users)}, and {sorted(kept)} came"
        wrong = [user for user, rows in kept.items() if users[user] not in rows]
        return f"other rows than came: {[users[user] for user in wrong]}" if wrong and not unsure else ""


def _query(sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        return db.execute(sql).fetchall()


def list_seeds() -> Iterator[str]:
    """Return the seeds of this run."""
    if not SEED.endswith("-"):
        yield SEED
        return
    for number in range(CASES):
        yield str(int(SEED[:-1]) + number)


@pytest.mark.timeout(CASES * 2 + 300)
@pytest.mark.usefixtures("small")
def test_answer_loads_completely_or_fails_with_one_line(configure):
    """A failing seed is printed with the bytes of its answers."""
    failed: list[str] = []
    with Wire() as wire:
        fuzz = Fuzz(wire, configure)
        with fuzz.listen():
            warm = next(case for number in itertools.count() if (case := make_case(f"warm {number}")).sound)
            assert fuzz.check(warm) == ""  # import everything before measuring memory
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for seed in list_seeds():
                case = make_case(seed)
                if problem := fuzz.check(case):
                    failed.append(seed)
                    print(f"seed {seed} ({case.kind}): {problem}\n{case.answers}\n", flush=True)
                if len(failed) == MOST:
                    break
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(fuzz.outcomes, f"memory grew by {grown / 2**20:.0f} MiB")
    assert not failed, f"PIPELINE_FUZZ_SEED={failed[0]} runs the first alone"
    assert grown < GROWTH
    if SEED.endswith("-") and CASES >= 100:
        assert min(fuzz.outcomes["loaded"], fuzz.outcomes["failed"]) > CASES / 10


@pytest.mark.usefixtures("home", "small")
def test_luigi_exit_code_matches_the_tasks(configure):
    """In its own process, Luigi exits with 0, or with another code and one line."""
    cases = [make_case(str(number)) for number in range(20)]
    chosen = [next(case for case in cases if case.sound), next(case for case in cases if not case.sound)]
    with Wire() as wire:
        for case in chosen:
            fuzz = Fuzz(wire, configure)
            with fuzz.listen():
                assert fuzz.check(case) == ""
            wire.show(case.answers)
            shutil.rmtree("data", ignore_errors=True)
            keys = {"url": wire.url + "/u", "retries": 1, "timeout": 20, "max_reject_ratio": 1.0} | SECTIONS[case.kind]
            flags = [word for name, key in keys.items() for word in (f"--users-{name.replace('_', '-')}", str(key))]
            ran = luigi_run("LoadUsers", "--date", str(DAY), "--local-scheduler", *flags)
            assert (ran.returncode == 0) == bool(fuzz.outcomes["loaded"])
            assert ran.stderr.count("ERROR") == fuzz.outcomes["failed"], ran.stderr
            assert "Traceback" not in ran.stderr
