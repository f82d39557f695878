"""What importing the library does to a process."""

import subprocess
import sys

import pytest

from tests.support import ROOT

FIND_MODULES = """
import importlib, pkgutil, sys

def import_all(*packages):
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
            importlib.import_module(module.name)
"""

LOOK = """
import logging, os, warnings
import luigi
from luigi.configuration import get_config
from luigi.setup_logging import InterfaceLogging

def look():
    loggers = [logging.getLogger(), *map(logging.getLogger, ("luigi-interface", "luigi", "matplotlib", "urllib3"))]
    config = get_config()
    return {
        "excepthook": sys.excepthook,
        "streams": (sys.stdout, sys.stderr, sys.stdout.errors, sys.stderr.errors),
        "loggers": [(log.name, log.level, list(log.handlers), list(log.filters)) for log in loggers],
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "luigi.cfg": {name: dict(config.items(name)) for name in config.sections()},
        "luigi logging": InterfaceLogging._default.__func__,
    }
"""

LAYERS = ["schema", "config", "extract", "transform", "load", "storage", "log", "errors", "redaction", "text", "clock"]
POSIX_ONLY = ["fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"]


def run_code(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.slow
def test_import_changes_nothing_in_the_process() -> None:
    """Libraries may set up themselves: they are imported before the comparison."""
    code = f"{FIND_MODULES}{LOOK}import matplotlib, numpy, pandas, pyarrow, sqlalchemy, urllib3\nbefore = look()\n"
    code += f"import_all(*{[f'wholeday.{name}' for name in LAYERS]})\nafter = look()\n"
    code += "print([name for name in before if before[name] != after[name]])"
    assert run_code(code) == "[]\n"


@pytest.mark.slow
def test_import_of_tasks_sets_up_luigi() -> None:
    """`luigi --module pipeline` runs no entry point of ours."""
    code = f"{FIND_MODULES}{LOOK}before = look()\nimport wholeday.tasks\nafter = look()\n"
    code += "print(sorted(name for name in before if before[name] != after[name]), after['luigi.cfg']['retcode'])"
    shown = run_code(code)
    assert shown.startswith("['excepthook', 'loggers', 'luigi logging', 'luigi.cfg', 'streams'] ")
    assert "'task_failed': '30'" in shown


@pytest.mark.slow
def test_import_needs_no_posix_only_module() -> None:
    """A library that needs one is imported before they are hidden."""
    code = (
        f"{FIND_MODULES}import luigi.cmdline, asyncio, subprocess, tornado.web, pandas, pyarrow.fs, matplotlib.pyplot\n"
    )
    code += f"for name in {POSIX_ONLY}:\n    sys.modules[name] = None\nimport_all('wholeday')\nprint('imported')"
    assert run_code(code) == "imported\n"
