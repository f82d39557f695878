"""Write the files of a new dataset, all or none: its module, its test, and its section of luigi.cfg."""

import contextlib
import importlib
import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from luigi.task_register import Register

from wholeday.commands.new.section import FILE, has_section
from wholeday.errors import ConfigError
from wholeday.schema.tables import TAKEN
from wholeday.tasks.workflow import WORKFLOW


def name_module(dataset: str) -> Path:
    return Path(WORKFLOW, f"{dataset}.py")


def name_test(dataset: str) -> Path:
    return Path("tests", f"test_{dataset}.py")


def check_free(dataset: str) -> None:
    """Check that a dataset of this name can be added to the project. Raises ConfigError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", dataset) or keyword.iskeyword(dataset):
        raise ConfigError(f"{dataset!r} cannot name a dataset: use lower-case letters, digits and _, as in line_items")
    if not FILE.is_file():
        raise ConfigError("there is no luigi.cfg in this folder: make the folder a project with wholeday init")
    if taken := [str(path) for path in (name_module(dataset), name_test(dataset)) if path.exists()]:
        raise ConfigError(
            f"{taken[0]} exists already: choose another name, or see what is new with wholeday new {dataset} --update"
        )
    sections = {section for section, _, _, _ in Register.get_all_params()}
    if has_section(dataset) or dataset in sections or dataset in TAKEN:
        raise ConfigError(f"the name {dataset} is taken, by a section of luigi.cfg or by a table: choose another one")


@contextlib.contextmanager
def write_all(texts: Mapping[Path, str]) -> Iterator[None]:
    """Write files. If the block fails, restore what was there before."""
    before = {path: path.read_bytes() if path.exists() else None for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        yield
    except BaseException:
        for path, data in before.items():
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)
        raise


@contextlib.contextmanager
def import_module(dataset: str) -> Iterator[object]:
    """Import the module of a new dataset. If the block fails, forget its tasks."""
    name = f"{WORKFLOW}.{dataset}"
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    except BaseException:
        sys.modules.pop(name, None)
        Register._reg[:] = [cls for cls in Register._reg if cls.__module__ != name]
        raise
