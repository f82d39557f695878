"""An interrupted extraction resumes after its last stored page, or says why it restarts."""

import datetime as dt
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from pipeline.users import USERS
from tests.support.histories import EXAMPLES
from tests.support.project import dump_tree, luigi_run, start
from tests.support.reading import DAY
from tests.support.server import Answer, Request, Server
from tests.support.sources import POINTERS, POSITIONS, Listing, Step
from wholeday import clock
from wholeday.errors import OutageError, QualityError, SourceError
from wholeday.extract.http import retries
from wholeday.extract.http.client import AnswerError
from wholeday.extract.reader import AHEAD, WrongSourceError
from wholeday.storage.day_folder import CHECKPOINTS
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]
KILLS = int(os.environ.get("PIPELINE_KILLS", "4"))
FORK = multiprocessing.get_context("fork")


class Flaky:
    """A listing that fails from a given request on, until it is repaired."""

    def __init__(self, server: Server, listing: Listing, broken_at: int | None = None) -> None:
        self.listing, self.broken_at = listing, broken_at
        self.trouble = Answer(status=503)
        self.url = server.on("/users", self._respond)
        self._server = server

    def mend(self) -> None:
        self.broken_at = None
        self._server.requests.clear()

    def _respond(self, request: Request) -> Answer:
        if self.broken_at is not None and self.listing.asked >= self.broken_at:
            return self.trouble
        return self.listing.respond(request)


@pytest.fixture(autouse=True)
def folder(configure: Configure) -> Path:
    """Return the raw folder of the day. Parts hold four records."""
    configure("pipeline", part_records=4)
    return read_workspace(USERS).folder("raw", DAY).path


def set_source(configure: Configure, source: Flaky, **keys: Any) -> None:
    """Configure the users' section for a source, without retries."""
    configure("users", **source.listing.section | {"url": source.url, "retries": 0} | keys)


def break_off(server: Server, configure: Configure, broken_at: int = 5, **keys: Any) -> Flaky:
    """Interrupt an extraction of 20 users in pages of three at page six, and return its repaired source."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at)
    set_source(configure, source, **keys)
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    source.mend()
    return source


def read_manifest() -> RawManifest:
    return read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)


def read_ids() -> list[int]:
    folder = read_workspace(USERS).folder("raw", DAY)
    return [json.loads(line)["id"] for part in read_manifest().parts for line in unpack(folder.read(part))]


def test_interrupted_extraction_resumes_after_its_last_page(server, configure, folder, caplog):
    """Only the last stored page is requested again. The day keeps the time of its first request."""
    caplog.set_level(logging.INFO, "luigi-interface")
    before = clock.utc_now()
    break_off(server, configure)
    broken_off = clock.utc_now()
    assert sorted(path.name for path in folder.iterdir()) == [f"part-{n:05d}.jsonl.gz" for n in range(4)] + [
        CHECKPOINTS
    ]
    parts = {path.name: path.read_bytes() for path in folder.glob("part-0000[012]*")}
    stages.extract(read_workspace(USERS), DAY)
    # Page five was the last one that came. Pages six and seven follow.
    assert [json.loads(request.query["after"])[1][1] for request in server.requests] == [12, 15, 18]
    assert "resuming the interrupted extraction after 15 records" in caplog.text
    manifest = read_manifest()
    assert before <= manifest.started_at <= broken_off < manifest.extracted_at
    assert manifest.as_of == manifest.started_at - dt.timedelta(minutes=15)
    assert (manifest.pages, manifest.records, manifest.keys) == (7, 20, 20)
    assert read_ids() == list(range(1, 21))
    assert {name: (folder / name).read_bytes() for name in parts} == parts
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *(f"part-{n:05d}.jsonl.gz" for n in range(5)),
    ]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_killed_extraction_resumes(server):
    """After SIGKILL during a request, the next run starts from the last page that came."""
    listing, arrived, go = Listing("link_header", count=20, size=3), threading.Event(), threading.Event()

    def respond(request: Request) -> Answer:
        if listing.asked == 5 and not go.is_set():
            arrived.set()
            go.wait(30)
        return listing.respond(request)

    flags = ("--users-url", server.on("/users", respond), "--pipeline-part-records", "4")
    command = start("luigi", "--module", "pipeline", "ExtractUsers", "--date", str(DAY), *flags)
    assert arrived.wait(30)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    go.set()
    began = json.loads(Path(f"data/raw/users/date={DAY}", CHECKPOINTS).read_bytes().splitlines()[0])["started_at"]
    server.requests.clear()
    again = luigi_run("ExtractUsers", "--date", str(DAY), *flags)
    assert again.returncode == 0, again.stderr
    assert "extraction after 15 records" in again.stdout or "extraction after 12 records" in again.stdout
    assert len(server.requests) in (3, 4)  # page five may have come, and not be stored yet
    assert read_manifest().started_at == dt.datetime.fromisoformat(began)
    assert read_ids() == list(range(1, 21))


def renew(source: Flaky) -> None:
    """Change every user."""
    source.listing.users |= dict.fromkeys(range(1, 21), 99)


def refuse(status: int) -> Callable[[Flaky], None]:
    """Return a change that makes the source refuse older pointers."""

    def change(source: Flaky) -> None:
        old, respond = source.listing.asked, source.listing.respond

        def refuse_old(request: Request) -> Answer:
            is_old = "after" in request.query and json.loads(request.query["after"])[0] <= old
            return Answer(status=status) if is_old else respond(request)

        source.listing.respond = refuse_old  # type: ignore[method-assign]

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [(renew, "has other records than before"), *((refuse(status), str(status)) for status in (400, 404, 410))],
    ids=["other records", "400", "404", "410"],
)
def test_moved_source_restarts_the_extraction(server, configure, caplog, change, why):
    """The log says why. The parts of the interrupted extraction are removed."""
    caplog.set_level(logging.INFO, "luigi-interface")
    source = break_off(server, configure)
    change(source)
    between = clock.utc_now()
    stages.extract(read_workspace(USERS), DAY)
    assert any(why in line and "restarting" in line for line in caplog.messages)
    assert len(server.requests) == 1 + 7
    assert read_manifest().started_at >= between
    assert read_ids() == list(range(1, 21))


def test_declared_total_survives_an_interruption(server, configure):
    """Only the first page declares the total. A resumed extraction still detects a missing record."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=5)
    respond = source.listing.respond

    def declare_once(request: Request) -> Answer:
        answer = respond(request)
        extra = {} if "after" in request.query else {"meta": {"total": 20}}
        return Answer({**answer.body, **extra, **({"next": None} if len(answer.body["data"]) == 2 else {})})

    source.listing.respond = declare_once  # type: ignore[method-assign]
    set_source(configure, source, total_path="meta.total")
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    source.mend()
    source.listing.hidden = frozenset({20})
    with pytest.raises(SourceError, match="the source declares 20 records, and 19 came"):
        stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 3


def test_repetition_is_detected_across_an_interruption(server, configure):
    """The second run recognizes a page of the first one."""
    source = break_off(server, configure)
    respond, first = source.listing.respond, [{"id": number, "version": number} for number in (1, 2, 3)]

    def end_with_the_first(request: Request) -> Answer:
        answer = respond(request)
        return answer if answer.body.get("next") else Answer({"data": first})

    source.listing.respond = end_with_the_first  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="has the same records as an earlier page: the source repeats itself"):
        stages.extract(read_workspace(USERS), DAY)


def test_restarted_extraction_resumes_too(server, configure):
    source = break_off(server, configure)
    renew(source)
    source.broken_at = source.listing.asked + 1 + 6
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 2  # page six again, and the last one
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        *(("users", "params", '{"team": 7}'), ("users", "deleted_when", "gone"), ("users", "mode", "snapshot")),
        *(("users", "min_records", "2"), ("pipeline", "part_records", "5")),
    ],
)
def test_changed_request_restarts_the_extraction(server, configure, section, key, value):
    """A day never mixes parts of different requests or sizes: every part except the last is full."""
    break_off(server, configure)
    configure(section, **{key: value})
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 7
    assert {part.records for part in read_manifest().parts} == {int(value) if section == "pipeline" else 4}


@pytest.mark.parametrize(
    "keys", [{"retries": 3}, {"timeout": 7}, {"requests_per_second": 1000}, {"auth": "bearer:A_TOKEN"}], ids=str
)
def test_changed_client_settings_keep_the_checkpoint(server, configure, monkeypatch, keys):
    """A user may raise a timeout or replace a token to finish an interrupted extraction."""
    monkeypatch.setenv("A_TOKEN", "t0k3n")
    break_off(server, configure)
    configure("users", **keys)
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 3


def test_changed_watermark_restarts_the_extraction(server, configure, monkeypatch):
    """A load of another day moves the watermark, so the source is asked for other changes."""
    marks = iter([dt.datetime(2026, 10, day, tzinfo=dt.UTC) for day in (18, 19)])
    monkeypatch.setattr("wholeday.load.warehouse.Warehouse.watermark_before", lambda *_: next(marks))
    break_off(server, configure, params='{"since": "{watermark}"}')
    stages.extract(read_workspace(USERS), DAY)
    assert [request.query["since"] for request in server.requests] == ["2026-10-18T23:59:59Z"] * 7


@pytest.mark.parametrize(("hours", "requests"), [(23, 3), (24, 7), (-1, 7)])
def test_checkpoint_expires_after_a_day(server, configure, monkeypatch, hours, requests):
    """The first records would be too old to combine with the last ones. A clock set back expires it as well."""
    with monkeypatch.context() as patch:
        then = clock.utc_now() - dt.timedelta(hours=hours)
        patch.setattr(clock, "utc_now", lambda: then)
        break_off(server, configure, settle="2 days")
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == requests
    assert (read_manifest().started_at == then) == (requests == 3)


def test_day_that_fails_a_gate_is_not_resumed(server, configure, folder):
    """After a quality gate fails, the next run requests all pages again."""
    source = Flaky(server, Listing("query", count=20, size=3))
    set_source(configure, source, min_records="21")
    for _ in range(2):
        server.requests.clear()
        with pytest.raises(QualityError, match="min_records"):
            stages.extract(read_workspace(USERS), DAY)
        assert len(server.requests) == 7
        assert not list(folder.iterdir())


ODD = {
    "empty body": Answer(""),
    "HTML": Answer("<html>one moment please</html>"),
    "error": Answer({"error": "temporarily unavailable"}),
    "weak error": Answer({"data": None, "status": "error"}),
    "no list": Answer({"page": 6}),
    "another body": Answer([{"id": 1}]),
    "no JSON": Answer("Service down"),
    **{str(status): Answer(status=status) for status in (202, 204, 400, 404, 405, 409, 410, 418, 423)},
}
REFUSALS = ("error", "weak error", "400", "404", "410")  # of the first request: the pointer may be too old
EXPIRED = {str(status): Answer(status=status) for status in (401, 403)}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ODD.values(), ids=ODD)
def test_odd_answer_is_retried(server, configure, monkeypatch, trouble):
    """An odd answer after the first page costs one more request."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    listing, odd = Listing("query", count=20, size=3), [trouble]
    set_source(configure, Flaky(server, listing), retries=1)
    server.on("/users", lambda request: odd.pop() if listing.asked == 5 and odd else listing.respond(request))
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 8
    assert read_ids() == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD | EXPIRED)
def test_odd_answer_that_persists_is_an_outage(server, configure, folder, name):
    """The finished parts are kept. The next run resumes from the page where the last part ended, even after two runs
    that failed. So it does after expired credentials."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=5)
    source.trouble = (ODD | EXPIRED)[name]
    set_source(configure, source)
    expected, words = (SourceError, name) if name in EXPIRED else (OutageError, "failed after 1 attempt")
    for _ in range(1 if name in REFUSALS else 2):
        with pytest.raises(expected, match=words):
            stages.extract(read_workspace(USERS), DAY)
    assert (folder / CHECKPOINTS).exists()
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 3
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("trouble", ODD.values(), ids=ODD)
def test_odd_first_page_fails_at_once(server, configure, trouble):
    """No records are lost, and a first run should report a wrong configuration without delay."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=0)
    source.trouble = trouble
    set_source(configure, source, retries=3)
    with pytest.raises(AnswerError):
        stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 1


def test_resumed_extraction_requests_only_remaining_pages(server, configure):
    """The first run fails at page 50 of 61. The second run requests pages 49 to 61."""
    broken = Answer({"error": "temporarily unavailable"})

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        users = [{"id": page * 10 + number} for number in range(10 if page <= 60 else 0)]
        return broken if page == 50 and broken else Answer(users)

    configure("pipeline", part_records=50)
    configure("users", url=server.on("/users", respond), paginator="page", retries=0, data_selector="auto")
    configure("users", concurrency=1)
    with pytest.raises(OutageError, match="page=50"):
        stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 50
    broken, server.requests[:] = None, []
    stages.extract(read_workspace(USERS), DAY)
    assert [int(request.query["page"]) for request in server.requests] == list(range(49, 62))
    assert read_ids() == list(range(10, 610))


def test_empty_page_before_declared_total_is_retried(server, configure, monkeypatch):
    """The source declares more users than it has sent."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    listing, empty = Listing("page1", count=20, size=3, total="field"), [True]

    def respond(request: Request) -> Answer:
        answer = listing.respond(request)
        return Answer(answer.body | {"data": []}) if request.query["page"] == "4" and empty and empty.pop() else answer

    set_source(configure, Flaky(server, listing), retries=1)
    server.on("/users", respond)
    stages.extract(read_workspace(USERS), DAY)
    assert read_ids() == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["page1", "offset0", "query", "link_header"])
@pytest.mark.parametrize("total", [20, 0, None])
def test_empty_page_that_persists_is_an_outage(server, configure, kind, total):
    """The total of the empty page itself is ignored. The next run resumes before that page."""
    listing = Listing(kind, count=20, size=3, total="field")
    source = Flaky(server, listing)
    respond = listing.respond

    def empty(request: Request) -> Answer:
        answer = respond(request)
        if {"id": 10, "version": 10} not in answer.body["data"]:
            return answer
        return Answer({"data": [], "meta": {} if total is None else {"total": total}})

    listing.respond = empty  # type: ignore[method-assign]
    set_source(configure, source, total_path="meta.total")
    with pytest.raises(OutageError, match="the source declares 20 records"):
        stages.extract(read_workspace(USERS), DAY)
    listing.respond = respond  # type: ignore[method-assign]
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == (7 if kind == "offset0" else 5)  # from page three on; offsets overlap
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("everywhere", [True, False], ids=["each page", "first page"])
def test_shrunken_list_is_extracted_again(server, configure, everywhere):
    """A user is deleted during the first run, so the declared total is too high. The next run succeeds."""
    listing = Listing("last_id", count=20, size=3, total="field", drift=[Step(3, "delete", 19)])
    source = Flaky(server, listing)
    respond = listing.respond

    def declare(request: Request) -> Answer:
        answer = respond(request)
        return answer if everywhere or "since" not in request.query else Answer({"data": answer.body["data"]})

    listing.respond = declare  # type: ignore[method-assign]
    set_source(configure, source, total_path="meta.total")
    with pytest.raises(SourceError, match="the source declares 20 records"):
        stages.extract(read_workspace(USERS), DAY)
    stages.extract(read_workspace(USERS), DAY)
    assert read_ids() == list(range(1, 20))


def test_repeated_page_is_retried(server, configure, monkeypatch):
    """A cache may answer with the page before. If the repetition persists, it is a cycle, and no part is kept."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    listing = Listing("page1", count=20, size=3)

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        return listing.respond(
            replace(request, query={"page": str(page - (page == 5 and bool(stale) and stale.pop()))})
        )

    for stale in ([True], [True] * 3):
        set_source(configure, Flaky(server, listing), retries=1)
        server.on("/users", respond)
        if len(stale) == 1:
            stages.extract(read_workspace(USERS), DAY)
            assert read_ids() == list(range(1, 21))
            read_workspace(USERS).folder("raw", DAY).path.joinpath("manifest.json").unlink()
        else:
            with pytest.raises(WrongSourceError, match=r"has the same records as page 4.*set end_when = repeated_page"):
                stages.extract(read_workspace(USERS), DAY)
            assert not list(read_workspace(USERS).folder("raw", DAY).path.iterdir())


def test_truncated_checkpoints_are_used_up_to_the_cut(server, configure, folder):
    """A crash in the middle of a line loses the page of that line. Later checkpoints stay readable."""
    source = break_off(server, configure)
    file = folder / CHECKPOINTS
    file.write_bytes(file.read_bytes()[:-20])
    source.broken_at = source.listing.asked + 3
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    assert [json.loads(request.query["after"])[1][1] for request in server.requests][:2] == [9, 12]
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 2
    assert read_ids() == list(range(1, 21))


def replace_in_checkpoints(old: bytes, new: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / CHECKPOINTS).write_bytes((folder / CHECKPOINTS).read_bytes().replace(old, new, 1))


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_lost_open_part_costs_only_its_pages(server, configure, folder, damage):
    """A power cut may take what was written last. Finished parts were on the disk before."""
    break_off(server, configure)
    part = folder / "part-00003.jsonl.gz"  # records 13 to 15, not finished
    content = part.read_bytes()
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(content[:-3] + (b"" if damage == "cut" else b"???"))
    stages.extract(read_workspace(USERS), DAY)
    assert [json.loads(request.query["after"])[1][1] for request in server.requests] == [9, 12, 15, 18]
    assert read_ids() == list(range(1, 21))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a cut part": lambda folder: (folder / "part-00001.jsonl.gz").write_bytes(b"\x1f\x8b"),
    "a missing part": lambda folder: (folder / "part-00001.jsonl.gz").unlink(),
    "a flipped bit in the first line": replace_in_checkpoints(b'["', b'["\xff'),
    "a flipped bit in a part": replace_in_checkpoints(b'"part-', b'"\xf0art-'),
    "bytes of zero": replace_in_checkpoints(b'"part-', b"\0" * 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_restart_the_extraction(server, configure, folder, damage):
    """The source still has all records, so no manual repair is needed."""
    break_off(server, configure)
    DAMAGES[damage](folder)
    stages.extract(read_workspace(USERS), DAY)
    assert "after" not in server.requests[0].query
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("signed", [range(20), [1]], ids=["every link", "the first link"])
def test_secret_in_a_pointer_is_not_stored(server, configure, monkeypatch, caplog, signed):
    """An extraction cannot resume after a page whose link contains a secret."""
    caplog.set_level(logging.INFO, "luigi-interface")
    monkeypatch.setenv("API_KEY", "s3cr3t-k3y")
    listing = Listing("query", count=20, size=3)

    def respond(request: Request) -> Answer:
        answer = listing.respond(request)
        cursor = answer.body.get("next")
        link = f"/users?after={cursor}" + (f"&sign={request.query['key']}" if listing.asked in signed else "")
        return Answer({"data": answer.body["data"], "next": cursor and link})

    set_source(configure, Flaky(server, listing), auth="query:key:API_KEY", paginator="next_url")
    server.on("/users", lambda request: respond(request) if listing.asked < 5 else Answer(status=503))
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    assert b"s3cr3t" not in b"".join(dump_tree(".").values())
    server.on("/users", respond)
    server.requests.clear()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 7
    assert "no further checkpoints, as a link looks as if it held a secret" in caplog.text
    assert read_ids() == list(range(1, 21))
    assert b"s3cr3t" not in b"".join(dump_tree(".").values())


def test_skiptoken_pointer_is_not_a_secret(server, configure):
    """Microsoft's APIs call the pointer a token. An extraction by such links can resume."""
    listing = Listing("query", count=20, size=3)

    def respond(request: Request) -> Answer:
        token = request.query.get("$skiptoken")
        answer = listing.respond(replace(request, query={"after": token} if token else {}))
        cursor = answer.body.get("next")
        return Answer({"data": answer.body["data"], "next": cursor and f"/users?$skiptoken={cursor}"})

    set_source(configure, Flaky(server, listing), paginator="next_url")
    server.on("/users", lambda request: respond(request) if listing.asked < 5 else Answer(status=503))
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    server.on("/users", respond)
    server.requests.clear()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 3
    assert read_ids() == list(range(1, 21))


FOLDERS = count()


def extract_files() -> dict[str, bytes] | str:
    """Extract the day. Return its parts, or "an outage" or "an error" if the extraction fails."""
    try:
        stages.extract(read_workspace(USERS), DAY)
    except SourceError as error:
        return "an outage" if "503" in str(error) else "an error"
    return {path.name: path.read_bytes() for path in read_workspace(USERS).folder("raw", DAY).path.glob("part-*")}


@pytest.mark.sweep
@pytest.mark.timeout(120 + EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["last_id", *POINTERS, *POSITIONS]),
    shape=st.fixed_dictionaries(
        {
            "count": st.sampled_from(range(1, 41)),
            "size": st.sampled_from(range(1, 8)),
            "total": st.sampled_from(["", "field", "header"]),
            "more": st.booleans(),
        }
    ),
    part_records=st.sampled_from(range(1, 13)),
    breaks=st.lists(st.sampled_from(range(1, 12)), max_size=3),
    keys=st.fixed_dictionaries({}, optional={"requests_per_second": st.just(10**6), "paginator": st.just("auto")}),
)
def test_interruptions_do_not_change_the_files(
    server: Server,
    configure: Configure,
    kind: str,
    shape: dict[str, Any],
    part_records: int,
    breaks: list[int],
    keys: dict[str, Any],
) -> None:
    """Interrupted and uninterrupted extractions write the same bytes."""
    assume(keys.get("paginator") != "auto" or kind not in ("body", "header"))
    results = []
    for disturbed in (False, True):
        configure("pipeline", data_dir=f"data-{next(FOLDERS)}", part_records=part_records)
        source = Flaky(server, Listing(kind, **shape))
        set_source(configure, source, **keys)
        result: object = "an outage"
        for further in breaks if disturbed else []:
            source.broken_at = source.listing.asked + further
            result = extract_files()
            event(f"broken off: {result == 'an outage'}")
            if result != "an outage":
                break
        source.mend()
        results.append(extract_files() if result == "an outage" else result)
    assert results[0] == results[1]


@pytest.mark.sweep
@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("split", [1, 6])
def test_kills_do_not_change_the_files(server: Server, configure: Configure, split: int) -> None:
    """Killed at random requests and resumed with another concurrency: the same bytes.

    Of a day in one window, only the last stored page and the pages that were requested ahead are requested again.
    """
    dice, pages, victim = random.Random(KILLS), 60, [0]
    doomed = threading.Event()
    start = dt.datetime.combine(DAY, dt.time(), dt.UTC)

    def respond(request: Request) -> Answer:
        if victim[0] and dice.random() < 0.1 and not doomed.is_set():
            doomed.set()
            os.kill(victim[0], signal.SIGKILL)
        hours = [
            (dt.datetime.fromisoformat(request.query[name]) - start) / dt.timedelta(hours=1) for name in ("low", "high")
        ]
        first, last = (max(0, round(hour * 60 * pages / 24 / 60)) for hour in hours)
        page = int(request.query["page"])
        numbers = range(first * 3, last * 3)[(page - 1) * 3 : page * 3]
        total = {"X-Total-Count": str((last - first) * 3)}
        return Answer([{"id": number} for number in numbers], headers=total)

    configure("pipeline", part_records=20)
    bounds = {"low": "{day_start:%Y-%m-%dT%H:%M:%S.%f+00:00}", "high": "{day_stop:%Y-%m-%dT%H:%M:%S.%f+00:00}"}
    configure("users", url=server.on("/users", respond), params=json.dumps(bounds), paginator="page", split=split)
    configure("users", mode="incremental", data_selector="auto")
    whole = extract_files()
    asked = len(server.requests)
    killed = 0
    while killed < KILLS:
        configure("pipeline", data_dir=f"data-{next(FOLDERS)}")
        server.requests.clear()
        ahead = 0
        while True:
            doomed.clear()
            concurrency = dice.choice([1, 2, 4, 8, 16])
            configure("users", concurrency=concurrency)
            child = FORK.Process(target=extract_files)
            child.start()
            victim[0] = child.pid or 0
            child.join()
            victim[0] = 0
            if child.exitcode == 0:
                break
            killed, ahead = killed + 1, ahead + 1 + AHEAD * concurrency
            assert child.exitcode == -signal.SIGKILL
        assert split > 1 or len(server.requests) <= asked + ahead
        assert {
            path.name: path.read_bytes() for path in read_workspace(USERS).folder("raw", DAY).path.glob("part-*")
        } == whole
    print(f"killed {killed} times")
