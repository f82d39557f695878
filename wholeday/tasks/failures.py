"""What failed, when and why: a line a failure in `<data_dir>/failures/<dataset>.jsonl`.

Owns that file, and when a failure is over. Whatever runs the tasks writes into it, several processes at once too; it
keeps the newest. Refuses to get in the way of the failure itself: one that cannot be written down is a warning.
"""

import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

import msgspec

from wholeday import clock
from wholeday.config.settings import Pipeline
from wholeday.errors import ConfigError, FolderError, PipelineError
from wholeday.log import logger
from wholeday.redaction import Mask, find_secrets
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.backends import NO_LOCKS, Storage, open_storage
from wholeday.tasks.dataset import DEFAULT_MODULE, Dataset
from wholeday.text import clean_line

Line = TypeVar("Line", bound=msgspec.Struct)

MAX_BYTES = 4_000_000  # of the file; what would pass it has the older half of the lines go
LONGEST = 2_000  # characters of a cause
ERASED = "what it was is erased, as it may have quoted somebody who is forgotten: run the day again to see it"
PAGES = re.compile(r"report(-[\w.]+)?\.html(\..*new)?")  # of `report`, in data_dir; with their temporary files


class Failure(msgspec.Struct, frozen=True):
    """That a day failed at a stage (extract, transform or load) at a time (UTC), and the cause, without secrets."""

    at: dt.datetime
    date: dt.date
    stage: str
    line: str


def note(dataset: Dataset, date: dt.date, stage: str, cause: str) -> Failure:
    """Write down that a day failed just now. Where that cannot be, a warning says why."""
    line = clean_line(_make_mask(dataset)(cause))[:LONGEST]
    failure = Failure(clock.utc_now(), date, stage, line)
    try:
        storage = open_storage(Pipeline().data_dir)
        add_line(storage, find_path(storage, dataset.name), msgspec.json.encode(failure))
    except PipelineError as error:
        if NO_LOCKS in cause:  # the same line again
            return failure
        logger.warning("%s %s: that it failed is not written down: %s", dataset.name, date, error)
    return failure


def list_failures(data_dir: str, dataset: str) -> list[Failure]:
    """The newest failures of a dataset, the oldest of them first; raises FolderError where they cannot be read."""
    storage = open_storage(data_dir)
    return read_lines(storage, find_path(storage, dataset), Failure)


def find_open(failures: Iterable[Failure], markers: Iterable[Mapping[str, Any]]) -> dict[dt.date, Failure]:
    """The last of the failures of each day that is not loaded, by day; `markers` are the rows of `loads`.

    A day that is loaded lacks nothing, and nothing would ever mend a failure that came after: to look at it, say.
    """
    loaded = {marker["date"] for marker in markers}
    newest = {failure.date: failure for failure in failures}  # which come in their order, whatever the clock said
    return {date: newest[date] for date in sorted(newest) if date not in loaded}


def find_path(storage: Storage, dataset: str) -> PurePath:
    """The file of a dataset."""
    return storage.root / "failures" / f"{dataset}.jsonl"


def read_lines(storage: Storage, path: PurePath, kind: type[Line]) -> list[Line]:
    """The lines of a file, less a last one that a crash cut; raises FolderError where they cannot be read."""
    *lines, _ = (storage.read(path) if storage.is_file(path) else b"").split(b"\n")
    try:
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except UNREADABLE as error:
        raise FolderError(f"{storage.show(path)}: what failed cannot be read ({error}): move the file away") from error


def add_line(storage: Storage, path: PurePath, line: bytes) -> None:
    """Add a line to a file, one process after the other; what a crash left of a last line is dropped.

    In a bucket nobody waits for another: of two lines in the same instant one is kept.
    """
    storage.make_folder(path.parent)
    with storage.hold(path.with_name(".lock")):
        content = storage.read(path) if storage.is_file(path) else b""
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        if len(content) + len(line) > MAX_BYTES:
            lines = lines[len(lines) // 2 :]
        kept = b"".join(lines)
        if kept and kept == content:
            storage.extend_log(path, [line], before=kept.splitlines())
        else:
            storage.replace(path, kept + line + b"\n")


def erase(data_dir: str, dataset: str) -> None:
    """Leave of each failure when, which day and at which stage: a cause may quote what a source sent.

    What the webhook was told of them goes, and the pages of `report`, which show them. Raises FolderError.
    """
    storage = open_storage(data_dir)
    path = find_path(storage, dataset)
    told = path.with_suffix(".told.jsonl")
    storage.remove([storage.root / name for name in storage.list_names(storage.root) if PAGES.fullmatch(name)])
    if not storage.is_folder(path.parent):
        return
    with storage.hold(path.with_name(".lock")):
        kept: list[Failure] = []
        with contextlib.suppress(FolderError):  # what cannot be read goes as a whole
            kept = [msgspec.structs.replace(each, line=ERASED) for each in read_lines(storage, path, Failure)]
        for file in (path, told):
            storage.remove_temporary(file)
        storage.remove([told, *([] if kept else [path])])
        if kept:
            storage.replace(path, b"".join(msgspec.json.encode(each) + b"\n" for each in kept))


def name_page(module: str) -> str:
    """Return the name of the page on which `report` shows the datasets of a module."""
    return "report.html" if module == DEFAULT_MODULE else f"report-{module}.html"


def _make_mask(dataset: Dataset) -> Mask:
    """A mask of every secret of a dataset's section. An error in the section itself shows none."""
    from wholeday.extract.http.auth import Auth

    mask = Mask()
    with contextlib.suppress(ConfigError):
        settings = dataset.config()
        mask.add(*find_secrets(settings))
        Auth(settings, mask)
    return mask
