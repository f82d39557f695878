"""Placeholders for the times of a day in a request."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import DAY, People, read
from tests.support.server import Answer, Server
from wholeday.config.placeholders import EPOCH, find_placeholders, render
from wholeday.errors import ConfigError
from wholeday.extract.reader import Reader

DAY_LONG = dt.timedelta(days=1)
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
        ("{date:%d.%m.%Y}", "31.10.2026"),
        ("{day_start:%Y-%m-%d %H:%M}", "2026-10-30 23:59"),
        ("{day_start:%Y/%m/%d}", "2026/10/30"),
        ("{day_start:%Y%j}", "2026303"),
        ("{day_stop:%a, %d %b %Y %H:%M:%S GMT}", "Sun, 01 Nov 2026 00:00:00 GMT"),
        ("{watermark:%Y-%m-%dT%H:%M:%S.%fZ}", "2026-10-31T12:00:01.234499Z"),
        ("{watermark:%Y-%m-%d %I %p}", "2026-10-31 11 AM"),
        ("{watermark:%d %B %Y at %Hh, 100%%%z}", "31 October 2026 at 11h, 100%+0000"),
    ],
)
def test_lower_bound_is_rounded_down_less_one_unit(text: str, shown: str) -> None:
    """So no comparison at the source loses a record at the bound."""
    values = {
        "date": DAY,
        "day_start": START,
        "day_stop": START + dt.timedelta(days=1),
        "watermark": START + dt.timedelta(hours=12, seconds=1, microseconds=234_500),
    }
    assert render(text, values) == shown
    assert render("{day_stop}", values, quote=True) == "2026-11-01T00%3A00%3A00Z"


def test_upper_bound_is_rounded_up() -> None:
    """As a date, a day that ends at 22:00 UTC ends on the next date."""
    assert render("{day_stop:date}", {"day_stop": START + dt.timedelta(hours=22)}) == "2026-11-01"


@settings(deadline=None)
@given(
    after=st.integers(0, 86_400 * 10**6 - 1),
    precision=st.sampled_from([1, 1000, 100_000, 10**6]),
    midnight=st.sampled_from([0, 1, -8, 5.75]),
    form=st.sampled_from(["iso", "date", "epoch", "epoch_ms"]),
)
def test_usual_filters_include_every_change(after: int, precision: int, midnight: float, form: str) -> None:
    """With `>` and `<`, and with any precision of the source."""
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


FORMATS = {
    "%Y-%m-%d": DAY_LONG,
    "%d.%m.%Y": DAY_LONG,
    "%Y %j": DAY_LONG,
    "%Y%m%d%H": dt.timedelta(hours=1),
    "%B %d, %Y %I %p": dt.timedelta(hours=1),
    "%Y-%m-%d %H:%M": dt.timedelta(minutes=1),
    "%a %d %b %Y %I:%M:%S %p": dt.timedelta(seconds=1),
    "%Y-%m-%dT%H:%M:%S.%f": dt.timedelta(microseconds=1),
}


def check_bounds(moment: dt.datetime, form: str, zone: str) -> None:
    """Assert that a formatted lower bound is earlier than a time, and an upper bound is not, however it is read."""
    value = moment.astimezone(ZoneInfo(zone))

    def read_back(name: str) -> list[dt.datetime]:
        shown = dt.datetime.strptime(render(f"{{{name}:{form}}}", {name: value}), form).replace(tzinfo=ZoneInfo(zone))
        return [shown.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1)]

    near = FORMATS[form] + max(FORMATS[form], dt.timedelta(hours=1)) + dt.timedelta(hours=1)
    for name in ("day_start", "watermark"):
        assert moment - near <= min(read_back(name)) <= max(read_back(name)) < moment
    assert moment <= min(read_back("day_stop")) <= max(read_back("day_stop")) <= moment + near


@settings(deadline=None)
@given(
    moment=st.integers(2 * 10**9, 2 * 10**15).map(lambda after: EPOCH + dt.timedelta(microseconds=after)),
    form=st.sampled_from([*FORMATS]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Kathmandu"]),
)
def test_formatted_bounds_enclose_the_time(moment: dt.datetime, form: str, zone: str) -> None:
    check_bounds(moment, form, zone)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", "2026-10-25T01:00Z"),
        ("Europe/Berlin", "2026-03-29T01:00Z"),
        ("America/Havana", "2026-11-01T05:00Z"),
        ("America/Havana", "2026-03-08T05:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ],
)
def test_formatted_bounds_enclose_the_time_when_clocks_change(form: str, zone: str, change: str) -> None:
    """An hour that occurs twice, or not at all, may be read either way."""
    for minutes in range(-70, 75, 7):
        check_bounds(dt.datetime.fromisoformat(change) + dt.timedelta(minutes=minutes, seconds=7), form, zone)


def test_strftime_uses_the_timezone_of_the_section(server: Server) -> None:
    """Like a naive time in a record. Other formats are in UTC."""
    server.on("/users", Answer([]))
    params = {
        "jql": "updated >= '{day_start:%Y-%m-%d %H:%M}'",
        "to": "{day_stop:%H:%M:%S %d/%m/%Y %z}",
        "u": "{day_stop}",
    }
    list(Reader(People(url=server.url + "/users", timezone="America/New_York", params=params), DAY))
    assert server.requests[0].query == {
        "jql": "updated >= '2026-10-30 23:59'",
        "to": "00:00:00 01/11/2026 -0400",
        "u": "2026-11-01T04:00:00Z",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{day_strat}", r"did you mean \{day_start\}"),
        ("{daystart:epoch}", r"did you mean \{day_start\}"),
        ("{day-stop}", r"did you mean \{day_stop\}"),
        ("{day_end}", r"did you mean \{day_stop\}"),
        ("{Watermark}", r"did you mean \{watermark\}"),
        ("{watermrak:date}", r"did you mean \{watermark\}"),
        ("{day_start:epcoh}", "did you mean 'epoch'"),
        ("{day_start:rfc}", "an unknown format 'rfc': use iso, date, epoch, epoch_ms or"),
        ("{day_start:}", "an unknown format ''"),
        ("{date:epoch}", "use date or"),
        ("{date:%Y-%m-%d %H}", "a date has no time of day"),
        ("{date:%Y-%m-%d%z}", "a date has no time of day"),
        ("{day_start:%d.%m.%y}", "%y cannot be used"),
        ("{day_start:%d.%m.}", "no year"),
        ("{day_start:%H:%M}", "no year"),
        ("{day_start:%Y-%m}", "no day"),
        ("{day_start:%Y-%d}", "no day"),
        ("{day_start:%Y-%m-%d %I:%M}", "morning and evening"),
        ("{day_start:%Y-%m-%d %M}", "needs the hour"),
        ("{day_start:%Y-%m-%d %H:%S}", "needs the larger units"),
        ("{day_start:%Y-%m-%d %H:%M.%f}", "needs the larger units"),
        ("{day_start:%c}", "%c cannot be used"),
        ("{day_start:%-d.%m.%Y}", "%- cannot be used"),
        ("{day_start:%Y-%m-%d %}", "% cannot be used"),
    ],
)
def test_misspelt_placeholder_or_format_is_refused(text: str, problem: str) -> None:
    """Before anything is sent. The line quotes it and says what to write."""
    with pytest.raises(ConfigError, match=problem) as caught:
        find_placeholders(People(url="http://a/", params={"deep": [{"er": f"x{text}"}]}))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "query($after:String){users(first:100,after:$after){edges{node{id}}}}",
        "{data}{id}{Date}{dates}{state}{day}{first:100}{name:login}{ date }{{}}{}",
        "AND(IS_AFTER({Modified}, 'x'), {Last Modified}, {Day of week}, {Start:Stop})",
        "fields=id,from{name,email}",
    ],
)
def test_other_braces_are_text(text: str) -> None:
    """GraphQL, formulas and field lists are sent unchanged, in mode snapshot too."""
    people = People(url=f"http://a/?q={text}", mode="snapshot", params={"q": text}, body={"q": text}, method="POST")
    assert find_placeholders(people) == set()
    assert render(text, {}) == text


def test_a_formula_keeps_its_fields_beside_placeholders(server: Server) -> None:
    """Airtable's filterByFormula."""
    formula = "AND(IS_AFTER({Modified}, '{day_start}'), IS_BEFORE({Modified}, '{day_stop}'))"
    read(server.on("/places", Answer([])), params={"filterByFormula": formula})
    bounds = "2026-10-30T23:59:59Z", "2026-11-01T00:00:00Z"
    assert server.requests[0].query["filterByFormula"] == (
        f"AND(IS_AFTER({{Modified}}, '{bounds[0]}'), IS_BEFORE({{Modified}}, '{bounds[1]}'))"
    )


def test_placeholders_are_found_in_every_key() -> None:
    people = People(url="http://a/{date}", params={"q": {"a": ["{watermark:epoch}"]}}, headers={"X": "{day_stop}"})
    assert find_placeholders(people) == {"date", "watermark", "day_stop"}


@pytest.mark.parametrize("name", ["day_start", "day_stop", "watermark"])
def test_snapshot_refuses_a_filter(name: str) -> None:
    """Records that a filter leaves out would look deleted."""
    with pytest.raises(ConfigError, match="snapshot"):
        Reader(People(url="http://a/", mode="snapshot", params={"since": f"{{{name}}}"}), DAY)


def test_placeholders_are_encoded(server: Server) -> None:
    """In path, query and headers, with lookback subtracted from lower bounds."""
    server.on("/users/2026-10-31", Answer([]))
    people = People(
        url=server.url + "/users/{date}?to={day_stop}",
        params={"from": "{day_start}", "after": "{watermark:epoch}"},
        headers={"X-From": "{day_start}"},
        lookback=dt.timedelta(hours=1),
    )
    list(Reader(people, DAY, START))
    assert server.requests[0].target == (
        "/users/2026-10-31?to=2026-11-01T00%3A00%3A00Z&from=2026-10-30T22%3A59%3A59Z&after=1793401199"
    )
    assert server.requests[0].headers["X-From"] == "2026-10-30T22:59:59Z"


def test_first_load_begins_at_the_epoch(server: Server) -> None:
    read(server.on("/users", Answer([])), params={"a": "{watermark}", "b": "{watermark:epoch_ms}"})
    assert server.requests[0].query == {"a": "1970-01-01T00:00:00Z", "b": "0"}
