"""Erase people from every file and table of a dataset: the command `forget`."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from wholeday.commands.forget.lookup import look_up
from wholeday.commands.forget.steps import forget
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.errors import ConfigError
from wholeday.log import count
from wholeday.storage.workspace import Workspace


def command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset of the users.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY",
            help="The key of a user; a JSON array if it has several columns. Behind -- it may begin with a dash. "
            "Without a key, complete an interrupted run.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking. Required without a terminal.")] = False,
    unknown: Annotated[bool, typer.Option("--unknown", help="Keep out keys too that no file and no table has.")] = (
        False
    ),
) -> bool:
    """Erase users, and print the number of erased lines by day. Return whether nothing is left to do.

    Raises ConfigError unless a person confirms the new keys.
    """
    context.obj.dataset = dataset
    console = open_console()
    with open_datasets(context) as (load,):
        workspace = load.workspace()
        _confirm_keys(workspace, keys or [], yes, unknown, console)
        done = forget(workspace, keys or [])
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{dataset}: erased {lines} of the files and {rows} of the warehouse{days}")
    for key in done.unknown:
        console.print(f"{key}: not found on any day. It is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def _confirm_keys(workspace: Workspace, keys: Sequence[str], yes: bool, unknown: bool, console: Console) -> None:
    """Show the traces of the keys, and let a person confirm them. Raises ConfigError otherwise."""
    traces = look_up(workspace, keys)  # without the keys of an interrupted run, which are confirmed already
    if (strangers := [trace.text for trace in traces if not trace.is_known]) and not unknown:
        raise ConfigError(
            f"{workspace.name}: no file and no table has the key {', '.join(strangers)}: check the spelling, or keep "
            "it out for good with --unknown. Nothing is erased"
        )
    for trace in traces:
        known = f"{count(trace.rows, 'row')} of the warehouse, {count(len(trace.days), 'day')}"
        console.print(f"{trace.text}: {known}", soft_wrap=True)
    if not traces or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("forget cannot be undone. To confirm it without a terminal, run it again with --yes")
    what = count(len(traces), "key")
    sys.stderr.write(f"Erase {what} from every file and table of {workspace.name}, for good? [y/N] ")
    sys.stderr.flush()
    with suppress(KeyboardInterrupt):
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError("nothing is erased")
