"""What exists when a task is done: a folder of parts for files (DayFolder), a row in `loads` for rows (LoadMarker).

Owns how a day lies on disk and when it counts as being there: parts first, the manifest last, each synced;
a folder without a manifest is unfinished work and is swept by whoever takes it up again. Asks the
warehouse only whether a day is loaded, without the libraries that loading needs.
"""

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import luigi
import msgspec

from pipeline.database import find_database
from pipeline.errors import ConfigError, FolderError
from pipeline.logs import logger

Stage = Literal["raw", "clean"]
Manifest = TypeVar("Manifest", bound=msgspec.Struct)

MANIFEST = "manifest.json"
PREPARED = f"{MANIFEST}.new"
JOURNAL = "progress.jsonl"


class Part(msgspec.Struct, frozen=True):
    """A file of a day: its name, the records or rows in it, its size in bytes and its sha256."""

    name: str
    records: int
    bytes: int
    sha256: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate (`gate` is its key) said of a day when it was read: `value` is what is held against the `limit`.

    `reference` is what the day was compared with: the date of a snapshot, a median, a number of users.
    """

    gate: str
    value: float
    limit: float
    reference: str | float | None
    passed: bool
    description: str

    def __str__(self) -> str:
        return self.description


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """That forgotten lines were taken out of a day: how many, its digest before, and the parts that were replaced."""

    lines: int
    sha256: str
    parts: list[Part]


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a source for a day. Times are UTC; up to `as_of` the source's answer is complete."""

    dataset: str
    date: dt.date
    mode: str
    window_start: dt.datetime
    window_stop: dt.datetime
    watermark: dt.datetime | None
    url: str
    paginator: str
    started_at: dt.datetime
    extracted_at: dt.datetime
    as_of: dt.datetime
    pages: int
    records: int
    keys: int
    """Distinct ones; a record whose key cannot be read counts as one of its own."""
    declared: int | None
    """How many records there are, by the source's own word."""
    unknown_fields: list[str]
    gates: list[Verdict]
    parts: list[Part]
    forgotten: int = 0
    """How many of the records are no longer in the parts."""
    erasures: list[Erasure] = []


class CleanManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a raw day: the parts it came from, the code that read them, rows, and rejects by reason."""

    dataset: str
    date: dt.date
    raw_sha256: list[str]
    transform_version: str
    rows: int
    rejected: int
    reasons: dict[str, int]
    accepted: list[str]
    """The gates that did not pass, and were let through."""
    parts: list[Part]
    rejects: list[Part]
    erasures: list[Erasure] = []
    """Of rows and rejects, since the day was cleaned."""


def digest(parts: Iterable[Part]) -> str:
    """One sha256 for the parts of a day, in their order: that of `sha256sum part-*`'s output."""
    return hashlib.sha256("".join(f"{part.sha256}  {part.name}\n" for part in parts).encode()).hexdigest()


class DayFolder(luigi.Target):
    """The files of one day at one stage: `<data_dir>/<stage>/<dataset>/date=<date>/`."""

    def __init__(self, data_dir: str, stage: Stage, dataset: str, date: dt.date) -> None:
        if "://" in data_dir:
            raise ConfigError(f"[pipeline] data_dir = {data_dir}: only a local folder can be used; give its path")
        self.date, self.day = date, f"{dataset} {date}"
        self.path = Path(data_dir, stage, dataset, f"date={date}").expanduser()

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        with _telling(self.path):
            return (self.path / MANIFEST).is_file()

    def has_folder(self) -> bool:
        """Whether there is anything of the day, finished or not."""
        return self.path.is_dir()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the day at this stage: another process that wants it waits here until this one is done or dead."""
        with _telling(self.path):
            _make_folder(self.path.parent)
            file = (self.path.parent / ".lock").open("ab")
        with file:
            # One byte of one file stands for a day: nothing to clean up, and the kernel lets go of it with the
            # process. A child that outlives its killed parent keeps it, so the next run waits for that child.
            day = (1, self.date.toordinal())
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *day)
            except BlockingIOError:
                logger.info("%s: waiting for the process that is working on it", self.path)
                fcntl.lockf(file, fcntl.LOCK_EX, *day)
            yield

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Make the folder unfinished and, but for the parts to `keep` and their journal, empty: no manifest first."""
        with _telling(self.path):
            _make_folder(self.path)
            for pattern in (f"{MANIFEST}*", *(() if keep else (JOURNAL,)), "part-*", "rejects-*"):
                if paths := [path for path in self.path.glob(pattern) if path.name not in keep]:
                    for path in paths:
                        path.unlink()
                    _sync_folder(self.path)

    def remove(self) -> None:
        """Have nothing of the day: first no manifest, then no parts and, where nothing else lies there, no folder."""
        if not self.has_folder():
            return
        self.sweep()
        with _telling(self.path):
            if not any(self.path.iterdir()):
                self.path.rmdir()
                _sync_folder(self.path.parent)

    def write(self, name: str, chunks: Iterable[tuple[int, bytes]]) -> Part:
        """Write a part from chunks (records in it, bytes), and sync it."""
        records, size, sha256 = 0, 0, hashlib.sha256()
        with _telling(self.path / name), (self.path / name).open("wb") as file:
            for count, data in chunks:
                records, size = records + count, size + len(data)
                sha256.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return Part(name, records, size, sha256.hexdigest())

    def read(self, part: Part) -> bytes:
        """The bytes of a part; raises FolderError where they are not those that the manifest names."""
        with _telling(self.path / part.name):
            data = (self.path / part.name).read_bytes()
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise FolderError(
                f"{self.path / part.name}: the bytes are not those of its manifest (sha256 {part.sha256[:12]}…): "
                f"bring the file back from a copy, or delete the folder {self.path} so that the day is made again"
            )
        return data

    def add_to_journal(self, lines: Iterable[bytes]) -> None:
        """Write lines to the end of the journal, and sync it."""
        with _telling(self.path / JOURNAL), (self.path / JOURNAL).open("ab") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def read_journal(self) -> list[bytes]:
        """The lines of the journal; a last one that a crash cut is taken off it."""
        with _telling(self.path / JOURNAL):
            path = self.path / JOURNAL
            *lines, cut = path.read_bytes().split(b"\n") if path.is_file() else [b""]
            if cut:  # what is written next must not stand in its line
                os.truncate(path, path.stat().st_size - len(cut))
            return lines

    def has_parts(self) -> bool:
        """Whether there are parts, of a day that exists or of unfinished work."""
        with _telling(self.path):
            return any(self.path.glob("part-*"))

    def drop_journal(self) -> None:
        """Have no journal: all parts are there."""
        with _telling(self.path):
            (self.path / JOURNAL).unlink(missing_ok=True)

    def drop_strays(self, keep: Collection[str]) -> None:
        """Have no parts but those to `keep`, which are the manifest's, and no manifest but that."""
        with _telling(self.path):
            paths = [path for pattern in (PREPARED, "part-*", "rejects-*") for path in self.path.glob(pattern)]
            if strays := [path for path in paths if path.name not in keep]:
                for path in strays:
                    path.unlink()
                _sync_folder(self.path)

    def publish(self, manifest: msgspec.Struct) -> None:
        """Make the day exist: its manifest, synced, under its name, at once."""
        with _telling(self.path):
            _write_synced(self.path / PREPARED, _encode(manifest))
        self.swap()

    def prepare(self, manifest: msgspec.Struct) -> None:
        """Write a manifest, and sync it, that `swap` is to put in the place of the day's own."""
        with _telling(self.path):
            _write_synced(self.path / PREPARED, _encode(manifest))
            _sync_folder(self.path)

    def swap(self) -> None:
        """Have the prepared manifest for the day's own, at once."""
        with _telling(self.path):
            (self.path / PREPARED).rename(self.path / MANIFEST)
            _sync_folder(self.path)

    def read_manifest(self, kind: type[Manifest]) -> Manifest:
        """The manifest as `kind`; raises FolderError where there is none or it cannot be read."""
        path = self.path / MANIFEST
        with _telling(path):
            data = path.read_bytes()
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise FolderError(
                f"{path} is not a manifest ({error}): delete the folder, so that the day is made again"
            ) from error


def list_days(data_dir: str, stage: Stage, dataset: str) -> list[dt.date]:
    """The days of a dataset that have a folder at a stage, finished or not, the newest first."""
    path = DayFolder(data_dir, stage, dataset, dt.date.min).path.parent
    days = []
    for folder in path.glob("date=????-??-??"):
        with contextlib.suppress(ValueError):
            days.append(dt.date.fromisoformat(folder.name.removeprefix("date=")))
    return sorted(days, reverse=True)


class LoadMarker(luigi.Target):
    """The row of a day in the table `loads` of the warehouse."""

    def __init__(self, database: str, dataset: str, date: dt.date) -> None:
        self.database, self.dataset, self.date = database, dataset, date

    def exists(self) -> bool:
        return bool(find_loaded(self.database, self.dataset, [self.date]))


def find_loaded(database: str, dataset: str, dates: Iterable[dt.date]) -> set[dt.date]:
    """Those of `dates` that the warehouse at the URL `database` holds: one SELECT, whatever their number.

    A database that is not there holds nothing, and is not made by being asked.
    """
    dates = set(dates)
    return dates & find_database(database).find_loaded(dataset, min(dates), max(dates)) if dates else dates


def replace_file(path: Path, content: bytes) -> None:
    """Have a file with this content, synced: after a crash it is as it was before, or as it is to be."""
    with _telling(path):
        _make_folder(path.parent)
        new = path.with_name(f"{path.name}.new")
        _write_synced(new, content)
        new.rename(path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Say in one line what the file system refused, and of which file."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{error.filename or path}: {error.strerror or error}: nothing was made of it; "
            f"mend that (space, permissions, the folder itself) and run again"
        ) from error


def _make_folder(path: Path) -> None:
    """Make a folder that outlasts a power cut: its name is synced in the folder above."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _encode(manifest: msgspec.Struct) -> bytes:
    """A manifest, for a person to read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
