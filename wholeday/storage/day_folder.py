"""Keep the files of a day at one stage: parts first, the manifest last.

A folder without a manifest is unfinished; whoever works on the day next clears it.
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

Stage = Literal["raw", "clean"]


STAGES: tuple[Stage, ...] = ("raw", "clean")


Manifest = TypeVar("Manifest", bound=msgspec.Struct)


MANIFEST = "manifest.json"


PREPARED = f"{MANIFEST}.new"


CHECKPOINTS = "progress.jsonl"


PARTS = ("part-", "rejects-")


class Named(msgspec.Struct):
    """What a manifest of either stage names."""

    parts: list[Part]
    rejects: list[Part] = []


# What has a damaged day made again: a loaded one is asked for in vain as long as its marker is there.
MADE_AGAIN = {
    "raw": "delete its folder and the day's row of loads, and run the day again",
    "clean": "delete its folder, and reprocess the day",
}


class DayFolder:
    """The files of one day at one stage: `<data_dir>/<stage>/<dataset>/date=<date>/`."""

    def __init__(self, data_dir: str, stage: Stage, dataset: str, date: dt.date, private: bool = True) -> None:
        self.date, self.day, self._made_again = date, f"{dataset} {date}", MADE_AGAIN[stage]
        self._storage = open_storage(data_dir, private)
        self.path = self._storage.root / stage / dataset / f"date={date}"
        self._before: list[str] = []
        self._published: bytes | None = None
        """The manifest that `publish` replaces."""
        self._taken: dict[str, str] = {}
        """The parts that it names, with their sha256."""

    def __str__(self) -> str:
        return self._storage.show(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """A worker of the engine may stand in another folder."""
        return self.__dict__ | {"path": self._storage.resolve(self.path)}

    def exists(self) -> bool:
        return self._storage.is_file(self.path / MANIFEST)

    def has_folder(self) -> bool:
        """Whether there is anything of the day, finished or not."""
        return self._storage.is_folder(self.path)

    def list_parts(self) -> set[str]:
        """The names of the parts that are there, whether or not the manifest names them."""
        return {name for name in self._storage.list_names(self.path) if name.startswith(PARTS)}

    def lock_all(self) -> contextlib.AbstractContextManager[None]:
        """Hold all days of the dataset at this stage, where they can be held. Take no other lock of them meanwhile."""
        return self._storage.lock(self.path)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the day at this stage, where it can be held: another process that wants it waits."""
        return self._storage.lock(self.path, self.date.toordinal())

    def watch(self) -> contextlib.AbstractContextManager[bool]:
        """Keep other processes from working on the day, without changing a file. False if one is working on it."""
        return self._storage.watch(self.path, self.date.toordinal())

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Make the folder unfinished and, but for the parts to `keep` and their checkpoints, empty: no manifest first.

        In a bucket the parts of another run stay, which may be at work: `publish` drops them.
        """
        self._published, self._taken = None, {}
        self._storage.make_folder(self.path)
        self._before = self._storage.list_names(self.path)
        names = [name for name in self._storage.list_leftovers(self.path) if name not in keep]
        for prefix in (MANIFEST, *(() if keep else (CHECKPOINTS,)), *PARTS):
            self._remove(name for name in names if name.startswith(prefix))

    def begin(self) -> None:
        """Prepare to write the day anew. Its manifest, and the parts that it names, stay until `publish`."""
        try:
            manifest = self._storage.read(self.path / MANIFEST) if self.exists() else None
            named = self._read_named() if manifest else []
        except FolderError:  # a manifest that cannot be read: nothing is lost with it
            manifest = None
        self.sweep() if manifest is None else self.discard()
        if manifest:
            self._published, self._taken = manifest, {part.name: part.sha256 for part in named}
            self._before = self._storage.list_names(self.path)

    def discard(self) -> None:
        """Remove the parts that this process has written, and those of killed ones; the day stays as published."""
        self._remove(_find_strays(self._storage.list_leftovers(self.path), self._list_named()))

    def remove(self) -> None:
        """Have nothing of the day: first no manifest, then no parts and, where nothing else lies there, no folder."""
        if not self.has_folder():
            return
        self.sweep()
        self.drop_strays(keep=())
        self._storage.remove_folder(self.path)

    def write(self, name: str, chunks: Iterable[tuple[int, bytes]]) -> Part:
        """Write a part from chunks (records in it, bytes). After `begin` it overwrites no part of the published day."""
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
        if self._taken.get(wanted) == sha256.hexdigest():  # the same part again
            self._storage.rename(self.path / name, self.path / wanted)
            name = wanted
        return Part(name, records, size, sha256.hexdigest())

    def read(self, part: Part) -> bytes:
        """The bytes of a part; raises FolderError where they are not those that the manifest names."""
        way_out = f"bring the file back from a copy, or {self._made_again}"
        try:
            data = self._storage.read(self.path / part.name)
        except FolderError as error:
            if part.name in self.list_parts():
                raise
            raise FolderError(f"{self}/{part.name}: the file is missing: {way_out}") from error
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise FolderError(
                f"{self}/{part.name}: the bytes are not those of its manifest (sha256 {part.sha256[:12]}…): {way_out}"
            )
        return data

    def add_checkpoints(self, lines: Sequence[bytes], before: Sequence[bytes] = ()) -> None:
        """Append checkpoints to the lines that this run wrote or read `before`."""
        self._storage.extend_log(self.path / CHECKPOINTS, lines, before)

    def read_checkpoints(self) -> list[bytes]:
        """Read the lines of the file of checkpoints."""
        return self._storage.read_log(self.path / CHECKPOINTS)

    def has_parts(self) -> bool:
        """Whether there are parts, of a day that exists or of unfinished work."""
        return any(name.startswith("part-") for name in self._storage.list_names(self.path))

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints; all parts are written."""
        self._remove([CHECKPOINTS])

    def drop_strays(self, keep: Collection[str]) -> None:
        """Have no parts but those to `keep`, which are the manifest's, and no manifest but that."""
        self._remove(_find_strays(self._storage.list_names(self.path), keep))

    def publish(self, manifest: msgspec.Struct) -> None:
        """Make the day exist: its manifest under its name, at once. Then drop what was there before this run.

        Where nobody can hold the day, another run may have been first: then its day stays. Raises FolderError where
        one of them took the other's parts for strays, and there is no day.
        """
        if (self._storage.read(self.path / MANIFEST) if self.exists() else None) != self._published:
            logger.info("%s: another run was first: its files stay", self)
        else:
            self.replace(manifest)
        strays = _find_strays(self._storage.list_leftovers(self.path, self._before), self._list_named())
        self._remove(strays)
        named = self._list_named()
        if strays & named or not named <= self.list_parts():
            self._remove([MANIFEST])
            raise FolderError(f"{self}: another run made this day at the same time: run it again")

    def replace(self, manifest: msgspec.Struct) -> None:
        """Have a manifest in the place of the day's own. The names of its parts last before that."""
        self._storage.sync_folder(self.path)
        self._storage.replace(self.path / MANIFEST, _encode(manifest))

    def prepare(self, manifest: msgspec.Struct) -> None:
        """Write a manifest that `swap` is to put in the place of the day's own."""
        self._storage.replace(self.path / PREPARED, _encode(manifest))

    def swap(self) -> None:
        """Have the prepared manifest for the day's own, at once."""
        self._storage.rename(self.path / PREPARED, self.path / MANIFEST)

    def read_manifest(self, kind: type[Manifest]) -> Manifest:
        """The manifest as `kind`; raises FolderError where there is none or it cannot be read."""
        data = self._storage.read(self.path / MANIFEST)
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise FolderError(
                f"{self}/{MANIFEST} is not a manifest ({error}): bring it back from a copy, or {self._made_again}"
            ) from error

    def _list_named(self) -> set[str]:
        return {part.name for part in self._read_named()}

    def _read_named(self) -> list[Part]:
        manifest = self.read_manifest(Named)
        return [*manifest.parts, *manifest.rejects]

    def _remove(self, names: Iterable[str]) -> None:
        self._storage.remove([self.path / name for name in sorted(names)])


def _find_strays(names: Iterable[str], keep: Collection[str]) -> set[str]:
    """Those of the `names` that a finished day has no use for."""
    return {name for name in names if name.startswith((f"{MANIFEST}.", CHECKPOINTS, *PARTS)) and name not in keep}


def list_days(data_dir: str, stage: Stage, dataset: str) -> Iterator[dt.date]:
    """The days of a dataset that have a folder at a stage, finished or not, the newest first."""
    storage = open_storage(data_dir)
    for name in reversed(storage.list_names(storage.root / stage / dataset)):
        with contextlib.suppress(ValueError):
            date = dt.date.fromisoformat(name.removeprefix("date="))
            if name == f"date={date}":
                yield date


def list_all_days(data_dir: str, dataset: str) -> list[dt.date]:
    """The days that have a folder at any stage, the oldest first."""
    return sorted({date for stage in STAGES for date in list_days(data_dir, stage, dataset)})


def _encode(manifest: msgspec.Struct) -> bytes:
    """A manifest, for a person to read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
