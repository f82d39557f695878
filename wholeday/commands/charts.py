"""Draw charts of days as SVG: bars, and a line over time.

Responsibilities: the looks. Colours are variables of the page's style sheet, so one chart fits its light and its
dark version. Text stays text, in the page's font.
Non-goals: the meaning of the numbers.
"""

import datetime as dt
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

# In pixels of the page. As wide as a phone, so that the text keeps its size on every screen.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 170, 44, 6, 10, 24
FEWEST = 14  # days on an axis, so that a single bar is not as wide as the chart
INK, GRID, SHADE = "muted", "line", "shade"
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


class Layer(NamedTuple):
    """Values by day, None for a day without one, in a colour of the style sheet. Negative bars point down."""

    colour: str
    values: Sequence[float | None]


def draw_bars(name: str, days: Sequence[dt.date], layers: Sequence[Layer]) -> str:
    """Draw stacked bars for each day. Shade a day without values. `name` makes the ids of the SVG unique on a page."""
    palette = Palette(name)
    values = np.array([[np.nan if v is None else v for v in layer.values] for layer in layers], dtype=float)
    figure, axes = _open(palette, days, whole=not np.nan_to_num(values % 1).any())
    x = date2num(list(days))
    tops = np.where(values > 0, values, 0).cumsum(axis=0)
    lows = np.where(values < 0, values, 0).cumsum(axis=0)
    low, high = float(lows.min()), float(tops.max()) or 1.0
    axes.set_ylim(low * 1.05, high * 1.05)
    width = 0.72 if len(days) <= 120 else 1.0
    unknown = x[np.isnan(values).all(axis=0)]
    _add_bars(axes, unknown, np.full(len(unknown), low * 1.05), np.full(len(unknown), high * 1.05), 1, palette[SHADE])
    for layer, value, top, bottom in zip(layers, np.nan_to_num(values), tops, lows, strict=True):
        end = np.where(value < 0, bottom, top)
        shown = value != 0
        _add_bars(axes, x[shown], (end - value)[shown], end[shown], width, palette[layer.colour])
    if low:
        axes.axhline(0, color=palette[INK], linewidth=0.8)
    return palette.save(figure)


def draw_line(name: str, days: Sequence[dt.date], layer: Layer) -> str:
    """Draw a line over a value for each day, and shade the area below it."""
    palette = Palette(name)
    figure, axes = _open(palette, days)
    x = date2num(list(days))
    values = np.array(layer.values, dtype=float)
    axes.set_ylim(0, float(values.max()) * 1.05 or 1.0)
    axes.fill_between(x, values, color=palette[SHADE], linewidth=0)
    axes.plot(x, values, color=palette[layer.colour], linewidth=1.8, solid_capstyle="round")
    return palette.save(figure)


class Palette:
    """Stands in for the colours of the style sheet in matplotlib: `palette["ink"]` becomes `var(--ink)` in the SVG."""

    def __init__(self, name: str) -> None:
        self.name, self._names = name, list[str]()

    def __getitem__(self, name: str) -> str:
        if name not in self._names:
            self._names.append(name)
        return f"#0a0b{self._names.index(name):02x}"

    def save(self, figure: Figure) -> str:
        """Return the chart as SVG for a page: without a size, fonts and shared ids, with colours as variables."""
        file = io.StringIO()
        with mpl.rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = ElementTree.fromstring(file.getvalue())  # noqa: S314 - matplotlib's own
        for element in svg.iter():
            element[:] = [child for child in element if child.tag.rpartition("}")[2] not in ("metadata", "style")]
            element.text = element.text and element.text.strip()
            element.tail = None
            attributes = {name.rpartition("}")[2]: value for name, value in element.items()}  # HTML has no prefixes
            if re.search(r"_\d+$", attributes.get("id", "")):  # unused, and the same in every chart
                del attributes["id"]
            if "style" in attributes:
                attributes["style"] = re.sub(r"font-family:[^;]*;", "", attributes["style"])
            element.attrib = attributes
            element.tag = element.tag.rpartition("}")[2]
        svg.attrib = {"viewBox": svg.attrib["viewBox"], "aria-hidden": "true"}
        text = ElementTree.tostring(svg, encoding="unicode")
        for name in self._names:
            text = text.replace(self[name], f"var(--{name})")
        return text


def _open(palette: Palette, days: Sequence[dt.date], whole: bool = True) -> tuple[Figure, Axes]:
    """Create an empty chart with an axis of these days, and an axis of numbers, `whole` or not."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes(
            (LEFT / WIDTH, BOTTOM / HEIGHT, (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT)
        )
    newest = date2num(days[-1])
    axes.set_xlim(newest + 0.5 - max(len(days), FEWEST), newest + 0.5)
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    formats = ["%Y", "%b", "%-d %b", *["%H:%M"] * 3]
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, formats=formats, show_offset=False))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(abs(value))))
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(palette[INK])
    axes.tick_params(colors=palette[INK], length=0, pad=5)
    axes.tick_params(axis="x", length=3)
    axes.grid(axis="y", color=palette[GRID], linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _add_bars(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, width: float, colour: str) -> None:
    """Add bars as one path: hundreds of single paths would make the page large and slow."""
    left, right = x - width / 2, x + width / 2
    corners = np.stack([(left, low), (left, high), (right, high), (right, low), (left, low)])
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(x)
    path = Path(corners.transpose(2, 0, 1).reshape(-1, 2), codes)
    axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0, zorder=2))


def format_number(value: float) -> str:
    """Format a number for a narrow axis, as 0.5, 120, 1.5k, 20k, 3M."""
    for unit, size in {"M": 1_000_000, "k": 1_000}.items():
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
