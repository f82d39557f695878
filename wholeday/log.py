"""What is printed: a line an event, a line for an expected error, a traceback for a bug.

Owns the logger (Luigi's own, so that luigi.cfg and `--log-level` rule it), where its lines go and in which form, and
the filters on it: one shortens Luigi's tracebacks where the error is one a user can act on, one leaves out what
Luigi says of itself, one cleans text of others.
"""

import contextlib
import datetime as dt
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import luigi
import msgspec
from luigi.parameter import ParameterException
from luigi.rpc import RPCError
from luigi.setup_logging import InterfaceLogging
from luigi.task_register import TaskClassException
from luigi.worker import TaskException

from wholeday.config.settings import Pipeline
from wholeday.errors import ConfigError, PipelineError
from wholeday.redaction import Mask
from wholeday.text import clean_line, clean_lines

EXPECTED = (PipelineError, ParameterException, RPCError, TaskClassException)

# What Luigi says where it cannot use a value of its own sections; the cause says which value.
UNUSABLE = re.compile(r"(\w+)\[.*]: Error when parsing the default value of '(\w+)'", re.DOTALL)

LUIGI = str(Path(luigi.__file__).parent)

# What Luigi raises if the files of a task that ran are gone again: of this task, or of one that this task needs.
GONE_AGAIN = re.compile(
    r"Task finished running, but complete\(\) is still returning false\.|Unfulfilled dependenc(?:y|ies) at run time: .+"
)

logger = logging.getLogger("luigi-interface")
mask = Mask()  # of user info and of parameters that look secret, whoever prints them

about: dict[str, Any] = {}
"""What this process is working on: dataset, date, stage and load, for lines in JSON.

`load` is the `as_of` of what was read: by it a line is found in `loads` and in the manifests, and they in the log.
"""


def tell(error: BaseException) -> str | None:
    """The one line of an expected error; None for a bug."""
    line = clean_line(mask(str(error)))
    if isinstance(error, RPCError):
        return f"{line}: is luigid running? Start it with ./run.sh luigid, or add --local-scheduler"
    if isinstance(error, ValueError) and (found := UNUSABLE.fullmatch(line)):
        return f"[{found[1]}] {found[2]} cannot be used: {error.__cause__}: mend it in luigi.cfg, or in the flag"
    if isinstance(error, RuntimeError | TaskException) and GONE_AGAIN.fullmatch(line):
        return "another process removed files of the day meanwhile: run the day again"
    return line if isinstance(error, EXPECTED) else None


def locate(trace: TracebackType | None, file: str) -> str:
    """Name the file and the last line of it that a traceback passes through, as `todos.py, line 12`."""
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == file]
    return f"{Path(file).name}, line {lines[-1]}" if lines else Path(file).name


def describe_import_failure(error: BaseException) -> str:
    """Return one line for an error met while a module was imported: the error, its place, the next step."""
    if isinstance(error, SyntaxError):
        what, where = error.msg, f"{Path(error.filename or '?').name}, line {error.lineno}"
    else:
        what = str(error)
        bodies = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        where = locate(error.__traceback__, bodies[-1].filename) if bodies else "before its first line"
    return clean_line(
        f"cannot import a module: {where}: {type(error).__name__}: {what}. Correct the file, then run again"
    )


def _is_import_failure(trace: TracebackType | None) -> bool:
    """Whether Luigi's `--module`, or `python -m`, was importing when the error came."""
    names = {frame.name for frame in traceback.extract_tb(trace)}
    return not names.isdisjoint({"_attempt_load_module", "_get_module_details"})


class ExpectedErrors(logging.Filter):
    """Turns a record with the traceback of an expected error into one line that names task and cause."""

    # Luigi writes the traceback of a failed complete() or requires() into the text of its warning.
    _not_run = re.compile(
        rf"(Will not run .+?) or any dependencies .*\n"
        rf"(?:wholeday\.errors\.\w+|[\w.]*(?:{'|'.join(kind.__name__ for kind in EXPECTED)})): ([^\n]+)\s*",
        re.DOTALL,
    )

    _told = ""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not error:
            record.exc_info = None  # Luigi asks for a traceback where there is none, and "NoneType: None" is printed
        if error and (line := tell(error)):
            task = next((str(arg) for arg in record.args or () if isinstance(arg, luigi.Task)), None)
            record.msg, record.args, record.exc_info = f"{task} failed: {line}" if task else line, (), None
        elif found := self._not_run.fullmatch(str(record.msg)):
            line = found[2]
            record.msg, record.levelno, record.levelname = f"{found[1]}: {line}", logging.ERROR, "ERROR"
        else:
            return True
        # What stops a scheduling comes from the worker and again from the command, and for every task of a range.
        known, self._told = self._told == line, line
        return not known


class LuigiTalk(logging.Filter):
    """Leaves out what Luigi says of itself, but for warnings; at `--log-level DEBUG` all of it is there.

    Of its summary a line stays where nothing else says how it went.
    """

    _summarise = True

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """For a while leave out that line too: something else says how it went."""
        self._summarise = False
        try:
            yield
        finally:
            self._summarise = True

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO or logger.isEnabledFor(logging.DEBUG):
            return True
        if not record.pathname.startswith(LUIGI):
            return True
        text = str(record.msg) if self._summarise else ""
        if ":(" not in text and "were left pending" in text:  # Luigi smiles at a task that another worker has
            left = "; ".join(re.findall(r"^ *\* (.+?):?$", text, re.MULTILINE))
            record.msg, record.levelno, record.levelname = f"not all is done: {left}", logging.WARNING, "WARNING"
        elif ":)" in text and "Did not run any tasks" in text:
            record.msg = "nothing to do: all that was asked for is done"
        else:
            return False
        return True


luigi_talk = LuigiTalk()


class CleanText(logging.Filter):
    """Cleans and masks a record, for whichever handler. Only texts of Luigi and tracebacks have several lines."""

    _formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        clean = clean_lines if record.pathname.startswith(LUIGI) else clean_line
        record.msg, record.args = clean(mask(record.getMessage())), ()
        if record.exc_info:
            record.exc_text = clean_lines(mask(self._formatter.formatException(record.exc_info)))
        return True


class Output(logging.Handler):
    """Lines to standard output; warnings and errors to standard error, so that cron has mail only when there are any.

    Both are looked up for each line, as a bar on the terminal puts itself before them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except OSError as error:
            give_up("stderr" if stream is sys.stderr else "stdout", error)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


def give_up(name: str, error: OSError) -> None:
    """Have nothing more written to stdout or stderr, which takes no more; who reads it no longer need not be told."""
    setattr(sys, name, _open_nowhere())
    if not isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError):
            sys.stderr.write(f"ERROR: {name} cannot be written: {error.strerror}\n")


def _open_nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


class JsonLines(logging.Formatter):
    """A record as a JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {"at": at, "level": record.levelname, **about, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return encode_json(line)


def encode_json(value: Any) -> str:
    """Encode a value as JSON in ASCII, which no encoding of standard output changes."""
    return json.dumps(msgspec.to_builtins(value, str_keys=True), separators=(",", ":"))


def set_up(level: str) -> None:
    """Have lines of a level or a higher one printed, as `log_format` says."""
    handler = Output()
    handler.setFormatter(JsonLines() if _find_format() == "json" else logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)


def _find_format() -> str:
    try:
        return Pipeline().log_format
    except ConfigError:  # which is what is going to be printed
        return "text"


def _set_up_for_luigi(cls: type[InterfaceLogging], options: Any) -> bool:  # noqa: ARG001 - a method of Luigi's
    """In the place of Luigi's own, where no `logging_conf_file` is given."""
    set_up(options.log_level)
    return True


def name_load(as_of: dt.datetime) -> None:
    """Have the lines that follow say which reading of the day they are about, as `loads` writes it."""
    about["load"] = f"{as_of:%Y-%m-%dT%H:%M:%S.%fZ}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 record, 1,000 records."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an error that nobody catches, as one line where it is an expected one."""
    if line := describe_import_failure(error) if _is_import_failure(trace) else tell(error):
        sys.stderr.write(f"ERROR: {line}\n")
    else:
        sys.stderr.write(clean_lines(mask("".join(traceback.format_exception(kind, error, trace)))))


# Where they are closed Python has none, and whatever file is opened next would be taken for them by a child.
sys.stdout, sys.stderr = sys.stdout or _open_nowhere(), sys.stderr or _open_nowhere()
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # a source quotes letters that the encoding of the terminal may not have
        _stream.reconfigure(errors="backslashreplace")
logger.addFilter(ExpectedErrors())
logger.addFilter(luigi_talk)
logger.addFilter(CleanText())  # the last one: the others look at what the texts are made from
InterfaceLogging._default = classmethod(_set_up_for_luigi)  # type: ignore[method-assign, assignment]
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where a service has no home for its cache
sys.excepthook = show_uncaught
