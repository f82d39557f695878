"""What is printed: one line for an expected error, a traceback for a bug.

Owns the logger (Luigi's own, so that luigi.cfg and `--log-level` rule it) and the filter on it that
shortens Luigi's tracebacks where the error is one a user can act on.
"""

import logging
import re
import sys
from types import TracebackType

import luigi
from luigi.parameter import ParameterException
from luigi.rpc import RPCError
from luigi.task_register import TaskClassException

from pipeline.errors import PipelineError

EXPECTED = (PipelineError, ParameterException, RPCError, TaskClassException)

logger = logging.getLogger("luigi-interface")


def tell(error: BaseException) -> str | None:
    """The one line of an expected error; None for a bug."""
    if isinstance(error, RPCError):
        return f"{error}: is luigid running? Start it with ./run.sh luigid, or add --local-scheduler"
    return " ".join(str(error).split()) if isinstance(error, EXPECTED) else None


class ExpectedErrors(logging.Filter):
    """Turns a record with the traceback of an expected error into one line that names task and cause."""

    # Luigi writes the traceback of a failed complete() or requires() into the text of its warning.
    _not_run = re.compile(
        rf"(Will not run .+?) or any dependencies .*\n"
        rf"(?:pipeline\.errors\.\w+|[\w.]*(?:{'|'.join(kind.__name__ for kind in EXPECTED)})): ([^\n]+)\s*",
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


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 record, 1,000 records."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an error that nobody catches, as one line where it is an expected one."""
    if line := tell(error):
        sys.stderr.write(f"ERROR: {line}\n")
    else:
        sys.__excepthook__(kind, error, trace)


logger.addFilter(ExpectedErrors())
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where a service has no home for its cache
sys.excepthook = show_uncaught
