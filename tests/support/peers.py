"""Install third-party servers from their registries and run them on loopback.

Responsibilities: installation, once for the environment of the tests, and start. A package that cannot be installed
counts as a missing optional part.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.project import miss, need


def install_npm(package: str) -> tuple[str, Path]:
    """Install a package of npm; return the path of `node`, and the folder that holds `node_modules`."""
    command = (need("npm"), "install", "--no-audit", "--no-fund", "--no-save", package, "--prefix")
    return need("node"), _install(package, *command, npm_config_update_notifier="false")


def install_pip(*packages: str) -> Path:
    """Install packages of PyPI and their requirements into their own folder, for PYTHONPATH; return the folder."""
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages, "--target")
    return _install(" ".join(packages), *command)


def _install(package: str, *command: str, **environment: str) -> Path:
    """Install a package with a command that takes the folder as its last argument, unless an earlier run has."""
    kept = Path(sys.prefix, "peers", package)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        folder = tempfile.mkdtemp(dir=kept.parent)
        result = subprocess.run([*command, folder], env=os.environ | environment, capture_output=True, text=True)
        if result.returncode:
            shutil.rmtree(folder)
            miss(f"{package} cannot be installed: {' '.join(result.stderr.split())[:300]}")
        Path(folder).rename(kept)
    return kept


@contextlib.contextmanager
def serve(port: int, *command: str | Path, folder: Path, **environment: str) -> Iterator[str]:
    """Run a server in a folder while the `with` block runs. Yield its URL once it responds."""
    none = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=none, stderr=none)
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
