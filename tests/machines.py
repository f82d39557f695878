"""Machines of which each has a network to itself, and reaches what listens on this one at the same ports of loopback.

Owns the networks and the processes in them; what runs there is a test's business. Where the system allows nobody a
network of his own, a machine is a process like any other.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from conftest import ROOT


class Rack:
    """Machines that reach some ports of this one."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.networks = _can_have_networks()
        self._folder, self._ports = folder, ports
        self._running: list[subprocess.Popen[str]] = []

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, *ports: int) -> "Iterator[Rack]":
        """Have machines, for as long as they are needed. The way to a port is a socket that is a file in the folder."""
        rack = cls(folder, ports)
        listeners = []
        try:
            for port in ports:
                listeners.append(_listen(socket.AF_UNIX, str(folder / str(port)), (socket.AF_INET, ("127.0.0.1", port))))
            yield rack
        finally:
            for machine in rack._running:
                rack.kill(machine)
                machine.communicate()
            for listener in listeners:
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()

    def start(self, home: Path, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """A machine that does one command in a folder of its own, `luigi` or `python` and what follows."""
        line = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        if self.networks:
            ways = [str(self._folder), ",".join(map(str, self._ports))]
            line = ["unshare", "--net", sys.executable, __file__, *ways, *line]
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._running.append(subprocess.Popen(line, cwd=home, env=env, text=True, start_new_session=True, **pipes))
        return self._running[-1]

    def kill(self, machine: "subprocess.Popen[str]") -> None:
        """SIGKILL to all that runs there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGKILL)


def _can_have_networks() -> bool:
    """Whether a process may have a network to itself, and switch it on."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


def _listen(family: int, address: object, target: tuple[int, object]) -> socket.socket:
    """Hand on each connection to an address to the target, until the socket is closed."""
    listener = socket.socket(family)
    listener.bind(address)  # type: ignore[arg-type]
    listener.listen()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(target[0])
                try:
                    server.connect(target[1])  # type: ignore[arg-type]
                except OSError:
                    client.close()
                    server.close()
                    continue
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _be_machine(folder: str, ports: str, *command: str) -> int:
    """In a network that has nothing: the ways to the ports, and then the command."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for port in map(int, ports.split(",")):
        _listen(socket.AF_INET, ("127.0.0.1", port), (socket.AF_UNIX, f"{folder}/{port}"))
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(_be_machine(*sys.argv[1:]))
