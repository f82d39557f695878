"""Open the storage of a `data_dir`: a folder of this machine, or a bucket.

Responsibilities: the interface that both have. How they differ: a run locks what it works on in a folder. A bucket has
no locks, so each run gives its files names of its own, and removes files of another run only once that run has ended.
Non-goals: what the files are.
"""

import contextlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath
from typing import Protocol

from wholeday.storage.names import find_temporary


class OpenFile(Protocol):
    """A file that is being written."""

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def finish(self) -> None:
        """Close the file. It survives a power cut."""

    def abandon(self) -> None:
        """Close the file, for a later run to continue."""


class Storage(Protocol):
    """Files below `root`. Every method raises FolderError, in one line, if the storage refuses.

    The methods with a body do what is right for a storage without locks and folders.
    """

    root: PurePath
    can_continue: bool
    """Whether a later run can continue a file that this run has not closed."""

    def show(self, path: PurePath) -> str:
        """Return a path for a message."""

    def resolve(self, path: PurePath) -> PurePath:
        """Return a path that is valid in a process with another working directory."""
        return path

    def name(self, name: str) -> str:
        """Return the name under which this run writes a file."""

    def lock(self, path: PurePath, number: int | None = None) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Lock a folder, the `number`th of its siblings, or all of them. Other processes wait."""
        return contextlib.nullcontext()

    def watch(self, path: PurePath, number: int) -> contextlib.AbstractContextManager[bool]:  # noqa: ARG002
        """Keep other processes from locking the `number`th folder. Yield False if a process has locked it."""
        return contextlib.nullcontext(True)

    def hold(self, path: PurePath) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Lock one file. Other processes and threads wait."""
        return contextlib.nullcontext()

    def is_file(self, path: PurePath) -> bool: ...

    def is_folder(self, path: PurePath) -> bool: ...

    def make_folder(self, path: PurePath) -> None:
        """Create a folder. It survives a power cut."""

    def sync_folder(self, path: PurePath) -> None:
        """Make the names of the files in a folder survive a power cut."""

    def remove_folder(self, path: PurePath) -> None:
        """Remove the folder if it is empty."""

    def list_names(self, path: PurePath) -> list[str]:
        """List the files and folders in a folder, sorted; nothing if it does not exist."""

    def list_leftovers(self, path: PurePath, before: Collection[str] = ()) -> list[str]:
        """List the files in a folder that no other run can be working on. Files listed `before` count, too."""

    def read(self, path: PurePath) -> bytes: ...

    def write(self, path: PurePath, chunks: Iterable[bytes]) -> None:
        """Write a file from chunks."""

    def open(self, path: PurePath, kept: int = 0) -> OpenFile:
        """Open a file for writing. Its first `kept` bytes stay."""

    def replace(self, path: PurePath, content: bytes) -> None:
        """Write or replace a file. After a crash it has the old or the new content."""

    def remove_temporary(self, path: PurePath) -> None:
        """Remove the temporary files of a file. A process that is writing one fails, and can run again."""
        self.remove([path.with_name(name) for name in find_temporary(path, self.list_names(path.parent))])

    def rename(self, path: PurePath, new: PurePath) -> None:
        """Rename a file, replacing another one atomically."""

    def remove(self, paths: Sequence[PurePath]) -> None:
        """Remove files of one folder, if they exist."""

    def read_log(self, path: PurePath) -> list[bytes]:
        """Read the complete lines of an append-only file; nothing if it does not exist."""

    def extend_log(self, path: PurePath, lines: Sequence[bytes], before: Sequence[bytes], durable: bool = True) -> None:
        """Append lines to a file that holds the lines `before`. If `durable`, they survive a power cut."""


def open_storage(data_dir: str, private: bool = True) -> Storage:
    """Return the storage at a path or URI. A bucket is the same object for the whole run. Raises ConfigError.

    `private`: files and folders that are created locally are for this user alone.
    """
    from wholeday.storage import bucket, local

    return bucket.open_bucket(data_dir) if "://" in data_dir else local.LocalStorage(data_dir, private)
