"""Install third-party servers from their registries, and run them on loopback.

    .venv/bin/python -m tests.support.peers        installs what is missing; .ci/run does it

Responsibilities: versions, installation into the environment of the tests, and start. This module runs before the
libraries of the tests are installed, so it imports none.
"""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(sys.prefix, "peers")
PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target")
NPM = ("npm", "install", "--no-audit", "--no-fund", "--no-save", "--no-update-notifier", "--prefix")
PACK = ("npm", "pack", "--silent", "--no-update-notifier", "--pack-destination")


class Peer(NamedTuple):
    """Packages that make up a server, and the command that installs them into the folder before them."""

    installer: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The folder of the installed packages, which exists once all of them are installed."""
        return FOLDER / " ".join((self.installer[1], *self.packages))

    def install(self) -> None:
        """Install the packages, unless an earlier run has."""
        if not self.folder.exists():
            FOLDER.mkdir(exist_ok=True)
            unfinished = tempfile.mkdtemp(dir=FOLDER)
            subprocess.run([*self.installer, unfinished, *self.packages], check=True)
            Path(unfinished).rename(self.folder)


JSONPLACEHOLDER = Peer(PACK, ("jsonplaceholder@0.3.3",))  # its data; its own json-server is of 2016
JSON_SERVER = Peer(NPM, ("json-server@0.17.4",))
JSON_SERVER_1 = Peer(NPM, ("json-server@1.0.0-beta.3",))
SCIM = Peer(PIP, ("scim2-server==0.8.3",))
DATASETTE = Peer(PIP, ("datasette==0.65", "setuptools<81"))  # it imports pkg_resources


@contextlib.contextmanager
def serve(port: int, *command: str | Path, folder: Path, **environment: str) -> Iterator[str]:
    """Run a server in a folder while the `with` block runs. Yield its URL once it responds."""
    none = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=none, stderr=none)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # an installation waits for its registry half of the time
        list(pool.map(Peer.install, (SCIM, DATASETTE, JSONPLACEHOLDER, JSON_SERVER, JSON_SERVER_1)))
