"""Record failures of days: one line each in `<data_dir>/failures/<dataset>.jsonl`.

Responsibilities: the file, which several processes append to and which keeps the newest failures; when a failure is
over; the removal of causes when a person is erased.
Non-goals: failing a run. A failure that cannot be recorded is a warning.
"""

import contextlib
import datetime as dt
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

import msgspec

from wholeday import clock
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, FolderError, PipelineError
from wholeday.log import logger
from wholeday.redaction import Mask
from wholeday.schema.dataset import Dataset
from wholeday.schema.marker import Marker
from wholeday.schema.raw_fields import UNREADABLE
from wholeday.storage.backends import Storage, open_storage
from wholeday.storage.local import NO_LOCKS
from wholeday.text import clean_line

Line = TypeVar("Line", bound=msgspec.Struct)

MAX_BYTES = 4_000_000  # size of the file at which the older half of its lines is dropped
LONGEST = 2_000  # characters of a cause
ERASED = "cause erased, as it may quote an erased person: run the day again to see it"
PAGES = re.compile(r"report(-[\w.]+)?\.html(\..*new)?")  # pages of `report` in data_dir, and their temporary files


class Failure(msgspec.Struct, frozen=True):
    """A failure of a day: when (UTC), at which stage (extract, transform or load), and its cause without secrets."""

    at: dt.datetime
    date: dt.date
    stage: str
    line: str


def record_failure(dataset: Dataset, date: dt.date, stage: str, cause: str) -> Failure:
    """Record that a day failed just now. Log a warning if the file cannot be written."""
    line = clean_line(_build_mask(dataset)(cause))[:LONGEST]
    failure = Failure(clock.utc_now(), date, stage, line)
    try:
        storage = open_storage(Pipeline().data_dir, Pipeline().is_private)
        append_line(storage, build_path(storage, dataset.name), msgspec.json.encode(failure))
    except PipelineError as error:
        if NO_LOCKS in cause:  # the warning would repeat the cause
            return failure
        logger.warning("%s %s: cannot record the failure: %s", dataset.name, date, error)
    return failure


def read_failures(data_dir: str, dataset: str) -> list[Failure]:
    """Return the recorded failures of a dataset, oldest first. Raises FolderError if they cannot be read."""
    storage = open_storage(data_dir)
    return read_lines(storage, build_path(storage, dataset), Failure)


def select_open(failures: Iterable[Failure], markers: Iterable[Marker]) -> dict[dt.date, Failure]:
    """Return the last failure of each day that is not loaded, by day. `markers` are the rows of `loads`.

    A failure after the load is closed, too: no later run would clear it.
    """
    loaded = {marker.date for marker in markers}
    newest = {failure.date: failure for failure in failures}  # in the order of the file: a clock may be wrong
    return {date: newest[date] for date in sorted(newest) if date not in loaded}


def build_path(storage: Storage, dataset: str) -> PurePath:
    return storage.root / "failures" / f"{dataset}.jsonl"


def build_alerts_path(storage: Storage, dataset: str) -> PurePath:
    return build_path(storage, dataset).with_suffix(".alerts.jsonl")


def read_lines(storage: Storage, path: PurePath, kind: type[Line]) -> list[Line]:
    """Decode the lines of a file, without a last line that a crash cut off. Raises FolderError for any other damage."""
    *lines, _ = (storage.read(path) if storage.is_file(path) else b"").split(b"\n")
    try:
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except UNREADABLE as error:
        raise FolderError(
            f"cannot read the failures in {storage.show(path)} ({error}). Move the file away, then run again"
        ) from error


def append_line(storage: Storage, path: PurePath, line: bytes) -> None:
    """Append a line to a file, under a lock, and drop a last line that a crash cut off.

    A bucket has no locks: of two lines appended at the same instant, one is kept.
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


def erase_causes(data_dir: str, dataset: str, private: bool = True) -> None:
    """Erase the causes of all failures, as a cause may quote a record. Time, day and stage stay.

    Remove the alerts that were sent, and the pages of `report`, which show causes. Raises FolderError.
    """
    storage = open_storage(data_dir, private)
    path, alerts = build_path(storage, dataset), build_alerts_path(storage, dataset)
    storage.remove([storage.root / name for name in storage.list_names(storage.root) if PAGES.fullmatch(name)])
    if not storage.is_folder(path.parent):
        return
    with storage.hold(path.with_name(".lock")):
        kept: list[Failure] = []
        with contextlib.suppress(FolderError):  # a damaged file is removed as a whole
            kept = [msgspec.structs.replace(each, line=ERASED) for each in read_lines(storage, path, Failure)]
        for file in (path, alerts):
            storage.remove_temporary(file)
        storage.remove([alerts, *([] if kept else [path])])
        if kept:
            storage.replace(path, b"".join(msgspec.json.encode(each) + b"\n" for each in kept))


def build_page_name(only: str | None) -> str:
    """Return the file name of the page that `report` writes for every dataset, or for `only` one of them."""
    return f"report-{only}.html" if only else "report.html"


def _build_mask(dataset: Dataset) -> Mask:
    """Build a mask of every secret in a dataset's section. A section that cannot be read yields none."""
    from wholeday.extract.http.auth import Auth

    mask = Mask()
    with contextlib.suppress(ConfigError):
        settings = dataset.config()
        mask.add(*settings.secrets)
        Auth(settings, mask)
    return mask
