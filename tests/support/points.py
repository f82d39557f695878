"""Number the lasting actions of a process, so that a test can make it fail or die at each of them.

Responsibilities: the points, which are opening a file to write, write, fsync, rename, unlink, truncate, mkdir, an SQL
statement (commits included), the end of a connection, and an HTTP call. Non-goals: expectations after a failure, which
each test defines. The installation is permanent, so fork a process for it. On PostgreSQL a failed statement is a lost
connection.
"""

import errno
import io
import multiprocessing
import os
import signal
import sqlite3
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Literal

import psycopg
import requests

from wholeday.errors import PipelineError
from wholeday.transform import parts

How = Literal["raise", "kill", "kill half", "kill parent"]

REPORT = "points.txt"
STATEMENT = "PostgreSQL: "


class Points:
    """The names of the points that this process has reached. Point number `at` fails or kills, in the way of `how`.

    `kill half`: die within a write or an insert of many rows. `kill parent`: kill the parent of an engine process.
    """

    def __init__(self, at: int = 0, how: How = "raise") -> None:
        self.names: list[str] = []
        self._at, self._how = at, how

    def reach(self, name: str, error: Exception, do_half: Callable[[], object] = lambda: None) -> None:
        """Reach the next point, before its action."""
        self.names.append(name)
        if len(self.names) != self._at:
            return
        if self._how == "raise":
            raise error
        if self._how == "kill half":
            do_half()
        parent = multiprocessing.parent_process()
        os.kill(parent.pid if self._how == "kill parent" and parent and parent.pid else os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Watch all later actions of this process."""
        for name in ("fsync", "rename", "unlink", "truncate", "mkdir"):
            setattr(os, name, self._watch(name, getattr(os, name)))
        read, watched = io.open, make_file(self)

        def open_file(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if mode not in ("wb", "ab"):
                return read(path, mode, *rest, **more)
            self.reach(f"open {Path(path).name}", OSError(errno.EIO, os.strerror(errno.EIO), str(path)))
            return io.BufferedWriter(watched(path, mode))

        io.open = open_file
        connect, connection = sqlite3.connect, make_connection(self)
        sqlite3.connect = lambda *args, **more: connect(*args, factory=connection, **more)
        for kind, name in ((psycopg.Connection, "execute"), (psycopg.Cursor, "copy"), (psycopg.Connection, "close")):
            setattr(kind, name, self._watch_statement(name, getattr(kind, name)))
        send = requests.Session.send

        def send_request(session: Any, request: Any, **more: Any) -> Any:
            self.reach(f"{request.method} {request.path_url}", requests.ConnectionError("the network is down"))
            return send(session, request, **more)

        requests.Session.send = send_request  # type: ignore[method-assign]

    def _watch_statement(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def act(of: Any, *args: Any, **more: Any) -> Any:
            sql = " ".join(str(args[0]).split())[:60] if args else name
            self.reach(f"{STATEMENT}{sql}", psycopg.OperationalError("the connection is lost"))
            return function(of, *args, **more)

        return act

    def _watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **more: Any) -> Any:
            path = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else Path(args[0])
            if path.absolute().is_relative_to(Path.cwd()):  # skip files of Python itself
                self.reach(f"{name} {path.name}", OSError(errno.EIO, os.strerror(errno.EIO), str(path)))
            return function(*args, **more)

        return act


def make_file(points: Points) -> type[io.FileIO]:
    """Build a file class with writes as points, below Python's buffer."""

    class File(io.FileIO):
        def write(self, data: Any, /) -> int:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))
            do_half = super().write
            points.reach(f"write {Path(str(self.name)).name}", error, lambda: do_half(data[: len(data) // 2]))
            return super().write(data)

    return File


def make_connection(points: Points) -> type[sqlite3.Connection]:
    """Build a connection class with statements as points."""

    def reach(name: str, do_half: Callable[[], object] = lambda: None) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        points.reach(" ".join(name.split())[:60], error, do_half)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *params: Any) -> sqlite3.Cursor:
            reach(sql)
            return super().execute(sql, *params)

        def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
            rows, insert = list(rows), super().executemany
            reach(sql, lambda: insert(sql, rows[: len(rows) // 2]))
            return super().executemany(sql, rows)

        def close(self) -> None:
            reach("close")
            super().close()

    return Connection


def run(work: Callable[[], None], points: Points) -> tuple[int, list[str]]:
    """Do the work in a new process; return its exit code and its report.

    0: success, with the names of the points. 1: an expected error, with its line. 2: any other error, with its
    traceback. Below 0: killed by a signal.
    """
    Path(REPORT).unlink(missing_ok=True)
    forkserver._forkserver._stop()  # a child would inherit the forkserver of an earlier test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the only other one is the server's
        process = os.fork()
    if process == 0:
        code, said = 2, ""
        report = os.open(REPORT, os.O_WRONLY | os.O_CREAT)
        try:
            points.install()
            work()
            code, said = 0, "\n".join(points.names)
        except PipelineError as error:
            code, said = 1, str(error)
        except BaseException:  # noqa: BLE001 - this process ends here after any error
            said = traceback.format_exc()
        finally:
            os.write(report, said.encode())
            os._exit(code)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), Path(REPORT).read_text().splitlines()


def transform_part(number: int, at: int, how: How, job: parts.PartJob) -> parts.PartResult:
    """Transform a part in a process of the engine, and fail at a point of job `number`."""
    if job.number == number:
        Points(at, how).install()
    return parts.transform_part(job)
