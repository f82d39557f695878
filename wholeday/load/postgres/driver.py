"""Import the driver of PostgreSQL, which is an extra."""

from types import ModuleType

from wholeday.errors import ConfigError


def import_driver() -> ModuleType:
    """Return the driver. Raises ConfigError if it is not installed."""
    try:
        import psycopg
    except ImportError as error:  # also without libpq
        raise ConfigError(
            f"PostgreSQL needs the extra postgres, but {error}: . .venv/bin/activate && pip install -e '.[postgres]'"
        ) from error
    return psycopg
