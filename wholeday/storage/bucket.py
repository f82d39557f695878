"""Store files in a bucket, through pyarrow: S3, Google Cloud Storage or Azure.

An object is there once all of it was sent. A bucket has neither folders nor locks: file names contain the id of the run
that wrote them, and of two runs that write one file in the same instant the last one wins.
"""

import contextlib
import datetime as dt
import functools
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from wholeday import clock
from wholeday.errors import ConfigError, FolderError
from wholeday.redaction import SECRET_NAME
from wholeday.storage.backends import Storage
from wholeday.storage.names import ABANDONED_AFTER, RUN

if TYPE_CHECKING:
    from pyarrow import fs

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")


class BucketFile:
    """An object that is being written. It does not exist before it is finished."""

    def __init__(self, storage: "BucketStorage", path: PurePath) -> None:
        self._storage, self._path, self._chunks = storage, path, list[bytes]()

    def write(self, data: bytes) -> None:
        self._chunks.append(data)

    def finish(self) -> None:
        self._storage.write(self._path, self._chunks)

    def abandon(self) -> None:
        """Write nothing."""


class BucketStorage(Storage):
    """A bucket, or the objects below a prefix. It has no locks: each run writes under names of its own."""

    can_continue = False

    def __init__(self, uri: str, run: str = "") -> None:
        """Use the bucket at `uri`, whose query is pyarrow's. `run` is the id of the run, if another process began it.

        Raises ConfigError.
        """
        place, _, query = uri.partition("?")
        scheme, _, bucket = place.partition("://")
        names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
        if ":" in uri.partition("://")[2].rpartition("@")[0] or any(map(SECRET_NAME.search, names)):
            raise ConfigError(
                f"[pipeline] data_dir = {scheme}://…: a secret does not belong there: give it as the programs of that "
                f"cloud find it, for s3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
            )
        if scheme not in SCHEMES or not bucket.strip("/"):
            raise ConfigError(
                f"[pipeline] data_dir = {place}: give a folder, or s3://bucket/prefix, gs://bucket/prefix or "
                f"abfss://container@account.dfs.core.windows.net/prefix"
            )
        self.root: PurePath = PurePosixPath()
        self.run = run or secrets.token_hex(6)
        self._uri, self._place = uri, place.rstrip("/")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        """Pickle URI and run only: another process finds the credentials as this one did."""
        return open_bucket, (self._uri, self.run)

    def show(self, path: PurePath) -> str:
        return f"{self._place}/{path}"

    def name(self, name: str) -> str:
        """Insert the id of the run: part-00000.0123456789ab.parquet."""
        stem, _, kind = name.partition(".")
        return f"{stem}.{self.run}.{kind}"

    def is_file(self, path: PurePath) -> bool:
        with self._open(path) as (system, key):
            return bool(system.get_file_info(key).is_file)

    def is_folder(self, path: PurePath) -> bool:
        with self._open(path) as (system, key):
            return system.get_file_info(key).type.name == "Directory"

    def make_folder(self, path: PurePath) -> None:
        """Do nothing: a folder exists as long as an object is in it."""

    def sync_folder(self, path: PurePath) -> None:
        """Do nothing: an object lasts once it is written."""

    def remove_folder(self, path: PurePath) -> None:
        """Remove the empty object that pyarrow leaves in place of an empty folder."""
        if not self._list(path):
            with self._open(path) as (system, key), contextlib.suppress(FileNotFoundError):
                system.delete_dir(key)

    def list_names(self, path: PurePath) -> list[str]:
        return sorted(each.base_name for each in self._list(path))

    def list_leftovers(self, path: PurePath, before: Collection[str] = ()) -> list[str]:
        oldest = clock.utc_now() - ABANDONED_AFTER

        def is_left(name: str, mtime: dt.datetime) -> bool:
            return not RUN.search(name) or f".{self.run}." in name or mtime < oldest or name in before

        return sorted(each.base_name for each in self._list(path) if is_left(each.base_name, each.mtime))

    def read(self, path: PurePath) -> bytes:
        with self._open(path) as (system, key), system.open_input_file(key) as file:
            return bytes(file.read())

    def write(self, path: PurePath, chunks: Iterable[bytes]) -> None:
        """Collect all chunks first: pyarrow publishes an object even if its writer fails halfway."""
        content = b"".join(chunks)
        with self._open(path) as (system, key), system.open_output_stream(key, compression=None) as file:
            file.write(content)

    def open(self, path: PurePath, kept: int = 0) -> BucketFile:  # noqa: ARG002 - nothing can be kept
        return BucketFile(self, path)

    def replace(self, path: PurePath, content: bytes) -> None:
        new = path.with_name(f"{path.name}.{self.run}.new")
        self.write(new, [content])
        self.rename(new, path)

    def rename(self, path: PurePath, new: PurePath) -> None:
        """The bucket copies the object, then deletes it."""
        with self._open(path) as (system, key):
            system.move(key, f"{key.removesuffix(path.name)}{new.name}")

    def remove(self, paths: Sequence[PurePath]) -> None:
        for path in paths:
            with self._open(path) as (system, key), contextlib.suppress(FileNotFoundError):  # another run was faster
                system.delete_file(key)

    def read_log(self, path: PurePath) -> list[bytes]:
        return self.read(path).splitlines() if self.is_file(path) else []

    def extend_log(
        self,
        path: PurePath,
        lines: Sequence[bytes],
        before: Sequence[bytes],
        durable: bool = True,  # noqa: ARG002
    ) -> None:
        """Write all lines again: the present object may be another run's."""
        self.write(path, (line + b"\n" for line in (*before, *lines)))

    def _list(self, path: PurePath) -> "list[fs.FileInfo]":
        from pyarrow import fs

        with self._open(path) as (system, key):
            return system.get_file_info(fs.FileSelector(key, allow_not_found=True))

    @contextlib.contextmanager
    def _open(self, path: PurePath) -> "Iterator[tuple[fs.FileSystem, str]]":
        """Yield the file system and the key of an object. Turn its OSError into a FolderError that names the object."""
        try:
            system, prefix = _connect(self._uri, os.getpid())
            yield system, f"{prefix.rstrip('/')}/{path}"
        except OSError as error:
            raise FolderError(
                f"{self.show(path)}: {os.strerror(error.errno) if error.errno else error}: check the bucket, its "
                f"endpoint, the credentials and their permissions, then run again"
            ) from error


@functools.lru_cache
def open_bucket(uri: str, run: str = "") -> BucketStorage:
    """Return the storage at a URI, the same one for the whole run. Raises ConfigError."""
    return BucketStorage(uri, run)


@functools.lru_cache
def _connect(uri: str, process: int) -> "tuple[fs.FileSystem, str]":  # noqa: ARG001
    """Return the file system of a URI and the prefix in it.

    Each `process` has its own: on a connection inherited by a fork it would read the answers to its parent.
    """
    from pyarrow import fs

    if uri.startswith("s3:"):  # a small file in one request instead of three
        uri += f"{'&' if '?' in uri else '?'}allow_delayed_open=true"
    try:
        return fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"[pipeline] data_dir = {uri.partition('?')[0]}: cannot be opened: {error}") from error
