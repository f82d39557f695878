"""Share the parts of the APIs in tests/support/shapes.py: users, secrets, rate limits and times of changes.

Responsibilities: accept a request only with the secret of `auth`, and refuse requests above the rate limit.
"""

import base64
import datetime as dt
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote_plus, urlencode

from tests.support.server import Answer, Request, Server

Record = dict[str, Any]

MORNING = dt.datetime(2026, 10, 31, 6, tzinfo=dt.UTC)
FIRST = ("Ada", "Bo", "Cléo", "Dag", "Eve", "Farid", "Gül")
LAST = ("Berg", "Diaz", "Ito", "Nkosi", "O'Neil")


class Shape:
    """An API over `count` users. `traits` override attributes of the class."""

    path = "/users"
    key = "id"
    size = 20  # default records per page
    largest = 100  # most records per page
    auth = "none"
    environment: ClassVar[dict[str, str]] = {}
    moments: Callable[[int], dt.datetime] = staticmethod(lambda number: MORNING + dt.timedelta(seconds=number))
    """The time of the last change of a user. Users are numbered from 0."""
    hidden = 0
    """The number of users that the API counts but does not list."""
    busy: Collection[int] = ()
    """The numbers of the requests for the list, from 1, that exceed the rate limit."""
    wait = 0.0
    """The seconds before a response."""

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        for name, value in traits.items():
            assert hasattr(self, name), f"{type(self).__name__} has no {name}"
            setattr(self, name, value)
        self.count, self.asked = count, 0
        self.url = server.on(self.path, self._respond)

    @property
    def section(self) -> dict[str, str]:
        return {"preset": type(self).__name__.lower(), "url": self.url, "auth": self.auth}

    @property
    def keys(self) -> list[Any]:
        return [find(self.describe(number), self.key) for number in range(self.count)]

    def describe(self, number: int) -> Record:
        """Return user `number` as listed."""
        raise NotImplementedError

    def list_page(self, request: Request) -> Answer:
        """Respond to an accepted request."""
        raise NotImplementedError

    def refuse(self) -> Answer:
        """Respond to a request above the rate limit."""
        return Answer({"message": "Too Many Requests"}, 429, {"Retry-After": "1"})

    def knows(self, request: Request) -> bool:
        """Return whether the request carries the secret of `auth` and `environment`."""
        kind, *names = self.auth.split(":")
        sent, secrets = request.headers.get("Authorization"), [self.environment.get(name, name) for name in names]
        match kind:
            case "bearer":
                return sent == f"Bearer {secrets[0]}"
            case "basic":
                return sent == f"Basic {base64.b64encode(':'.join(secrets).encode()).decode()}"
            case "header":
                return request.headers.get(names[0]) == secrets[1]
            case _:
                return True

    def find_size(self, asked: object) -> int:
        """Return the records per page for a requested size."""
        return min(int(str(asked)) if asked else self.size, self.largest)

    def describe_all(self, kept: Callable[[int], bool] = lambda _: True) -> list[Record]:
        return [self.describe(number) for number in range(self.count) if kept(number)]

    def _respond(self, request: Request) -> Answer:
        if not self.knows(request):
            return Answer({"message": "Unauthorized", "status": 401}, 401)
        self.asked += 1
        answer = self.refuse() if self.asked in self.busy else self.list_page(request)
        return Answer(answer.body, answer.status, answer.headers, wait=self.wait)


class OAuth2Shape(Shape):
    """An API with tokens for clients that send their id and secret."""

    token_path = "/token"
    lifetime = 60.0  # seconds a token is valid
    promise = 60  # expires_in
    scope = ""
    """The required scope, if there is one."""
    environment: ClassVar[dict[str, str]] = {"CLIENT_ID": "pipeline", "CLIENT_SECRET": "s3cret/of+the client"}

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        super().__init__(server, count, **traits)
        self.tokens: dict[str, float] = {}  # expiry by token
        scope = f"?{urlencode({'scope': self.scope})}" if self.scope else ""
        self.auth = f"oauth2:{server.on(self.token_path, self._give_token)}{scope}:CLIENT_ID:CLIENT_SECRET"

    def knows(self, request: Request) -> bool:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return kind == "Bearer" and time.monotonic() < self.tokens.get(token, 0)

    def _give_token(self, request: Request) -> Answer:
        form = dict(parse_qsl(request.body.decode()))
        pair = unquote_plus(base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode())
        known = {"client_id": self.environment["CLIENT_ID"], "client_secret": self.environment["CLIENT_SECRET"]}
        if request.method != "POST" or form.get("grant_type") != "client_credentials":
            return Answer({"error": "unsupported_grant_type"}, 400)
        if pair != ":".join(known.values()) and not known.items() <= form.items():
            return Answer({"error": "invalid_client"}, 401)
        if self.scope and form.get("scope") != self.scope:
            return Answer({"error": "invalid_request", "error_description": "AADSTS90014: 'scope' is missing"}, 400)
        token = f"token-{len(self.tokens)}-{uuid.uuid4().hex}"
        self.tokens[token] = time.monotonic() + self.lifetime
        return Answer({"access_token": token, "expires_in": self.promise, "token_type": "Bearer"})


def find(record: Record, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = record
    for step in path.split("."):
        value = value[step]
    return value


def make_link(url: str, query: Mapping[str, str], links: Mapping[str, Record]) -> str:
    """Build a Link header to `url` with `query`; `links` maps a relation to its changes of the query."""
    return ", ".join(f'<{url}?{urlencode(dict(query) | change)}>; rel="{rel}"' for rel, change in links.items())


def iso(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def make_uuid(api: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{api}-{number}"))


def first(number: int) -> str:
    return FIRST[number % len(FIRST)]


def last(number: int) -> str:
    return LAST[number % len(LAST)]


def name(number: int) -> str:
    return f"{first(number)} {last(number)}"


def username(number: int) -> str:
    return f"user{number}"


def email(number: int) -> str:
    return f"{username(number)}@example.com"
