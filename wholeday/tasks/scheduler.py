"""`python -m wholeday.tasks.scheduler`: luigid, Luigi's own scheduler and its pages, for this machine only.

Owns what stands between luigid and what central.cfg asks of it. What it does is Luigi's.

A cause of a failure may quote a record. luigid keeps causes in memory only, so `forget` has nothing to erase in its
files.
"""

import configparser
import json
import os
import sys
from pathlib import Path
from typing import Any

import luigi.db_task_history
from luigi.cmdline import luigid
from luigi.configuration import get_config
from luigi.scheduler import SimpleTaskState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from tornado.web import RequestHandler

from wholeday.config.settings import Pipeline
from wholeday.errors import ConfigError
from wholeday.text import clean_line

OWN_PARTS_ONLY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"
# Those of central.cfg, for a configuration in its place that gives none.
PLACES = {
    ("scheduler", "state_path"): "data/luigid.pickle",
    ("task_history", "db_connection"): "sqlite:///data/luigid.db",
}


NOT_KEPT = "luigid does not store causes when it stops: ./run.sh status shows this one"
_dump = SimpleTaskState.dump


def main() -> None:
    """Run luigid with the arguments of the command; exits with one line where it cannot start."""
    SimpleTaskState.dump = _dump_without_causes  # type: ignore[method-assign]
    luigi.db_task_history._upgrade_schema = _leave_as_it_is
    RequestHandler.set_default_headers = _forbid_strangers  # type: ignore[method-assign, assignment]
    config = get_config()
    for place, default in PLACES.items():
        if not config.has_option(*place):
            config.set(*place, default)
    try:
        if Pipeline().is_private:  # the files are made by Luigi and SQLAlchemy
            os.umask(0o077)
        state, history = (config.get(*place) for place in PLACES)
        for path in (state, make_url(history).database or ""):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        luigid(["--address", "127.0.0.1", *sys.argv[1:]])
    except OSError as error:
        sys.exit(
            f"ERROR: luigid cannot start: {error}: is another one running? Use that, or give --port another number"
        )
    except ConfigError as error:
        sys.exit(f"ERROR: luigid cannot start: {error}")
    except (configparser.Error, SQLAlchemyError) as error:
        line = clean_line(str(error))
        sys.exit(f"ERROR: luigid cannot start: {line}: mend [scheduler] and [task_history] of its configuration")


def _leave_as_it_is(engine: Any) -> None:
    """Luigi would bring the history of an older one up to date, in words that SQLAlchemy 2 refuses. Ours is none."""


def _dump_without_causes(state: SimpleTaskState) -> None:
    """Write the state of luigid without what its workers said of records and of the source."""
    for task in state.get_active_tasks():
        task.expl = task.expl and json.dumps(NOT_KEPT)
        task.status_message = task.tracking_url = None
    _dump(state)


def _forbid_strangers(handler: RequestHandler) -> None:
    """Luigi's pages ask hosts on the internet for a font, and for scripts that no table of theirs needs."""
    handler.set_header("Content-Security-Policy", OWN_PARTS_ONLY)


if __name__ == "__main__":
    main()
