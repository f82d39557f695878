"""`python -m pipeline.scheduler`: luigid, Luigi's own scheduler and its pages, for this machine only.

Owns what stands between luigid and what central.cfg asks of it. What it does is Luigi's.
"""

import sys
from pathlib import Path
from typing import Any

import luigi.db_task_history
from luigi.cmdline import luigid
from luigi.configuration import get_config
from sqlalchemy import make_url
from tornado.web import RequestHandler

OWN_PARTS_ONLY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"


def main() -> None:
    """Run luigid with the arguments of the command; exits with one line where it cannot start."""
    luigi.db_task_history._upgrade_schema = _leave_as_it_is
    RequestHandler.set_default_headers = _forbid_strangers  # type: ignore[method-assign, assignment]
    state, history = get_config().get("scheduler", "state_path"), get_config().get("task_history", "db_connection")
    try:
        for path in (state, make_url(history).database or ""):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        luigid(["--address", "127.0.0.1", *sys.argv[1:]])
    except OSError as error:
        sys.exit(
            f"ERROR: luigid cannot start: {error}: is another one running? Use that, or give --port another number"
        )


def _leave_as_it_is(engine: Any) -> None:
    """Luigi would bring the history of an older one up to date, in words that SQLAlchemy 2 refuses. Ours is none."""


def _forbid_strangers(handler: RequestHandler) -> None:
    """Luigi's pages ask hosts on the internet for a font, and for scripts that no table of theirs needs."""
    handler.set_header("Content-Security-Policy", OWN_PARTS_ONLY)


if __name__ == "__main__":
    main()
