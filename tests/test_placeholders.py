"""Times of a day in a request."""

import datetime as dt
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.placeholders import find_placeholders, render
from pipeline.source import Reading
from reading import DAY, People, read
from server import Answer, Server

START = dt.datetime(2026, 10, 31, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{date}", "2026-10-31"),
        ("{day_start}", "2026-10-30T23:59:59Z"),
        ("{day_start:iso}", "2026-10-30T23:59:59Z"),
        ("{day_start:date}", "2026-10-30"),
        ("{day_start:epoch}", "1793404799"),
        ("{day_start:epoch_ms}", "1793404799999"),
        ("{day_stop}", "2026-11-01T00:00:00Z"),
        ("{day_stop:epoch_ms}", "1793491200000"),
        ("{watermark}", "2026-10-31T12:00:00Z"),
        ("{watermark:epoch_ms}", "1793448001233"),
        ('{"gt": "{date}"} {}', '{"gt": "2026-10-31"} {}'),
    ],
)
def test_a_lower_bound_is_rounded_down_less_one_unit_and_nothing_else_is(text: str, shown: str) -> None:
    """No comparison at the source loses what lies on a bound."""
    values = {
        "date": DAY,
        "day_start": START,
        "day_stop": START + dt.timedelta(days=1),
        "watermark": START + dt.timedelta(hours=12, seconds=1, microseconds=234_500),
    }
    assert render(text, values) == shown
    assert render("{day_stop}", values, quote=True) == "2026-11-01T00%3A00%3A00Z"


def test_an_upper_bound_that_its_format_cannot_hold_is_rounded_up() -> None:
    """A day that ends at 22:00 UTC ends, as a date, on the next."""
    assert render("{day_stop:date}", {"day_stop": START + dt.timedelta(hours=22)}) == "2026-11-01"


@settings(deadline=None)
@given(
    after=st.integers(0, 86_400 * 10**6 - 1),
    precision=st.sampled_from([1, 1000, 100_000, 10**6]),
    midnight=st.sampled_from([0, 1, -8, 5.75]),
    form=st.sampled_from(["iso", "date", "epoch", "epoch_ms"]),
)
def test_no_usual_filter_leaves_out_what_changed_in_the_day(
    after: int, precision: int, midnight: float, form: str
) -> None:
    """Not one with `>` and `<`, of a source that keeps so many microseconds as one; nor one since the change itself."""
    start = START + dt.timedelta(hours=midnight)
    kept = start + dt.timedelta(microseconds=after - after % precision)
    values = {"day_start": start, "day_stop": start + dt.timedelta(days=1), "watermark": kept}

    def ask(name: str) -> dt.datetime:
        text = render(f"{{{name}:{form}}}", values)
        if form.startswith("epoch"):
            return dt.datetime.fromtimestamp(int(text) / (1000 if form == "epoch_ms" else 1), dt.UTC)
        return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)

    assert ask("day_start") < kept < ask("day_stop")
    assert ask("watermark") < kept


@pytest.mark.parametrize("text", ["{day}", "{day_start:rfc}", "{day_start:}", "{date:epoch}", "{Date}"])
def test_an_unknown_placeholder_or_format_is_named(text: str) -> None:
    """A typing error is an error before anything is sent."""
    with pytest.raises(ConfigError, match=re.escape(text)):
        find_placeholders(People(url="http://a/", params={"deep": [{"er": f"x{text}"}]}))


def test_placeholders_are_found_wherever_they_stand() -> None:
    """The caller learns which values a reading needs."""
    people = People(url="http://a/{date}", params={"q": {"a": ["{watermark:epoch}"]}}, headers={"X": "{day_stop}"})
    assert find_placeholders(people) == {"date", "watermark", "day_stop"}


@pytest.mark.parametrize("name", ["day_start", "day_stop", "watermark"])
def test_a_snapshot_refuses_a_filter(name: str) -> None:
    """Whoever a filter leaves out of a snapshot would look gone."""
    with pytest.raises(ConfigError, match="snapshot"):
        Reading(People(url="http://a/", mode="snapshot", params={"since": f"{{{name}}}"}), DAY)


def test_placeholders_land_encoded_where_they_are_used(server: Server) -> None:
    """Path, query and headers each get the value, less lookback where it is a lower bound."""
    server.on("/users/2026-10-31", Answer([]))
    people = People(
        url=server.url + "/users/{date}?to={day_stop}",
        params={"from": "{day_start}", "after": "{watermark:epoch}"},
        headers={"X-From": "{day_start}"},
        lookback=dt.timedelta(hours=1),
    )
    list(Reading(people, DAY, START))
    assert server.requests[0].target == (
        "/users/2026-10-31?to=2026-11-01T00%3A00%3A00Z&from=2026-10-30T22%3A59%3A59Z&after=1793401199"
    )
    assert server.requests[0].headers["X-From"] == "2026-10-30T22:59:59Z"


def test_without_a_watermark_everything_since_1970_is_asked_for(server: Server) -> None:
    """A first load begins at the epoch, neither before nor after it."""
    read(server.on("/users", Answer([])), params={"a": "{watermark}", "b": "{watermark:epoch_ms}"})
    assert server.requests[0].query == {"a": "1970-01-01T00:00:00Z", "b": "0"}
