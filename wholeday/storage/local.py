"""Store files in a folder of this machine. Files and their names are synced, so they survive a power cut.

`filelock` cannot replace these locks: it locks whole files, and always exclusively. Here one byte of one file stands
for a day, a day is locked shared or exclusively, and all days can be locked at once.
"""

import contextlib
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from wholeday import clock
from wholeday.errors import ConfigError, FolderError
from wholeday.log import logger
from wholeday.storage import files
from wholeday.storage.backends import Storage
from wholeday.storage.names import ABANDONED_AFTER, RUN, find_temporary

NO_LOCKS = "this file system cannot lock files"


class LocalFile:
    """A file that is being written. Each chunk goes to the system at once, so it survives the end of this process."""

    def __init__(self, path: Path, kept: int, private: bool) -> None:
        files.make_file(path, private)
        self._path, self._file = path, path.open("r+b", buffering=0)
        self._file.truncate(kept)
        self._file.seek(kept)

    def write(self, data: bytes) -> None:
        with _explain(self._path):
            files.write_all(self._file, data)

    def finish(self) -> None:
        with _explain(self._path), self._file:
            os.fsync(self._file.fileno())

    def abandon(self) -> None:
        self._file.close()


class LocalStorage(Storage):
    """A folder."""

    can_continue = True

    def __init__(self, data_dir: str, private: bool = True) -> None:
        """Use a folder, which need not exist. Raises ConfigError if a file is in its place.

        `private`: new files and folders are for this user alone. Otherwise the umask of the process decides.
        """
        self.private = private
        root = Path(data_dir).expanduser()
        with _explain(root):
            if not root.is_dir() and not (existing := next(filter(Path.exists, (root, *root.parents)))).is_dir():
                raise ConfigError(f"[pipeline] data_dir = {data_dir}: {existing} is a file: name a folder")
        self.root: PurePath = root

    def show(self, path: PurePath) -> str:
        return str(path)

    def resolve(self, path: PurePath) -> PurePath:
        return Path(path).absolute()

    def name(self, name: str) -> str:
        return name

    @contextlib.contextmanager
    def lock(self, path: PurePath, number: int | None = None) -> Iterator[None]:
        with _explain(path):
            parent = Path(path.parent)
            files.make_folder(parent, self.private)
            file = files.open_file(parent / ".lock", "ab", self.private)
        with file:
            # One byte of one file stands for a folder: there is nothing to clean up, and the kernel releases the lock
            # when the process ends. A child that outlives its killed parent keeps it, so the next run waits for it.
            span = (0, 0) if number is None else (1, number)  # length and start; length 0: the whole file
            with _explain_locks(file.name):
                try:
                    files.lock_range(file, *span, wait=False)
                except BlockingIOError:
                    logger.info("%s: waiting for the process that is working on it", path if number else path.parent)
                    files.lock_range(file, *span)
            yield

    @contextlib.contextmanager
    def watch(self, path: PurePath, number: int) -> Iterator[bool]:
        """Do not create the lock file. On a file system without locks yield True."""
        with contextlib.ExitStack() as stack:
            is_free = True
            with contextlib.suppress(OSError):  # no lock file, or no locks
                file = stack.enter_context(Path(path.parent / ".lock").open("rb"))
                try:
                    files.lock_range(file, 1, number, shared=True, wait=False)
                except BlockingIOError:
                    is_free = False
            yield is_free

    @contextlib.contextmanager
    def hold(self, path: PurePath) -> Iterator[None]:
        with _explain(path):
            file = files.open_file(Path(path), "ab", self.private)
        with file:
            with _explain_locks(file.name):
                files.lock(file)
            yield

    def is_file(self, path: PurePath) -> bool:
        with _explain(path):
            return Path(path).is_file()

    def is_folder(self, path: PurePath) -> bool:
        with _explain(path):
            return Path(path).is_dir()

    def make_folder(self, path: PurePath) -> None:
        with _explain(path):
            files.make_folder(Path(path), self.private)

    def sync_folder(self, path: PurePath) -> None:
        with _explain(path):
            files.sync_folder(Path(path))

    def remove_folder(self, path: PurePath) -> None:
        with _explain(path):
            if not any(Path(path).iterdir()):
                Path(path).rmdir()
                files.sync_folder(Path(path.parent))

    def list_names(self, path: PurePath) -> list[str]:
        names: list[str] = []
        with _explain(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(path)  # noqa: PTH208 - pathlib takes twice as long, and this runs for every day
        return sorted(names)

    def list_leftovers(self, path: PurePath, before: Collection[str] = ()) -> list[str]:  # noqa: ARG002
        """List all files: this run has locked the folder."""
        return self.list_names(path)

    def read(self, path: PurePath) -> bytes:
        with _explain(path):
            return Path(path).read_bytes()

    def write(self, path: PurePath, chunks: Iterable[bytes]) -> None:
        with _explain(path):
            files.write(Path(path), chunks, "wb", self.private)

    def open(self, path: PurePath, kept: int = 0) -> LocalFile:
        with _explain(path):
            return LocalFile(Path(path), kept, self.private)

    def replace(self, path: PurePath, content: bytes) -> None:
        """Processes may replace a file at the same time: each writes a temporary file of its own."""
        self.make_folder(path.parent)
        new = Path(path.with_name(f"{path.name}.{secrets.token_hex(6)}.new"))
        with _explain(path):
            try:
                files.write(new, [content], "wb", self.private)
                new.rename(path)
                files.sync_folder(new.parent)
            except OSError as error:
                error.filename = path  # the temporary name means nothing to a reader
                with contextlib.suppress(OSError):
                    new.unlink()
                raise
        self._remove_abandoned(path)

    def rename(self, path: PurePath, new: PurePath) -> None:
        with _explain(path):
            Path(path).rename(new)
            files.sync_folder(Path(path.parent))

    def remove(self, paths: Sequence[PurePath]) -> None:
        for path in paths:
            with _explain(path):
                Path(path).unlink(missing_ok=True)
        if paths:
            self.sync_folder(paths[0].parent)

    def read_log(self, path: PurePath) -> list[bytes]:
        """Cut an incomplete last line, which a crash left, off the file: the next line must not follow it."""
        with _explain(path):
            file = Path(path)
            *lines, cut = file.read_bytes().split(b"\n") if file.is_file() else [b""]
            if cut:
                os.truncate(file, file.stat().st_size - len(cut))
            return lines

    def extend_log(
        self,
        path: PurePath,
        lines: Sequence[bytes],
        before: Sequence[bytes],  # noqa: ARG002
        durable: bool = True,
    ) -> None:
        with _explain(path):
            files.write(Path(path), [b"".join(line + b"\n" for line in lines)], "ab", self.private, durable)

    def _remove_abandoned(self, path: PurePath) -> None:
        """Remove the temporary files of a file that killed processes left more than a day ago."""
        oldest = (clock.utc_now() - ABANDONED_AFTER).timestamp()
        for name in find_temporary(path, self.list_names(path.parent)):
            file = Path(path.with_name(name))
            with _explain(file), contextlib.suppress(FileNotFoundError):  # another process may be faster
                if RUN.search(name) and file.stat().st_mtime < oldest:  # others belong to `DayFolder.prepare`
                    file.unlink()


@contextlib.contextmanager
def _explain(path: PurePath) -> Iterator[None]:
    """Turn an OSError into a FolderError that names the file."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{error.filename or path}: {error.strerror or error}: check disk space, permissions and the folder, "
            f"then run again"
        ) from error


@contextlib.contextmanager
def _explain_locks(name: str) -> Iterator[None]:
    """Turn the error of a file system without locks into a FolderError."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{name}: {NO_LOCKS} ({error.strerror}): move [pipeline] data_dir to one that can, such as a local disk "
            f"or NFS with its lock service, and run again"
        ) from error
