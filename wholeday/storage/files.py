"""Make and lock files and folders of this machine: who may read them, and that they survive a power cut.

Responsibilities: every file and folder that the pipeline creates is created here, with the mode that its caller asks
for (`[pipeline] file_mode`). The kernel releases a lock when the process ends. fcntl exists on POSIX only, so it is
imported when a lock is taken.
Non-goals: what the files are, and where.
"""

import os
from collections.abc import Iterable
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO, Literal


def make_folder(path: Path, private: bool) -> None:
    """Make a folder, and those above it, if they do not exist. Their names are synced.

    `private`: mode 0700. Otherwise the umask of the process decides.
    """
    if not path.is_dir():
        make_folder(path.parent, private)
        path.mkdir(0o700 if private else 0o777, exist_ok=True)
        sync_folder(path.parent)


def make_file(path: Path, private: bool) -> None:
    """Make an empty file if it does not exist. `private`: mode 0600. Otherwise the umask of the process decides."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600 if private else 0o666))


def open_file(path: Path, mode: Literal["wb", "ab"], private: bool) -> BufferedWriter:
    """Open a file for writing, which need not exist yet."""
    make_file(path, private)
    return path.open(mode)


def write(path: Path, chunks: Iterable[bytes], mode: Literal["wb", "ab"], private: bool, durable: bool = True) -> None:
    """Write a file, or append to it. If `durable`, wait until the disk has it."""
    with open_file(path, mode, private) as file:
        file.writelines(chunks)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def write_all(file: FileIO, data: bytes) -> None:
    """Write all bytes to an unbuffered file, which may take only some of them at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names of the files in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(file: IO[bytes], *, wait: bool = True) -> None:
    """Lock an open file; wait until no other process or thread holds it. Closing the file releases the lock.

    Raises BlockingIOError if another one holds it and `wait` is False.
    """
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(file: IO[bytes]) -> None:
    """Release the lock of an open file."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)


def lock_range(file: IO[bytes], length: int, start: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock bytes of an open file against other processes. A length of 0 means all bytes from `start`.

    Raises BlockingIOError if another process holds one of them and `wait` is False.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.lockf(file, kind if wait else kind | fcntl.LOCK_NB, length, start)
