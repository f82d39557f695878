"""Name the files of a run and their temporary files, and recognise them."""

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import PurePath

ABANDONED_AFTER = dt.timedelta(days=1)  # no run needs longer from the first file of a day to its manifest
RUN = re.compile(r"\.[0-9a-f]{12}(?=\.)")
TEMPORARY = re.compile(r"(\.[0-9a-f]{12})?\.new")  # after the name of the file that it will replace


def strip_run(name: str) -> str:
    """Return the name of a file without the id of the run that wrote it, which only buckets use."""
    return RUN.sub("", name)


def find_temporary(path: PurePath, names: Iterable[str]) -> list[str]:
    """Return the names of temporary files of the file `path`."""
    return [name for name in names if name.startswith(path.name) and TEMPORARY.fullmatch(name.removeprefix(path.name))]
