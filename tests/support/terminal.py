"""Run a command on a terminal of a chosen width, and compute its final screen."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT
from tests.support.launcher import Command


def run_on_terminal(*command: str, out: int | None = None, columns: int = 100, says: str = "") -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and its output without colours.

    `out` is another file descriptor for standard output; `says` is typed input.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    program = str(Path(sys.executable).with_name(command[0]))
    process = Command([program, *command[1:]], env, (theirs, out or theirs, theirs))
    os.close(theirs)
    os.write(ours, says.encode())
    written = b"".join(read_all(ours))
    os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;]*m", "", written.decode())


def read_all(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the last writer has closed the terminal
            return
        yield data


def look_at(written: str) -> list[str]:
    """Return the lines of the final screen, after erased and overwritten lines."""
    lines, at = [""], 0
    for piece in re.findall(r"\x1b\[\??\d*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b"):
            at -= int(piece[2:-1])
        elif piece == "\x1b[2K":
            lines[at] = ""
        elif not piece.startswith("\x1b") and piece != "\r":
            lines[at] += piece
    return lines
