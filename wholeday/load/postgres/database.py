"""A PostgreSQL database that is not connected to yet."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
import tenacity

from wholeday.errors import ConfigError, InterruptedTransactionError, WarehouseError
from wholeday.load.postgres.connection import PostgreSQL
from wholeday.load.postgres.errors import NEXT_STEPS, TRANSIENT
from wholeday.load.postgres.types import to_type
from wholeday.redaction import SECRET_PARAM, Mask

DEFAULTS = {  # of libpq, unless the URL says otherwise
    "application_name": "wholeday",
    "connect_timeout": "10",
    # Notice a server that vanished after a minute, not after hours.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
HOW_TO_WRITE = "write postgresql+psycopg://user:password@host:5432/name; in a password / ? # @ are %2F %3F %23 %40"
PATIENCE = 120.0  # seconds to wait for a server that was reached before: a failover takes time

_reached: set[str] = set()


class Database:
    """A PostgreSQL database, and its first schema of the search path; see Database in database.py."""

    def __init__(self, url: str) -> None:
        """Take a SQLAlchemy URL. Its query may have any parameter of libpq. Raises ConfigError."""
        self._shown, self.params = _parse_url(url)
        self._mask = Mask(value for name, value in self.params.items() if "password" in name)

    def __str__(self) -> str:
        return self._shown

    def to_type(self, kind: str) -> str:
        return to_type(kind)

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
        if isinstance(error, psycopg.errors.DependentObjectsStillExist) and error.diag.message_detail:
            # It names them. The details of other errors may quote values.
            words = f"{error.diag.message_detail.partition(chr(10))[0]}: {words}"
        place = (error.diag.context or "").partition("\n")[0]
        if place.endswith(" RAISE"):  # the text of a function may quote a user
            words = place
        if constraint not in words:
            words = f"{words} ({constraint})"
        return self._mask(re.sub(r"\n\t.*", "", words).strip())


def _parse_url(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without its password, and its parameters as libpq names them. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        named = {"host": parts.hostname, "port": parts.port, "dbname": unquote(parts.path[1:])}
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(
            f"[pipeline] database = {url.partition(':')[0]}://… cannot be parsed: {HOW_TO_WRITE}"
        ) from error
    if "@" in f"{parts.path}{parts.query}{parts.fragment}" or parts.fragment:
        raise ConfigError(f"[pipeline] database = {parts.scheme}://… cannot be parsed: {HOW_TO_WRITE}")
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    named |= {"user": unquote(user), "password": unquote(password)}
    params = pairs + [(name, str(value)) for name, value in named.items() if value]
    query = SECRET_PARAM.sub(r"\1***", f"?{parts.query}" if parts.query else "")
    shown = f"{parts.scheme}://{user}{':***' if colon else ''}{at}{host}{parts.path}{query}"
    if twice := {name for name, _ in params if [other for other, _ in params].count(name) > 1}:
        raise ConfigError(f"[pipeline] database = {shown}: it gives {', '.join(sorted(twice))} twice")
    return shown, DEFAULTS | dict(params)
