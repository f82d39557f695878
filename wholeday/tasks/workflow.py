"""The datasets of the workflow: import their files, and spell the command for one of them.

The workflow is the package `pipeline` in the current folder, with one file per dataset.
"""

import functools
import importlib.util
import multiprocessing
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from luigi.task_register import Register, TaskClassNotFoundException

from wholeday.tasks.console import describe_import_failure

WORKFLOW = "pipeline"

broken: dict[str, str] = {}
"""For each dataset file that cannot be imported, by the name of its module: one line that says why."""

_known: set[str] = set()


def import_datasets(package: str) -> None:
    """Import every module of a package, so that Luigi finds its tasks.

    A module that cannot be imported costs one line on standard error. It leaves no task behind, and the other modules
    are imported all the same.
    """
    for module in pkgutil.iter_modules(sys.modules[package].__path__):
        name = f"{package}.{module.name}"
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - the file belongs to the user
            _skip(name, error)


def _skip(name: str, error: Exception) -> None:
    """Report a broken module, and remove the tasks that it defined before it failed."""
    Register._reg[:] = [cls for cls in Register._reg if cls.__module__ != name]
    if not broken:
        sys.excepthook = functools.partial(_report_uncaught, sys.excepthook)
    broken[name] = describe_import_failure(error)
    if multiprocessing.parent_process() is None:  # the processes of tasks import the datasets again
        sys.stderr.write(f"ERROR: {broken[name]}\n")


def _report_uncaught(
    report: Callable[..., None], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an uncaught error, unless Luigi misses a task because the file of the task is broken: that is reported."""
    if not (isinstance(error, TaskClassNotFoundException) and _is_of_broken_file(str(error))):
        report(kind, error, trace)


def _is_of_broken_file(message: str) -> bool:
    """Return whether a broken file defines the task that Luigi's message names."""
    missing = re.match(r"No task (\w+)\.", message)
    specs = [importlib.util.find_spec(name) for name in broken]
    sources = [Path(spec.origin).read_bytes() for spec in specs if spec and spec.origin]
    return missing is not None and any(
        re.search(rb"^class %b\b" % missing[1].encode(), source, re.M) for source in sources
    )


def register(dataset: str, module: str) -> None:
    """Remember a dataset, if a module of the workflow defines it."""
    if module.startswith(f"{WORKFLOW}."):
        _known.add(dataset)


def spell_command(dataset: str, command: str, *arguments: object) -> str:
    """Return the command line that runs a command on one dataset, as `wholeday backfill START STOP --dataset orders`.

    The flag is left out where the workflow has one dataset. `explain` and `forget` take the dataset as an argument.
    """
    words = ["wholeday", command, *map(str, arguments)]
    if command in ("explain", "forget"):
        words.insert(2, dataset)
    elif len(_known) + len(broken) > 1:
        words += ["--dataset", dataset]
    return " ".join(words)
