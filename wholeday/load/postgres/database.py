"""A PostgreSQL database that is not connected to yet."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import tenacity

from wholeday.errors import ConfigError, InterruptedTransactionError, WarehouseError
from wholeday.load.postgres.connection import PostgreSQL
from wholeday.load.postgres.errors import NEXT_STEPS, TRANSIENT
from wholeday.load.postgres.url import parse
from wholeday.redaction import Mask

PATIENCE = 120.0  # seconds to wait for a server that was reached before: a failover takes time

_reached: set[str] = set()


class Database:
    """A PostgreSQL database, and its first schema of the search path; see Database in database.py."""

    def __init__(self, url: str) -> None:
        """Take a SQLAlchemy URL. Its query may have any parameter of libpq. Raises ConfigError."""
        self._shown, self.params = parse(url)
        self._mask = Mask(value for name, value in self.params.items() if "password" in name)

    def __str__(self) -> str:
        return self._shown

    def exists(self) -> bool:
        return True

    @contextlib.contextmanager
    def connect(self, *, create: bool = False, readonly: bool = False) -> Iterator[PostgreSQL]:
        with self._explaining(), contextlib.closing(self._open()) as connection:
            db = PostgreSQL(str(self), connection)
            db.prepare(create)
            if readonly:
                db.run("begin isolation level repeatable read")
            yield db

    def _open(self) -> psycopg.Connection[Any]:
        """Connect. Wait for a server that this process reached before; any other must answer at once."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(psycopg.OperationalError),
            stop=tenacity.stop_after_delay(PATIENCE if self._shown in _reached else 0),
            wait=tenacity.wait_exponential(multiplier=0.1, max=5) + tenacity.wait_random(0, 0.1),
            reraise=True,
        )
        try:
            # Prepared statements would refer to the temporary tables of an earlier load.
            connection = retrying(psycopg.connect, **self.params, autocommit=True, prepare_threshold=None)
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"[pipeline] database = {self}: {self._explain(error)}: remove that parameter") from error
        except psycopg.OperationalError as error:
            raise WarehouseError(
                f"{self}: {self._explain(error)}: check that it runs, and that [pipeline] database, PGPASSWORD or "
                "~/.pgpass give access"
            ) from error
        _reached.add(self._shown)
        return connection

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise errors of the server that a user can cause as one line each, with what to do."""
        try:
            yield
        except psycopg.Error as error:
            lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            words = self._explain(error)
            if lost or error.sqlstate in TRANSIENT:
                raise InterruptedTransactionError(
                    f"{self}: {words}: the transaction was interrupted: run again"
                ) from error
            state = error.sqlstate or ""
            step = NEXT_STEPS.get(state) or NEXT_STEPS.get(state[:2])
            if not step:
                raise
            raise WarehouseError(f"{self}: {words}: {step}") from error

    def _explain(self, error: psycopg.Error) -> str:
        """Describe an error, without libpq's advice, which follows a tab, and without stored values."""
        words, constraint = error.diag.message_primary or str(error), error.diag.constraint_name or ""
        place = (error.diag.context or "").partition("\n")[0]
        if place.endswith(" RAISE"):  # the text of a function may quote a user
            words = place
        if constraint not in words:
            words = f"{words} ({constraint})"
        return self._mask(re.sub(r"\n\t.*", "", words).strip())
