"""Keep the measurements in a file and draw them as a table.

Responsibilities: the row of a contender. It has the medians of the rounds and of the ratios within each round.
"""

import statistics
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.contenders import CONTENDERS, FLOOR, OURS, Contender


class Measure(msgspec.Struct, tag="measure"):
    """A run: its seconds and, if it was watched, the CPU seconds and the peak memory of its processes."""

    seconds: float
    cpu: float = 0.0
    bytes: int = 0


class Failure(msgspec.Struct, tag="failure"):
    """A run without a result."""

    why: str


class Group(msgspec.Struct):
    """The interleaved runs of each contender, and the load average of the machine before them."""

    load: float
    runs: dict[str, list[Measure | Failure]]
    watched: dict[str, Measure | Failure]
    """An additional run of each contender that measures CPU and memory, which takes time."""


COLUMNS = ("", "seconds", "to ours", "to the floor", "CPU s", "MB", "leaves out")


class Results(msgspec.Struct):
    """Groups of runs by scenario and size."""

    groups: dict[str, dict[int, Group]]

    @classmethod
    def read(cls, path: Path) -> "Results":
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls({})

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    def put(self, scenario: str, size: int, group: Group) -> None:
        """Store a group in place of the earlier one of this size."""
        self.groups.setdefault(scenario, {})[size] = group

    def describe(self, scenario: str, size: int) -> list[tuple[str, ...]]:
        """Return a row per contender: the fastest first, and last those without a result, with the reason."""
        group = self.groups[scenario][size]
        rows = [describe(contender, group) for contender in CONTENDERS if contender.name in group.runs]
        return sorted(rows, key=lambda row: float(row[1].replace(",", "")) if row[1] != "-" else float("inf"))

    def median(self, scenario: str, size: int, name: str) -> float | None:
        """Return the median seconds of a contender, or None without a result."""
        good = find_good(self.groups[scenario][size].runs.get(name, []))
        return statistics.median(run.seconds for run in good) if good else None

    def draw(self, scenario: str, size: int) -> Table:
        """Draw the rows for a terminal."""
        table = Table(title=name_group(scenario, size), box=None, header_style="bold", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in ("", "leaves out") else "right")
        for row in self.describe(scenario, size):
            table.add_row(*row)
        return table


def name_group(scenario: str, size: int) -> str:
    return f"{scenario}, {size:,} {'days' if scenario == 'backfill' else 'users'}"


def find_good(runs: list[Measure | Failure]) -> list[Measure]:
    return [run for run in runs if isinstance(run, Measure)]


def describe(contender: Contender, group: Group) -> tuple[str, ...]:
    """Build the row of a contender."""
    runs, watched = group.runs[contender.name], group.watched[contender.name]
    good = find_good(runs)
    failures = [run.why for run in (*runs, watched) if isinstance(run, Failure)]
    if not good:
        return contender.name, "-", "-", "-", "-", "-", failures[0]
    return (
        contender.name,
        f"{statistics.median(run.seconds for run in good):,.2f}",
        compare(runs, group.runs.get(OURS.name, [])),
        compare(runs, group.runs.get(FLOOR.name, [])),
        *((f"{watched.cpu:,.2f}", f"{watched.bytes / 1e6:,.0f}") if isinstance(watched, Measure) else ("-", "-")),
        f"{contender.leaves_out}; and once: {failures[0]}" if failures else contender.leaves_out,
    )


def compare(runs: list[Measure | Failure], others: list[Measure | Failure]) -> str:
    """Return the median over the rounds of the ratio to the other runs."""
    both = [
        run.seconds / other.seconds
        for run, other in zip(runs, others, strict=False)
        if isinstance(run, Measure) and isinstance(other, Measure)
    ]
    return f"{statistics.median(both):.2f}" if both else "-"
