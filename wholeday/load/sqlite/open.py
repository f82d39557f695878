"""Open a SQLite file."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

BUSY_SECONDS = 300.0  # how long a load waits until another one ends


def connect(path: Path, mode: str, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    """Connect, undo the write of a killed process, run a first statement and return its cursor."""
    try:
        return _try_to_connect(path, mode, statement, values)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    _try_to_connect(path, "rw", "pragma schema_version", ()).connection.close()
    return _try_to_connect(path, mode, statement, values)


def _try_to_connect(path: Path, mode: str, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
    uri = f"file:{quote(str(path))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        return connection.execute(statement, values)
    except sqlite3.Error:
        connection.close()
        raise
