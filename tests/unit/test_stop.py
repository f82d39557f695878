"""How a run watches for signals: which it heeds, and that it leaves everything as it found it."""

import os
import signal
from collections.abc import Iterator

import pytest

from wholeday.tasks.stop import watch_signals

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What the signals did before, they do after."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_this_process_was_told_to_ignore_is_ignored():
    """As `nohup` and a shell that runs it in the background do with Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with watch_signals(lambda: None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert stop.asked is None


def test_when_it_is_over_the_signals_are_as_they_were():
    """Else nothing could be stopped that comes after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with watch_signals(lambda: None):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= SIGNALS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
