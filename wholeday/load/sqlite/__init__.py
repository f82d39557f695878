"""SQLite. Everything that is particular to this database is in this package."""

from wholeday.load.sqlite.connection import BEING_MADE, SQLite
from wholeday.load.sqlite.database import Database

__all__ = ["BEING_MADE", "Database", "SQLite"]
