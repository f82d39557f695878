"""Charts of days as SVG."""

import datetime as dt
import itertools
import re

import pytest

from wholeday.commands.charts import HEIGHT, WIDTH, Layer, draw_bars, draw_line, format_number

DAYS = [dt.date(2026, 8, 27) + dt.timedelta(days=number) for number in range(90)]


def find_bars(svg: str, colour: str) -> list[tuple[float, float, float]]:
    """Return left, bottom and top of each bar in a colour, in units of the chart."""
    (path,) = re.findall(rf'<path d="([^"]*)"[^>]* style="fill: var\(--{colour}\)"', svg)
    numbers = [list(map(float, re.findall(r"-?[\d.]+", bar))) for bar in path.split("z") if bar.strip()]
    return [(bar[0], max(bar[1::2]), min(bar[1::2])) for bar in numbers]


def test_bars_are_stacked_and_negative_bars_point_down():
    """Days without a value are shaded from top to bottom."""
    known = [number % 10 != 0 for number in range(90)]
    layers = {"main": 20, "second": 60, "third": -8}
    svg = draw_bars("x", DAYS, [Layer(c, [v if k else None for k in known]) for c, v in layers.items()])
    main, second, third, shade = (find_bars(svg, colour) for colour in [*layers, "shade"])
    assert [len(bars) for bars in (main, second, third, shade)] == [81, 81, 81, 9]
    for (x, bottom, top), upper, lower in zip(main, second, third, strict=True):
        assert upper[0] == lower[0] == x
        assert upper[1] == pytest.approx(top)
        assert lower[2] == pytest.approx(bottom)
        heights = [bar[1] - bar[2] for bar in ((x, bottom, top), upper, lower)]
        assert [height / heights[0] for height in heights] == pytest.approx([1, 3, 0.4], rel=1e-4)
    assert all(high < low and left < right[0] for (left, low, high), right in itertools.pairwise(shade))


def test_chart_uses_style_of_the_page():
    """The page sets colours, font and size. The chart loads no resource."""
    for svg in (draw_bars("x", DAYS, [Layer("main", [1] * 90)]), draw_line("y", DAYS, Layer("main", [1] * 90))):
        assert svg.startswith(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">')
        assert not re.search(r"#[0-9a-f]{6}\b|font-family|http|<style|<metadata|<!", svg)
        assert set(re.findall(r"var\(--(\w+)\)", svg)) == {"main", "muted", "line", "shade"}


def test_two_charts_share_no_id():
    """With a shared id, one chart would use the marks of the other. The same chart is the same text."""
    layer = Layer("main", [1] * 90)
    first, second = (set(re.findall(r' id="([^"]*)"', draw_bars(name, DAYS, [layer]))) for name in ("x", "y"))
    assert first
    assert first.isdisjoint(second)
    assert draw_bars("x", DAYS, [layer]) == draw_bars("x", DAYS, [layer])


@pytest.mark.parametrize("values", [[0], [None], [0.004], [2_500_000], [-3]])
def test_any_values_make_a_chart(values):
    """Zero, no value, very small and very large values, on a single day."""
    assert "<text" in draw_bars("x", DAYS[:1], [Layer("main", values)])
    assert "<text" in draw_line("x", DAYS[:1], Layer("main", [max(0, values[0] or 0)]))


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (0.5, "0.5"), (120, "120"), (1500, "1.5k"), (20_000, "20k"), (3_000_000, "3M")]
)
def test_numbers_on_an_axis_are_short(number, text):
    assert format_number(number) == text
