"""Parse the URL of a PostgreSQL database."""

from urllib.parse import parse_qsl, unquote, urlsplit

from wholeday.errors import ConfigError
from wholeday.redaction import SECRET_PARAM

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


def parse(url: str) -> tuple[str, dict[str, str]]:
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
