"""All processes that read one source on a machine keep to its limits together."""

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from tests.support.project import fork
from tests.support.reading import DAY, People, read
from tests.support.server import Answer, Request, Server
from wholeday.config.source import Source, make_section
from wholeday.errors import ConfigError
from wholeday.extract.http.board import SharedBoard
from wholeday.extract.http.limiter import Limiter
from wholeday.extract.reader import Reader

pytestmark = pytest.mark.slow

PAGES = 15
PATIENCE = 60  # seconds to wait for events that must happen


class Counted:
    """A list of artists. It counts the requests in flight, from their arrival until their answer is sent."""

    def __init__(self, server: Server, path: str, wait: float = 0.0) -> None:
        self.arrived: list[float] = []
        self.most = self._now = 0
        self.on_request: Callable[[str], None] = str
        """Called with the name of the process that asks."""
        self._wait, self._lock = wait, threading.Lock()
        server.on(path, self._answer)

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.arrived.append(request.at)
            self._now += 1
            self.most = max(self.most, self._now)
            self.on_request(request.headers["X-Process"])
        time.sleep(self._wait)
        with self._lock:
            self._now -= 1
        page = int(request.query["page"])
        return Answer([{"id": page}] if page <= PAGES else [])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Share limits with no other test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read_all(section: type[Source]) -> None:
    """Read the pages in a process of its own, and exit with 1 if some are missing."""
    keys = {"paginator": "page", "headers": {"X-Process": section.section}}
    reader = Reader(section(url="/artists", source="forge", **keys), DAY)
    os._exit(sum(len(page) for page in reader) != PAGES)


def start_two() -> list[ForkProcess]:
    """Start two processes that read two datasets of the source."""
    return [fork(read_all, make_section(name)) for name in ("artists", "teams")]


def end(process: ForkProcess) -> int | None:
    """Return the exit code of a process, which is killed if it does not end."""
    process.join(PATIENCE)
    process.kill()
    process.join()
    return process.exitcode


def test_rate_holds_for_all_processes(server: Server, configure: Callable[..., None]) -> None:
    """No process sends a request before its time."""
    configure("source.forge", url=server.url, requests_per_second=25, concurrency=8)
    source, began = Counted(server, "/artists"), time.monotonic()
    assert [end(process) for process in start_two()] == [0, 0]
    assert len(source.arrived) >= 2 * PAGES
    assert all(at - began >= number / 25 for number, at in enumerate(sorted(source.arrived)))


def test_concurrency_holds_for_all_processes(server: Server, configure: Callable[..., None]) -> None:
    configure("source.forge", url=server.url, concurrency=3)
    source = Counted(server, "/artists", wait=0.05)
    assert [end(process) for process in start_two()] == [0, 0]
    assert len(source.arrived) >= 2 * PAGES
    assert source.most <= 3


def test_killed_process_frees_its_requests(server: Server, configure: Callable[..., None]) -> None:
    """It is killed while it has the only request in flight, and the other process waits."""
    configure("source.forge", url=server.url, concurrency=1)
    source = Counted(server, "/artists", wait=0.05)
    asked: list[str] = []

    def kill(name: str) -> None:
        asked.append(name)
        if asked.count("artists") == 3 and name == "artists":
            os.kill(victim.pid or 0, signal.SIGKILL)

    source.on_request = kill
    victim, other = start_two()
    assert end(other) == 0
    assert end(victim) == -signal.SIGKILL


def test_slots_of_killed_processes_return(tmp_path: Path) -> None:
    """Twenty processes are killed while they hold and ask for requests: none is lost, and the limit always holds."""
    folder = tmp_path / "board"
    witness = SharedBoard(folder)
    witness.join()

    def work() -> None:
        limits = Limiter(4, 0.0, SharedBoard(folder))
        limits.open()
        while True:
            with limits.acquire() or pytest.fail("it is open") as slot:
                slot.confirm()

    for number in range(5):
        processes = [fork(work) for _ in range(4)]
        before = witness.state.good
        while witness.state.good < before + 50 * (number + 1):
            assert witness.state.in_flight <= 4 + 4, "four, and what died between two steps"
        for process in processes:
            process.kill()
            process.join()
    limits = Limiter(4, 0.0, SharedBoard(folder))
    limits.open()
    slots = [limits.acquire() for _ in range(4)]
    assert all(slots)
    assert witness.state.in_flight == 4
    for _ in slots:
        limits.release()
    limits.close()
    assert (witness.state.in_flight, witness.state.waiting) == (0, 0)
    witness.leave()


def test_no_count_is_lost_between_processes(tmp_path: Path) -> None:
    """Each changes the numbers under a lock."""
    folder, times = tmp_path / "board", 5000
    witness = SharedBoard(folder)
    witness.join()

    def work() -> None:
        limits = Limiter(4, 0.0, SharedBoard(folder))
        limits.open()
        for _ in range(times):
            limits.raise_limit()
        limits.close()

    assert [end(process) for process in [fork(work) for _ in range(2)]] == [0, 0]
    assert witness.state.good == 2 * times
    witness.leave()


def test_dataset_without_source_shares_nothing(server: Server, cache: Path) -> None:
    Counted(server, "/artists")
    assert len(read(f"{server.url}/artists", paginator="page", headers={"X-Process": ""})) == PAGES
    assert not cache.exists()


def test_unusable_cache_is_one_line(
    server: Server, configure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("source.forge", url=server.url)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError) as caught:
        list(Reader(People(url="/artists", source="forge"), DAY))
    assert str(caught.value).startswith("[people] source = forge: cannot share its limits with other processes: ")
    assert "XDG_CACHE_HOME" in str(caught.value)
    assert not server.requests
