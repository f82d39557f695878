"""A SQLite file that is not connected to yet."""

import datetime as dt
import sqlite3
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

from wholeday.errors import ConfigError, WarehouseError
from wholeday.load.sqlite.connection import SQLite
from wholeday.load.sqlite.errors import NEXT_STEPS
from wholeday.load.sqlite.open import connect
from wholeday.storage import files


class Database:
    """The SQLite file at a SQLAlchemy URL; see Database in database.py."""

    def __init__(self, url: str, private: bool = True) -> None:
        """Take a URL. A new `private` file is readable by this user only. Raises ConfigError if it names no file."""
        self._url, path = url, url.removeprefix("sqlite:///")
        self._private = private
        if path in (url, "", ":memory:") or "?" in path:
            raise ConfigError(
                f"[pipeline] database = {url}: SQLite is used in a file only: "
                "use sqlite:///data/warehouse.db, or sqlite:////absolute/path.db"
            )
        self.path = Path(path).expanduser()

    def __str__(self) -> str:
        return self._url

    def exists(self) -> bool:
        return self.path.exists()

    def connect(self, *, create: bool = False, readonly: bool = False) -> AbstractContextManager[SQLite]:
        if create:
            self._create()
        return SQLite.connect(self.path, create, readonly)

    def _create(self) -> None:
        """Create the folder and an empty file if they do not exist. Raises WarehouseError."""
        try:
            files.make_folder(self.path.parent, self._private)
        except OSError as error:
            raise WarehouseError(f"{self.path}: cannot create its folder: {error}: choose another database") from error
        if not self.path.exists():
            # SQLite gives its other files (-wal, -shm) the mode of this one. Its own message is better than this error.
            with suppress(OSError):
                files.make_file(self.path, self._private)

    def find_loaded(self, dataset: str, first: dt.date, last: dt.date) -> set[dt.date]:
        query = "select date from loads where dataset = ? and date between ? and ?"
        try:
            if not self.path.is_file():
                return set()
            found = connect(self.path, "ro", query, (dataset, str(first), str(last)))
            with closing(found.connection):
                rows = found.fetchall()
        except (sqlite3.Error, OSError) as error:
            if "no such table" in str(error):
                return set()
            code = sqlite3.SQLITE_PERM if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", 0) & 0xFF
            step = NEXT_STEPS.get(code, "if the table loads is another program's, choose another database")
            raise WarehouseError(f"{self.path}: cannot ask which days are loaded: {error}: {step}") from error
        return {dt.date.fromisoformat(date) for (date,) in rows}
