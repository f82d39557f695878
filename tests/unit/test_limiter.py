"""The limit of requests in flight follows the answers of the source."""

import random
import threading
import time

import pytest

from wholeday.extract.http.board import TRY_MORE_AFTER
from wholeday.extract.http.limiter import Limiter, Slot

PATIENCE = 20  # seconds to wait for a certain event


def fill(limits: Limiter) -> list[Slot]:
    """Take all free slots."""
    return [limits.acquire() for _ in range(limits.limit)]


def answer(limits: Limiter, slots: list[Slot], bearable: int = 64) -> int:
    """End requests to a source that bears so many at a time. Return how many it refuses."""
    refused = [slot for slot in slots if slot.beside >= bearable]
    for slot in slots:
        slot.refuse() if slot in refused else slot.confirm()
        limits.release()
    return len(refused)


def test_limit_doubles_up_to_the_concurrency() -> None:
    limits, seen = Limiter(12), []
    for _ in range(6):
        seen.append(limits.limit)
        answer(limits, fill(limits))
    assert seen == [1, 2, 4, 8, 12, 12]


@pytest.mark.parametrize("bearable", [1, 2, 3, 5, 8, 13])
def test_limit_settles_at_what_the_source_bears(bearable: int) -> None:
    """The source is overloaded once. After that as many requests run as it bears, or one less."""
    limits, refused, sent = Limiter(16), 0, 0
    for _ in range(200):
        slots = fill(limits)
        sent += len(slots)
        refused += answer(limits, slots, bearable)
    assert 0 < refused <= 16
    assert bearable <= limits.limit <= bearable + 1
    assert sent >= 0.9 * 200 * bearable


def test_refusals_of_one_moment_halve_the_limit_once() -> None:
    limits = Limiter(16)
    for _ in range(4):
        answer(limits, fill(limits))
    slots = fill(limits)
    assert [slot.refuse() for slot in slots] == [True] + 15 * [False]
    assert limits.limit == 8


def test_more_requests_are_tried_after_a_while() -> None:
    """A source that bears more later is used fully again, step by step. The wait doubles with each refusal."""
    limits = Limiter(8)
    for _ in range(4):
        answer(limits, fill(limits), bearable=3)
    seen = [limits.limit]
    for _ in range(100):
        answer(limits, fill(limits))
        seen.append(limits.limit)
    assert list(dict.fromkeys(seen)) == [3, 4, 5, 6, 7, 8]
    assert seen.count(4) == seen.count(5) == 2 * TRY_MORE_AFTER


def test_limit_holds_for_threads() -> None:
    limits, lock, most, now = Limiter(6), threading.Lock(), [0], [0]

    def work() -> None:
        for _ in range(50):
            with limits.acquire() as slot:
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                time.sleep(random.random() / 10000)
                with lock:
                    now[0] -= 1
                slot.confirm()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (most, now) == ([6], [0])


def test_closing_ends_all_waiting() -> None:
    limits, over = Limiter(1), threading.Event()
    limits.acquire()

    def wait() -> None:
        limits.acquire()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not over.is_set()
    limits.close()
    assert over.wait(PATIENCE)
