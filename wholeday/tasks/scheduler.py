"""Run luigid, Luigi's central scheduler with its pages, for this machine.

Responsibilities: the defaults and restrictions of luigid: local address, places of its files, no causes on disk. A
cause of a failure may quote a record. luigid keeps causes in memory only, so `forget` has nothing to erase in its
files.
Non-goals: scheduling, which Luigi does.
"""

import configparser
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import luigi.db_task_history
from luigi.cmdline import luigid
from luigi.configuration import add_config_path, get_config
from luigi.scheduler import SimpleTaskState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from tornado.web import RequestHandler

from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError
from wholeday.text import clean_line

CENTRAL = "central.cfg"
CONTENT_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
# The defaults of central.cfg, for a configuration without these keys.
PLACES = {
    ("scheduler", "state_path"): "data/luigid.pickle",
    ("task_history", "db_connection"): "sqlite:///data/luigid.db",
}


NOT_STORED = "luigid does not store causes: wholeday status shows this one"
_dump = SimpleTaskState.dump


def run(arguments: Sequence[str]) -> None:
    """Run luigid with its own arguments, by central.cfg unless LUIGI_CONFIG_PATH names another configuration.

    If luigid cannot start, exit with one line.
    """
    if "LUIGI_CONFIG_PATH" not in os.environ and Path(CENTRAL).exists():
        add_config_path(CENTRAL)
    SimpleTaskState.dump = _dump_without_causes  # type: ignore[method-assign]
    luigi.db_task_history._upgrade_schema = _skip_upgrade
    RequestHandler.set_default_headers = _set_content_policy  # type: ignore[method-assign, assignment]
    config = get_config()
    for place, default in PLACES.items():
        if not config.has_option(*place):
            config.set(*place, default)
    try:
        if Pipeline().is_private:  # Luigi and SQLAlchemy create the files
            os.umask(0o077)
        state, history = (config.get(*place) for place in PLACES)
        for path in (state, make_url(history).database or ""):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        luigid(arguments)
    except OSError as error:
        sys.exit(
            f"ERROR: luigid cannot start: {error}. If another luigid is running, use it, or give --port another number"
        )
    except ConfigError as error:
        sys.exit(f"ERROR: luigid cannot start: {error}")
    except (configparser.Error, SQLAlchemyError) as error:
        line = clean_line(str(error))
        sys.exit(f"ERROR: luigid cannot start: {line}. Correct [scheduler] and [task_history] in its configuration")


def _skip_upgrade(engine: Any) -> None:
    """Replace Luigi's upgrade of an old history database. SQLAlchemy 2 rejects its statements; our history is new."""


def _dump_without_causes(state: SimpleTaskState) -> None:
    """Store the state of luigid without causes, status messages and URLs."""
    for task in state.get_active_tasks():
        task.expl = task.expl and json.dumps(NOT_STORED)
        task.status_message = task.tracking_url = None
    _dump(state)


def _set_content_policy(handler: RequestHandler) -> None:
    """Forbid requests to other hosts. Luigi's pages load a font and scripts from there, and work without them."""
    handler.set_header("Content-Security-Policy", CONTENT_POLICY)
