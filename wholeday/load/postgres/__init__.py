"""PostgreSQL. Everything that is particular to this database is in this package.

The driver is an extra: import this package only for a database of this kind.
"""

from wholeday.load.postgres.connection import SETTINGS, PostgreSQL
from wholeday.load.postgres.database import DEFAULTS, Database

__all__ = ["DEFAULTS", "SETTINGS", "Database", "PostgreSQL"]
