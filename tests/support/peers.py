"""Install third-party servers from their registries and run them on loopback.

Responsibilities: installation and start. A package that cannot be installed counts as a missing optional part.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.project import miss, need


def install_npm(folder: Path, package: str) -> str:
    """Install a package of npm below a folder; return the path of `node`."""
    npm, node = need("npm"), need("node")
    command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--no-save", package]
    _run(package, *command, npm_config_update_notifier="false")
    return node


def install_pip(folder: Path, package: str) -> Path:
    """Install a package of PyPI into a new environment; return the folder of its programs."""
    _run(package, sys.executable, "-m", "venv", folder)
    _run(package, folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", package)
    return folder / "bin"


def _run(package: str, *command: str | Path, **environment: str) -> None:
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if result.returncode:
        miss(f"{package} cannot be installed: {' '.join(result.stderr.split())[:300]}")


@contextlib.contextmanager
def serve(port: int, *command: str | Path, folder: Path) -> Iterator[str]:
    """Run a server in a folder while the `with` block runs. Yield its URL once it responds."""
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.communicate()
