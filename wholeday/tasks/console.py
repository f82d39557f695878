"""Set up what a process prints: one line per event, one line for an expected error, a traceback for a bug.

Responsibilities: the handler, formats and filters of the log, the standard streams, and uncaught errors. The filters
shorten Luigi's tracebacks of expected errors, drop Luigi's own chatter, and remove secrets and control characters.
Non-goals: the texts, which their modules write.
"""

import contextlib
import datetime as dt
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import luigi
from luigi.parameter import ParameterException
from luigi.rpc import RPCError
from luigi.setup_logging import InterfaceLogging
from luigi.task_register import Register, TaskClassException
from luigi.worker import TaskException

from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, PipelineError
from wholeday.log import context, encode_json, locate, logger
from wholeday.redaction import Mask
from wholeday.text import clean_line, clean_lines

EXPECTED = (PipelineError, ParameterException, RPCError, TaskClassException)

LUIGI = str(Path(luigi.__file__).parent)

# Luigi's error for an unusable value in one of its own sections. The cause says which value.
UNUSABLE = re.compile(r"(\w+)\[.*]: Error when parsing the default value of '(\w+)'", re.DOTALL)

# Luigi's errors for a task whose output, or whose input, vanished after it ran.
OUTPUT_VANISHED = re.compile(
    r"Task finished running, but complete\(\) is still returning false\.|Unfulfilled dependenc(?:y|ies) at run time: .+"
)

mask = Mask()


def set_up_console() -> None:
    """Set up this process: its streams, its log filters, Luigi's logging and the hook for uncaught errors."""
    # A closed stream is None in Python. The next file that is opened takes its number, and a child would write to it.
    sys.stdout, sys.stderr = sys.stdout or _open_null(), sys.stderr or _open_null()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a source may quote letters that the output encoding lacks
            stream.reconfigure(errors="backslashreplace")
    for log_filter in (ExpectedErrors(), luigi_messages, _clean_text):  # in this order: cleaning formats the message
        logger.addFilter(log_filter)
    InterfaceLogging._default = classmethod(_set_up_luigi_logging)  # type: ignore[method-assign, assignment]
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if a service has no home folder for its cache
    sys.excepthook = show_uncaught


def _set_up_luigi_logging(cls: type[InterfaceLogging], options: Any) -> bool:  # noqa: ARG001 - a method of Luigi's
    """Replace Luigi's default logging, which applies unless `logging_conf_file` is set."""
    handler, log_format = Output(), "text"
    with contextlib.suppress(ConfigError):  # the caller is about to print this error
        log_format = Pipeline().log_format
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(options.log_level)
    return True


def describe_error(error: BaseException) -> str | None:
    """Return the line for an expected error; None for a bug."""
    line = clean_line(mask(str(error)))
    if isinstance(error, RPCError):
        return f"{line}: is luigid running? Start it with wholeday luigid, or add --local-scheduler"
    if isinstance(error, ValueError) and (found := UNUSABLE.fullmatch(line)):
        return f"[{found[1]}] {found[2]} cannot be used: {error.__cause__}: correct luigi.cfg or the flag"
    if isinstance(error, RuntimeError | TaskException) and OUTPUT_VANISHED.fullmatch(line):
        return "another process removed files of this day during the run: run the day again"
    return line if isinstance(error, EXPECTED) else None


def describe_import_failure(error: BaseException) -> str:
    """Return the line for an error while importing a module: the error, its place, the next step."""
    if isinstance(error, SyntaxError):
        what, where = error.msg, f"{Path(error.filename or '?').name}, line {error.lineno}"
    else:
        what = str(error)
        bodies = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
        where = locate(error.__traceback__, bodies[-1].filename) if bodies else "before its first line"
    return clean_line(
        f"cannot import a module: {where}: {type(error).__name__}: {what}. Correct the file, then run again"
    )


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error: one line if it is expected, else its traceback. Replaces `sys.excepthook`."""
    if line := describe_import_failure(error) if _is_import_failure(trace) else describe_error(error):
        sys.stderr.write(f"ERROR: {line}\n")
    else:
        sys.stderr.write(clean_lines(mask("".join(traceback.format_exception(kind, error, trace)))))


def _is_import_failure(trace: TracebackType | None) -> bool:
    """Return whether the error came while Luigi's `--module` or `python -m` was importing."""
    names = {frame.name for frame in traceback.extract_tb(trace)}
    return not names.isdisjoint({"_attempt_load_module", "_get_module_details"})


class ExpectedErrors(logging.Filter):
    """Shortens the traceback of an expected error to one line that names the task and the cause."""

    # Luigi writes the traceback of a failed complete() or requires() into the text of its warning.
    _not_run = re.compile(
        rf"(Will not run .+?) or any dependencies .*\n"
        rf"(?:wholeday\.errors\.\w+|[\w.]*(?:{'|'.join(kind.__name__ for kind in EXPECTED)})): ([^\n]+)\s*",
        re.DOTALL,
    )

    _last_line = ""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not error:
            record.exc_info = None  # Luigi asks for a traceback without an error: it would print "NoneType: None"
        if error and (line := describe_error(error)):
            task = next((str(arg) for arg in record.args or () if isinstance(arg, luigi.Task)), None)
            record.msg, record.args, record.exc_info = f"{task} failed: {line}" if task else line, (), None
        elif found := self._not_run.fullmatch(str(record.msg)):
            line = found[2]
            record.msg, record.levelno, record.levelname = f"{found[1]}: {line}", logging.ERROR, "ERROR"
        else:
            return True
        # The worker, the command and every task of a range repeat the error that stopped the scheduling.
        is_repeated, self._last_line = self._last_line == line, line
        return not is_repeated


class LuigiMessages(logging.Filter):
    """Drops Luigi's own messages below WARNING, unless the log level is DEBUG.

    Keeps one line of its summary if no other line reports the result: the tasks of datasets that were not run, as a
    dataset that they need failed; or the tasks that another worker has.
    """

    _blocked = re.compile(r"\* \d+ had (?:failed dependencies|dependencies whose scheduling failed):\n((?: +- .+\n?)+)")

    _keeps_summary = True

    @contextlib.contextmanager
    def hide_summary(self) -> Iterator[None]:
        """Drop the line of the summary too within the block, whose caller reports the result."""
        self._keeps_summary = False
        try:
            yield
        finally:
            self._keeps_summary = True

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO or logger.isEnabledFor(logging.DEBUG):
            return True
        if not record.pathname.startswith(LUIGI):
            return True
        text = str(record.msg) if self._keeps_summary else ""
        if blocked := self._find_blocked(text):
            record.msg = f"not run, as what they need failed: {', '.join(blocked)}"
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        elif ":(" not in text and "were left pending" in text:  # Luigi smiles at a task that another worker runs
            left = "; ".join(re.findall(r"^ *\* (.+?):?$", text, re.MULTILINE))
            record.msg, record.levelno, record.levelname = f"unfinished: {left}", logging.WARNING, "WARNING"
        elif ":)" in text and "Did not run any tasks" in text:
            record.msg = "nothing to do: all requested tasks are complete"
        else:
            return False
        return True

    def _find_blocked(self, summary: str) -> list[str]:
        """Return the first stages among the tasks that were not run: only these need another dataset."""
        tasks = [task for lines in self._blocked.findall(summary) for task in re.findall(r"- \d+ (.+)", lines)]
        families = {task: task.partition("(")[0] for task in tasks}
        known = Register.task_names()
        return sorted(
            task
            for task, family in families.items()
            if family in known and getattr(Register.get_task_cls(family), "stage", "") == "extract"
        )


def _clean_text(record: logging.LogRecord) -> bool:
    """Remove secrets and control characters for every handler. Only Luigi and tracebacks may have several lines."""
    clean = clean_lines if record.pathname.startswith(LUIGI) else clean_line
    record.msg, record.args = clean(mask(record.getMessage())), ()
    if record.exc_info:
        record.exc_text = clean_lines(mask(logging.Formatter().formatException(record.exc_info)))
    return True


luigi_messages = LuigiMessages()


class Output(logging.Handler):
    """Prints lines on standard output, warnings and errors on standard error, so that cron mails only problems.

    Looks up the stream for each line, as a progress bar replaces both streams while it is shown.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except OSError as error:
            drop_stream("stderr" if stream is sys.stderr else "stdout", error)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


def drop_stream(name: Literal["stdout", "stderr"], error: OSError) -> None:
    """Write no more to a stream that failed. Reports the failure, except a reader that closed the pipe."""
    setattr(sys, name, _open_null())
    if not isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError):
            sys.stderr.write(f"ERROR: cannot write to {name}: {error.strerror}\n")


def _open_null() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {"at": at, "level": record.levelname, **context, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return encode_json(line)
