"""Real servers that others wrote."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from conftest import luigi_run, miss, need, query

# The data and the server behind the public API of that name.
PACKAGE = "jsonplaceholder@0.3.3"


# In one process: the package is installed once.
pytestmark = [pytest.mark.xdist_group("npm"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def jsonplaceholder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """The npm package on loopback: its URL, and its users as they stand in its data."""
    npm, node = need("npm"), need("node")
    package = tmp_path_factory.mktemp("npm")
    install = subprocess.run(
        [npm, "install", "--prefix", package, "--no-audit", "--no-fund", "--no-save", PACKAGE],
        env=os.environ | {"npm_config_update_notifier": "false"},
        capture_output=True,
        text=True,
    )
    if install.returncode:
        miss(f"npm cannot install {PACKAGE}: {' '.join(install.stderr.split())[:300]}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = f"require('jsonplaceholder/src/app').listen({port}, '127.0.0.1')"
    server = subprocess.Popen([node, "-e", serve], cwd=package, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        data = json.loads((package / "node_modules/jsonplaceholder/data.json").read_text())
        yield f"http://127.0.0.1:{port}/users", data["users"]
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("flags", [(), ("--users-params", '{"_page": 1, "_limit": 3}')], ids=["at-once", "in-pages"])
def test_jsonplaceholder_gives_exactly_its_ten_users_twice_over(jsonplaceholder, flags):
    """The README's next step: emails lower-cased, cities out of the address, whether in one page or by Link headers."""
    url, users = jsonplaceholder
    expected = [(user["id"], user["name"], user["email"].lower(), user["address"]["city"]) for user in users]
    assert len(expected) == 10
    for date in ("2026-11-20", "2026-11-21"):
        result = luigi_run("LoadUsers", "--date", date, "--users-url", url, "--users-mode", "snapshot", *flags)
        assert result.returncode == 0, result.stderr
        assert query("select user_id, name, email, city from users order by user_id") == expected
    assert query("select inserted, unchanged, pages from loads order by date") == [
        (10, 0, 4 if flags else 1),
        (0, 10, 4 if flags else 1),
    ]
