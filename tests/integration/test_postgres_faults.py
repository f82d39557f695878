"""A load survives faults of PostgreSQL and of the network: it is atomic, and the next run completes the day.

PIPELINE_FAULTS=all tests every statement, and PIPELINE_KILLS sets how many instants of a commit are tested. The default
is one or two.
"""

import contextlib
import datetime as dt
import functools
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from pipeline.users import USERS
from tests.support import ROOT, databases
from tests.support.cluster import Cluster
from tests.support.model import ReadDay
from tests.support.project import dump_warehouse, execute, need, query
from tests.support.proxy import Proxy
from tests.support.store import Store, describe, incremental, snapshot, user
from wholeday.errors import InterruptedTransactionError, WarehouseError
from wholeday.load import postgres
from wholeday.load.clean_day import CleanDay
from wholeday.load.postgres import database
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

ALL = os.environ.get("PIPELINE_FAULTS") == "all"
KILLS = int(os.environ.get("PIPELINE_KILLS", "2"))
EARLIER = [snapshot(1, 10, user(1, "a", 5), user(2, "a", 5)), incremental(2, user(1, "b", 30), user(3, "a", 40))]
CASES = {
    "snapshot": snapshot(3, 60, user(1, "c", 50), user(3, "a", 40), user(4, "?", rejected=True)),
    "incremental": incremental(3, user(1, "c", 50), user(2, "c", 51, deleted=True), user(3, "?", rejected=True)),
}


class Watch:
    """Counts statements, and calls a function before a given one."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.at, self.act = 0, lambda: None

    def expect(self, at: int, act: Callable[[], None]) -> None:
        """Restart the count, and call `act` before statement number `at`."""
        self.statements.clear()
        self.at, self.act = at, act

    def reach(self, sql: str) -> None:
        self.statements.append(sql)
        if len(self.statements) == self.at:
            self.act()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch every statement of this process, except statements of the superuser."""
        execute, copy = psycopg.Connection.execute, psycopg.Cursor.copy

        def run(connection: Any, sql: Any, *rest: Any, **more: Any) -> Any:
            if connection.info.user != "postgres":
                self.reach(sql)
            return execute(connection, sql, *rest, **more)

        def start_copy(cursor: Any, sql: Any, *rest: Any, **more: Any) -> Any:
            self.reach(sql)
            return copy(cursor, sql, *rest, **more)

        monkeypatch.setattr(psycopg.Connection, "execute", run)
        monkeypatch.setattr(psycopg.Cursor, "copy", start_copy)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    watch.install(monkeypatch)
    return watch


def choose(numbers: list[int], few: int, seed: str) -> list[int]:
    """Return all numbers, or a sample that is the same in every run."""
    return numbers if ALL else sorted(random.Random(seed).sample(numbers, min(few, len(numbers))))


def prepare(cluster: Cluster) -> Store:
    """Create a warehouse with the days of EARLIER."""
    store = Store(cluster.make_url())
    for day in EARLIER:
        store.load(day)
    return store


def look(store: Store, day: ReadDay) -> tuple[bool, dict[str, Any]]:
    """Return whether the day has a marker, and the content of all tables."""
    return store.query(f"select count(*) from loads where date = '{day.date}'") == [(1,)], store.dump()


@pytest.mark.sweep
@pytest.mark.timeout(60 + 600 * ALL)
@pytest.mark.parametrize("case", CASES)
def test_server_killed_at_any_statement_keeps_load_atomic(cluster, watch, case):
    """G1: SIGKILL stops all server processes. After recovery the next load completes the day."""
    day = CASES[case]
    store = prepare(cluster)
    before = look(store, day)
    watch.expect(0, lambda: None)
    store.load(day)
    steps = watch.statements[: watch.statements.index("commit") + 1]
    after = look(store, day)
    assert len(steps) > 50
    for number in [*choose(list(range(2, len(steps))), 1, case), len(steps)]:
        store = prepare(cluster)
        watch.expect(number, cluster.restart)
        with pytest.raises(InterruptedTransactionError, match="the transaction was interrupted: run again"):
            store.load(day)
        assert look(store, day) == before, steps[number - 1]
        store.load(day)
        assert look(store, day) == after, steps[number - 1]


@pytest.mark.sweep
@pytest.mark.timeout(60 + 3 * KILLS)
def test_server_killed_during_commit_keeps_load_atomic(cluster, watch):
    """G1: SIGKILL stops the committing process microseconds after it receives the commit, and then all others."""
    day, found = CASES["snapshot"], Counter[bool]()
    store = prepare(cluster)
    before = look(store, day)
    watch.expect(0, lambda: None)
    store.load(day)
    steps, after = watch.statements.index("commit") + 1, look(store, day)
    chance = random.Random(KILLS)
    for _ in range(KILLS):
        store = prepare(cluster)
        watch.expect(steps, functools.partial(kill_soon, cluster, chance.uniform(0, 0.002)))
        with contextlib.suppress(InterruptedTransactionError):
            store.load(day)
        cluster.restart()
        state = look(store, day)
        assert state in (before, after)
        found[state[0]] += 1
        store.load(day)
        assert look(store, day) == after
    print(found)


def kill_soon(cluster: Cluster, delay: float) -> None:
    """Kill the server process of the only connection after `delay` seconds."""
    with psycopg.connect(host=str(cluster.folder), port=cluster.port, user="postgres") as connection:
        ((pid,),) = connection.execute("select pid from pg_stat_activity where usename = 'loader'").fetchall()

    def strike() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    threading.Timer(delay, strike).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a network to itself")
def test_silent_network_loss_is_detected():
    """The test switches its own network off during a load. The load ends in bounded time, and leaves no lock."""
    code = "from tests.integration import test_postgres_faults as faults; faults.lose_every_packet()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    need("ip")
    command = [need("unshare"), "--net", sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no network can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def lose_every_packet() -> None:
    """Load while the network is down, with shorter timeouts than the defaults."""
    for name in ("keepalives_idle", "keepalives_interval", "keepalives_count"):
        postgres.DEFAULTS[name] = postgres.SETTINGS[f"tcp_{name}"] = "1"
    postgres.DEFAULTS["tcp_user_timeout"] = "2000"
    switch = functools.partial(subprocess.run, check=True)
    switch(["ip", "link", "set", "lo", "up"])
    with Cluster.make() as cluster, pytest.MonkeyPatch.context() as patch:
        store, watch = Store(cluster.make_url(cluster.port)), Watch()
        watch.install(patch)
        store.load(EARLIER[0])
        watch.expect(30, lambda: switch(["ip", "link", "set", "lo", "down"]))
        with pytest.raises(InterruptedTransactionError, match="Connection timed out"):
            store.load(EARLIER[1])
        switch(["ip", "link", "set", "lo", "up"])
        store.load(EARLIER[1])


@pytest.mark.parametrize("rows", [0, 1])
def test_server_restart_during_copy_loses_nothing(cluster, rows):
    """Covers a copy without rows, and one with some rows sent."""
    store, day = prepare(cluster), CASES["incremental"]
    before = look(store, day)

    def break_off() -> Iterator[pa.RecordBatch]:
        batches = list(store.batches(day))
        yield from batches[:rows]
        cluster.restart()
        yield from batches[rows:]

    with pytest.raises(InterruptedTransactionError):
        store.warehouse.load(CleanDay(describe(day, extracted=3, rejected=1), break_off(), []))
    assert look(store, day) == before
    store.load(day)


# -- retries of the Load task -------------------------------------------------------------------------------------


DAY = dt.date(2026, 10, 31)


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with Proxy.open(cluster.port) as opened:
        yield opened


@pytest.fixture
def files(configure: Callable[..., None], copy_or_make: Callable[..., None]) -> list[dt.date]:
    """Create the raw and clean files of DAY and of the day before."""
    configure("users", url="demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=300")
    days = [DAY - dt.timedelta(days=1), DAY]

    def make() -> None:
        for day in days:
            stages.extract(read_workspace(USERS), day)
            stages.transform(read_workspace(USERS), day)

    copy_or_make("postgres", make)
    return days


@pytest.fixture
def whole(files: list[dt.date], configure: Callable[..., None], cluster: Cluster, proxy: Proxy) -> dict[str, Any]:
    """Load the day before through the proxy. Return the tables as they should be once DAY is loaded."""
    for port in (cluster.port, proxy.port):
        configure("pipeline", database=cluster.make_url(port))
        stages.load(read_workspace(USERS), files[0])
        if port == cluster.port:
            stages.load(read_workspace(USERS), DAY)
            whole = dump_warehouse()
    return whole


@pytest.mark.parametrize("moment", ["before", "after"])
def test_connection_lost_at_commit_reads_marker_before_retry(whole, proxy, watch, caplog, moment):
    """If the commit reached the server, the day is loaded. The retry keeps its marker and copies no rows."""
    proxy.cut_at_commit = moment
    stages.load(read_workspace(USERS), DAY)
    assert dump_warehouse() == whole
    copies = [sql for sql in watch.statements if sql.startswith('copy "_stage"')]
    assert len(copies) == {"before": 2, "after": 1}[moment]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert told[0].startswith(f"users {DAY}: postgresql+psycopg://***@/warehouse")
    assert told[0].endswith("the transaction was interrupted: run again; loading it again")
    assert query("select inserted > 200 from loads where date = ?", str(DAY)) == [(1,)]


@pytest.mark.sweep
def test_load_is_retried_after_a_lost_connection(whole, proxy, watch):
    for number in choose(list(range(2, 60)), 3, "cut"):
        execute(f"delete from loads where date = '{DAY}'")
        watch.expect(number, proxy.cut)
        stages.load(read_workspace(USERS), DAY)
        assert dump_warehouse() == whole, watch.statements[number - 1]


def test_load_fails_after_three_lost_connections(whole, proxy, watch, caplog):
    """The next run loads the day."""
    before = dump_warehouse()

    def cut_again() -> None:
        proxy.cut()
        watch.expect(10, cut_again)

    watch.expect(10, cut_again)
    with pytest.raises(InterruptedTransactionError, match=r"the transaction was interrupted: run again$"):
        stages.load(read_workspace(USERS), DAY)
    assert caplog.text.count("loading it again") == 2
    watch.expect(0, lambda: None)
    assert dump_warehouse() == before
    stages.load(read_workspace(USERS), DAY)
    assert dump_warehouse() == whole


def test_load_waits_for_a_restarting_server(whole, cluster, watch):
    """The server is killed during a load, and starts again after a second."""

    def go_away() -> None:
        cluster.kill()
        timer.start()

    timer = threading.Timer(1, cluster.start)
    watch.expect(40, go_away)
    stages.load(read_workspace(USERS), DAY)
    timer.join()
    assert dump_warehouse() == whole


def test_wait_for_a_stopped_server_is_bounded(whole, cluster, watch, monkeypatch):
    before = dump_warehouse()
    monkeypatch.setattr(database, "PATIENCE", 0.5)
    watch.expect(40, cluster.kill)
    try:
        with pytest.raises(WarehouseError, match=": check that it runs, and that ") as caught:
            stages.load(read_workspace(USERS), DAY)
    finally:
        cluster.start()
    assert "\n" not in str(caught.value)
    assert dump_warehouse() == before
    stages.load(read_workspace(USERS), DAY)
    assert dump_warehouse() == whole


@pytest.mark.timeout(180)
def test_failover_during_a_load_continues_on_the_standby(cluster, watch, configure, files):
    """The same URL finds the promoted standby. The standby is synchronous, so it has every loaded day."""
    configure("pipeline", database=cluster.make_url())
    for day in files:
        stages.load(read_workspace(USERS), day)
    whole = dump_warehouse()
    with cluster.follow() as standby:
        url = f"{cluster.make_url(cluster.port, standby.port)}&target_session_attrs=read-write"
        configure("pipeline", database=url)
        cluster.execute("alter system set synchronous_standby_names = '*'")
        cluster.execute("select pg_reload_conf()")
        try:
            stages.load(read_workspace(USERS), files[0])

            def fail_over() -> None:
                cluster.kill()
                standby.execute("select pg_promote()")

            watch.expect(40, fail_over)
            stages.load(read_workspace(USERS), DAY)
            assert dump_warehouse() == whole
            ((port,),) = databases.query(url, "select current_setting('port')")
            assert int(port) == standby.port
        finally:
            cluster.start(synchronous_standby_names="")
            cluster.execute("alter system reset synchronous_standby_names")
            cluster.restart()
