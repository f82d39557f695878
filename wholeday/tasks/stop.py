"""How a long run is asked to stop: by SIGINT (Ctrl-C) or SIGTERM, once to come to an end, twice to end at once.

Owns both signals while it watches. Nothing that is started meanwhile, however it is started, is disturbed by them,
though a terminal and systemd send them to every process: a day that is worked on is worked on to its end. Refuses one
that this process was told to ignore.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker


class Stop:
    """Whether a run is to stop: `asked` is the signal that said so, `outage` why the source cannot be reached."""

    asked: signal.Signals | None = None
    outage: str | None = None

    def __bool__(self) -> bool:
        return self.asked is not None or self.outage is not None


@contextlib.contextmanager
def watch(tell: Callable[[], object]) -> Iterator[Stop]:
    """Have the signals noted; `tell` is called when the first one comes. The second ends this process, as a kill would.

    To be called in the main thread, before others are started.
    """
    signals = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    stop, over = Stop(), threading.Event()

    def wait() -> None:
        while True:
            number = signal.Signals(signal.sigwait(signals))
            if over.is_set():
                return
            if stop.asked:
                _end_at_once(number)
            stop.asked = number
            tell()

    resource_tracker.ensure_running()  # to be begun, by a pool of the engine or by spawn, it would unblock them
    # What is blocked here is blocked in every thread and process that begins here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    thread = threading.Thread(target=wait, daemon=True)
    try:
        if signals:
            thread.start()
        yield stop
    finally:
        over.set()
        if signals and thread.ident:
            signal.pthread_kill(thread.ident, signals[0])
            thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_once(number: int) -> None:
    """End this process and its children, which lose nothing by it."""
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # the cursor, which a bar hides
        sys.stderr.flush()
    os._exit(128 + number)
