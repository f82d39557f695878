"""`python -m pipeline`: what a person asks beside running days. Owns the printing; every fact comes from elsewhere."""

import argparse
import datetime as dt
import importlib
import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register
from rich.console import Console
from rich.table import Table

from pipeline import config, logs
from pipeline.stages import COUNTS, Dataset, count
from pipeline.tasks import Load


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0, or with 1 and one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Keys of luigi.cfg are flags here too, as in --pipeline-database sqlite:///other.db",
        allow_abbrev=False,
    )
    parser.add_argument("--module", default="pipeline", help="where the dataset's tasks are (default: pipeline)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="which days the warehouse holds, and what came with them")
    status.add_argument("--days", type=int, default=14, help="how many of the newest days to list (default: 14)")
    options, flags = parser.parse_known_args(arguments)
    if options.days < 1:
        parser.error("--days must be 1 or more")
    try:
        importlib.import_module(options.module)
        with CmdlineParser.global_instance([_find_loads()[0].task_family, *flags]):
            for load in _find_loads():
                show_status(load.dataset, options.days)
    except ModuleNotFoundError as error:
        if error.name != options.module:
            raise
        sys.exit(f"ERROR: there is no module {options.module}: name one that Python finds from here, or leave it out")
    except logs.EXPECTED as error:
        sys.exit(f"ERROR: {logs.tell(error)}")


def show_status(dataset: Dataset, days: int) -> None:
    """Print the newest loaded days of a dataset, the days missing between them, and how late the newest is."""
    loads = dataset.warehouse().loads()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    where = config.Pipeline().database
    if not loads:
        console.print(f"{dataset.name}: no day is loaded in {where}")
        return
    loaded = [load["date"] for load in loads]
    last_closed = dataset.config().last_closed_day(config.utc_now())
    behind = (last_closed - loaded[-1]).days
    late = f"{count(behind, 'day')} behind the last closed day, {last_closed}" if behind > 0 else "up to date"
    console.print(f"{dataset.name} in {where}: {count(len(loaded), 'day')}, {loaded[0]} to {loaded[-1]}; {late}")
    console.print(_make_table(loads[-days:], dataset.version))
    if gaps := _find_gaps(loaded):
        console.print(f"missing between them: {', '.join(gaps)}")


def _find_loads() -> list[type[Load]]:
    """The Load task of each dataset that was imported."""
    classes = (Register.get_task_cls(name) for name in Register.task_names())
    return [cls for cls in classes if issubclass(cls, Load)]


def _make_table(loads: Iterable[dict[str, Any]], version: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("date")
    for name in ("extracted", *COUNTS):
        table.add_column(name, justify="right")
    table.add_column("seconds", justify="right")
    for load in loads:
        counts = (f"{load[name]:,}" for name in ("extracted", *COUNTS))
        stale = [] if load["transform_version"] == version else ["made by other code"]
        table.add_row(str(load["date"]), *counts, f"{load['seconds']:.2f}", *stale)
    return table


def _find_gaps(days: Sequence[dt.date]) -> list[str]:
    """The days missing between those given (in order), as `2026-11-02` or `2026-11-02..2026-11-05`."""
    one = dt.timedelta(days=1)
    gaps = [(a + one, b - one) for a, b in itertools.pairwise(days) if b - a > one]
    return [str(first) if first == last else f"{first}..{last}" for first, last in gaps]
