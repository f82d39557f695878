"""Store the list of parents that a day asked, in their order: the file `parents.json.gz` of a raw day.

The list is frozen before the first request. It says which lines of the parts belong to which parent, as the parts hold
all records of one parent, then all of the next. So a day can be transformed again without the table of the parents.

Responsibilities: the file, and the parents of the lines of a part. Non-goals: who is asked (`extract.parents`).
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from wholeday.errors import FolderError
from wholeday.schema.columns import PARENT
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import pack, unpack
from wholeday.storage.manifest import Part

PARENTS = "parents.json.gz"
FROZEN = "parents.frozen.json.gz"  # the list before the first request, of a day that is being extracted

Outcome: TypeAlias = Literal["", "read", "missing"]


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The parents that share one series of requests, because their values are the same; usually one."""

    keys: list[list[Any]]
    """Their keys in the table of the parents."""
    values: dict[str, Any]
    """By column of the parents: the value, as JSON. These columns fill placeholders and columns of the records."""
    is_late: bool = False
    """Whether no loaded day asked them before: they are read from their beginning."""
    watermark: dt.datetime | None = None
    """The bound for `{watermark}`."""
    outcome: Outcome = ""
    """`missing` if the source answered their first page with 404; empty before they were asked."""
    pages: int = 0
    records: int = 0
    """The number of their lines in the parts."""


class Named(Protocol):
    """The files that the manifest of a raw day names."""

    @property
    def parts(self) -> list[Part]: ...
    @property
    def parents(self) -> Part | None: ...


class Run(NamedTuple):
    """Consecutive lines of a part that belong to one parent."""

    records: int
    values: dict[str, Any]
    parent: int = 0
    """Its position in the list."""


def pack_parents(parents: Sequence[Parent]) -> Iterator[tuple[int, bytes]]:
    """Return the content of the file as chunks, one line for each of `parents`."""
    return pack([[msgspec.json.encode(parent) for parent in parents]])


def unpack_parents(data: bytes) -> list[Parent]:
    """Return the content of the file."""
    return [msgspec.json.decode(line, type=Parent) for line in unpack(data)]


def read_runs(folder: DayFolder, manifest: Named) -> list[tuple[Run, ...]]:
    """Return, for each part of a raw day, the runs of its lines; no runs without parents. Raises FolderError."""
    if manifest.parents is None:
        return [()] * len(manifest.parts)
    return split_runs(read_parents(folder, manifest), manifest.parts)


def read_parents(folder: DayFolder, manifest: Named) -> list[Parent]:
    """Return the parents of a raw day; none if its dataset has no parents. Raises FolderError."""
    return unpack_parents(folder.read(manifest.parents)) if manifest.parents else []


def add_parents(lines: list[bytes], runs: Iterable[Run], names: Sequence[str]) -> list[bytes]:
    """Return the lines of a part, each with the named columns of its parent as the member PARENT.

    A line without an object is left alone. Raises FolderError if the list of parents lacks a column.
    """
    if not names:
        return lines
    left, found = iter(lines), list[bytes]()
    for run in runs:
        if missing := [name for name in names if name not in run.values]:
            raise FolderError(
                f"{PARENTS} has no column {missing[0]}, as the day was extracted before the record class took it from "
                "the parent: leave the column out, or delete the raw folder and run the day again"
            )
        values = {PARENT: {name: run.values[name] for name in names}}
        found += [_add(line, msgspec.json.encode(values)) for line in islice(left, run.records)]
    return found


def _add(line: bytes, members: bytes) -> bytes:
    """Add members, as an encoded object, at the end of an object."""
    text = line.rstrip()
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return line
    inner = text[1:-1].rstrip()
    return b"{%b%b%b" % (inner, b"," if inner else b"", members[1:])


def split_runs(parents: Sequence[Parent], parts: Sequence[Part]) -> list[tuple[Run, ...]]:
    """Return, for each part, the runs of its lines. Raises FolderError if the parents have more lines, or fewer."""
    counted, stored = sum(parent.records for parent in parents), sum(part.records for part in parts)
    if counted != stored:
        raise FolderError(
            f"{PARENTS} counts {counted} records, and the parts hold {stored}: restore the day from a copy, or delete "
            "its raw folder and its row of loads, then run the day again"
        )
    left = ((number, parent) for number, parent in enumerate(parents) if parent.records)
    count, number, values = 0, 0, dict[str, Any]()
    found = []
    for part in parts:
        runs, need = [], part.records
        while need:
            if not count:
                number, parent = next(left)
                count, values = parent.records, parent.values
            taken = min(count, need)
            runs.append(Run(taken, values, number))
            count, need = count - taken, need - taken
        found.append(tuple(runs))
    return found
