"""Log lines: the logger that every module uses, and the words and context of its lines.

Responsibilities: names for the logger, the context of JSON lines, and wording that several modules share.
Non-goals: handlers, formats and filters, which `wholeday.tasks.console` sets up.
"""

import datetime as dt
import json
import logging
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

logger = logging.getLogger("luigi-interface")
"""Luigi's own logger, so that luigi.cfg and `--log-level` apply."""

context: dict[str, Any] = {}
"""The work of this process (dataset, date, stage, load), which each line in JSON repeats.

`load` is the `as_of` of the extraction. It links a line to its row in `loads` and to its manifests.
"""


def set_load(as_of: dt.datetime) -> None:
    """Add the `as_of` of an extraction to the context, in the format of `loads`."""
    context["load"] = f"{as_of:%Y-%m-%dT%H:%M:%S.%fZ}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 record`, `1,000 records`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def locate(trace: TracebackType | None, file: str) -> str:
    """Name a file and its last line in a traceback: `todos.py, line 12`."""
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == file]
    return f"{Path(file).name}, line {lines[-1]}" if lines else Path(file).name


def encode_json(value: Any) -> str:
    """Encode a value as one line of JSON in ASCII, which every output encoding can print."""
    return json.dumps(msgspec.to_builtins(value, str_keys=True), separators=(",", ":"))
