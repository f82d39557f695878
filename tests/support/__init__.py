"""Share helpers between tests: servers, sources, warehouses, the model, and the project's commands."""

import socket
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
