"""Test with random sources that an extraction gets all users or fails, and never gets only some of them.

Some losses no client can detect. `find_excuse` names them, and the tests accept only these.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from pipeline.users import USERS
from tests.support.histories import EXAMPLES
from tests.support.reading import DAY, People
from tests.support.server import Answer, Request, Server
from tests.support.sources import FATAL, ORDERS, PASSING, POINTERS, POSITIONS, Listing, Step
from wholeday.config.pipeline import Pipeline
from wholeday.errors import SourceError
from wholeday.extract.http import retries
from wholeday.extract.reader import Reader
from wholeday.schema.census import Census
from wholeday.schema.raw_fields import FieldReader
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.timeout(120 + EXAMPLES)
ENOUGH = 400  # requests; an extraction that needs more is endless

KINDS = ("single", "last_id", *POINTERS, *POSITIONS)
LOSSES = ("skip", "forget")
FAULTS = (*PASSING, *PASSING, *FATAL, "repeat", "ignore", *LOSSES)
MOVES = ("create", "change", "delete")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)


@st.composite
def listings(
    draw: st.DrawFn, moves: tuple[str, ...] = MOVES, faults: tuple[str, ...] = FAULTS, **fixed: Any
) -> Listing:
    """Draw a source whose list moves and fails in these ways, with the given traits."""
    # Sampled, because Hypothesis prefers small numbers, and a list of one page is too simple.
    step = st.builds(Step, st.sampled_from(range(1, 7)), st.sampled_from(moves or MOVES), st.sampled_from(range(60)))
    count = draw(st.sampled_from(range(61)))
    traits: dict[str, Any] = {
        "kind": draw(st.sampled_from(KINDS)),
        "count": count,
        "size": draw(st.sampled_from(range(1, 13))),
        "order": draw(st.sampled_from(list(ORDERS))),
        "keyset": draw(st.booleans()),
        "total": draw(st.sampled_from(["", "field", "header"])),
        "more": draw(st.booleans()),
        "hidden": draw(st.just(frozenset()) | st.frozensets(st.integers(1, max(1, count)), max_size=20)),
        "drift": draw(st.lists(step, max_size=4)) if moves else (),
        "faults": draw(st.just({}) | st.dictionaries(st.integers(0, 7), st.sampled_from(faults), max_size=3)),
        **fixed,
    }
    if traits["kind"] == "last_id":
        traits |= {"order": "id", "keyset": True}
    return Listing(**traits)


def read_ids(server: Server, listing: Listing, **keys: Any) -> set[int] | str:
    """Extract the list. Return the IDs of its users, or the error line."""

    def respond(request: Request) -> Answer:
        return listing.respond(request) if listing.asked < ENOUGH else Answer(status=404)

    server.requests.clear()
    source = People(url=server.on("/users", respond), retries=4, **keys)
    reading = Reader(source, DAY, None, Census([FieldReader("id")]))
    try:
        ids = {json.loads(bytes(record))["id"] for page in list(reading) for record in page}
    except SourceError as error:
        assert listing.asked < ENOUGH, "the reading does not end"
        return str(error)
    return ids


def find_excuse(listing: Listing) -> str:
    """Explain why no client can detect missing users. Return an empty text if a client can."""
    faults, moves = set(listing.faults.values()), {step.what for step in listing.drift}
    overlaps = listing.kind.startswith("offset") and listing.size > 1
    positional = (listing.kind in POSITIONS and not overlaps) or (listing.kind in POINTERS and not listing.keyset)
    shifts = positional and bool(moves & {"change", "delete"})
    jumps = listing.order == "newest" and "change" in moves
    if listing.total == "field" or (listing.total and listing.kind != "single"):
        lost = shifts or jumps or faults & {*LOSSES}
        return "the total grew by as many as were lost" if lost and "create" in moves else ""
    if "skip" in faults:
        return "a page is left out, and nothing counts"
    if "forget" in faults and not listing.more:
        return "the pointer to the next page is left out, and nothing counts or announces more"
    if shifts:
        return "users move up to places that were read, and nothing counts"
    if jumps:
        return "users move to the front, which was read, and nothing counts"
    if listing.hidden and not listing.more and listing.kind in (*POSITIONS, "last_id"):
        return "an empty page is the end, where nothing says otherwise"
    return ""


def judge(listing: Listing, ids: set[int] | str, excuse: str) -> None:
    """Check that no user is missing without an excuse and no user is invented, unless the day failed."""
    if isinstance(ids, str):
        event("failed")
        return
    assert ids <= listing.ever
    event("whole" if listing.steady <= ids else f"some users are missing: {excuse}")
    assert listing.steady <= ids or excuse


@pytest.mark.sweep
@SETTINGS
@given(listing=listings(), concurrency=st.sampled_from([1, 2, 4, 16]))
def test_all_users_arrive_or_the_day_fails(server: Server, listing: Listing, concurrency: int) -> None:
    """Users listed during the whole extraction arrive, also with several requests at a time. No others are invented."""
    judge(listing, read_ids(server, listing, concurrency=concurrency, **listing.keys), find_excuse(listing))


DAYS = count()


@pytest.mark.sweep
@settings(SETTINGS, max_examples=EXAMPLES // 2)
@given(listing=listings(), part_records=st.sampled_from([3, 10, 1000]))
def test_marker_means_all_users_are_loaded(
    server: Server, configure: Callable[..., None], listing: Listing, part_records: int
) -> None:
    """G9: the same property for all stages. A failed day has no raw files and no marker."""
    folder = f"day-{next(DAYS)}"
    configure("pipeline", data_dir=folder, database=f"sqlite:///{folder}/warehouse.db")
    configure("pipeline", part_records=part_records, engine_workers=1)
    configure("users", **listing.section, url=server.on("/users", listing.respond), retries=4)
    ids: set[int] | str
    try:
        stages.extract(read_workspace(USERS), DAY)
    except SourceError as error:
        ids = str(error)
        assert not read_workspace(USERS).folder("raw", DAY).exists()
    else:
        stages.transform(read_workspace(USERS), DAY)
        stages.load(read_workspace(USERS), DAY)
        with closing(sqlite3.connect(f"{folder}/warehouse.db")) as db:
            ids = {user for (user,) in db.execute("select user_id from users")}
    assert LoadMarker(Pipeline().database, USERS.name, DAY).exists() == (not isinstance(ids, str))
    judge(listing, ids, find_excuse(listing))


@pytest.mark.sweep
@SETTINGS
@given(listing=listings(moves=()))
def test_auto_paginator_gets_all_users_or_fails(server: Server, listing: Listing) -> None:
    """The client knows the paging only from the first page."""
    keys = {"method": "POST", "body": {"sort": "id"}} if listing.kind == "body" else {}
    silent = not (listing.total or listing.more or listing.kind in POINTERS)
    excuse = "nothing in the first page announces more" if silent else find_excuse(listing)
    judge(listing, read_ids(server, listing, **keys), excuse)


@pytest.mark.sweep
@SETTINGS
@given(listing=listings(moves=(), faults=tuple(PASSING)))
def test_stable_source_with_passing_faults_is_complete(server: Server, listing: Listing) -> None:
    """No false alarm: a retry succeeds, and short or empty pages with a pointer do not end the list."""
    assume(listing.kind in POINTERS or not listing.hidden)
    assert read_ids(server, listing, **listing.keys) == listing.steady


@pytest.mark.sweep
@SETTINGS
@given(listing=listings(faults=tuple(PASSING), order="id", keyset=True, total="", more=False))
def test_keyset_paging_is_complete_in_a_changing_list(server: Server, listing: Listing) -> None:
    """No false alarm: users may be created, changed and deleted before and after the cursor."""
    assume(listing.kind in POINTERS)
    ids = read_ids(server, listing, **listing.keys)
    assert listing.steady <= set(ids) <= listing.ever


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link_header", "next_url", "query", "page1", "offset0"])
def test_endlessly_repeated_users_fail(server: Server, kind: str) -> None:
    """A timestamp in each record or a new cursor each time does not make a new page."""
    listing = Listing(kind, count=5, size=2, volatile=True, faults={0: "ignore"})
    line = str(read_ids(server, listing, **listing.keys))
    assert "the source repeats itself" in line


def test_new_user_does_not_hide_a_missed_one(server: Server) -> None:
    """With page numbers, a deletion moves an unread user to a page already read. Then a new user restores the total."""
    drift = [Step(1, "delete", 0), Step(2, "create", 0)]
    listing = Listing("page1", count=10, size=3, total="header", drift=drift)
    line = str(read_ids(server, listing, **listing.keys))
    assert "the source declared 10 records, and now 9: its list became shorter during the extraction" in line


def test_auto_paginator_detects_a_shrinking_total(server: Server) -> None:
    """A deletion moves an unread user to a page already read, and the total shrinks."""
    listing = Listing("next_url", count=5, size=2, keyset=False, total="field", drift=[Step(1, "delete", 0)])
    assert "declare" in str(read_ids(server, listing))


@pytest.mark.parametrize("fault", ["html", "error", "500", "cut"])
def test_failed_second_page_does_not_end_the_overlap(server: Server, fault: str) -> None:
    """Only a refusal means that the source knows no such offset. Meanwhile a deletion has moved the list."""
    listing = Listing("offset0", count=3, size=2, drift=[Step(1, "delete", 0)], faults={1: fault})
    assert read_ids(server, listing, **listing.keys) == {1, 2, 3}
