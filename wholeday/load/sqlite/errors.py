"""The errors of SQLite that a user can cause, as one line each with what to do."""

import sqlite3
from pathlib import Path

from wholeday.errors import WarehouseError
from wholeday.schema.tables import IN_THE_WAY

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


def explain(error: sqlite3.Error, path: Path) -> WarehouseError | None:
    """Return an error of the database at `path` for users; None if it is a bug."""
    extended, problem = getattr(error, "sqlite_errorcode", 0), str(error)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_IOERR and path.is_dir():  # a folder can be opened to be read
        code, problem = sqlite3.SQLITE_CANTOPEN, "unable to open database file"
    if extended == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        problem = "a trigger raises an error"  # its text may quote a user
    if extended in LOCK_ERRORS:
        code = sqlite3.SQLITE_PROTOCOL
    if NOT_TEXT in problem:
        return WarehouseError(f"{path}: a value is not text: correct it, or rebuild the warehouse")
    return WarehouseError(f"{path}: {problem}: {NEXT_STEPS[code]}") if code in NEXT_STEPS else None
