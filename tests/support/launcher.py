"""Start commands of the project without the second that their imports take.

Responsibilities: a server that imports the libraries once and forks for each command. Each command is a process with
its own folder, environment, output, signals and exit code. The server imports no module of the project.
Non-goals: the cost or output of an import. Start such a command with subprocess.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: a library must not import a helper of the tests

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = (  # not Luigi, which reads its configuration and the arguments when it is imported
    *("argparse", "concurrent.futures.process", "configparser", "daemon", "isal.igzip", "jinja2", "jsonschema"),
    *("logging.config", "msgspec", "multiprocessing.forkserver", "oauthlib.oauth2", "pandas", "prometheus_client"),
    *("psycopg", "pyarrow.pandas_compat", "pyarrow.parquet", "pydantic.type_adapter", "requests", "rich.columns"),
    *("rich.progress", "rich.table", "sqlalchemy.orm", "sqlite3", "statistics", "tenacity", "tornado.httpclient"),
    *("tornado.httpserver", "tornado.ioloop", "tornado.web", "typer._adapters"),
)


class Command:
    """A forked command with the methods of subprocess.Popen that tests use."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], streams: Sequence[int] = ()) -> None:
        """Start the command. Without `streams`, descriptors of its three streams, its output goes to pipes."""
        self.args = args
        self.returncode: int | None = None
        self._texts: list[str] = ["", ""]
        self._readers: list[threading.Thread] = []
        pipes = [] if streams else [self._open_pipe(0), self._open_pipe(1)]
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(start_server())
        with tempfile.TemporaryFile("w+") as request:
            json.dump({"args": [str(each) for each in args], "env": dict(env), "folder": str(Path.cwd())}, request)
            request.flush()
            socket.send_fds(self._server, [b"."], [request.fileno(), *(streams or (0, *pipes))])
            self.pid = int.from_bytes(self._server.recv(4), "big")
        for end in pipes:
            os.close(end)

    def __del__(self) -> None:
        self._server.close()

    def _open_pipe(self, number: int) -> int:
        """Open a pipe and read from it at once; return the end to write to."""
        ours, theirs = os.pipe()

        def read() -> None:
            with os.fdopen(ours, encoding="utf-8") as pipe:
                self._texts[number] = pipe.read()

        self._readers.append(threading.Thread(target=read, daemon=True))
        self._readers[-1].start()
        return theirs

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self._server.recv(4), "big"))
            self._server.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the command has ended. Raises TimeoutExpired."""
        if self.returncode is None and not select.select([self._server], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return self.poll() or 0

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return stdout and stderr once all writers have closed them. Raises TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if deadline is None else max(0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        return self._texts[0], self._texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def start_server() -> str:
    """Start the server of this process, and return the path of its socket. It ends with this process."""
    folder = tempfile.mkdtemp()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LUIGI"))}
    server = launch(sys.executable, LIBRARIES, env, folder)

    def stop() -> None:
        server.communicate()
        Path(folder, "socket").unlink()
        Path(folder).rmdir()

    atexit.register(stop)
    return f"{folder}/socket"


def launch(
    python: str | Path, libraries: Sequence[str], env: Mapping[str, str], folder: str, **options: bool
) -> "subprocess.Popen[bytes]":
    """Start a server that imports these libraries, and wait until it listens at `socket` in a folder."""
    pipe = subprocess.PIPE
    command = [python, __file__, f"{folder}/socket", *libraries]
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, cwd=folder, **options)
    assert server.stdout
    assert server.stdout.read(1) == b"."
    return server


def _serve(path: str, *libraries: str) -> None:
    """Import the libraries and fork for each request. Return only in a fork, which then runs the command."""
    with contextlib.redirect_stdout(sys.stderr):  # Airflow logs while it is imported
        for name in libraries:
            with contextlib.suppress(ModuleNotFoundError):  # jsonschema is there only with the optional parts
                importlib.import_module(name)
    gc.freeze()  # forks share the memory of frozen objects
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(32)
        os.write(1, b".")
        keepers: list[int] = []
        while True:
            ready = select.select([listener, 0], [], [])[0]
            if 0 in ready:  # the tests have ended
                for keeper in keepers:
                    os.waitpid(keeper, 0)
                sys.exit()
            keepers = [keeper for keeper in keepers if os.waitpid(keeper, os.WNOHANG)[0] == 0]
            connection, _ = listener.accept()
            with connection:
                keeper = os.fork()
                if keeper:
                    keepers.append(keeper)
                    continue
                listener.close()
                if _keep(connection):
                    os._exit(0)
                return


def _keep(connection: socket.socket) -> bool:
    """Fork a command and report its pid and its end; return False in the fork."""
    _, (request, *streams), _, _ = socket.recv_fds(connection, 1, 4)
    child = os.fork()
    if child == 0:
        with os.fdopen(request) as file:
            file.seek(0)
            asked = json.load(file)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = sys.__stdin__ = os.fdopen(
            0, closefd=False
        )  # the server's streams have cached properties of the old descriptors
        code = asked["env"].get("PYTHONIOENCODING")
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding=code, closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, code, "backslashreplace", closefd=False)
        _become(**asked)
        return False
    os.close(request)
    for stream in {*streams, 0, 1, 2}:
        os.close(stream)
    connection.send(child.to_bytes(4, "big"))
    connection.send(os.waitpid(child, 0)[1].to_bytes(4, "big"))
    return True


def _become(args: list[str], env: dict[str, str], folder: str) -> None:
    """Take the arguments, environment and folder of a command, as if the interpreter had started with them."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    tempfile.tempdir = None
    first = str(Path(args[0]).parent) if args[1:2] not in (["-m"], ["-c"]) else folder
    sys.path[:0] = [first, *map(os.path.abspath, filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))]
    sys.argv = args if args[1:2] != ["-m"] else args[2:]
    sys.warnoptions[:] = filter(None, env.get("PYTHONWARNINGS", "").split(","))
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]


def _exit(code: int) -> None:
    """Exit as the interpreter does, but free no modules: a fork would copy their memory for it."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run() -> None:
    """Run the command in sys.argv: code, a script or a module."""
    if sys.argv[1:2] == ["-c"]:
        code, sys.argv = sys.argv[2], ["-c", *sys.argv[3:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(code, vars(main))
    elif Path(sys.argv[0]).is_absolute():
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])  # returns in a fork, with the arguments of its command
    try:
        _run()
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            raise
        _exit(error.code or 0)
    _exit(0)
