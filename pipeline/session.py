"""The HTTP session that everything is sent with, to a source and to a token endpoint alike.

Owns what every request says of us, and which settings of the machine hold: those for proxies and certificates do,
a password in ~/.netrc does not.
"""

import base64
from collections.abc import Callable

import requests

USER_AGENT = "users-pipeline"


class Session(requests.Session):
    """A session that leaves redirects to its user: else requests reads ahead where one leads."""

    def __init__(
        self, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest] = lambda request: request
    ) -> None:
        super().__init__()
        self.auth = auth  # never None: requests would look for a password in ~/.netrc
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip"})
        self.headers["Cache-Control"] = "no-cache"  # a cache between is to ask the source

    def settle(self, url: str) -> None:
        """Have what the machine's settings say of `url` hold for all: to read them for each page costs as much as it.

        Raises OSError or ValueError where they cannot be used.
        """
        for name, value in self.merge_environment_settings(url, {}, True, None, None).items():
            setattr(self, name, value)
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the overridden one's
        return None


def encode_basic(user: str, password: str) -> str:
    """What HTTP basic authentication (RFC 7617) sends for a user and a password."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()
