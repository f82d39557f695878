"""Create a clean clone: the files of the repository in an empty folder, with the environment of `./run.sh`.

The clone installs no package from an index. Its `.venv` links the packages in `requirements.txt` from the tests' own
environment. Its `pip` links further packages in place of an installation. After `fork_commands`, its `python` forks the
commands of the project from the tests' launcher.
"""

import functools
import itertools
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.support import ROOT
from tests.support.launcher import start_server

VENV = Path(sys.prefix)
PROJECT = "wholeday"
PIP = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.support.clones import install
install({venv!r}, sys.argv[1:])
"""
FORKING_PYTHON = """#!{python} -IS
import json, os, re, signal, socket, sys, tempfile
words = sys.argv[1:]
has_flag = words[0] in ("-c", "-m")
if not re.search("wholeday|luigi|airflow|block.py", words[1] if has_flag else os.path.basename(words[0])):
    os.execv({python!r}, [{python!r}, *words])
paths = filter(None, [os.environ.get("PYTHONPATH"), {folder!r}])
request = dict(
    args=[{python!r}, *words] if has_flag else words,
    env=os.environ | dict(PYTHONPATH=os.pathsep.join(paths)),
    folder=os.getcwd(),
)
with socket.socket(socket.AF_UNIX) as launcher, tempfile.TemporaryFile("w+") as file:
    launcher.connect({launcher!r})
    json.dump(request, file)
    file.flush()
    socket.send_fds(launcher, [b"."], [file.fileno(), 0, 1, 2])
    pid = int.from_bytes(launcher.recv(4), "big")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    sys.exit(os.waitstatus_to_exitcode(int.from_bytes(launcher.recv(4), "big")))
"""


def make_clone(folder: Path) -> Path:
    """Copy the sources into `folder` and create the environment of `./run.sh` there."""
    copy_sources(folder)
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    for path in (VENV / "pyvenv.cfg", *(VENV / "bin").glob("activate*"), *(VENV / "bin").glob("python*")):
        _copy(path, venv)
    lock = (folder / "requirements.txt").read_text()
    link(venv, re.findall(r"^[\w.-]+==.*", lock, re.MULTILINE))
    # Skip the metadata that setuptools leaves in the repository: it lists files of the repository.
    (installed,) = metadata.distributions(name=PROJECT, path=[sysconfig.get_path("purelib")])
    for path in installed.files or ():
        _copy(Path(str(path.locate())), venv)
    site = venv / Path(sysconfig.get_path("purelib")).relative_to(VENV)
    (site / "project_folder.pth").write_text(f"{folder}\n")
    (venv / "bin" / "pip").write_text(PIP.format(python=sys.executable, root=str(ROOT), venv=str(venv)))
    (venv / "bin" / "pip").chmod(0o755)
    (venv / "installed.requirements.txt").write_text(lock)
    (venv / "installed.path").write_text(f"{folder}\n")
    return folder


def fork_commands(clone: Path) -> None:
    """Let the commands of a clone start as forks of the launcher, which has imported the libraries."""
    python = clone / ".venv" / "bin" / "python"
    real = python.with_name(f"python3.{sys.version_info.minor}")
    python.unlink()
    write_forking_python(python, real, clone, start_server())


def write_forking_python(path: Path, real: Path, folder: Path, launcher: str) -> None:
    """Write a Python that forks the commands and scripts of users from a launcher, and starts the others itself."""
    path.write_text(FORKING_PYTHON.format(python=str(real), folder=str(folder), launcher=launcher))
    path.chmod(0o755)


def copy_sources(folder: Path) -> Path:
    """Copy every file that git does not ignore into `folder`."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored), dirs_exist_ok=True)


def link(venv: Path, requirements: Sequence[str]) -> None:
    """Link the packages of these lock lines, with their commands."""
    for source in itertools.chain.from_iterable(map(_list_installed, requirements)):
        target = venv / source.relative_to(VENV)
        if source.parent == VENV / "bin":
            _copy(source, venv)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


@functools.cache  # the packages have ten thousand files
def _list_installed(line: str) -> Sequence[Path]:
    """List the commands, packages and modules that a lock line has installed here."""
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate():
        return ()
    found: dict[Path, None] = {}
    for path in metadata.distribution(requirement.name).files or ():
        source = Path(os.path.normpath(str(path.locate())))
        if source.parent == VENV / "bin":
            found[source] = None
        elif path.parts[0] not in ("..", "__pycache__"):
            found[Path(str(path.locate())[: -len(str(path))], path.parts[0])] = None
    return tuple(found)


def install(venv: str, arguments: Sequence[str]) -> None:
    """Replace `pip install`: link packages and their requirements. Fail if the tests' environment lacks one."""
    command, *names = (argument for argument in arguments if not argument.startswith("-"))
    assert command == "install", command
    wanted = [Requirement(PROJECT + name[1:] if name.startswith(".") else name) for name in names]
    link(Path(venv), [str(each) for each in _list_needs(wanted, set())])


def _list_needs(wanted: Sequence[Requirement], seen: set[str]) -> Iterator[Requirement]:
    """List requirements with their transitive requirements."""
    for requirement in wanted:
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        if requirement.name != PROJECT:
            yield Requirement(requirement.name)
        needs = map(Requirement, metadata.requires(requirement.name) or ())
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        yield from _list_needs([n for n in needs if not n.marker or any(map(n.marker.evaluate, extras))], seen)


def _copy(source: Path, venv: Path) -> None:
    """Copy a file of the tests' environment into another one, with its paths changed to the clone."""
    source = Path(os.path.normpath(source))
    target = venv / source.relative_to(VENV)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.suffix != ".pyc":
        target.write_bytes(source.read_bytes().replace(str(ROOT).encode(), str(venv.parent).encode()))
        target.chmod(source.stat().st_mode)
