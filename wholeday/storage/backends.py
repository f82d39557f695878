"""Where a data_dir lies: in a folder of this machine, or in a bucket.

Owns what differs between the two: how a file gets there whole and lasts, what keeps two runs out of each other's way,
and how a refusal is told in one line. What the files are is the business of those who write them.

In a folder a run holds a lock. In a bucket nothing can be locked, so the names of a run's files are its own, and it
takes away what another run left there only when nobody can be working on it any more.
"""

import contextlib
import datetime as dt
import functools
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from wholeday import clock
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, FolderError
from wholeday.log import logger
from wholeday.redaction import SECRET_NAME
from wholeday.storage import files
from wholeday.storage.locks import lock_file, lock_range

if TYPE_CHECKING:
    from pyarrow import fs

BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
ABANDONED = dt.timedelta(days=1)  # no run needs longer from the first file of a day to its manifest
RUN = re.compile(r"\.[0-9a-f]{12}(?=\.)")
TEMPORARY = re.compile(r"(\.[0-9a-f]{12})?\.new")  # behind the name of a file: its next content, while it is written
NO_LOCKS = "this file system cannot lock files"


def strip_run(name: str) -> str:
    """The name of a file without that of the run that wrote it: as it would be in a folder."""
    return RUN.sub("", name)


class LocalStorage:
    """A folder. What was done lasts: files and their names are synced."""

    def __init__(self, data_dir: str, private: bool = True) -> None:
        """Take the folder, which need not be there; raises ConfigError where something else is in its place.

        `private` files and folders are for this user alone. Others get the mode that the umask of the process gives.
        """
        self.private = private
        root = Path(data_dir).expanduser()
        with self._telling(root):
            there = next(filter(Path.exists, (root, *root.parents)), None)
            if there and not there.is_dir():
                raise ConfigError(f"[pipeline] data_dir = {data_dir}: {there} is a file: name a folder")
        self.root: PurePath = root

    def show(self, path: PurePath) -> str:
        return str(path)

    def resolve(self, path: PurePath) -> PurePath:
        """The path for whoever stands in another folder."""
        return Path(path).absolute()

    def name(self, name: str) -> str:
        """The name for a file of this run."""
        return name

    @contextlib.contextmanager
    def lock(self, path: PurePath, number: int | None = None) -> Iterator[None]:
        """Hold a folder, the `number`th of those beside it: another process waits until this one is done or dead.

        Without a number hold all of them.
        """
        with self._telling(path):
            above = Path(path.parent)
            files.make_folder(above, self.private)
            file = files.open_file(above / ".lock", "ab", self.private)
        with file:
            # One byte of one file stands for a folder: nothing to clean up, and the kernel lets go of it with the
            # process. A child that outlives its killed parent keeps it, so the next run waits for that child.
            byte = (0, 0) if number is None else (1, number)  # of length 0: all bytes
            with _explaining_locks(file.name):
                try:
                    lock_range(file, *byte, wait=False)
                except BlockingIOError:
                    logger.info("%s: waiting for the process that is working on it", path if number else path.parent)
                    lock_range(file, *byte)
            yield

    @contextlib.contextmanager
    def watch(self, path: PurePath, number: int) -> Iterator[bool]:
        """Keep other processes from locking the `number`th folder, without changing a file. False if one has locked it.

        If there are no locks, no process is kept from anything.
        """
        with contextlib.ExitStack() as stack:
            is_free = True
            with contextlib.suppress(OSError):  # nobody has ever locked a folder here, or nobody can
                file = stack.enter_context(Path(path.parent / ".lock").open("rb"))
                try:
                    lock_range(file, 1, number, shared=True, wait=False)
                except BlockingIOError:
                    is_free = False
            yield is_free

    @contextlib.contextmanager
    def hold(self, path: PurePath) -> Iterator[None]:
        """Hold a file that is there for this alone: another process, or thread, that wants it waits."""
        with self._telling(path):
            file = files.open_file(Path(path), "ab", self.private)
        with file:
            with _explaining_locks(file.name):
                lock_file(file)
            yield

    def is_file(self, path: PurePath) -> bool:
        with self._telling(path):
            return Path(path).is_file()

    def is_folder(self, path: PurePath) -> bool:
        with self._telling(path):
            return Path(path).is_dir()

    def make_folder(self, path: PurePath) -> None:
        """Have a folder that outlasts a power cut."""
        with self._telling(path):
            files.make_folder(Path(path), self.private)

    def sync_folder(self, path: PurePath) -> None:
        """Make the names of the files in a folder survive a power cut."""
        with self._telling(path):
            files.sync_folder(Path(path))

    def remove_folder(self, path: PurePath) -> None:
        """Have no such folder any more, unless somebody keeps something else there."""
        with self._telling(path):
            if not any(Path(path).iterdir()):
                Path(path).rmdir()
                files.sync_folder(Path(path.parent))

    def list_names(self, path: PurePath) -> list[str]:
        """What is in a folder; nothing where there is none."""
        names: list[str] = []
        with self._telling(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(path)  # noqa: PTH208 - pathlib takes twice as long, each day, for all days
        return sorted(names)

    def list_leftovers(self, path: PurePath, before: Collection[str] = ()) -> list[str]:  # noqa: ARG002
        """What is in a folder and nobody else's work: all of it, as this run holds the folder."""
        return self.list_names(path)

    def read(self, path: PurePath) -> bytes:
        with self._telling(path):
            return Path(path).read_bytes()

    def write(self, path: PurePath, chunks: Iterable[bytes]) -> None:
        """Write a file, piece by piece."""
        with self._telling(path):
            files.write(Path(path), chunks, "wb", self.private)

    def replace(self, path: PurePath, content: bytes) -> None:
        """Have a file with this content: after a crash it is as it was before, or as it is to be.

        Several processes may do so at once: each writes a temporary file of its own.
        """
        self.make_folder(path.parent)
        new = Path(path.with_name(f"{path.name}.{secrets.token_hex(6)}.new"))
        with self._telling(path):
            try:
                files.write(new, [content], "wb", self.private)
                new.rename(path)
                files.sync_folder(new.parent)
            except OSError as error:
                error.filename = path  # of the other one nobody knows
                with contextlib.suppress(OSError):
                    new.unlink()
                raise
        self._remove_abandoned(path)

    def remove_temporary(self, path: PurePath) -> None:
        """Remove the temporary files of a file. A process that is writing one fails, and may run again."""
        self.remove([path.with_name(name) for name in _find_temporary(path, self.list_names(path.parent))])

    def _remove_abandoned(self, path: PurePath) -> None:
        """Remove the temporary files of a file that killed processes left long ago."""
        oldest = (clock.utc_now() - ABANDONED).timestamp()
        for name in _find_temporary(path, self.list_names(path.parent)):
            file = Path(path.with_name(name))
            with self._telling(file), contextlib.suppress(FileNotFoundError):  # another process may be faster
                if RUN.search(name) and file.stat().st_mtime < oldest:  # others are those of `DayFolder.prepare`
                    file.unlink()

    def rename(self, path: PurePath, new: PurePath) -> None:
        """Have a file in the place of another, at once."""
        with self._telling(path):
            Path(path).rename(new)
            files.sync_folder(Path(path.parent))

    def remove(self, paths: Sequence[PurePath]) -> None:
        """Have none of these files of a folder any more."""
        for path in paths:
            with self._telling(path):
                Path(path).unlink(missing_ok=True)
        if paths:
            with self._telling(paths[0]):
                files.sync_folder(Path(paths[0].parent))

    def read_log(self, path: PurePath) -> list[bytes]:
        """The lines of a file that grows; a last one that a crash cut is taken off it."""
        with self._telling(path):
            file = Path(path)
            *lines, cut = file.read_bytes().split(b"\n") if file.is_file() else [b""]
            if cut:  # what is written next must not stand in its line
                os.truncate(file, file.stat().st_size - len(cut))
            return lines

    def extend_log(self, path: PurePath, lines: Sequence[bytes], before: Sequence[bytes]) -> None:  # noqa: ARG002
        """Write lines to the end of a file that grows."""
        with self._telling(path):
            files.write(Path(path), (line + b"\n" for line in lines), "ab", self.private)

    @contextlib.contextmanager
    def _telling(self, path: PurePath) -> Iterator[None]:
        """Say in one line what the file system refused, and of which file."""
        try:
            yield
        except OSError as error:
            raise FolderError(
                f"{error.filename or path}: {error.strerror or error}: nothing was made of it; "
                f"mend that (space, permissions, the folder itself) and run again"
            ) from error


class ObjectStorage:
    """A bucket, or what is below a prefix in it. A file is there when all of it was sent; there are no folders."""

    def __init__(self, uri: str, run: str = "") -> None:
        """The query of `uri` is pyarrow's; `run` names the run where this is another process of it."""
        place, _, query = uri.partition("?")
        scheme, _, bucket = place.partition("://")
        names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
        if ":" in uri.partition("://")[2].rpartition("@")[0] or any(map(SECRET_NAME.search, names)):
            raise ConfigError(
                f"[pipeline] data_dir = {scheme}://…: a secret does not belong there: give it as the programs of that "
                f"cloud find it, for s3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
            )
        if scheme not in BUCKETS or not bucket.strip("/"):
            raise ConfigError(
                f"[pipeline] data_dir = {place}: give a folder, or s3://bucket/prefix, gs://bucket/prefix or "
                f"abfss://container@account.dfs.core.windows.net/prefix"
            )
        self.root: PurePath = PurePosixPath()
        self.run = run or secrets.token_hex(6)
        self._uri, self._place = uri, place.rstrip("/")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        """Another process of this run finds credentials as this one did: none are sent there."""
        return open_storage, (self._uri, self.run)

    def show(self, path: PurePath) -> str:
        return f"{self._place}/{path}"

    def resolve(self, path: PurePath) -> PurePath:
        return path

    def name(self, name: str) -> str:
        """The name for a file of this run: part-00000.0123456789ab.parquet."""
        stem, _, kind = name.partition(".")
        return f"{stem}.{self.run}.{kind}"

    @contextlib.contextmanager
    def lock(self, path: PurePath, number: int | None = None) -> Iterator[None]:  # noqa: ARG002 - as that of a folder
        """Hold nothing: another run writes under other names."""
        yield

    @contextlib.contextmanager
    def watch(self, path: PurePath, number: int) -> Iterator[bool]:  # noqa: ARG002 - as that of a folder
        """Keep nobody from anything: nothing can be locked."""
        yield True

    @contextlib.contextmanager
    def hold(self, path: PurePath) -> Iterator[None]:  # noqa: ARG002 - as that of a folder
        """Hold nothing: of two that write a file in the same instant the last one has it."""
        yield

    def is_file(self, path: PurePath) -> bool:
        with self._open(path) as (system, key):
            return bool(system.get_file_info(key).is_file)

    def is_folder(self, path: PurePath) -> bool:
        with self._open(path) as (system, key):
            return system.get_file_info(key).type.name == "Directory"

    def make_folder(self, path: PurePath) -> None:
        """Make nothing: a folder is there when something in it is."""

    def sync_folder(self, path: PurePath) -> None:
        """Do nothing: an object and its name last once it is written."""

    def remove_folder(self, path: PurePath) -> None:
        """Have nothing that stands for a folder whose last file is gone, which pyarrow puts there."""
        if not self._list(path):
            with self._open(path) as (system, key), contextlib.suppress(FileNotFoundError):
                system.delete_dir(key)

    def list_names(self, path: PurePath) -> list[str]:
        """What is in a folder; nothing where there is none."""
        return sorted(each.base_name for each in self._list(path))

    def list_leftovers(self, path: PurePath, before: Collection[str] = ()) -> list[str]:
        """What is in a folder and nobody else's work: of other runs only what is old, or was there `before`."""
        oldest = clock.utc_now() - ABANDONED

        def is_left(name: str, mtime: dt.datetime) -> bool:
            return not RUN.search(name) or f".{self.run}." in name or mtime < oldest or name in before

        return sorted(each.base_name for each in self._list(path) if is_left(each.base_name, each.mtime))

    def read(self, path: PurePath) -> bytes:
        with self._open(path) as (system, key), system.open_input_file(key) as file:
            return bytes(file.read())

    def write(self, path: PurePath, chunks: Iterable[bytes]) -> None:
        """Write a file. What is begun is published whatever happens: so all of it is at hand before that."""
        content = b"".join(chunks)
        with self._open(path) as (system, key), system.open_output_stream(key, compression=None) as file:
            file.write(content)

    def replace(self, path: PurePath, content: bytes) -> None:
        """Have a file with this content: after a crash it is as it was before, or as it is to be."""
        new = path.with_name(f"{path.name}.{self.run}.new")
        self.write(new, [content])
        self.rename(new, path)

    def remove_temporary(self, path: PurePath) -> None:
        """Remove the temporary files of a file. A process that is writing one fails, and may run again."""
        names = _find_temporary(path, self.list_names(path.parent))
        self.remove([path.with_name(name) for name in names])

    def rename(self, path: PurePath, new: PurePath) -> None:
        """Have a file in the place of another, at once: the storage copies it."""
        with self._open(path) as (system, key):
            system.move(key, f"{key.removesuffix(path.name)}{new.name}")

    def remove(self, paths: Sequence[PurePath]) -> None:
        """Have none of these files any more, whether or not another run was first."""
        for path in paths:
            with self._open(path) as (system, key), contextlib.suppress(FileNotFoundError):
                system.delete_file(key)

    def read_log(self, path: PurePath) -> list[bytes]:
        """The lines of a file that grows."""
        return self.read(path).splitlines() if self.is_file(path) else []

    def extend_log(self, path: PurePath, lines: Sequence[bytes], before: Sequence[bytes]) -> None:
        """Write lines behind those `before`, all of it anew: what is there may be that of another run."""
        self.write(path, (line + b"\n" for line in (*before, *lines)))

    def _list(self, path: PurePath) -> "list[fs.FileInfo]":
        from pyarrow import fs

        with self._open(path) as (system, key):
            return system.get_file_info(fs.FileSelector(key, allow_not_found=True))

    @contextlib.contextmanager
    def _open(self, path: PurePath) -> "Iterator[tuple[fs.FileSystem, str]]":
        """The bucket, and the key of a file or folder; says in one line what was refused, and of which."""
        try:
            system, prefix = _connect(self._uri, os.getpid())
            yield system, f"{prefix.rstrip('/')}/{path}"
        except OSError as error:
            raise FolderError(
                f"{self.show(path)}: {os.strerror(error.errno) if error.errno else error}: nothing was made of it; "
                f"mend that (the bucket, its endpoint, the credentials and their rights) and run again"
            ) from error


Storage: TypeAlias = LocalStorage | ObjectStorage


@functools.lru_cache
def open_storage(data_dir: str, run: str = "") -> Storage:
    """The place of a data_dir, a folder or a URI; raises ConfigError. It is the same one for as long as a run lasts."""
    if "://" in data_dir:
        return ObjectStorage(data_dir, run)
    return LocalStorage(data_dir, Pipeline().is_private)


@functools.lru_cache
def _connect(uri: str, process: int) -> "tuple[fs.FileSystem, str]":  # noqa: ARG001
    """The system of a URI, and the prefix in it, for one process: on a connection that it got by a fork it would read
    the answers to another.
    """
    from pyarrow import fs

    if uri.startswith("s3:"):  # a small file in one request instead of three
        uri += f"{'&' if '?' in uri else '?'}allow_delayed_open=true"
    try:
        return fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"[pipeline] data_dir = {uri.partition('?')[0]}: it cannot be used: {error}") from error


def _find_temporary(path: PurePath, names: Iterable[str]) -> list[str]:
    """Those of the names that are temporary files of a file."""
    return [name for name in names if name.startswith(path.name) and TEMPORARY.fullmatch(name.removeprefix(path.name))]


@contextlib.contextmanager
def _explaining_locks(name: str) -> Iterator[None]:
    """Raise FolderError in the place of the error of a file system that has no locks."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{name}: {NO_LOCKS} ({error.strerror}): move [pipeline] data_dir to one that can, such as a local disk "
            f"or NFS with its lock service, and run again"
        ) from error
