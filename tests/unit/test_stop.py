"""Signals that stop a run."""

import os
import signal
from collections.abc import Iterator

import pytest

from wholeday.tasks.stop import watch_signals

SIGNALS = {signal.SIGINT, signal.SIGTERM}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the handlers of the signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ignored_signal_stays_ignored():
    """`nohup`, and a shell for a job in the background, ignore Ctrl-C for their child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with watch_signals(lambda: None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert stop.asked is None


def test_signals_are_unblocked_after_the_run():
    """Later code of the process must be stoppable."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with watch_signals(lambda: None):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= SIGNALS
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
