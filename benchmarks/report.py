"""`docs/benchmarks.md` and its picture, of all that was measured.

Owns the words and the drawing; every number comes from results, and what is not measured is not there.
"""

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import version
from itertools import pairwise
from math import log
from pathlib import Path

import matplotlib as mpl
import psutil
from matplotlib.figure import Figure

from benchmarks.contenders import CONTENDERS, FLOOR, OURS
from benchmarks.results import COLUMNS, Results, name_group
from benchmarks.run import set_up

OWN = ("luigi", "requests", "msgspec", "pandas", "pyarrow", "isal", "SQLAlchemy")

HEAD = """# Measured beside what else there is

Made by `./run.sh bench --write`. Everybody does the same work: pages of a thousand users (some 460 bytes a record)
over HTTP from loopback into a table of a SQLite file, keyed by id. Each run is a process of its own, from its start to
its end; rounds are interleaved. `seconds` is the median of the rounds, `to ours` and `to the floor` that of the ratios
within each round. Memory is that of all processes together at its highest, what they share counted once, CPU what all
of them took, both seen in a run of its own, for to look takes time. A run whose table did not hold what the source has
is no result. What a tool leaves out of the work is in the last column: the floor is what is left when all is left out
but reading, parsing and writing.

![Seconds by number of users](benchmarks.svg)

"""


def write(results: Results, folder: Path) -> None:
    """The page and the picture, into a folder."""
    lines = [f"- {line}\n" for line in (describe_machine(), *describe_versions())]
    tables = [
        draw_table(results, scenario, size) for scenario, sizes in results.groups.items() for size in sorted(sizes)
    ]
    text = HEAD + "".join(lines) + "\n" + "\n".join(tables) + describe_growth(results)
    (folder / "benchmarks.md").write_text(text)
    draw(results, folder / "benchmarks.svg")


def describe_machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"The machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def describe_versions() -> list[str]:
    """What was installed, by environment."""
    lines = ["Ours, and those without an environment of their own: " + ", ".join(f"{p} {version(p)}" for p in OWN)]
    for contender in CONTENDERS:
        names = [re.split(r"\W*[\[<]", requirement)[0] for requirement in contender.requirements]
        code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        if names:
            command = [str(set_up(contender) / "python"), "-c", code, *names]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            lines.append(f"{contender.name}: " + ", ".join(map(" ".join, zip(names, found, strict=True))))
    return lines


def draw_table(results: Results, scenario: str, size: int) -> str:
    """A group, under a heading."""
    group = results.groups[scenario][size]
    rounds = max(map(len, group.runs.values()))
    rows = [COLUMNS, ("---", *["---:"] * 5, "---"), *results.describe(scenario, size)]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
    busy = f"{rounds} round{'s' * (rounds > 1)}; the machine's load average before was {group.load:.1f}"
    return f"## {name_group(scenario, size).capitalize()}\n\n{busy}.\n\n{table}"


def describe_growth(results: Results) -> str:
    """By which power of the size the seconds of ours and of the floor grow, from each size to the next."""
    lines = []
    for scenario, sizes in results.groups.items():
        for contender in (OURS, FLOOR):
            found = [
                (size, seconds) for size in sorted(sizes) if (seconds := results.median(scenario, size, contender.name))
            ]
            for (few, short), (many, long) in pairwise(found):
                power = log(long / short) / log(many / few)
                lines.append(f"- {scenario}, {contender.name}, {few:,} to {many:,}: size to the power of {power:.2f}\n")
    return "\n## Growth\n\n" + "".join(lines) if lines else ""


def draw(results: Results, path: Path) -> None:
    """Seconds by number of users of a first load, a line a contender."""
    sizes = sorted(results.groups.get("first", {}))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.subplots()
        for contender in CONTENDERS:
            found = [(size, results.median("first", size, contender.name)) for size in sizes]
            points = [(size, seconds) for size, seconds in found if seconds]
            if points:
                width = 3 if contender in (OURS, FLOOR) else 1.2
                axes.plot(*zip(*points, strict=True), marker="o", linewidth=width, label=contender.name)
        axes.set(xscale="log", yscale="log", xlabel="users", ylabel="seconds", title="A first load, HTTP to SQLite")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path, metadata={"Date": None})
