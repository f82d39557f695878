"""Pictures of days as SVG: bars a day, and a line through time.

Owns how they look, on paper and at night: colours are words of the page's style sheet, so that one picture serves
light and dark, and its text is text, in the page's font. Refuses to know what the numbers mean.
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

# In units of the page's pixels: as wide as a phone, so that the text is as large as written there and everywhere.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 170, 44, 6, 10, 24
FEWEST = 14  # days that an axis spans: one bar must not be as wide as the picture
INK, GRID, SHADE = "muted", "line", "shade"
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


class Layer(NamedTuple):
    """A value a day, or None, in a colour of the style sheet; negative ones go down."""

    colour: str
    values: Sequence[float | None]


def draw_bars(name: str, days: Sequence[dt.date], layers: Sequence[Layer]) -> str:
    """Bars a day, one layer upon the other; a day without values is shaded. `name` makes the picture's ids its own."""
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
    """A line through a value a day, over an area down to nothing."""
    palette = Palette(name)
    figure, axes = _open(palette, days)
    x = date2num(list(days))
    values = np.array(layer.values, dtype=float)
    axes.set_ylim(0, float(values.max()) * 1.05 or 1.0)
    axes.fill_between(x, values, color=palette[SHADE], linewidth=0)
    axes.plot(x, values, color=palette[layer.colour], linewidth=1.8, solid_capstyle="round")
    return palette.save(figure)


class Palette:
    """Colours of the style sheet for matplotlib, which knows none: `palette["ink"]` becomes `var(--ink)` in the end."""

    def __init__(self, name: str) -> None:
        self.name, self._names = name, list[str]()

    def __getitem__(self, name: str) -> str:
        if name not in self._names:
            self._names.append(name)
        return f"#0a0b{self._names.index(name):02x}"

    def save(self, figure: Figure) -> str:
        """The picture as a part of a page: no size, fonts or ids but its own, and colours by their names."""
        file = io.StringIO()
        with mpl.rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = ElementTree.fromstring(file.getvalue())  # noqa: S314 - matplotlib's own
        for element in svg.iter():
            element[:] = [child for child in element if child.tag.rpartition("}")[2] not in ("metadata", "style")]
            element.text = element.text and element.text.strip()
            element.tail = None
            attributes = {name.rpartition("}")[2]: value for name, value in element.items()}  # in HTML without prefixes
            if re.search(r"_\d+$", attributes.get("id", "")):  # nobody refers to it, and every picture has it
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
    """An empty picture with the axis of these days, and one for whole numbers or others."""
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
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tell_number(abs(value))))
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(palette[INK])
    axes.tick_params(colors=palette[INK], length=0, pad=5)
    axes.tick_params(axis="x", length=3)
    axes.grid(axis="y", color=palette[GRID], linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _add_bars(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, width: float, colour: str) -> None:
    """Bars as one path: a page with hundreds of paths of their own would be large and slow."""
    left, right = x - width / 2, x + width / 2
    corners = np.stack([(left, low), (left, high), (right, high), (right, low), (left, low)])
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(x)
    path = Path(corners.transpose(2, 0, 1).reshape(-1, 2), codes)
    axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0, zorder=2))


def tell_number(value: float) -> str:
    """A number for a narrow axis: 0.5, 120, 1.5k, 20k, 3M."""
    for unit, size in {"M": 1_000_000, "k": 1_000}.items():
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
