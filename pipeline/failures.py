"""What failed, when and why: a line a failure in `<data_dir>/failures/<dataset>.jsonl`.

Owns that file, and when a failure is over.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import FolderError


class Failure(msgspec.Struct, frozen=True):
    """That a day failed at a stage (extract, transform or load) at a time (UTC), and the cause, without secrets."""

    at: dt.datetime
    date: dt.date
    stage: str
    line: str


def list_failures(data_dir: str, dataset: str) -> list[Failure]:
    """The newest failures of a dataset, the oldest of them first; raises FolderError where they cannot be read."""
    path = Path(data_dir, "failures", f"{dataset}.jsonl").expanduser()
    try:
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]  # the last may be cut by a crash
        return [msgspec.json.decode(line, type=Failure) for line in lines]
    except (OSError, msgspec.DecodeError) as error:
        raise FolderError(f"{path}: what failed cannot be read ({error}): move the file away") from error


def find_open(failures: Iterable[Failure], markers: Iterable[Mapping[str, Any]]) -> dict[dt.date, Failure]:
    """The newest failure of each day that was not loaded since, by day; `markers` are the rows of `loads`."""
    loaded = {marker["date"]: marker["loaded_at"] for marker in markers}
    newest = {failure.date: failure for failure in sorted(failures, key=lambda failure: failure.at)}
    return {date: newest[date] for date in sorted(newest) if date not in loaded or loaded[date] <= newest[date].at}
