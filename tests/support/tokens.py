"""Provide an OAuth 2.0 client for tests, with the environment variables of its section."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.support.reading import People
from tests.support.server import Answer, Request, Server
from wholeday.errors import SourceError
from wholeday.extract.http.auth import Auth
from wholeday.extract.http.session import Session
from wholeday.redaction import Mask

ID, SECRET = "our:id", "s3cr3t/+tok&n é"


class Caller:
    """A client of an API with tokens from the endpoint `/token` of the same server."""

    def __init__(
        self,
        server: Server,
        *answers: Answer | Callable[[Request], Answer],
        query: str = "",
        auth: str = "oauth2:{url}:PEOPLE_ID:PEOPLE_SECRET",
        **keys: Any,
    ) -> None:
        self.server = server
        self.url = server.on("/token", *answers)
        server.on("/users", Answer([]))
        self.mask = Mask()
        auth = auth.format(url=f"{self.url}{query}")
        self.auth = Auth(People(url="http://127.0.0.1/users", auth=auth, **keys), self.mask)

    def fetch_token(self) -> str:
        """Send a request to the API and return its token."""
        with Session(self.auth) as session:
            response = session.get(self.server.url + "/users")
        return str(response.request.headers["Authorization"]).removeprefix("Bearer ")

    def fetch_error(self) -> str:
        """Send a request that must fail without a retry; return the one-line error."""
        with pytest.raises(SourceError) as caught:
            self.fetch_token()
        line = str(caught.value)
        assert line.startswith(f"[people] auth: POST {self.url}: ")
        assert re.search("PEOPLE_ID.*PEOPLE_SECRET|PEOPLE_REFRESH", line)
        assert SECRET not in line
        return line

    @property
    def asked(self) -> list[dict[str, str]]:
        """Return the bodies of the token requests."""
        return [dict(parse_qsl(each.body.decode())) for each in self.server.requests if each.path == "/token"]
