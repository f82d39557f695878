"""An interrupted extraction resumes after its last finished part, or says why it restarts."""

import datetime as dt
import json
import logging
import signal
import threading
from collections.abc import Callable, Collection
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
from wholeday.extract.totals import WrongSourceError
from wholeday.storage.day_folder import CHECKPOINTS
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]


class Flaky:
    """A listing that fails from a request on, until it is mended."""

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
    """The raw folder of the day, in parts of four records."""
    configure("pipeline", part_records=4)
    return read_workspace(USERS).folder("raw", DAY).path


def set_source(configure: Configure, source: Flaky, **keys: Any) -> None:
    """Have the users' section read it, without a second try."""
    configure("users", **source.listing.section | {"url": source.url, "retries": 0} | keys)


def break_off(server: Server, configure: Configure, broken_at: int = 5, **keys: Any) -> Flaky:
    """A source of 20 users in pages of three that fails at page six; the extraction has got that far."""
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


def test_a_reading_that_was_broken_off_goes_on_where_its_last_part_ends(
    server: Server, configure: Configure, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page in which that part ended is asked for again, and no other; the day is as old as its first request."""
    caplog.set_level(logging.INFO, "luigi-interface")
    before = clock.utc_now()
    break_off(server, configure)
    broken_off = clock.utc_now()
    assert sorted(path.name for path in folder.iterdir()) == [f"part-{n:05d}.jsonl.gz" for n in range(4)] + [
        CHECKPOINTS
    ]
    parts = {path.name: path.read_bytes() for path in folder.glob("part-0000[012]*")}
    stages.extract(read_workspace(USERS), DAY)
    # Page four is the one in which record 12 came; pages five to seven followed.
    assert [json.loads(request.query["after"])[1][1] for request in server.requests] == [9, 12, 15, 18]
    assert "resuming the interrupted extraction after 3 parts" in caplog.text
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


@pytest.mark.timeout(60)
def test_a_killed_extraction_goes_on(server: Server) -> None:
    """SIGKILL in the middle of a page: the next run asks for that of the last finished part, and what follows."""
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
    began = json.loads(Path(f"data/raw/users/date={DAY}", CHECKPOINTS).read_bytes().splitlines()[0])[1]
    server.requests.clear()
    again = luigi_run("ExtractUsers", "--date", str(DAY), *flags)
    assert again.returncode == 0, again.stderr
    assert "extraction after 3 parts" in again.stdout
    assert len(server.requests) == 4
    assert read_manifest().started_at == dt.datetime.fromisoformat(began)
    assert read_ids() == list(range(1, 21))


def renew(source: Flaky) -> None:
    """Every user has changed."""
    source.listing.users |= dict.fromkeys(range(1, 21), 99)


def refuse(status: int) -> Callable[[Flaky], None]:
    """Pointers that were given out before are refused."""

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
def test_moved_source_restarts_the_extraction(
    server: Server,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Flaky], None],
    why: str,
) -> None:
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


def test_what_the_first_page_declares_holds_after_a_break(server: Server, configure: Configure) -> None:
    """Where no other says how many there are: a page that is left out then is missed."""
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
    assert len(server.requests) == 4


def test_a_page_from_before_the_break_does_not_come_again(server: Server, configure: Configure) -> None:
    """What was seen then is seen."""
    source = break_off(server, configure)
    respond, first = source.listing.respond, [{"id": number, "version": number} for number in (1, 2, 3)]

    def end_with_the_first(request: Request) -> Answer:
        answer = respond(request)
        return answer if answer.body.get("next") else Answer({"data": first})

    source.listing.respond = end_with_the_first  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="has the same records as an earlier page: the source repeats itself"):
        stages.extract(read_workspace(USERS), DAY)


def test_a_reading_that_started_over_goes_on_too(server: Server, configure: Configure) -> None:
    """A second break is no worse than the first."""
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
    "keys", [{"params": '{"team": 7}'}, {"deleted_when": "gone"}, {"mode": "snapshot"}, {"min_records": "2"}], ids=str
)
def test_another_question_is_asked_from_the_beginning(
    server: Server, configure: Configure, keys: dict[str, str]
) -> None:
    """Parts of one reading never stand beside those of another."""
    break_off(server, configure)
    configure("users", **keys)
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 7


def test_parts_of_another_size_are_begun_anew(server: Server, configure: Configure) -> None:
    """Every part but the last is full."""
    break_off(server, configure)
    configure("pipeline", part_records=5)
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 7
    assert [part.records for part in read_manifest().parts] == [5] * 4


@pytest.mark.parametrize(
    "keys", [{"retries": 3}, {"timeout": 7}, {"requests_per_second": 1000}, {"auth": "bearer:A_TOKEN"}], ids=str
)
def test_more_patience_is_no_other_question(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object]
) -> None:
    """What was too hasty goes on with more time, and what was refused in another's name."""
    monkeypatch.setenv("A_TOKEN", "t0k3n")
    break_off(server, configure)
    configure("users", **keys)
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 4


def test_another_watermark_is_another_question(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another day was loaded meanwhile, the source is asked for other changes."""
    marks = iter([dt.datetime(2026, 10, day, tzinfo=dt.UTC) for day in (18, 19)])
    monkeypatch.setattr("wholeday.load.warehouse.Warehouse.watermark_before", lambda *_: next(marks))
    break_off(server, configure, params='{"since": "{watermark}"}')
    stages.extract(read_workspace(USERS), DAY)
    assert [request.query["since"] for request in server.requests] == ["2026-10-18T23:59:59Z"] * 7


@pytest.mark.parametrize(("hours", "requests"), [(23, 4), (24, 7), (-1, 7)])
def test_a_reading_is_not_gone_on_with_after_a_day(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch, hours: int, requests: int
) -> None:
    """Then what was read first is too old to stand beside what is read last; nor where a clock was set back."""
    with monkeypatch.context() as patch:
        then = clock.utc_now() - dt.timedelta(hours=hours)
        patch.setattr(clock, "utc_now", lambda: then)
        break_off(server, configure, settle="2 days")
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == requests
    assert (read_manifest().started_at == then) == (requests == 4)


def test_what_a_gate_refused_is_not_gone_on_with(server: Server, configure: Configure, folder: Path) -> None:
    """Nothing of what came is to be believed another time: the next run asks for all of it."""
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


@pytest.mark.parametrize("trouble", ODD.values(), ids=ODD)
def test_odd_answer_is_retried(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch, trouble: Answer
) -> None:
    """One odd answer behind the first page costs one request."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    listing, odd = Listing("query", count=20, size=3), [trouble]
    set_source(configure, Flaky(server, listing), retries=1)
    server.on("/users", lambda request: odd.pop() if listing.asked == 5 and odd else listing.respond(request))
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 8
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("trouble", ODD.values(), ids=ODD)
def test_odd_answer_that_persists_is_an_outage(
    server: Server, configure: Configure, folder: Path, trouble: Answer
) -> None:
    """The finished parts are kept, and the next run asks from the page of the last one on."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=5)
    source.trouble = trouble
    set_source(configure, source)
    with pytest.raises(OutageError, match="failed after 1 attempt"):
        stages.extract(read_workspace(USERS), DAY)
    assert (folder / CHECKPOINTS).exists()
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 4
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("trouble", ODD.values(), ids=ODD)
def test_odd_first_page_fails_at_once(server: Server, configure: Configure, trouble: Answer) -> None:
    """Nothing is lost by it, and who runs this for the first time wants to know."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=0)
    source.trouble = trouble
    set_source(configure, source, retries=3)
    with pytest.raises(AnswerError):
        stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 1


def test_resumed_reading_asks_for_few_pages(server: Server, configure: Configure) -> None:
    """61 pages, of which page 50 is odd in the first run: the second run asks for pages 45 to 61 only."""
    broken = Answer({"error": "temporarily unavailable"})

    def respond(request: Request) -> Answer:
        page = int(request.query["page"])
        users = [{"id": page * 10 + number} for number in range(10 if page <= 60 else 0)]
        return broken if page == 50 and broken else Answer(users)

    configure("pipeline", part_records=50)
    configure("users", url=server.on("/users", respond), paginator="page", retries=0, data_selector="auto")
    with pytest.raises(OutageError, match="page=50"):
        stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 50
    broken, server.requests[:] = None, []
    stages.extract(read_workspace(USERS), DAY)
    assert [int(request.query["page"]) for request in server.requests] == list(range(45, 62))
    assert read_ids() == list(range(10, 610))


@pytest.mark.parametrize("trouble", [Answer("<html>"), Answer(status=409), Answer(status=423)], ids=str)
def test_outage_of_a_resumed_reading_keeps_its_parts(server: Server, configure: Configure, trouble: Answer) -> None:
    """The source is still in trouble in the second run; the third resumes where the first ended."""
    source = break_off(server, configure)
    source.trouble, source.broken_at = trouble, 0
    with pytest.raises(OutageError):
        stages.extract(read_workspace(USERS), DAY)
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 4


def test_empty_page_before_the_declared_end_is_retried(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source declares more users than came: an empty page is odd."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    listing, empty = Listing("page1", count=20, size=3, total="field"), [True]

    def respond(request: Request) -> Answer:
        answer = listing.respond(request)
        return Answer(answer.body | {"data": []}) if request.query["page"] == "4" and empty and empty.pop() else answer

    set_source(configure, Flaky(server, listing), retries=1)
    server.on("/users", respond)
    stages.extract(read_workspace(USERS), DAY)
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("kind", ["page1", "offset0", "query", "link_header"])
@pytest.mark.parametrize("total", [20, 0, None])
def test_empty_page_that_persists_is_an_outage(
    server: Server, configure: Configure, kind: str, total: int | None
) -> None:
    """Whatever it declares itself; the next run resumes before it."""
    listing = Listing(kind, count=20, size=3, total="field")
    source = Flaky(server, listing)
    respond = listing.respond

    def empty(request: Request) -> Answer:
        answer = respond(request)
        if answer.body["data"][:1] != [{"id": 10, "version": 10}]:
            return answer
        return Answer({"data": [], "meta": {} if total is None else {"total": total}})

    listing.respond = empty  # type: ignore[method-assign]
    set_source(configure, source, total_path="meta.total")
    with pytest.raises(OutageError, match="the source declares 20 records"):
        stages.extract(read_workspace(USERS), DAY)
    listing.respond = respond  # type: ignore[method-assign]
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 5  # from page three on
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("everywhere", [True, False], ids=["each page", "first page"])
def test_list_that_shrank_is_read_again(server: Server, configure: Configure, everywhere: bool) -> None:
    """A user is deleted during the first run: an empty last page short of the total is right, and the next run ends."""
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


def test_repeated_page_is_retried(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a cache that gives the page before; one that persists is a cycle, and nothing of it is kept."""
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


@pytest.mark.parametrize("status", [401, 403])
def test_what_came_before_a_secret_ran_out_is_gone_on_with(server: Server, configure: Configure, status: int) -> None:
    """It is the asker who is refused; a new secret goes on where the old one ended."""
    source = Flaky(server, Listing("query", count=20, size=3), broken_at=5)
    source.trouble = Answer(status=status)
    set_source(configure, source)
    for _ in range(2):
        with pytest.raises(SourceError, match=str(status)):
            stages.extract(read_workspace(USERS), DAY)
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) == 4


def test_cut_checkpoints_count_up_to_the_cut(server: Server, configure: Configure, folder: Path) -> None:
    """A crash in the middle of a line costs the part of that line, and spoils none that is noted later."""
    source = break_off(server, configure)
    file = folder / CHECKPOINTS
    file.write_bytes(file.read_bytes()[:-20])
    source.broken_at = source.listing.asked + 4
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    assert [json.loads(request.query["after"])[1][1] for request in server.requests][:2] == [6, 9]
    source.mend()
    stages.extract(read_workspace(USERS), DAY)
    assert len(server.requests) < 5
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize(("old", "new"), [(b'["', b'["\xff'), (b'"part-', b'"\xf0art-')], ids=["first line", "a part"])
def test_damaged_checkpoints_restart(
    server: Server, configure: Configure, folder: Path, old: bytes, new: bytes
) -> None:
    """A bit flipped in the middle of a string. No one has to fix it."""
    break_off(server, configure).mend()
    file = folder / CHECKPOINTS
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    stages.extract(read_workspace(USERS), DAY)
    assert "after" not in server.requests[0].query
    assert read_ids() == list(range(1, 21))


def cut(folder: Path) -> None:
    (folder / "part-00001.jsonl.gz").write_bytes(b"\x1f\x8b")


def lose(folder: Path) -> None:
    (folder / "part-00001.jsonl.gz").unlink()


def scribble(folder: Path) -> None:
    lines = (folder / CHECKPOINTS).read_bytes().splitlines(keepends=True)
    (folder / CHECKPOINTS).write_bytes(b"".join([*lines[:2], b"\0" * 40 + b"\n", *lines[3:]]))


@pytest.mark.parametrize("damage", [cut, lose, scribble])
def test_damaged_files_of_a_reading_are_not_gone_on_with(
    server: Server, configure: Configure, folder: Path, damage: Callable[[Path], None]
) -> None:
    """The source still has all records: the extraction restarts."""
    break_off(server, configure)
    damage(folder)
    stages.extract(read_workspace(USERS), DAY)
    assert read_ids() == list(range(1, 21))


@pytest.mark.parametrize("signed", [range(20), [1]], ids=["every link", "the first link"])
def test_a_secret_in_a_pointer_is_not_kept(
    server: Server,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    signed: Collection[int],
) -> None:
    """Behind a page whose link holds a secret there is nothing to go on from, and no file has the secret in it."""
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
    assert "cannot resume the interrupted extraction, as it has no checkpoint; restarting" in caplog.text
    assert read_ids() == list(range(1, 21))
    assert b"s3cr3t" not in b"".join(dump_tree(".").values())


def test_a_pointer_that_is_called_a_token_is_no_secret(server: Server, configure: Configure) -> None:
    """Microsoft names it so: a reading by such links goes on too."""
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
    assert len(server.requests) == 4
    assert read_ids() == list(range(1, 21))


FOLDERS = count()


def extract_files() -> dict[str, bytes] | str:
    """The parts of the day, or the first word of the line with which it fails."""
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
def test_however_often_it_was_broken_off_the_files_are_the_same(
    server: Server,
    configure: Configure,
    kind: str,
    shape: dict[str, Any],
    part_records: int,
    breaks: list[int],
    keys: dict[str, Any],
) -> None:
    """Byte for byte those of a reading that went through."""
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
