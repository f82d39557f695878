"""Lock files between the processes of this machine.

The kernel releases a lock when the process ends. fcntl exists on POSIX only, so it is imported when a lock is taken.
"""

from typing import IO


def lock_file(file: IO[bytes]) -> None:
    """Lock an open file; wait until no other process or thread holds it. Closing the file releases the lock."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)


def lock_range(file: IO[bytes], length: int, start: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock bytes of an open file against other processes. A length of 0 means all bytes from `start`.

    Raises BlockingIOError if another process holds one of them and `wait` is False.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.lockf(file, kind if wait else kind | fcntl.LOCK_NB, length, start)
