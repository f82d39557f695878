"""What failed, when and why: a line a failure in `<data_dir>/failures/<dataset>.jsonl`.

Owns that file, and when a failure is over. Whatever runs the tasks writes into it, several processes at once too; it
keeps the newest. Refuses to get in the way of the failure itself: one that cannot be written down is a warning.
"""

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline import config
from pipeline.config import Pipeline
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, FolderError, PipelineError
from pipeline.logs import logger
from pipeline.mask import Mask, find_secrets
from pipeline.storage import replace_file

Line = TypeVar("Line", bound=msgspec.Struct)

MAX_BYTES = 4_000_000  # of the file; what would pass it has the older half of the lines go
LONGEST = 2_000  # characters of a cause


class Failure(msgspec.Struct, frozen=True):
    """That a day failed at a stage (extract, transform or load) at a time (UTC), and the cause, without secrets."""

    at: dt.datetime
    date: dt.date
    stage: str
    line: str


def note(dataset: Dataset, date: dt.date, stage: str, cause: str) -> Failure:
    """Write down that a day failed just now. Where that cannot be, a warning says why."""
    line = " ".join(_make_mask(dataset)(cause).split())[:LONGEST]
    failure = Failure(config.utc_now(), date, stage, line)
    try:
        add_line(find_path(Pipeline().data_dir, dataset.name), msgspec.json.encode(failure))
    except (OSError, PipelineError) as error:
        logger.warning("%s %s: that it failed is not written down: %s", dataset.name, date, error)
    return failure


def list_failures(data_dir: str, dataset: str) -> list[Failure]:
    """The newest failures of a dataset, the oldest of them first; raises FolderError where they cannot be read."""
    return [] if "://" in data_dir else read_lines(find_path(data_dir, dataset), Failure)


def find_open(failures: Iterable[Failure], markers: Iterable[Mapping[str, Any]]) -> dict[dt.date, Failure]:
    """The newest failure of each day that was not loaded since, by day; `markers` are the rows of `loads`."""
    loaded = {marker["date"]: marker["loaded_at"] for marker in markers}
    newest = {failure.date: failure for failure in sorted(failures, key=lambda failure: failure.at)}
    return {date: newest[date] for date in sorted(newest) if date not in loaded or loaded[date] <= newest[date].at}


def find_path(data_dir: str, dataset: str) -> Path:
    """The file of a dataset; raises ConfigError where there can be none: on object storage no line can be added."""
    if "://" in data_dir:
        raise ConfigError(f"[pipeline] data_dir = {data_dir}: failures are kept in a local folder only")
    return Path(data_dir, "failures", f"{dataset}.jsonl").expanduser()


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """The lines of a file, less a last one that a crash cut; raises FolderError where they cannot be read."""
    try:
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except (OSError, msgspec.DecodeError) as error:
        raise FolderError(f"{path}: what failed cannot be read ({error}): move the file away") from error


def add_line(path: Path, line: bytes) -> None:
    """Add a line to a file, synced, one process after the other; what a crash left of a last line is dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_name(".lock")):
        content = path.read_bytes() if path.exists() else b""
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        if len(content) + len(line) > MAX_BYTES:
            lines = lines[len(lines) // 2 :]
        kept = b"".join(lines)
        if not kept or kept != content:
            replace_file(path, kept + line + b"\n")
            return
        with path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file: another process that wants it waits; the kernel lets go of it with the process."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_mask(dataset: Dataset) -> Mask:
    """A mask of every secret of a dataset's section. An error in the section itself shows none."""
    from pipeline.auth import Auth  # which brings requests

    mask = Mask()
    with contextlib.suppress(ConfigError):
        settings = dataset.config()
        mask.add(*find_secrets(settings))
        Auth(settings, mask)
    return mask
