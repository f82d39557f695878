"""A SQLite file that is not connected to yet, and the errors of SQLite that a user can cause, as one line each."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from wholeday.errors import ConfigError, WarehouseError
from wholeday.load.sqlite.connection import SQLite
from wholeday.load.sqlite.types import to_type
from wholeday.schema.tables import IN_THE_WAY
from wholeday.storage import files

OLDEST_SQLITE = (3, 39, 0)  # the first with IS DISTINCT FROM
NOT_TEXT = "Could not decode to UTF-8"
# Raised on file systems that cannot lock, such as NFS without its lock service.
LOCK_ERRORS = {
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
}
BUSY = "another program is writing to it: wait until it ends, or end it, and run again"
NO_RIGHT = "give this user the right to write the file and its folder, and run again"
NEXT_STEPS = {
    sqlite3.SQLITE_PROTOCOL: "the file system cannot lock files: move the database to a local disk",
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_READONLY: NO_RIGHT,
    sqlite3.SQLITE_PERM: NO_RIGHT,
    sqlite3.SQLITE_CANTOPEN: "it must be a file that this user may read and write, in a folder where files may be made",
    sqlite3.SQLITE_FULL: "free space there and in the folder for temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_IOERR: "check the disk of the file and of temporary files (SQLITE_TMPDIR), and run again",
    sqlite3.SQLITE_CONSTRAINT: IN_THE_WAY,
    sqlite3.SQLITE_NOTADB: "not a SQLite database: choose another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup, or move it away and load the days again",
}


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

    def to_type(self, kind: str) -> str:
        return to_type(kind)

    def exists(self) -> bool:
        try:
            return self.path.exists()
        except OSError:  # the error of `connect` says more
            return True

    @contextmanager
    def connect(self, *, create: bool = False, readonly: bool = False) -> Iterator[SQLite]:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise WarehouseError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.39 is needed: use a Python that brings a newer one"
            )
        if create:
            self._create()
        try:
            with closing(SQLite(self.path, "rwc" if create else "ro" if readonly else "rw")) as db:
                if readonly:
                    db.run("begin")
                yield db
        except sqlite3.Error as error:
            if not (explained := _explain(error, self.path)):
                raise
            raise explained from error

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


def _explain(error: sqlite3.Error, path: Path) -> WarehouseError | None:
    """Return an error of the database at `path` for users; None if it is a bug."""
    extended, problem = getattr(error, "sqlite_errorcode", 0), str(error)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_IOERR and path.is_dir():  # a folder can be opened to be read
        code, problem = sqlite3.SQLITE_CANTOPEN, "unable to open database file"
    if extended == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        problem = "a trigger raises an error"  # its text may quote a user
    if extended in LOCK_ERRORS:
        code = sqlite3.SQLITE_PROTOCOL
    if problem.startswith("error in "):  # a view of another program reads a column that is widened
        return WarehouseError(f"{path}: {problem}: drop it, run again, and create it again afterwards")
    if NOT_TEXT in problem:
        return WarehouseError(f"{path}: a value is not text: correct it, or rebuild the warehouse")
    return WarehouseError(f"{path}: {problem}: {NEXT_STEPS[code]}") if code in NEXT_STEPS else None
