"""Write `docs/explanation/benchmarks.md` and its picture from the results.

Responsibilities: the text and the drawing. Non-goals: the numbers, which come from `results`.
"""

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import psutil
from matplotlib.figure import Figure

from benchmarks.contenders import CONTENDERS, FLOOR, OURS
from benchmarks.results import COLUMNS, Results, name_group
from benchmarks.run import set_up

OWN = ("luigi", "requests", "msgspec", "pandas", "pyarrow", "isal", "SQLAlchemy")

HEAD = """# Benchmarks

`./run.sh bench --write` makes this page. Every contender does the same work: it reads pages of a thousand users (some
460 bytes a record) over HTTP from loopback, and writes a table of a SQLite file, keyed by id. Each run is a process of
its own, and rounds are interleaved. `seconds` is the median of the rounds. `to ours` and `to the floor` are medians of
the ratios within each round. An additional run measures CPU and memory, because the measurement takes time. CPU is that
of all processes. Memory is their peak; shared pages count once. A run with a wrong table has no result. The last column
names the work that a contender leaves out. The floor only reads, parses and writes.

![Seconds by number of users](benchmarks.svg)

"""


def write(results: Results, folder: Path) -> None:
    """Write the page and the picture into a folder."""
    lines = [f"- {line}\n" for line in (describe_machine(), *describe_versions())]
    tables = [
        draw_table(results, scenario, size) for scenario, sizes in results.groups.items() for size in sorted(sizes)
    ]
    text = HEAD + "".join(lines) + "\n" + "\n".join(tables)
    (folder / "benchmarks.md").write_text(text)
    draw(results, folder / "benchmarks.svg")


def describe_machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"The machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def describe_versions() -> list[str]:
    """List the installed versions by environment."""
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
    """Write a group under its heading."""
    group = results.groups[scenario][size]
    rounds = max(map(len, group.runs.values()))
    rows = [COLUMNS, ("---", *["---:"] * 5, "---"), *results.describe(scenario, size)]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
    busy = f"{rounds} round{'s' * (rounds > 1)}; the machine's load average before was {group.load:.1f}"
    return f"## {name_group(scenario, size).capitalize()}\n\n{busy}.\n\n{table}"


def draw(results: Results, path: Path) -> None:
    """Draw the seconds of a first load by number of users, one line per contender."""
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
