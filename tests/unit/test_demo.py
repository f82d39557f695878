"""Test the demo source through a requests session, as the pipeline uses it."""

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
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from wholeday import clock
from wholeday.extract.http import demo

pytestmark = pytest.mark.xdist_group("demo")  # its history is made once

Record = dict[str, Any]
NOW = dt.datetime(2026, 11, 22, 10, 30, 0, 250_000, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(2020, 2, 29, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def program_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stop the program's clock at NOW; tests can move it."""
    program_clock = SimpleNamespace(now=NOW)
    monkeypatch.setattr(clock, "utc_now", lambda: program_clock.now)
    return program_clock


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("demo://", demo.DemoAdapter())
        yield session


def get(session: requests.Session, **params: object) -> requests.Response:
    """Get one page of users. Parameters may be datetimes."""
    text = {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in params.items()}
    response = session.get(f"demo://users?{urlencode(text)}")
    assert response.status_code == 200, response.text
    return response


def read(session: requests.Session, per_page: int = 10_000, **params: object) -> list[Record]:
    """Follow the links and return the users of all pages. Check their number against the declared total."""
    response = get(session, per_page=per_page, **params)
    records: list[Record] = response.json()
    while "next" in response.links:
        response = session.get(response.links["next"]["url"])
        records += response.json()
    assert len(records) == int(response.headers["X-Total-Count"])
    return records


def read_day(session: requests.Session, start: dt.datetime, stop: dt.datetime, per_day: int) -> list[Record]:
    """Return the users with `start` <= updated_at < `stop`."""
    return read(session, updated_since=start - MICROSECOND, updated_before=stop, per_day=per_day)


def count(session: requests.Session, **params: object) -> int:
    return int(get(session, per_page=1, **params).headers["X-Total-Count"])


@cache
def read_history(session: requests.Session, per_day: int) -> list[list[Record]]:
    """Return the first two years of the population, one list of records per day."""
    days = [demo.START + n * DAY for n in range(2 * 365)]
    return [read_day(session, day, day + DAY, per_day) for day in days]


def by_user(records: list[Record]) -> dict[int, Record]:
    """Return the last record of each user."""
    return {int(record["id"]): record for record in records}


def is_rejected(record: Record) -> bool:
    """Return whether the record class of users must reject the record."""
    try:
        dt.datetime.fromisoformat(record["updated_at"])
    except ValueError:
        return True
    return not isinstance(record["id"], int) or "@" not in record.get("email", "@")


def is_wrong(record: Record) -> bool:
    """Return whether the record is irregular, rejected or not."""
    return is_rejected(record) or None in record.values() or "email" not in record or "newsletter" in record


@pytest.fixture(scope="module")
def history(session: requests.Session) -> list[list[Record]]:
    """Return two years of days at the default scale."""
    return read_history(session, 100)


def test_past_window_never_changes(session: requests.Session, program_clock: SimpleNamespace) -> None:
    """Body, links and total do not depend on the time of the request."""
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
def test_pages_contain_each_user_of_window_once(session: requests.Session, per_day: int) -> None:
    """Any page size gives the same records in the same order."""
    window = {"updated_since": LONG_AGO, "updated_before": LONG_AGO + DAY, "per_day": per_day}
    whole = get(session, per_page=10_000, **window).json()
    paged = read(session, per_page=max(1, per_day // 7), **window)
    assert paged[: len(whole)] == whole
    assert len(by_user(paged)) == len(paged) == per_day


def test_next_link_keeps_the_parameters(session: requests.Session) -> None:
    """The link is absolute and changes only the page number. The last page has none."""
    url = "demo://users?updated_since=2026-11-20T00:00:00Z&updated_before=2026-11-21T00:00:00Z&per_day=25&per_page=10"
    assert session.get(url).links["next"]["url"] == f"{url}&page=2"
    assert session.get(f"{url}&page=2").links["next"]["url"] == f"{url}&page=3"
    assert session.get(f"{url}&page=3").links == {}
    assert len(session.get(f"{url}&page=3").json()) == 5
    full = url.replace("per_page=10", "per_page=5")
    assert len(session.get(f"{full}&page=5").json()) == 5
    assert session.get(f"{full}&page=5").links == {}


def test_page_past_the_end_is_empty(session: requests.Session) -> None:
    """The response has status 200 and still declares the total."""
    response = get(session, updated_since="2026-11-20", updated_before="2026-11-21", page=10**12)
    assert response.json() == []
    assert response.links == {}
    assert response.headers["X-Total-Count"] == "100"


@settings(max_examples=max(20, EXAMPLES), deadline=None)
@given(
    per_day=st.sampled_from([1, 3, 17, 100, 1000, 1_000_000]),
    day=st.integers(0, 3900),
    cuts=st.lists(st.integers(0, 86_400_000_000 - 1), min_size=1, max_size=4),
)
def test_adjacent_windows_cover_a_day_exactly(
    session: requests.Session, per_day: int, day: int, cuts: list[int]
) -> None:
    """No change falls between two windows or into both."""
    start = demo.START + day * DAY
    edges = [start, *(start + cut * MICROSECOND for cut in sorted(cuts)), start + DAY]
    pieces = [
        count(session, updated_since=low - MICROSECOND, updated_before=high, per_day=per_day)
        for low, high in itertools.pairwise(edges)
    ]
    assert sum(pieces) == count(session, updated_since=start - MICROSECOND, updated_before=start + DAY, per_day=per_day)


@pytest.mark.slow
def test_window_excludes_bounds_and_snapshot_includes_as_of(session: requests.Session) -> None:
    """A change at T is neither after T nor before T. A snapshot as of T contains it."""
    changes = read_day(session, LONG_AGO, LONG_AGO + DAY, per_day=100)
    for change in (r for r in changes if not is_rejected(r)):
        at = dt.datetime.fromisoformat(change["updated_at"])
        assert change not in get(session, updated_since=at, updated_before=at + DAY).json()
        assert get(session, updated_since=at - MICROSECOND, updated_before=at + MICROSECOND).json() == [change]
        assert get(session, updated_since=at - MICROSECOND, updated_before=at).json() == []
        assert get(session, updated_since=at - MICROSECOND, as_of=at).json() == [change]
        assert get(session, updated_since=at - 2 * MICROSECOND, as_of=at - MICROSECOND).json() == []


@pytest.mark.slow
def test_no_change_falls_on_midnight_in_any_zone(session: requests.Session) -> None:
    """No `updated_at` is a whole quarter of an hour, so two exclusive bounds at midnight lose no change."""
    changes = read_day(session, LONG_AGO, LONG_AGO + DAY / 6, per_day=90_000)  # the hours of whole seconds
    assert not [r for r in changes if re.search(r":(00|15|30|45):00(\.0*)?Z", r["updated_at"])]


@pytest.mark.slow
@pytest.mark.parametrize("per_day", [3, 17])
def test_each_user_has_one_creation_and_four_changes(session: requests.Session, per_day: int) -> None:
    """Ids count up from 1 in the order of creation. The five records of a user fall on different days."""
    records = list(itertools.chain(*read_history(session, per_day)))
    ids = [int(record["id"]) for record in records]
    firsts = list(dict.fromkeys(ids))
    assert firsts == list(range(1, len(firsts) + 1))
    lives = Counter(ids)
    assert max(lives.values()) == 5
    assert {lives[user] for user in firsts[: len(firsts) // 5]} == {5}


@pytest.mark.slow
def test_each_change_is_visible_after_cleaning(history: list[list[Record]]) -> None:
    """Consecutive records of a user differ in the cleaned name, email or city."""
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
    assert changed > 30_000


@pytest.mark.slow
def test_changes_of_a_user_are_days_apart(history: list[list[Record]]) -> None:
    """Records are ordered by `updated_at`. Two records of one user are at least 47 hours apart."""
    times: dict[int, dt.datetime] = {}
    before = demo.START
    for record in itertools.chain(*history):
        if not is_rejected(record):
            now = dt.datetime.fromisoformat(record["updated_at"])
            assert now >= before
            assert now - times.get(record["id"], demo.START - 3 * DAY) > dt.timedelta(hours=47)
            times[record["id"]] = before = now


@pytest.mark.slow
@pytest.mark.parametrize("per_day", [1, 17, 100])
def test_snapshot_or_window_holds_last_change_of_each_user(session: requests.Session, per_day: int) -> None:
    """A snapshot as of T equals the last records of all days up to T, and a window of many days its single days."""
    draw = random.Random(per_day)
    history = read_history(session, per_day)
    for _ in range(4):
        first, last = sorted(draw.sample(range(2 * 365), 2))
        midnight = demo.START + last * DAY
        window = read_day(session, demo.START + first * DAY, midnight, per_day)
        as_of = midnight + draw.randrange(86_400_000_000) * MICROSECOND
        today = read_day(session, midnight, as_of + MICROSECOND, per_day)
        for found, days in (
            (read(session, as_of=as_of, per_day=per_day), [*history[:last], today]),
            (window, history[first:last]),
        ):
            expected = by_user([*itertools.chain(*days)])
            assert len(found) == len(expected)
            assert by_user(found) == expected


def test_large_snapshot_agrees_with_daily_windows(
    session: requests.Session,
) -> None:
    """At a million records a day, a user in the middle of a snapshot equals the record of its last change."""
    page = get(session, as_of=LONG_AGO, per_day=1_000_000, page=15_000, per_page=10_000).json()
    for record in random.Random(0).sample([r for r in page if not is_rejected(r)], 20):
        changed = dt.datetime.fromisoformat(record["updated_at"])
        instant = read_day(session, changed, changed + 1000 * MICROSECOND, per_day=1_000_000)
        assert record in instant


def test_future_changes_are_hidden(session: requests.Session, program_clock: SimpleNamespace) -> None:
    """Today grows with the clock, tomorrow is empty, and a future snapshot equals the present one."""
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
def test_pages_of_snapshot_show_one_instant(session: requests.Session, program_clock: SimpleNamespace) -> None:
    """Links fix the time of the first page, so changes between pages neither repeat nor hide users."""
    url = "demo://users?per_day=10&per_page=100&as_of=2031-01-01"
    records = []
    while url:
        response = session.get(url)
        records += response.json()
        url = response.links.get("next", {}).get("url", "")
        program_clock.now += dt.timedelta(hours=1)
    assert program_clock.now > NOW + 3 * DAY
    assert len(by_user(records)) == len(records) == int(response.headers["X-Total-Count"])
    assert records == read(session, as_of=NOW, per_day=10)


@pytest.mark.slow
def test_population_grows_as_documented(session: requests.Session, history: list[list[Record]]) -> None:
    """The first day has a fifth of the scale, each day since June 2017 all of it. Ten years give 73,060 users."""
    sizes = [len(day) for day in history]
    assert sizes[0] == 20
    assert set(sizes[517:]) == {100}
    assert count(session, as_of="2026-01-01") == 73_060
    assert count(session, as_of="2016-01-01") == 0
    assert count(session, updated_before="0001-01-01") == 0
    assert count(session, as_of="9999-12-31T23:59:59-05:00") == count(session)


@pytest.mark.slow
def test_half_a_percent_of_records_is_irregular(history: list[list[Record]]) -> None:
    """At most 2 % of a day are irregular. Half of them are rejected, and every week has rejects."""
    wrong = [sum(map(is_wrong, day)) for day in history]
    records = sum(map(len, history))
    assert 0.004 < sum(wrong) / records < 0.006
    assert max(n / len(day) for n, day in zip(wrong, history, strict=True) if len(day) >= 50) <= 0.02
    rejected = [sum(map(is_rejected, day)) for day in history]
    assert all(sum(rejected[n : n + 7]) for n in range(517, len(history) - 7))
    assert 0.4 < sum(rejected) / sum(wrong) < 0.6


@pytest.mark.parametrize("per_day", [218, 253, 281, 323, 359, 500, 1013])
def test_each_scale_limits_irregular_records_per_day(session: requests.Session, per_day: int) -> None:
    """The limit of 2 % holds for the small first days too."""
    for n in range(25):
        day = read_day(session, demo.START + n * DAY, demo.START + (n + 1) * DAY, per_day)
        assert len(day) < 50 or sum(map(is_wrong, day)) / len(day) <= 0.02


@pytest.mark.slow
def test_every_documented_irregularity_occurs(history: list[list[Record]]) -> None:
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
    assert all(len(records) > 10 for records in ways.values())
    assert sum(map(len, ways.values())) == len(wrong)


def test_id_as_text_occurs_only_in_last_record(history: list[list[Record]]) -> None:
    """No regular record of the user follows a record with the id as text."""
    records = list(itertools.chain(*history))
    texts = {r["id"]: r for r in records if isinstance(r["id"], str)}
    assert len(texts) > 10
    assert texts == {r["id"]: r for r in by_user(records).values() if isinstance(r["id"], str)}


def test_records_resemble_a_real_api(session: requests.Session) -> None:
    """A record is compact JSON of 180 to 460 bytes, with values that need cleaning."""
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


@pytest.mark.parametrize("time", ["", "T00:00:00", "T00:00:00.000Z", "T00:00:00%2B00:00", "T01:00%2B01:00"])
def test_times_accept_any_form_of_iso_8601(session: requests.Session, time: str) -> None:
    """The same instant gives the same response in each form."""
    plain = session.get("demo://users?updated_since=2026-11-20T00:00:00Z").json()
    assert len(plain) > 200
    assert session.get(f"demo://users?updated_since=2026-11-20{time}").json() == plain


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
def test_invalid_parameter_is_a_bad_request(session: requests.Session, query: str, named: str) -> None:
    """The JSON error names the parameter or the value."""
    response = session.get(f"demo://users?{query}")
    assert (response.status_code, response.reason) == (400, "Bad Request")
    assert response.headers["Content-Type"] == "application/json"
    assert named in response.json()["error"]
    assert "X-Total-Count" not in response.headers


@pytest.mark.parametrize(
    "url", ["demo://orders", "demo://users/7", "demo://user", "demo:///users", "demo://users.example"]
)
def test_unknown_host_or_path_is_not_found(session: requests.Session, url: str) -> None:
    """The JSON error lists the valid ones."""
    response = session.get(url)
    assert response.status_code == 404
    assert "demo://users" in response.json()["error"]


def test_users_allow_only_get(session: requests.Session) -> None:
    assert session.post("demo://users", json={}).status_code == 405


def test_response_can_be_streamed(session: requests.Session) -> None:
    """The body is read on demand: whole, in pieces or raw. The headers declare length and type."""
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


def test_date_header_follows_the_programs_clock(session: requests.Session, program_clock: SimpleNamespace) -> None:
    """Errors have the header too."""
    program_clock.now = LONG_AGO
    for url in ("demo://users?per_page=1", "demo://orders"):
        assert parsedate_to_datetime(session.get(url).headers["Date"]) == LONG_AGO


@pytest.mark.slow
def test_any_page_of_a_large_population_is_fast(session: requests.Session) -> None:
    """Any page of a large day, and of a large snapshot, costs little more than a page of a small population."""

    def measure(**params: object) -> float:
        began = time.process_time()
        assert len(get(session, per_page=10_000, **params).json()) == 10_000
        return time.process_time() - began

    window = {"updated_since": NOW - 2 * DAY, "updated_before": NOW - DAY}
    for params, pages in ((window, (1, 50, 100)), ({"as_of": NOW - DAY}, (1, 100, 40_000, 79_000))):
        small = min(measure(per_day=10_000, **params) for _ in range(2))
        for page in pages:
            assert measure(per_day=1_000_000, page=page, **params) < 5 * small
    assert count(session, per_day=1_000_000, **window) == 1_000_000


@pytest.mark.slow
def test_memory_is_bounded_by_page_size(session: requests.Session) -> None:
    """A page of ten thousand out of a million records takes a few times its own size."""
    params = {"per_day": 1_000_000, "per_page": 10_000, "updated_since": NOW - 2 * DAY, "updated_before": NOW - DAY}
    get(session, page=1, **params)
    tracemalloc.start()
    try:
        get(session, page=90, **params)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000
