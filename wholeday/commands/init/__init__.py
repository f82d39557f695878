"""Make an empty folder a project: the command `init`."""

import datetime as dt
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from wholeday import clock
from wholeday.errors import ConfigError

FILES = {  # of a project, each with its template in the folder `project` of this package
    "pipeline/__init__.py": "pipeline.txt",
    "luigi.cfg": "luigi.cfg",
    "tests/test_pipeline.py": "test_pipeline.txt",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    "crontab": "crontab",
}
PATH_FILE = "project_folder.pth"
"""The file of an environment that lets Luigi's own command, which ignores the current folder, find `pipeline/`."""


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder. It is created if it is missing.")] = Path(),
) -> bool:
    """Write the files of a project. Changes no file that exists."""
    folder, now = folder.absolute(), clock.utc_now()
    # In summer, 00:20 UTC is later on the clock. Cron runs at that local time all year, so never before 00:20 UTC.
    nights = [now.replace(month=month, day=1, hour=0, minute=20).astimezone() for month in (1, 7)]
    night = max(nights, key=lambda time: time.utcoffset() or dt.timedelta(0))
    values = {
        "<name>": folder.name,
        "<folder>": quote_for_cron(folder),
        "<time>": f"{night:%-M %-H}",
        "<start>": str(now.date()),
        "<wholeday>": quote_for_cron(Path(sys.executable).with_name("wholeday")),
    }
    write_project(folder, values)
    sys.stdout.write(f"{folder}: wrote {', '.join(list_names())}\n")
    if problem := add_to_path(folder):
        sys.stdout.write(f"{problem}: call Luigi's own command as PYTHONPATH=. luigi --module pipeline\n")
    here = "" if folder == Path.cwd() else f"cd {folder}, then "
    sys.stdout.write(f"next: {here}wholeday new NAME URL, as in wholeday new orders https://api.example.com/orders\n")
    return True


def list_names() -> list[str]:
    """List the files and folders at the top of a project."""
    return list(dict.fromkeys(re.sub("/.*", "/", name) for name in FILES))


def quote_for_cron(path: Path) -> str:
    """Quote a path for a line of a crontab, where a percent sign ends the command."""
    return shlex.quote(str(path)).replace("%", "\\%")


def write_project(folder: Path, values: Mapping[str, str]) -> None:
    """Write the files of a project, with values for the words in angle brackets.

    Raises ConfigError if one of them exists, or if a write fails; it then leaves nothing behind.
    """
    if found := [name for name in list_names() if (folder / name).exists()]:
        raise ConfigError(f"{folder} has {', '.join(found)}, which init would write: give another folder")
    templates, is_new = resources.files(__package__) / "project", not folder.exists()
    try:
        for name, template in FILES.items():
            text = (templates / template).read_text(encoding="utf-8")
            for word, value in values.items():
                text = text.replace(word, value)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        for path in [folder] if is_new else [folder / name for name in list_names()]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write {folder / name} ({error.strerror}): check disk space and permissions"
        ) from error


def add_to_path(folder: Path) -> str:
    """Put the folder on the path of this environment, for Luigi's own command. Return why not, or an empty text."""
    if sys.prefix == sys.base_prefix:
        return "this Python is not a virtual environment"
    file = Path(sysconfig.get_path("purelib"), PATH_FILE)
    try:
        other = Path(file.read_text(encoding="utf-8").strip()) if file.exists() else folder
        if other != folder and other.is_dir():
            return f"this environment belongs to {other}"
        file.write_text(f"{folder}\n", encoding="utf-8")
    except OSError as error:
        return f"cannot write {file} ({error.strerror})"
    return ""
