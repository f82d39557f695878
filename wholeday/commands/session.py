"""Open the datasets that a command works on, with the settings of luigi.cfg and the command line."""

import contextlib
import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from wholeday.config.files import check_files
from wholeday.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from wholeday.config.source import Source
    from wholeday.storage.workspace import Workspace
    from wholeday.tasks.day_tasks import Load


@dataclass
class Given:
    """The options that every command takes."""

    dataset: str | None = None
    """The only dataset to work on."""
    flags: list[str] = field(default_factory=list)
    """The flags of luigi.cfg as Luigi takes them, such as `--users-url=…`; the last of two equal flags counts."""
    keys: dict[str, str] = field(default_factory=dict)
    """The keys of a section that `new` and `doctor` take under their own names, each with its text."""


def import_workflow() -> None:
    """Import the package `pipeline` of the current folder.

    Raises ConfigError if the package is missing or fails, or if a configuration file cannot be read.
    """
    check_files()  # before Luigi is imported
    from wholeday.tasks.console import describe_import_failure
    from wholeday.tasks.workflow import WORKFLOW

    try:
        importlib.import_module(WORKFLOW)
    except Exception as error:
        problem = describe_import_failure(error)
        if isinstance(error, ModuleNotFoundError) and error.name == WORKFLOW:
            problem = (
                f"{WORKFLOW}/ is missing in this folder: run the command in the folder of the project, or wholeday init"
            )
        raise ConfigError(problem) from error


def pick_loads(given: Given, *, despite_mistakes: bool = False) -> "list[type[Load]]":
    """Return the Load task of the dataset that the command line names, or of every dataset of the workflow.

    Raises ConfigError for an unknown name. Exits if the file of a dataset is broken: the import has reported that. With
    `despite_mistakes` it returns the other datasets.
    """
    from wholeday.tasks.workflow import WORKFLOW, broken

    loads = list_loads()
    skips = despite_mistakes and loads and given.dataset is None
    if not skips and broken and (given.dataset is None or f"{WORKFLOW}.{given.dataset}" in broken):
        raise typer.Exit(1)
    if not loads:
        raise ConfigError(f"{WORKFLOW}/ has no dataset: write one with wholeday new NAME URL")
    if given.dataset is None:
        _refuse_shared_names(loads.values())
        return list(loads.values())
    if given.dataset not in loads:
        raise ConfigError(f"unknown dataset {given.dataset}: {list_names(given.dataset, loads)}")
    return [loads[given.dataset]]


def list_loads() -> "dict[str, type[Load]]":
    """Import the workflow, and return the Load task of each dataset by the name of the dataset."""
    import_workflow()
    from wholeday.tasks import load_all

    return load_all.list_loads()


def _refuse_shared_names(loads: "Iterable[type[Load]]") -> None:
    """Raise ConfigError if a dataset has the name of a child table of another one."""
    names = {load.dataset.name for load in loads}
    for load in loads:
        with contextlib.suppress(DatasetError):  # the command itself reports a mistake in a class
            if clash := [child.name for child in load.dataset.declared.children if child.name in names]:
                raise ConfigError(
                    f"{clash[0]} is the name of a dataset, and of a child table of {load.dataset.name}: "
                    "give the dataset another name"
                )


def parse_keys(section: "type[Source]", keys: "Mapping[str, str]") -> "dict[str, Any]":
    """Return the values of keys that are given as texts. Raises ConfigError for a text that a key cannot have."""
    from wholeday.config.section import explain_value

    params = dict(section.get_params())
    values = {}
    for name, text in keys.items():
        with explain_value(section.section, name, text):
            values[name] = params[name].normalize(params[name].parse(text))
    return values


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, or an empty text."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else ""


def list_names(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, or all names if none is near."""
    names = list(known)
    return suggest(word, names) or f"give one of {', '.join(names)}"


@contextlib.contextmanager
def open_loads(context: typer.Context, *defaults: str, despite_mistakes: bool = False) -> "Iterator[list[type[Load]]]":
    """Set the flags of the command line, after these defaults, and yield the Load tasks that a command works on.

    A dataset follows the datasets that it needs. Raises ConfigError if a section of luigi.cfg cannot be used, before
    the command writes anything; with `despite_mistakes` the command finds that out for each dataset.
    """
    from wholeday.config.section import use_flags
    from wholeday.tasks.load_all import sort_loads
    from wholeday.tasks.needs import list_needed

    given: Given = context.obj
    loads = pick_loads(given, despite_mistakes=despite_mistakes)
    with use_flags(loads[0].task_family, *defaults, *given.flags):
        if not despite_mistakes:
            for load in loads:
                list_needed(load.dataset)
        yield sort_loads(loads)


@contextlib.contextmanager
def open_workspaces(context: typer.Context) -> "Iterator[list[Workspace]]":
    """Set the flags of the command line, and yield the datasets that a command works on. Raises ConfigError."""
    with open_loads(context) as loads:
        yield [load.workspace() for load in loads]
