"""Measure every contender on the same work, in turn.

    ./run.sh bench                                10,000 and 100,000 users, three rounds
    ./run.sh bench --sizes 1000000 --rounds 1     a million takes minutes for some; --only names those to measure
    ./run.sh bench --scenarios backfill --days 400 3652
    ./run.sh bench --scenarios postgresql --postgresql loader@127.0.0.1:5432/bench
    ./run.sh bench --write                        also writes docs/explanation/benchmarks.md and its picture

Each run is a process of its own, in an environment below .bench. All runs read one source on loopback. Rounds are
interleaved, so a slow moment of the machine slows every contender: compare the ratios within a round. An additional,
untimed run measures CPU and memory of all processes; shared pages count once. A run with a wrong table has no result.
The file .bench/results.json keeps the last measurement of each scenario and size.
"""

import argparse
import datetime as dt
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
from rich.console import Console

from benchmarks.contenders import BACKFILL, CONTENDERS, FIRST, POSTGRES, SKIP, SLOW, UPSERT, WINDOWS, Contender
from benchmarks.results import Failure, Group, Measure, Results
from benchmarks.source import CHANGED_FROM, EVERY, FIRST_DAY, PER_DAY

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".bench"
RESULTS = ENVIRONMENTS / "results.json"
LOOK_EVERY = 0.05  # seconds
LONGEST = 3600.0
SCHEMA = "bench"  # of PostgreSQL, dropped before each run
BOUNDS = "from={day_start:epoch}&to={day_stop:epoch}"


class Scenario(NamedTuple):
    """A piece of work: the ability it needs, the kind of users loaded the day before, and the kind that is measured."""

    needs: str = FIRST
    before: str = ""
    kind: str = "first"
    latency: float = 0.0


SCENARIOS = {
    "first": Scenario(),
    "unchanged": Scenario(UPSERT, "first"),
    "1 % changed": Scenario(UPSERT, "first", "changed"),
    "10 ms a request": Scenario(SLOW, latency=0.01),
    "50 ms a request": Scenario(SLOW, latency=0.05),
    "200 ms a request": Scenario(SLOW, latency=0.2),
    "a cursor": Scenario(WINDOWS),
    "a cursor, 50 ms a request": Scenario(WINDOWS, latency=0.05),
    "nothing to do": Scenario(SKIP),
    "backfill": Scenario(BACKFILL),
    "postgresql": Scenario(POSTGRES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=["first"], help="the work to measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of users")
    parser.add_argument("--days", type=int, nargs="+", default=[400], help=f"of a backfill, {PER_DAY} users each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTENDERS], help="names of contenders")
    parser.add_argument("--postgresql", help="a database of PostgreSQL: user:password@host:port/name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the measurements")
    parser.add_argument("--write", action="store_true", help="write the page of the benchmarks from all measurements")
    options = parser.parse_args()
    if "postgresql" in options.scenarios and not options.postgresql:
        parser.error(
            "the scenario postgresql needs --postgresql user:password@host:port/name, a database that may be filled"
        )
    results, console = Results.read(options.results), Console()
    some = [contender for contender in CONTENDERS if not options.only or contender.name in options.only]
    with tempfile.TemporaryDirectory(prefix="bench-") as name, serve(Path(name), options.sizes) as root:
        for scenario in options.scenarios:
            for size in options.days if scenario == "backfill" else options.sizes:
                group = measure(some, scenario, size, options.rounds, Path(name), root, options.postgresql)
                results.put(scenario, size, group)
                results.write(options.results)
                console.print(results.draw(scenario, size))
    if options.write:
        from benchmarks.report import write

        write(results, ROOT / "docs" / "explanation")


@contextmanager
def serve(folder: Path, sizes: Sequence[int]) -> Iterator[str]:
    """Serve the source in a process of its own. Yield its URL."""
    command = [sys.executable, "-m", "benchmarks.source", str(folder), *map(str, sizes)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def measure(
    some: Sequence[Contender], name: str, size: int, rounds: int, folder: Path, root: str, server: str = ""
) -> Group:
    """Run the contenders round by round."""
    scenario = SCENARIOS[name]
    able = [c for c in some if scenario.needs in c.commands and (scenario.needs == BACKFILL or size <= c.largest)]
    group = Group(os.getloadavg()[0], {contender.name: [] for contender in able}, {})
    for watched in [False] * rounds + [True]:
        for contender in able:
            result = run(contender, scenario, size, folder, root, server, watched)
            print(f"{name}, {size:,}, {contender.name}: {result}", file=sys.stderr)
            if watched:
                group.watched[contender.name] = result
            else:
                group.runs[contender.name].append(result)
    return group


def run(
    contender: Contender, scenario: Scenario, size: int, folder: Path, root: str, server: str = "", watch: bool = False
) -> Measure | Failure:
    """Do a piece of work once in an empty folder, and measure its last step."""
    today = dt.datetime.now(dt.UTC).date()
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as name:
        work = Path(name)
        shutil.copy(ROOT / "luigi.cfg", work)
        words = {
            "bin": "",
            "folder": str(work),
            "database": str(work / "warehouse.db"),
            "root": root,
            "server": server,
            "schema": SCHEMA,
            "url": f"{root}/users/{size}?kind={scenario.kind}&latency={scenario.latency}",
            "windows": f"{root}/windows/{size}?latency={scenario.latency}&{BOUNDS}",
            "date": str(today),
            "yesterday": str(today - dt.timedelta(1)),
            "start": str(FIRST_DAY),
            "stop": str(FIRST_DAY + dt.timedelta(size if scenario.needs == BACKFILL else 0)),
        }
        try:
            words["bin"] = str(set_up(contender))
            if scenario.needs == POSTGRES:
                empty(server)
            if scenario.before:
                yesterday = {"url": f"{root}/users/{size}?kind={scenario.before}", "date": str(today - dt.timedelta(1))}
                start(contender, FIRST, words | yesterday, size)
            if scenario.needs == SKIP and FIRST in contender.commands:
                start(contender, FIRST, words, size)
            result = start(contender, scenario.needs, words, size, watched=watch)
            check(contender, work / "warehouse.db", scenario, size, server)
        except RuntimeError as error:
            return Failure(str(error))
        return result


def set_up(contender: Contender) -> Path:
    """Return the programs folder of a contender, installed if its requirements are new. Raises RuntimeError."""
    if missing := [name for name in contender.programs if not shutil.which(name)]:
        raise RuntimeError(f"{' and '.join(missing)} not installed")
    if not contender.requirements:
        return Path(sys.executable).parent
    text = "\n".join(contender.requirements)
    folder = ENVIRONMENTS / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (folder / "installed").exists():
        print(f"installing {', '.join(contender.requirements)}", file=sys.stderr)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([*pip, *contender.requirements], check=True)
        except subprocess.CalledProcessError:
            raise RuntimeError(f"{', '.join(contender.requirements)} could not be installed") from None
        (folder / "installed").write_text(text)
    return folder / "bin"


def start(contender: Contender, ability: str, words: dict[str, str], size: int, *, watched: bool = False) -> Measure:
    """Run a command to its end. Raises RuntimeError with its last line if it fails."""
    days = [f"{words['root']}/days/{FIRST_DAY + dt.timedelta(n)}" for n in range(size)] if ability == BACKFILL else []
    command: list[str] = []
    for word in contender.commands[ability]:
        command += days if word == "{urls}" else [word.format_map(words)]
    os.sync()  # a run must not wait for the writes of the run before
    with Path(words["folder"], "output").open("w+") as output:
        clock = time.perf_counter()
        process = subprocess.Popen(command, cwd=words["folder"], stdout=output, stderr=output, start_new_session=True)
        watch = Watch(process.pid) if watched else None
        # wait(timeout) polls every 50 ms, which would hide differences between short runs.
        alarm = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
        alarm.daemon = True  # an interrupt must not wait for it
        alarm.start()
        code = process.wait()
        seconds = time.perf_counter() - clock
        alarm.cancel()
        if watch:
            watch.stop()
        if code:
            output.seek(0)
            lines = output.read().strip().splitlines() or [""]
            why = code if seconds < LONGEST else f"more than {LONGEST:.0f} s"
            raise RuntimeError(f"failed ({why}): {lines[-1][:300]}")
    return Measure(seconds, watch.cpu, watch.peak) if watch else Measure(seconds)


class Watch(threading.Thread):
    """Poll a process and its descendants for the peak of their memory and for their CPU time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._process, self._ended = psutil.Process(pid), threading.Event()
        self._seconds: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            total = 0
            try:
                processes = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                continue
            for process in processes:
                try:
                    used, times = process.memory_full_info(), process.cpu_times()
                except psutil.Error:
                    continue
                total += getattr(used, "pss", used.rss)
                self._seconds[process.pid] = times.user + times.system
            self.peak = max(self.peak, total)

    def stop(self) -> None:
        """Stop polling."""
        self._ended.set()
        self.join()

    @property
    def cpu(self) -> float:
        """Return the CPU seconds of all processes, each as last seen."""
        return sum(self._seconds.values())


def empty(server: str) -> None:
    """Drop the schema of the run before in PostgreSQL. Raises RuntimeError."""
    try:
        with psycopg.connect(f"postgresql://{server}") as db:
            db.execute(f"drop schema if exists {SCHEMA} cascade")
    except psycopg.Error as error:
        raise RuntimeError(f"PostgreSQL: {' '.join(str(error).split())}") from None


def count(sql: str, database: Path, server: str) -> tuple[int, int]:
    """Return the result of a query in the file, or without one in PostgreSQL. Raises RuntimeError."""
    try:
        if server and not database.exists():
            with psycopg.connect(f"postgresql://{server}", options=f"-csearch_path={SCHEMA}") as db:
                found = db.execute(sql).fetchone()
        else:
            with closing(sqlite3.connect(database)) as db:
                found = db.execute(sql).fetchone()
    except (sqlite3.Error, psycopg.Error) as error:
        raise RuntimeError(f"the table cannot be read: {error}") from None
    return found


def check(contender: Contender, database: Path, scenario: Scenario, size: int, server: str) -> None:
    """Raise RuntimeError unless the table holds all users in the state of the source."""
    if not contender.table:
        return
    sql = f"select count(*), count(*) filter (where updated_at >= '{CHANGED_FROM}') from {contender.table}"  # noqa: S608
    users = size * PER_DAY if scenario.needs == BACKFILL else size
    should = users, users // EVERY if scenario.kind == "changed" else 0
    found = count(sql, database, server)
    if found != should:
        raise RuntimeError(
            f"the table has {found[0]} users, {found[1]} of them changed; should be {should[0]}, {should[1]}"
        )


if __name__ == "__main__":
    main()
