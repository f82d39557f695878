"""Find the lines of a day's files that have certain keys, and write clean parts without them.

Responsibilities: which lines of a raw part match. A line matches by its own key, compared as text, or by the key of
the row or reject that it became. Without clean files, the lines are transformed to learn that key. A line also matches
if it came for an erased parent.
Non-goals: changing a day. A line whose key cannot be read never matches.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec

from wholeday.errors import FolderError
from wholeday.schema.reject import Reject
from wholeday.storage.day_folder import STAGES, DayFolder
from wholeday.storage.lines import pack, unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.names import strip_run
from wholeday.storage.parents import Parent, Run, add_parents, read_parents, split_runs
from wholeday.storage.parquet import encode_rows, open_rows
from wholeday.storage.tombstones import Finder, read_reject_key
from wholeday.storage.workspace import Workspace

Keys: TypeAlias = Mapping[int, Sequence[Any]]
"""By the number of a line, from 1: the key of its row or reject."""
Replaced = dict[Part, Part | None]
"""New parts by the parts that they replace; None for a part that is dropped."""


class DayFiles(NamedTuple):
    """The files of a day. `clean_manifest` is None if no clean files belong to the raw files."""

    raw: DayFolder
    clean: DayFolder
    raw_manifest: RawManifest
    clean_manifest: CleanManifest | None

    @classmethod
    def read(cls, workspace: Workspace, date: dt.date) -> "DayFiles":
        """Read the manifests of a day. Raises FolderError if the raw one cannot be read."""
        raw, clean = (workspace.folder(stage, date) for stage in STAGES)
        raw_manifest = raw.read_manifest(RawManifest)
        return cls(raw, clean, raw_manifest, read_clean_manifest(clean, raw_manifest))

    def read_parents(self) -> list[Parent]:
        """Return the parents that the day asked; none without parents. Raises FolderError."""
        return read_parents(self.raw, self.raw_manifest)

    def split_runs(self, parents: Sequence[Parent]) -> list[tuple[Run, ...]]:
        """Return, for each raw part, the runs of its lines; no runs without parents. Raises FolderError."""
        parts = self.raw_manifest.parts
        return split_runs(parents, parts) if self.raw_manifest.parents else [()] * len(parts)


class Match(NamedTuple):
    """A raw part, its lines, the numbers (from 1) of the matching lines, and its clean part if there is one.

    `keys` holds the key of each row and reject, by its line. `parents` holds the parent of each line, as its position
    in the list; it is empty without parents.
    """

    part: Part
    lines: list[bytes]
    numbers: set[int]
    clean: "CleanPart | None"
    keys: Keys
    parents: list[int]


class CleanPart:
    """The rows and rejects of a raw part."""

    def __init__(self, folder: DayFolder, rows: Part, rejects: Part | None, records: int) -> None:
        """Read both files of a raw part with so many `records`. Raises FolderError if their numbers do not add up."""
        self._folder, self._rows, self._rejects = folder, rows, rejects
        self._data = folder.read(rows)
        self._rejected: list[Reject] = []
        if rejects:
            self._rejected = [msgspec.json.decode(line, type=Reject) for line in unpack(folder.read(rejects))]
        rejected = {reject.line for reject in self._rejected}
        self._lines = [line for line in range(1, records + 1) if line not in rejected]
        if len(self._lines) != rows.records:
            raise FolderError(
                f"{folder}/{rows.name}: {rows.records} rows and {len(rejected)} rejects do not add up to "
                f"{records} records. Delete the folder {folder}, then reprocess the day"
            )

    def read_keys(self, columns: Sequence[str]) -> Keys:
        """Return the key of each line whose row or reject has one."""
        table = open_rows(self._data).read(columns=list(columns))
        keys = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        return dict(zip(self._lines, keys, strict=True)) | _read_reject_keys(self._rejected)

    def describe(self, line: int) -> dict[str, Any] | Reject:
        """Return the row or the reject that a line became. A row of a deletion has `deleted` true."""
        for reject in self._rejected:
            if reject.line == line:
                return reject
        table = open_rows(self._data).read().slice(self._lines.index(line), 1)
        row: dict[str, Any] = table.to_pylist()[0]
        return row

    def write_without(self, numbers: set[int]) -> tuple[Replaced, list[str]]:
        """Write new parts without the rows and rejects of some lines. Return them, and the reasons of these rejects."""
        import pyarrow as pa

        table = open_rows(self._data).read().filter(pa.array([line not in numbers for line in self._lines]))
        chunks = [(len(table), encode_rows(table))]
        new: Replaced = {self._rows: self._folder.write(name_revision(self._rows), chunks)}
        kept, reasons = [], []
        for reject in self._rejected:
            if reject.line in numbers:
                reasons.append(reject.describe())
            else:
                line = reject.line - sum(number < reject.line for number in numbers)
                kept.append(msgspec.json.encode(msgspec.structs.replace(reject, line=line)))
        if self._rejects:
            name = name_revision(self._rejects)
            new[self._rejects] = self._folder.write(name, pack([kept])) if kept else None
        return new, reasons


@dataclass(frozen=True)
class Search:
    """A search of a dataset's files for the keys of a finder. `key` names the key columns.

    `erased` finds the parents that are erased, if the dataset has parents.
    """

    workspace: Workspace
    finder: Finder
    key: list[str]
    erased: Finder = field(default_factory=lambda: Finder((), ()))

    def search_day(self, day: DayFiles) -> Iterator[Match]:
        """Yield a match for each raw part, with or without matching lines. Raises FolderError."""
        made = day.clean_manifest
        rejects = {_parse_number(part): part for part in made.rejects} if made else {}
        parents = day.read_parents()
        gone = self._find_gone(parents)
        for number, (part, runs) in enumerate(zip(day.raw_manifest.parts, day.split_runs(parents), strict=True)):
            stored = unpack(day.raw.read(part))
            lines = add_parents(stored, runs, self.workspace.conversion.columns.taken)
            clean = CleanPart(day.clean, made.parts[number], rejects.get(number), len(lines)) if made else None
            keys = clean.read_keys(self.key) if clean else self._transform(day.raw, lines)
            found = self.finder.find(keys.values())
            numbers = self.finder.find_lines(lines) | {line for at, line in enumerate(keys) if at in found}
            of_parents = [run.parent for run in runs for _ in range(run.records)]
            numbers |= {line for line, parent in enumerate(of_parents, 1) if parent in gone}
            yield Match(part, stored, numbers, clean, keys, of_parents)

    def can_match(self, parents: Iterable[Parent]) -> bool:
        """Tell whether a line can match in a day that asked these parents."""
        return bool(self.finder.keys) or not all(map(self.list_left, parents))

    def list_left(self, parent: Parent) -> list[list[Any]]:
        """Return the keys of the parents with these values that are not erased."""
        found = self.erased.find(parent.keys)
        return [key for number, key in enumerate(parent.keys) if number not in found]

    def _find_gone(self, parents: Iterable[Parent]) -> set[int]:
        """Return the numbers of the entries whose parents are all erased."""
        return {number for number, parent in enumerate(parents) if not self.list_left(parent)}

    def list_children(self, day: DayFiles) -> Iterator[Sequence[Any]]:
        """Yield the keys of the rows and rejects that came for erased parents. Raises FolderError."""
        parents = day.read_parents()
        gone = self._find_gone(parents)
        if not any(parents[number].records for number in gone):
            return
        for match in self.search_day(day):
            numbers = {line for line, parent in enumerate(match.parents, 1) if parent in gone}
            yield from (key for line, key in match.keys.items() if line in numbers)

    def _transform(self, raw: DayFolder, lines: list[bytes]) -> Keys:
        """Return the key of each line that would become a row or reject with a key."""
        import pyarrow as pa

        from wholeday.transform.rows import transform

        try:
            rows, rejects, _ = transform(lines, self.workspace.conversion)
            table = pa.Table.from_pandas(rows[self.key], preserve_index=False)
        except Exception as error:  # any error of `clean`; its text may quote a record
            kind = type(error.__cause__ or error).__name__
            raise FolderError(
                f"{raw} has no clean files, and its lines cannot be searched, as their transform failed ({kind}). "
                f"Correct the record class or the clean function, then run forget again"
            ) from error
        keys = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return dict(zip(map(int, rows.index), keys, strict=True)) | _read_reject_keys(rejects)


def _read_reject_keys(rejects: Iterable[Reject]) -> dict[int, Sequence[Any]]:
    return {reject.line: read_reject_key(reject.key) for reject in rejects}


def read_clean_manifest(clean: DayFolder, raw_manifest: RawManifest) -> CleanManifest | None:
    """Read the clean manifest that belongs to a raw day. Return None if there is none."""
    with suppress(FolderError):
        manifest = clean.read_manifest(CleanManifest)
        if manifest.raw_sha256 == raw_manifest.hashes:
            return manifest
    return None


def _parse_number(part: Part) -> int:
    return int(part.name.partition("-")[2].partition(".")[0].partition("-")[0])


def name_revision(part: Part) -> str:
    """Return the name of the part's next revision: part-00003.jsonl.gz, part-00003-r1.jsonl.gz, part-00003-r2.…"""
    name, _, kind = strip_run(part.name).partition(".")
    stem, _, revision = name.partition("-r")
    return f"{stem}-r{int(revision or 0) + 1}.{kind}"
