"""Run a temporary PostgreSQL server in a folder, on loopback. Tests can kill and restart it.

Responsibilities: the server's processes. The server refuses to run as root, so root starts it as another user.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.support import find_port

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
USER, PASSWORD, DATABASE = "loader", "p@ss/w:rd", "warehouse"
# The data must survive the death of a process, but not of the machine.
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "wal_retrieve_retry_interval": "100ms",
}


def find_program(name: str) -> str | None:
    """Return the path of a server program, from PATH or the newest Debian package."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return shutil.which(name) or next((str(path / name) for path in places if (path / name).exists()), None)


class Cluster:
    """A server and its data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, find_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = 0

    @classmethod
    @contextmanager
    def make(cls) -> "Iterator[Cluster]":
        """Run a server with an ordinary role and its own database."""
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        with cls._make("initdb", "--username=postgres", *options) as cluster:
            cluster.execute(f"create role {USER} login password '{PASSWORD}'")
            cluster.execute(f"create database {DATABASE} owner {USER}")
            yield cluster

    @contextmanager
    def follow(self) -> "Iterator[Cluster]":
        """Run a standby server that replicates this one."""
        source = ["--host", str(self.folder), "--port", str(self.port), "--username=postgres"]
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        with self._make("pg_basebackup", *source, *options) as cluster:
            yield cluster

    @classmethod
    @contextmanager
    def _make(cls, program: str, *options: str) -> "Iterator[Cluster]":
        with tempfile.TemporaryDirectory(prefix="pg", dir=MEMORY, ignore_cleanup_errors=True) as name:
            cluster = cls(Path(name))
            if os.geteuid() == 0:
                os.chown(name, cluster._owner().pw_uid, -1)
            command = [str(find_program(program)), "--pgdata", str(cluster.data), *options]
            subprocess.run(command, check=True, capture_output=True, **cluster._as_owner())
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, **settings: str) -> None:
        """Start the server and wait until it accepts connections."""
        options = SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.folder)} | settings
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command, deadline = [str(find_program("postgres")), "-D", str(self.data), *arguments], time.monotonic() + 60
        while True:
            if (
                not self._process or self._process.poll() is not None
            ):  # it ends while killed processes still hold its shared memory
                with (self.folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_owner())
            try:
                return self.execute("select 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server immediately, but let it release its shared memory."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)

    def kill(self) -> None:
        """Send SIGKILL to every process of the server."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGSTOP)  # it must neither start new processes nor stop them cleanly
            children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            for pid in map(int, children):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()

    def restart(self, **settings: str) -> None:
        """Kill and start the server, which recovers all committed data."""
        self.kill()
        self.start(**settings)

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True, connect_timeout=10
        ) as connection:
            connection.execute(sql)

    def make_url(self, *ports: int) -> str:
        """Return the URL of a new schema: over a socket, or with a password over these ports of loopback."""
        self._schemas += 1
        who = f"{USER}:{quote(PASSWORD, safe='')}" if ports else USER
        hosts = ",".join("127.0.0.1" for _ in ports) or self.folder
        where = f"host={hosts}&port={','.join(map(str, ports)) or self.port}"
        return f"postgresql+psycopg://{who}@/{DATABASE}?{where}&options=-csearch_path=s{self._schemas}"

    @staticmethod
    def _owner() -> pwd.struct_passwd:
        try:
            return pwd.getpwnam("postgres")
        except KeyError:
            return pwd.getpwnam("nobody")

    def _as_owner(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self.folder}
        owner = self._owner()
        return {"cwd": self.folder, "user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
