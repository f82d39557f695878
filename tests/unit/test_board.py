"""Processes that share a board share the limit of requests, its adaptation and the pace."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wholeday.extract.http import board
from wholeday.extract.http.board import SEATS, SharedBoard, find_folder
from wholeday.extract.http.limiter import Limiter

PATIENCE = 20  # seconds to wait for a certain event


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[list[SharedBoard]]:
    """Join three boards of one folder, each as another process would."""
    made = [SharedBoard(tmp_path / "board") for _ in range(3)]
    for each in made:
        each.join()
    yield made
    for each in made:
        each.leave()


@pytest.fixture
def make_limiter(tmp_path: Path) -> Iterator[Callable[..., Limiter]]:
    """Return a function that opens one more limiter of the same board, as another process would."""
    made: list[tuple[Limiter, SharedBoard]] = []

    def make(concurrency: int = 8, rate: float = 0.0) -> Limiter:
        shared = SharedBoard(tmp_path / "board")
        made.append((Limiter(concurrency, rate, shared), shared))
        made[-1][0].open()
        return made[-1][0]

    yield make
    for limiter, shared in made:
        limiter.close()
        shared.leave()  # a limiter with requests in flight has not left


def test_requests_of_all_processes_count(boards: list[SharedBoard]) -> None:
    first, second, third = boards
    assert [each.take(2) for each in boards] == [True, True, False]
    second.give_back()
    assert third.take(2)
    assert not first.take(2)


def test_processes_take_turns(boards: list[SharedBoard]) -> None:
    """A process that ends a request cannot begin the next one before another that has waited."""
    first, second, third = boards
    assert [each.take(1) for each in boards] == [True, False, False]
    first.give_back()
    assert [first.take(1), third.take(1), second.take(1)] == [False, False, True]
    second.give_back()
    assert [second.take(1), first.take(1), third.take(1)] == [False, False, True]
    third.give_back()
    assert [second.take(1), first.take(1)] == [False, True]


def test_stopped_process_holds_up_nobody(boards: list[SharedBoard], monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its requests, not its place in the queue."""
    first, second, _ = boards
    assert [first.take(1), second.take(1)] == [True, False]
    first.give_back()
    assert not first.take(1)
    monkeypatch.setattr(board, "ABSENT", -1.0)
    assert first.take(1)


def test_ended_process_is_cleared(boards: list[SharedBoard]) -> None:
    """Closing its files releases its locks, as SIGKILL does."""
    first, second, third = boards
    assert [first.take(2), second.take(2), first.take(2)] == [True, True, False]
    assert first._chair
    assert first._file
    first._chair.close()
    first._file.close()
    first._file = None
    assert not third.take(2), "the question that finds out"
    assert third.take(2)
    assert (third.state.in_flight, third.state.waiting) == (2, 0)


def test_leaving_gives_all_back(boards: list[SharedBoard]) -> None:
    first, second, third = boards
    assert [first.take(2), first.take(2), first.take(2), second.take(2)] == [True, True, False, False]
    first.leave()
    assert third.state.in_flight == 0
    assert [third.take(2), second.take(2)] == [False, True]


def test_refusal_cuts_the_limit_of_all(make_limiter: Callable[..., Limiter]) -> None:
    first, second = (make_limiter() for _ in range(2))
    for _ in range(7):
        first.raise_limit()
    assert (first.limit, second.limit) == (8, 8)
    slots = [second.acquire() for _ in range(8)]
    assert slots[-1]
    assert slots[-1].beside == 7
    assert slots[-1].refuse()
    assert (first.limit, second.limit) == (4, 4)


def test_each_process_keeps_to_its_own_concurrency(make_limiter: Callable[..., Limiter]) -> None:
    many, few = make_limiter(), make_limiter(2)
    for _ in range(7):
        many.raise_limit()
    assert (many.limit, few.limit) == (8, 2)
    assert many.acquire()
    assert many.acquire()
    assert not few._board.take(few.limit)


def test_first_process_begins_anew(make_limiter: Callable[..., Limiter]) -> None:
    """A night does not begin with the refusals of the last one."""
    first = make_limiter()
    for _ in range(7):
        first.raise_limit()
    second = make_limiter()
    assert second.limit == 8
    first.close()
    second.close()
    assert make_limiter().limit == 1


def test_pace_is_shared_and_outlives_processes(make_limiter: Callable[..., Limiter]) -> None:
    """The first start is now. The others follow at the interval, for every process."""
    began = time.monotonic()
    first, second = (make_limiter(rate=0.1) for _ in range(2))
    waits = [first.reserve(), second.reserve(), first.reserve()]
    first.close()
    second.close()
    waits.append(make_limiter(rate=0.1).reserve())
    passed = time.monotonic() - began
    assert waits[0] == 0
    assert all(10 * number - passed <= wait <= 10 * number for number, wait in enumerate(waits))


def test_restart_of_the_machine_ends_all_waits(boards: list[SharedBoard]) -> None:
    """The monotonic clock begins again, so the last reservation seems to lie in the future."""
    limits = Limiter(1, 0.1, boards[0])
    boards[0].state.next_start = time.monotonic() + 10**6
    boards[0].state.reserved_at = time.monotonic() + 10**6 - 1
    assert limits.reserve() == 0


def test_requests_in_flight_count_after_close(make_limiter: Callable[..., Limiter]) -> None:
    """A thread may still wait for an answer. The board is left after the last one."""
    first, second = (make_limiter(1) for _ in range(2))
    slot = first.acquire()
    assert slot
    first.close()
    assert first.acquire() is None
    assert not second._board.take(1)
    with slot:
        pass
    assert second.acquire()


def test_closing_ends_waiting_and_queueing(make_limiter: Callable[..., Limiter]) -> None:
    first, second, third = (make_limiter(1) for _ in range(3))
    with first.acquire() or pytest.fail("it is free"):
        found: list[object] = []
        threads = [threading.Thread(target=lambda: found.append(second.acquire())) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not second._board.state.waiting:
            pass
        second.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert found == [None] * 3
        assert first._board.state.waiting == 0
    assert third.acquire()


def test_board_has_a_seat_for_each_process(tmp_path: Path) -> None:
    boards = [SharedBoard(tmp_path / "board") for _ in range(SEATS + 1)]
    for each in boards[:-1]:
        each.join()
    with pytest.raises(OSError, match=rf"^{SEATS} processes share "):
        boards[-1].join()
    boards[7].leave()
    boards[-1].join()
    assert boards[-1]._number == 7
    for each in boards:
        each.leave()


@pytest.mark.parametrize("content", [b"", b"\0" * 10, b"\xff" * 4000], ids=["empty", "short", "damaged"])
def test_damaged_file_is_begun_anew(tmp_path: Path, make_limiter: Callable[..., Limiter], content: bytes) -> None:
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "limits").write_bytes(content)
    limits = make_limiter(rate=10.0)
    assert (limits.limit, limits.reserve()) == (1, 0)
    assert limits.acquire()


@pytest.mark.usefixtures("boards")
def test_file_that_is_removed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    """Someone clears the cache. The locks of the seats may be left."""
    (tmp_path / "board" / "limits").unlink()
    another = SharedBoard(tmp_path / "board")
    another.join()
    assert another.state.limit == 1
    assert another.take(1)
    another.leave()


def test_source_is_known_by_name_and_base_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret in a URL does not matter, and is not in the path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = find_folder("forge", "https://ann:hunter2@api.example.com/v3/")
    assert folder.parent == tmp_path / "wholeday" / "sources"
    assert folder == find_folder("forge", "https://api.example.com/v3")
    assert folder != find_folder("other", "https://api.example.com/v3")
    assert folder != find_folder("forge", "https://api.example.com/v4")
    assert "hunter2" not in str(folder)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_folder("forge", "http://a").parent == Path.home() / ".cache" / "wholeday" / "sources"
