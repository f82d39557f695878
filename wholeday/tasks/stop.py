"""Stop a long run on SIGINT (Ctrl-C) or SIGTERM: the first signal ends it in an orderly way, the second at once.

Responsibilities: both signals while a run is watched. A terminal and systemd signal every process of a group, so
both signals are blocked in all threads and child processes: a running day is finished.
Non-goals: a signal that this process was started to ignore, as `nohup` does.
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
    """Why a run is to stop: the signal that `asked` for it, or the `outage` of the source. False as long as neither."""

    asked: signal.Signals | None = None
    outage: str | None = None

    def __bool__(self) -> bool:
        return self.asked is not None or self.outage is not None


@contextlib.contextmanager
def watch_signals(on_first: Callable[[], object]) -> Iterator[Stop]:
    """Note the first signal and call `on_first`. The second signal kills this process and its children.

    Call this in the main thread, before other threads start.
    """
    signals = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    stop, over = Stop(), threading.Event()

    def wait() -> None:
        while True:
            number = signal.Signals(signal.sigwait(signals))
            if over.is_set():
                return
            if stop.asked:
                _kill_processes(number)
            stop.asked = number
            on_first()

    resource_tracker.ensure_running()  # started later, by a pool or by spawn, it would unblock the signals
    # Threads and processes that start from here inherit the blocked signals.
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


def _kill_processes(number: int) -> None:
    """Kill the child processes, then exit. Every file and table is written atomically, so nothing is lost."""
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # show the cursor, which a progress bar hides
        sys.stderr.flush()
    os._exit(128 + number)
