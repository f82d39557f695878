"""The embedded source, asked as the pipeline asks it: through a requests session."""

import datetime as dt
import itertools
import json
import random
import re
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from wholeday import clock
from wholeday.extract.http import demo

Record = dict[str, Any]
NOW = dt.datetime(2026, 11, 22, 10, 30, 0, 250_000, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(2020, 2, 29, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def program_clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The program's clock, standing at NOW until a test moves it."""
    program_clock = Clock()
    monkeypatch.setattr(clock, "utc_now", lambda: program_clock.now)
    return program_clock


class Clock:
    now = NOW


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("demo://", demo.DemoAdapter())
        yield session


def get(session: requests.Session, **params: object) -> requests.Response:
    """One page of users; a time may be a datetime."""
    text = {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in params.items()}
    response = session.get(f"demo://users?{urlencode(text)}")
    assert response.status_code == 200, response.text
    return response


def read(session: requests.Session, per_page: int = 10_000, **params: object) -> list[Record]:
    """All users of an answer, page by page along the links; their number is checked against the declared total."""
    response = get(session, per_page=per_page, **params)
    records: list[Record] = response.json()
    while "next" in response.links:
        response = session.get(response.links["next"]["url"])
        records += response.json()
    assert len(records) == int(response.headers["X-Total-Count"])
    return records


def read_day(session: requests.Session, start: dt.datetime, stop: dt.datetime, per_day: int) -> list[Record]:
    """The users of `start` <= updated_at < `stop`."""
    return read(session, updated_since=start - MICROSECOND, updated_before=stop, per_day=per_day)


def count(session: requests.Session, **params: object) -> int:
    return int(get(session, per_page=1, **params).headers["X-Total-Count"])


@cache
def read_history(session: requests.Session, per_day: int) -> list[list[Record]]:
    """The first three years of the population, day by day, each day as read on its own."""
    days = [demo.START + n * DAY for n in range(3 * 365)]
    return [read_day(session, day, day + DAY, per_day) for day in days]


def by_user(records: list[Record]) -> dict[int, Record]:
    """The last of the records of each user."""
    return {int(record["id"]): record for record in records}


def is_rejected(record: Record) -> bool:
    """Whether the record class of users must refuse the record."""
    try:
        dt.datetime.fromisoformat(record["updated_at"])
    except ValueError:
        return True
    return not isinstance(record["id"], int) or "@" not in record.get("email", "@")


def is_wrong(record: Record) -> bool:
    """Whether the record is unlike the ordinary ones, rejected or not."""
    return is_rejected(record) or None in record.values() or "email" not in record or "newsletter" in record


@pytest.fixture(scope="module")
def history(session: requests.Session) -> list[list[Record]]:
    """Three years of days at the default scale."""
    return read_history(session, 100)


def test_a_window_that_is_over_reads_the_same_for_ever(session: requests.Session, program_clock: Clock) -> None:
    """Body, links and total of a past window do not depend on when it is read."""
    window = {"updated_since": LONG_AGO, "updated_before": LONG_AGO + DAY, "per_page": 50}
    program_clock.now = LONG_AGO + DAY
    early = get(session, **window)
    program_clock.now = NOW
    late = get(session, **window)
    assert len(early.json()) == 50
    assert early.content == late.content
    assert early.links == late.links
    assert early.headers["X-Total-Count"] == late.headers["X-Total-Count"] == "100"


@pytest.mark.parametrize("per_day", [1, 3, 17, 100, 12_345])
def test_pages_together_are_the_window_with_each_user_once(session: requests.Session, per_day: int) -> None:
    """Any page size gives the same records in the same order, and no user comes twice."""
    window = {"updated_since": LONG_AGO, "updated_before": LONG_AGO + DAY, "per_day": per_day}
    whole = get(session, per_page=10_000, **window).json()
    paged = read(session, per_page=max(1, per_day // 7), **window)
    assert paged[: len(whole)] == whole
    assert len(by_user(paged)) == len(paged) == per_day


def test_a_link_keeps_the_parameters_and_the_last_page_has_none(session: requests.Session) -> None:
    """A next link is absolute and differs from its page's URL in the page alone."""
    url = "demo://users?updated_since=2026-11-20T00:00:00Z&updated_before=2026-11-21T00:00:00Z&per_day=25&per_page=10"
    assert session.get(url).links["next"]["url"] == f"{url}&page=2"
    assert session.get(f"{url}&page=2").links["next"]["url"] == f"{url}&page=3"
    assert session.get(f"{url}&page=3").links == {}
    assert len(session.get(f"{url}&page=3").json()) == 5
    full = url.replace("per_page=10", "per_page=5")
    assert len(session.get(f"{full}&page=5").json()) == 5
    assert session.get(f"{full}&page=5").links == {}


def test_a_page_past_the_end_is_empty(session: requests.Session) -> None:
    """Behind the last page there is an empty list, not an error, and the total still stands."""
    response = get(session, updated_since="2026-11-20", updated_before="2026-11-21", page=10**12)
    assert response.json() == []
    assert response.links == {}
    assert response.headers["X-Total-Count"] == "100"


@settings(max_examples=60, deadline=None)
@given(
    per_day=st.sampled_from([1, 3, 17, 100, 1000, 1_000_000]),
    day=st.integers(0, 3900),
    cuts=st.lists(st.integers(0, 86_400_000_000 - 1), min_size=1, max_size=4),
)
def test_windows_tile_a_day_wherever_it_is_cut(
    session: requests.Session, per_day: int, day: int, cuts: list[int]
) -> None:
    """A day is the sum of its pieces: no change falls between two windows, and none into both."""
    start = demo.START + day * DAY
    edges = [start, *(start + cut * MICROSECOND for cut in sorted(cuts)), start + DAY]
    pieces = [
        count(session, updated_since=low - MICROSECOND, updated_before=high, per_day=per_day)
        for low, high in itertools.pairwise(edges)
    ]
    assert sum(pieces) == count(session, updated_since=start - MICROSECOND, updated_before=start + DAY, per_day=per_day)


def test_window_bounds_are_exclusive_and_as_of_is_inclusive(session: requests.Session) -> None:
    """A change at T is after T less a microsecond and before T plus one, not after or before T, and known as of T."""
    changes = read_day(session, LONG_AGO, LONG_AGO + DAY, per_day=100)
    for change in (r for r in changes if not is_rejected(r)):
        at = dt.datetime.fromisoformat(change["updated_at"])
        assert change not in get(session, updated_since=at, updated_before=at + DAY).json()
        assert get(session, updated_since=at - MICROSECOND, updated_before=at + MICROSECOND).json() == [change]
        assert get(session, updated_since=at - MICROSECOND, updated_before=at).json() == []
        assert get(session, updated_since=at - MICROSECOND, as_of=at).json() == [change]
        assert get(session, updated_since=at - 2 * MICROSECOND, as_of=at - MICROSECOND).json() == []


def test_no_change_falls_on_anyones_midnight(session: requests.Session) -> None:
    """No `updated_at` is a whole quarter of an hour, so bounds that are both exclusive lose nothing there."""
    changes = read_day(session, LONG_AGO, LONG_AGO + DAY, per_day=90_000)
    assert not [r for r in changes if re.search(r":(00|15|30|45):00(\.0*)?Z", r["updated_at"])]


@pytest.mark.parametrize("per_day", [3, 17])
def test_every_user_is_created_once_and_changes_four_times(session: requests.Session, per_day: int) -> None:
    """Ids count up from 1 in the order of creation, and a life is five records long, whose days are apart."""
    records = list(itertools.chain(*read_history(session, per_day)))
    ids = [int(record["id"]) for record in records]
    firsts = list(dict.fromkeys(ids))
    assert firsts == list(range(1, len(firsts) + 1))
    lives = Counter(ids)
    assert max(lives.values()) == 5
    assert {lives[user] for user in firsts[: len(firsts) // 3]} == {5}


@pytest.mark.slow
def test_a_change_changes_what_the_pipeline_keeps(history: list[list[Record]]) -> None:
    """Two records of a user that follow each other differ in name, email or city even after cleaning."""
    last: dict[int, tuple[Any, ...]] = {}
    changed = 0
    for record in itertools.chain(*history):
        if is_wrong(record):
            last.pop(int(record["id"]), None)
            continue
        seen = (record["name"], record["email"].lower(), record["address"]["city"])
        assert seen != last.get(record["id"])
        changed += record["id"] in last
        last[record["id"]] = seen
    assert changed > 50_000


def test_changes_of_a_user_are_days_apart(history: list[list[Record]]) -> None:
    """Records come in the order of `updated_at`, and a user's are never less than 47 hours apart."""
    times: dict[int, dt.datetime] = {}
    before = demo.START
    for record in itertools.chain(*history):
        if not is_rejected(record):
            now = dt.datetime.fromisoformat(record["updated_at"])
            assert now >= before
            assert now - times.get(record["id"], demo.START - 3 * DAY) > dt.timedelta(hours=47)
            times[record["id"]] = before = now


@pytest.mark.parametrize("per_day", [1, 3, 17, 100])
def test_a_snapshot_is_the_last_change_of_everybody(session: requests.Session, per_day: int) -> None:
    """Everybody as of T is, record for record, what the days up to T and the piece of T's day said last."""
    draw = random.Random(per_day)
    history = read_history(session, per_day)
    for _ in range(8):
        day = draw.randrange(3 * 365)
        midnight = demo.START + day * DAY
        as_of = midnight + draw.randrange(86_400_000_000) * MICROSECOND
        today = read_day(session, midnight, as_of + MICROSECOND, per_day)
        expected = by_user([*itertools.chain(*history[:day]), *today])
        snapshot = read(session, as_of=as_of, per_day=per_day)
        assert len(snapshot) == len(expected)
        assert by_user(snapshot) == expected


@pytest.mark.parametrize("per_day", [3, 17, 100])
def test_a_long_window_shows_each_user_once_as_it_was_at_the_end(session: requests.Session, per_day: int) -> None:
    """A window of many days is the last change of each user in it, as the days of the window say."""
    draw = random.Random(per_day)
    history = read_history(session, per_day)
    for _ in range(8):
        first, last = sorted(draw.sample(range(3 * 365), 2))
        window = read_day(session, demo.START + first * DAY, demo.START + last * DAY, per_day)
        expected = by_user([*itertools.chain(*history[first:last])])
        assert len(window) == len(expected)
        assert by_user(window) == expected


def test_a_snapshot_far_in_the_life_of_a_large_population_agrees_with_its_last_changes(
    session: requests.Session,
) -> None:
    """At a million a day a user in the middle of a snapshot is told in the same words by the day of its change."""
    page = get(session, as_of=LONG_AGO, per_day=1_000_000, page=15_000, per_page=10_000).json()
    for record in random.Random(0).sample([r for r in page if not is_rejected(r)], 20):
        changed = dt.datetime.fromisoformat(record["updated_at"])
        instant = read_day(session, changed, changed + 1000 * MICROSECOND, per_day=1_000_000)
        assert record in instant


def test_nothing_is_shown_from_after_now(session: requests.Session, program_clock: Clock) -> None:
    """Today is partial and grows with the clock, tomorrow is empty, and a snapshot of the future is one of now."""
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    partial = read_day(session, midnight, midnight + DAY, 1000)
    assert 400 < len(partial) < 480
    assert max(r["updated_at"] for r in partial if not is_rejected(r)) < "2026-11-22T10:30:00.250Z"
    assert count(session, updated_since=NOW) == 0
    assert count(session, as_of=NOW + DAY) == count(session)
    program_clock.now = NOW + DAY
    whole = read_day(session, midnight, midnight + DAY, 1000)
    assert whole[: len(partial)] == partial
    assert len(whole) == 1000


@pytest.mark.slow
def test_the_pages_of_a_moving_population_show_one_instant(session: requests.Session, program_clock: Clock) -> None:
    """Links fix the time of the first page: users who change while they are read neither double nor drop out."""
    url = "demo://users?per_page=1000&as_of=2031-01-01"
    records = []
    while url:
        response = session.get(url)
        records += response.json()
        url = response.links.get("next", {}).get("url", "")
        program_clock.now += dt.timedelta(hours=1)
    assert program_clock.now > NOW + 3 * DAY
    assert len(by_user(records)) == len(records) == int(response.headers["X-Total-Count"])
    assert records == read(session, as_of=NOW)


def test_the_population_grows_as_documented(session: requests.Session, history: list[list[Record]]) -> None:
    """The first day has a fifth of the scale, each since June 2017 all of it; ten years make 73,060 users."""
    sizes = [len(day) for day in history]
    assert sizes[0] == 20
    assert set(sizes[517:]) == {100}
    assert count(session, as_of="2026-01-01") == 73_060
    assert count(session, as_of="2016-01-01") == 0
    assert count(session, updated_before="0001-01-01") == 0
    assert count(session, as_of="9999-12-31T23:59:59-05:00") == count(session)


def test_about_one_record_in_two_hundred_is_wrong(history: list[list[Record]]) -> None:
    """Wrong records are half a percent, at most 2 % of a day, half of them rejected, some of those in every week."""
    wrong = [sum(map(is_wrong, day)) for day in history]
    records = sum(map(len, history))
    assert 0.004 < sum(wrong) / records < 0.006
    assert max(n / len(day) for n, day in zip(wrong, history, strict=True) if len(day) >= 50) <= 0.02
    rejected = [sum(map(is_rejected, day)) for day in history]
    assert all(sum(rejected[n : n + 7]) for n in range(517, len(history) - 7))
    assert 0.4 < sum(rejected) / sum(wrong) < 0.6


@pytest.mark.parametrize("per_day", [218, 253, 281, 323, 359, 500, 1013])
def test_no_scale_has_a_day_that_is_too_wrong(session: requests.Session, per_day: int) -> None:
    """The 2 % hold in the thin days of the beginning too, whatever the scale."""
    for n in range(25):
        day = read_day(session, demo.START + n * DAY, demo.START + (n + 1) * DAY, per_day)
        assert len(day) < 50 or sum(map(is_wrong, day)) / len(day) <= 0.02


def test_records_are_wrong_in_all_the_documented_ways(history: list[list[Record]]) -> None:
    """Each of the ways to be wrong occurs."""
    wrong = [record for record in itertools.chain(*history) if is_wrong(record)]
    ways = {
        "id as text": [r for r in wrong if isinstance(r["id"], str)],
        "email without @": [r for r in wrong if "@" not in r.get("email", "@")],
        "email missing": [r for r in wrong if "email" not in r],
        "name null": [r for r in wrong if r["name"] is None],
        "address null": [r for r in wrong if r["address"] is None],
        "unknown field": [r for r in wrong if "newsletter" in r],
        "updated_at not a time": [r for r in wrong if r["updated_at"].startswith("0000")],
    }
    assert set(ways) == set(demo.WRONGS)
    assert all(len(records) > 20 for records in ways.values())
    assert sum(map(len, ways.values())) == len(wrong)


def test_an_id_as_text_is_the_last_word_on_its_user(history: list[list[Record]]) -> None:
    """No correct record of the same user comes after an id that was sent as text."""
    records = list(itertools.chain(*history))
    texts = {r["id"]: r for r in records if isinstance(r["id"], str)}
    assert len(texts) > 20
    assert texts == {r["id"]: r for r in by_user(records).values() if isinstance(r["id"], str)}


def test_records_look_like_those_of_a_real_api(session: requests.Session) -> None:
    """A record is compact JSON of 180 to 460 bytes, with the untidiness that cleaning is there for."""
    body = get(session, updated_since=NOW - DAY, per_day=5000, per_page=10_000).content
    records = json.loads(body)
    ordinary = [r for r in records if not is_wrong(r)]
    sizes = [len(json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode()) for r in records]
    assert sum(sizes) + len(sizes) + 1 == len(body)
    assert min(sizes) >= 180
    assert max(sizes) <= 460
    assert {tuple(r) for r in ordinary} == {
        ("id", "name", "email", "phone", "address", "company", "updated_at"),
        ("id", "name", "email", "address", "company", "updated_at"),
    }
    assert {tuple(r["address"]) for r in ordinary} == {("street", "city", "zipcode")}
    assert any(r["name"].startswith(" ") for r in ordinary)
    assert any(r["name"].endswith(" ") for r in ordinary)
    assert any(not r["name"].isascii() for r in ordinary)
    assert {r["address"]["city"] for r in ordinary} == set(demo.CITIES)
    assert all(r["email"].isascii() and " " not in r["email"] for r in ordinary)
    assert any(r["email"] != r["email"].lower() for r in ordinary)
    fractions = Counter((r["updated_at"][11:13] < "04", "." in r["updated_at"]) for r in ordinary)
    assert fractions[True, True] == 0
    assert fractions[True, False] > 800
    assert fractions[False, True] > 4000


@pytest.mark.parametrize(
    "spelling",
    [
        "2026-11-20",
        "2026-11-20T00:00:00",
        "2026-11-20T00:00:00.000Z",
        "2026-11-20T00:00:00%2B00:00",
        "2026-11-19T19:00-05:00",
    ],
)
def test_a_time_may_be_spelt_as_iso_8601_allows(session: requests.Session, spelling: str) -> None:
    """A date, a fraction, an offset or none: the same instant gives the same answer."""
    plain = session.get("demo://users?updated_since=2026-11-20T00:00:00Z").json()
    assert len(plain) > 200
    assert session.get(f"demo://users?updated_since={spelling}").json() == plain


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=10", "limit"),
        ("updated_since=yesterday", "yesterday"),
        ("updated_before=2026-02-30", "2026-02-30"),
        ("as_of=", "as_of"),
        ("per_page=0", "per_page"),
        ("per_page=10001", "10000"),
        ("per_page=", "per_page"),
        ("page=0", "page"),
        ("page=-1", "-1"),
        ("page=1_0", "1_0"),
        ("page=" + "9" * 5000, "page"),
        ("per_day=0", "per_day"),
        ("per_day=10000001", "10000000"),
        ("page=1&page=2", "twice"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_a_bad_request(session: requests.Session, query: str, named: str) -> None:
    """The answer is a 400 whose JSON error names the parameter or the value."""
    response = session.get(f"demo://users?{query}")
    assert (response.status_code, response.reason) == (400, "Bad Request")
    assert response.headers["Content-Type"] == "application/json"
    assert named in response.json()["error"]
    assert "X-Total-Count" not in response.headers


@pytest.mark.parametrize(
    "url", ["demo://orders", "demo://users/7", "demo://user", "demo:///users", "demo://users.example"]
)
def test_what_does_not_exist_is_not_found(session: requests.Session, url: str) -> None:
    """Another host or path is a 404 with a JSON error that says what there is."""
    response = session.get(url)
    assert response.status_code == 404
    assert "demo://users" in response.json()["error"]


def test_users_can_only_be_got(session: requests.Session) -> None:
    """Another method is a 405."""
    assert session.post("demo://users", json={}).status_code == 405


def test_a_response_is_a_stream_like_one_from_a_network(session: requests.Session) -> None:
    """Unread until it is asked for, then readable whole, in pieces, or raw; its length and type are declared."""
    url = "demo://users?updated_before=2026-11-21&per_page=500"
    whole = session.get(url)
    assert whole.encoding == "utf-8"
    assert whole.headers["content-type"] == "application/json"
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    assert whole.url == whole.request.url == url
    with session.get(url, stream=True) as response:
        assert b"".join(response.iter_content(1000)) == whole.content
    with session.get(url, stream=True) as response:
        assert response.raw.read(7) == whole.content[:7]
        assert response.raw.read() == whole.content[7:]


def test_the_date_header_is_the_programs_clock(session: requests.Session, program_clock: Clock) -> None:
    """Date says when the answer was given, on errors too."""
    program_clock.now = LONG_AGO
    for url in ("demo://users?per_page=1", "demo://orders"):
        assert parsedate_to_datetime(session.get(url).headers["Date"]) == LONG_AGO


def test_any_page_of_a_million_a_day_costs_a_page(session: requests.Session) -> None:
    """The first, a middle and the last page of a day of a million users, or of a snapshot of all, come at once."""
    window = {"updated_since": NOW - 2 * DAY, "updated_before": NOW - DAY}
    for params, pages in ((window, (1, 50, 100)), ({"as_of": NOW - DAY}, (1, 100, 40_000, 79_000))):
        for page in pages:
            began = time.perf_counter()
            response = get(session, per_day=1_000_000, per_page=10_000, page=page, **params)
            assert time.perf_counter() - began < 1.0
            assert len(response.json()) == 10_000
    assert count(session, per_day=1_000_000, **window) == 1_000_000


def test_the_pages_of_a_million_a_day_are_disjoint(session: requests.Session) -> None:
    """Neighbouring pages of a large day share no user and follow each other in time."""
    window = {"updated_since": LONG_AGO, "updated_before": LONG_AGO + DAY, "per_day": 1_000_000, "per_page": 10_000}
    pages = [get(session, page=page, **window).json() for page in (1, 2, 3, 51, 52, 99, 100)]
    assert len(by_user(list(itertools.chain(*pages)))) == 70_000
    times = [r["updated_at"][:19] for page in pages for r in page if not is_rejected(r)]
    assert times == sorted(times)


def test_memory_is_bounded_by_a_page(session: requests.Session) -> None:
    """A page of ten thousand out of a million a day takes a few times its own size, whichever it is."""
    params = {"per_day": 1_000_000, "per_page": 10_000, "updated_since": NOW - 2 * DAY, "updated_before": NOW - DAY}
    get(session, page=1, **params)
    tracemalloc.start()
    try:
        get(session, page=90, **params)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000
