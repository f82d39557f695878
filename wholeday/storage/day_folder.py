"""Store the files of a day at one stage: the parts first, the manifest last.

Responsibilities: which files a day's folder holds, and when the day exists. A folder without a manifest is unfinished;
the next run clears it.
Non-goals: how a file reaches a disk or a bucket (`backends`), and what the parts contain.
"""

import contextlib
import datetime as dt
import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from wholeday.errors import FolderError
from wholeday.log import logger
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.backends import open_storage
from wholeday.storage.manifest import Part
from wholeday.storage.part_writer import PartWriter

Stage = Literal["raw", "clean"]
STAGES: tuple[Stage, ...] = ("raw", "clean")
Manifest = TypeVar("Manifest", bound=msgspec.Struct)

MANIFEST = "manifest.json"
PREPARED = f"{MANIFEST}.new"
NOTE = f"{MANIFEST}.ahead"
CHECKPOINTS = "progress.jsonl"
PARTS = ("part-", "rejects-", "parents")

# How to replace a damaged day. While its marker exists, a run takes a loaded day for done: the marker must go too.
REMEDIES = {
    "raw": "delete the folder and the day's row of loads, then run the day again",
    "clean": "delete the folder, then reprocess the day",
}


class NamedFiles(msgspec.Struct):
    """The files that a manifest of either stage names."""

    parts: list[Part]
    rejects: list[Part] = []
    parents: Part | None = None


class DayFolder:
    """Hold the files of one day at one stage: `<data_dir>/<stage>/<dataset>/date=<date>/`."""

    def __init__(self, data_dir: str, stage: Stage, dataset: str, date: dt.date, private: bool = True) -> None:
        self.date, self.day, self._remedy = date, f"{dataset} {date}", REMEDIES[stage]
        self._storage = open_storage(data_dir, private)
        self.path = self._storage.root / stage / dataset / f"date={date}"
        self._before: list[str] = []
        """The files that were in the folder when this run began."""
        self._published: bytes | None = None
        """The manifest that `publish` replaces."""
        self._taken: dict[str, str] = {}
        """The sha256 of each part that the published manifest names."""

    def __str__(self) -> str:
        return self._storage.show(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Resolve the path: a worker process may have another current folder."""
        return self.__dict__ | {"path": self._storage.resolve(self.path)}

    def exists(self) -> bool:
        return self._storage.is_file(self.path / MANIFEST)

    def has_folder(self) -> bool:
        """Return whether the folder exists, finished or not."""
        return self._storage.is_folder(self.path)

    def list_parts(self) -> set[str]:
        """List the names of the stored parts, whether or not the manifest names them."""
        return {name for name in self._storage.list_names(self.path) if name.startswith(PARTS)}

    def lock_all(self) -> contextlib.AbstractContextManager[None]:
        """Lock all days of the dataset at this stage, if the storage has locks.

        The caller must not lock a single day meanwhile.
        """
        return self._storage.lock(self.path)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Lock the day at this stage, if the storage has locks. Another process waits for the lock."""
        return self._storage.lock(self.path, self.date.toordinal())

    def watch(self) -> contextlib.AbstractContextManager[bool]:
        """Keep other processes from locking the day, without changing a file. Yields False if one has locked it."""
        return self._storage.watch(self.path, self.date.toordinal())

    def clear(self, keep: Collection[str] = ()) -> None:
        """Empty the folder, except for the files to `keep`. The manifest goes first.

        In a bucket, the parts of another run stay until `publish`, because that run may still be working.
        """
        self._published, self._taken = None, {}
        self._storage.make_folder(self.path)
        self._before = self._storage.list_names(self.path)
        names = [name for name in self._storage.list_leftovers(self.path) if name not in keep]
        for prefix in (MANIFEST, CHECKPOINTS, *PARTS):
            self._remove(name for name in names if name.startswith(prefix))

    def begin_rewrite(self, keep: Collection[str] = ()) -> None:
        """Prepare to write the day again. The published manifest and its parts stay until `publish`.

        Of the parts that it does not name, those to `keep` stay as well.
        """
        try:
            manifest = self._storage.read(self.path / MANIFEST) if self.exists() else None
            named = self._read_named() if manifest else []
        except FolderError:  # an unreadable manifest names nothing worth keeping
            manifest = None
        self.clear(keep) if manifest is None else self.discard_unpublished(keep)
        if manifest:
            self._published, self._taken = manifest, {part.name: part.sha256 for part in named}
            self._before = self._storage.list_names(self.path)

    def discard_unpublished(self, keep: Collection[str] = ()) -> None:
        """Remove the parts that the manifest does not name, of this process and of killed ones."""
        self._remove(_select_unnamed(self._storage.list_leftovers(self.path), {*self._list_named(), *keep}))

    def remove(self) -> None:
        """Remove the manifest, then the parts, then the folder if it is empty."""
        if not self.has_folder():
            return
        self.clear()
        self.remove_unnamed(named=())
        self._storage.remove_folder(self.path)

    def write(self, name: str, chunks: Iterable[tuple[int, bytes]]) -> Part:
        """Write a part from chunks, each a number of records and their bytes.

        After `begin_rewrite`, a part of the published day keeps its file: the new one gets a name of its own.
        """
        name = wanted = self._storage.name(name)
        if name in self._taken:
            stem, _, kind = name.partition(".")
            name = f"{stem}.{secrets.token_hex(6)}.{kind}"
        records, size, sha256 = 0, 0, hashlib.sha256()

        def tally() -> Iterator[bytes]:
            nonlocal records, size
            for count, data in chunks:
                records, size = records + count, size + len(data)
                sha256.update(data)
                yield data

        self._storage.write(self.path / name, tally())
        if self._taken.get(wanted) == sha256.hexdigest():  # unchanged: reuse the name
            self._storage.rename(self.path / name, self.path / wanted)
            name = wanted
        return Part(name, records, size, sha256.hexdigest())

    def read(self, part: Part) -> bytes:
        """Read the bytes of a part. Raises FolderError if the file is missing or differs from its manifest."""
        remedy = f"Restore it from a copy, or {self._remedy}"
        try:
            data = self._storage.read(self.path / part.name)
        except FolderError as error:
            if part.name in self.list_parts():
                raise
            raise FolderError(f"{self}/{part.name}: the file is missing. {remedy}") from error
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise FolderError(
                f"{self}/{part.name}: the file does not match its manifest (sha256 {part.sha256[:12]}…). {remedy}"
            )
        return data

    @property
    def can_continue(self) -> bool:
        """Whether a later run can continue a part that this run has not finished."""
        return self._storage.can_continue

    def open_part(self, name: str, content: bytes = b"") -> PartWriter:
        """Open a part for writing, after the bytes that an interrupted run has written to it."""
        name = self._storage.name(name)
        return PartWriter(name, self._storage.open(self.path / name, len(content)), content)

    def read_open(self, part: Part) -> bytes:
        """Read a part that is not finished. Raises FolderError if the file lacks bytes or holds others."""
        data = self._storage.read(self.path / part.name)[: part.bytes]
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise FolderError(f"{self}/{part.name}: the file does not match its checkpoint")
        return data

    def add_checkpoints(self, lines: Sequence[bytes], before: Sequence[bytes] = (), durable: bool = True) -> None:
        """Append lines to the checkpoints. `before` are the lines that this run has read or written so far."""
        self._storage.extend_log(self.path / CHECKPOINTS, lines, before, durable)

    def read_checkpoints(self) -> list[bytes]:
        """Read the lines of the checkpoints."""
        return self._storage.read_log(self.path / CHECKPOINTS)

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of an extraction that is complete."""
        self._remove([CHECKPOINTS])

    def remove_unnamed(self, named: Collection[str]) -> None:
        """Remove the parts that are not `named` by the manifest, and what is left of other manifests."""
        self._remove(_select_unnamed(self._storage.list_names(self.path), named))

    def publish(self, manifest: msgspec.Struct) -> None:
        """Make the day exist: write its manifest in one step, then remove the files from before this run.

        In a bucket, which has no locks, another run may have published the day first. Then the other day stays. Raises
        FolderError if one run removed parts of the other, so that no day is left.
        """
        if (self._storage.read(self.path / MANIFEST) if self.exists() else None) != self._published:
            logger.info("%s: another run published the day first; keeping its files", self)
        else:
            self.replace_manifest(manifest)
        unnamed = _select_unnamed(self._storage.list_leftovers(self.path, self._before), self._list_named())
        self._remove(unnamed)
        named = self._list_named()
        if unnamed & named or not named <= self.list_parts():
            self._remove([MANIFEST])
            raise FolderError(f"{self}: another run wrote this day at the same time. Run the day again")

    def write_note(self, content: bytes) -> None:
        """Write a note about unpublished parts. It is removed together with them, and when the day is published."""
        self._storage.replace(self.path / NOTE, content)

    def read_note(self) -> bytes:
        """Read the note about unpublished parts. Raises FolderError if there is none."""
        return self._storage.read(self.path / NOTE)

    def replace_manifest(self, manifest: msgspec.Struct) -> None:
        """Replace the day's manifest in one step. The names of its parts are synced to the disk before it."""
        self._storage.sync_folder(self.path)
        self._storage.replace(self.path / MANIFEST, _encode(manifest))

    def prepare_manifest(self, manifest: msgspec.Struct) -> None:
        """Write a manifest that `publish_prepared` puts in the place of the day's own."""
        self._storage.replace(self.path / PREPARED, _encode(manifest))

    def publish_prepared(self) -> None:
        """Replace the day's manifest by the prepared one, in one step."""
        self._storage.rename(self.path / PREPARED, self.path / MANIFEST)

    def read_manifest(self, kind: type[Manifest]) -> Manifest:
        """Read the manifest as `kind`. Raises FolderError if it is missing or unreadable."""
        data = self._storage.read(self.path / MANIFEST)
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise FolderError(
                f"{self}/{MANIFEST} is not a manifest ({error}). Restore it from a copy, or {self._remedy}"
            ) from error

    def _list_named(self) -> set[str]:
        return {part.name for part in self._read_named()}

    def _read_named(self) -> list[Part]:
        manifest = self.read_manifest(NamedFiles)
        return [*manifest.parts, *manifest.rejects, *([manifest.parents] if manifest.parents else [])]

    def _remove(self, names: Iterable[str]) -> None:
        self._storage.remove([self.path / name for name in sorted(names)])


def _select_unnamed(names: Iterable[str], named: Collection[str]) -> set[str]:
    """Select the `names` of files that a finished day does not need."""
    return {name for name in names if name.startswith((f"{MANIFEST}.", CHECKPOINTS, *PARTS)) and name not in named}


def list_days(data_dir: str, stage: Stage, dataset: str) -> Iterator[dt.date]:
    """List the days of a dataset that have a folder at a stage, finished or not, newest first."""
    storage = open_storage(data_dir)
    for name in reversed(storage.list_names(storage.root / stage / dataset)):
        with contextlib.suppress(ValueError):
            date = dt.date.fromisoformat(name.removeprefix("date="))
            if name == f"date={date}":
                yield date


def list_all_days(data_dir: str, dataset: str) -> list[dt.date]:
    """List the days of a dataset that have a folder at any stage, oldest first."""
    return sorted({date for stage in STAGES for date in list_days(data_dir, stage, dataset)})


def _encode(manifest: msgspec.Struct) -> bytes:
    """Encode a manifest as indented JSON, for people to read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
