"""Share helpers between tests: servers, sources, warehouses, the model, and the project's commands."""

import contextlib
import random
import socket
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Lower than the ports that the system assigns. A server of another test could get a higher one meanwhile.
PORTS = range(10_000, 30_000)


def find_port() -> int:
    """Return a free port of loopback, for a server that starts later."""
    dice = random.SystemRandom()  # several processes run tests
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            port = dice.choice(PORTS)
            probe.bind(("127.0.0.1", port))
            return port


def read_extra(name: str) -> str:
    """Return the requirement of an extra of one package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (requirement,) = extras[name]
    return str(requirement)
