"""Simulate machines with separate networks that reach chosen ports of this one on loopback.

Responsibilities: the networks and the processes in them. Non-goals: the commands, which each test defines. If the
system does not allow network namespaces, a machine is an ordinary process.
"""

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import ROOT


class Rack:
    """Simulated machines that reach some ports of this one."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.networks = _can_have_networks()
        self._folder, self._ports = folder, ports
        self._running: list[subprocess.Popen[str]] = []

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, *ports: int) -> "Iterator[Rack]":
        """Provide machines while the `with` block runs. Each port is forwarded over a Unix socket in `folder`."""
        rack = cls(folder, ports)
        with contextlib.ExitStack() as stack:
            for port in ports:
                stack.enter_context(_serve(_Outside(folder, port)))
            try:
                yield rack
            finally:
                for machine in rack._running:
                    rack.kill(machine)
                    machine.communicate()

    def start(self, home: Path, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a machine that runs `luigi` or `python` with arguments in the folder `home`."""
        line = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        if self.networks:
            ways = [str(self._folder), ",".join(map(str, self._ports))]
            line = ["unshare", "--net", sys.executable, __file__, *ways, *line]
        env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._running.append(subprocess.Popen(line, cwd=home, env=env, text=True, start_new_session=True, **pipes))
        return self._running[-1]

    def kill(self, machine: "subprocess.Popen[str]") -> None:
        """Send SIGKILL to all processes of a machine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGKILL)


def _can_have_networks() -> bool:
    """Return whether a process can create a network namespace."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


class _Handler(socketserver.BaseRequestHandler):
    """Forward one connection until one side closes it."""

    server: "_Inside | _Outside"

    def handle(self) -> None:
        with contextlib.suppress(OSError), self.server.connect() as there:
            back = threading.Thread(target=_pass_on, args=(there, self.request))
            back.start()
            _pass_on(self.request, there)
            back.join()


class _Outside(socketserver.ThreadingUnixStreamServer):
    """Forward from a Unix socket in a folder to a port of this machine."""

    request_queue_size = 50

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(str(folder / str(port)), _Handler)
        self._port = port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port))


class _Inside(socketserver.ThreadingTCPServer):
    """Forward from a port of a simulated machine to a Unix socket in a folder."""

    request_queue_size = 50
    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._way = str(folder / str(port))

    def connect(self) -> socket.socket:
        there = socket.socket(socket.AF_UNIX)
        there.connect(self._way)
        return there


@contextlib.contextmanager
def _serve(way: _Inside | _Outside) -> Iterator[None]:
    with way:
        thread = threading.Thread(target=way.serve_forever, args=[0.05])
        thread.start()
        try:
            yield
        finally:
            way.shutdown()
            thread.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _be_machine(folder: str, ports: str, *command: str) -> int:
    """Forward the ports inside an empty network, then run the command."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with contextlib.ExitStack() as stack:
        for port in map(int, ports.split(",")):
            stack.enter_context(_serve(_Inside(Path(folder), port)))
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(_be_machine(*sys.argv[1:]))
