"""What goes wrong in the field, a case for each: how it ends, and that the warehouse is as it was until a day is whole.

Every case runs the stages of a day against a server on loopback. What a part of the pipeline does about a fault in
more detail is in the tests of that part.
"""

import contextlib
import datetime as dt
import json
import re
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support.project import dump_tree, dump_warehouse, execute, luigi_run, query, run
from tests.support.reading import DAY
from tests.support.server import Answer, Request, Server
from wholeday.config.pipeline import Pipeline
from wholeday.errors import PipelineError, SourceError, WarehouseError
from wholeday.extract.http import body as bodies
from wholeday.load import sqlite
from wholeday.storage.manifest import RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

BEFORE = DAY - dt.timedelta(days=1)
TOKEN = "t0k3n-of-the-source"

Configure = Callable[..., None]


def make_users(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"User {number}", "email": f"{number}@example.com"} for number in range(first, last)]


@pytest.fixture(autouse=True)
def _loaded(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day was loaded before: the users 1 to 4. The source wants a token, and is asked three times at most."""
    monkeypatch.setenv("USERS_API_TOKEN", TOKEN)
    url = server.on("/users", Answer(make_users(1, 5)))
    configure("users", url=url, auth="bearer:USERS_API_TOKEN", retries=2)
    work(BEFORE)
    server.requests.clear()


def forget_source() -> None:
    """Let the test read another server: a marker of an older version names no source."""
    execute("update loads set source = null")


def work(day: dt.date = DAY) -> None:
    """All stages of a day."""
    stages.extract(read_workspace(USERS), day)
    stages.transform(read_workspace(USERS), day)
    stages.load(read_workspace(USERS), day)


def fail(error: type[PipelineError] = SourceError) -> str:
    """The line with which the day fails; the warehouse is as it was, and there is no day of files and no marker."""
    before = dump_warehouse()
    with pytest.raises(error) as caught:
        work()
    line = str(caught.value)
    assert "\n" not in line
    assert TOKEN not in line
    assert str(DAY) in line
    assert dump_warehouse() == before
    assert not LoadMarker(Pipeline().database, USERS.name, DAY).exists()
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    return line


def list_users() -> list[int]:
    return [user for (user,) in query("select user_id from users order by 1")]


def link_to(target: str) -> dict[str, str]:
    return {"Link": f'<{target}>; rel="next"'}


@contextlib.contextmanager
def answer_raw(data: bytes) -> Iterator[str]:
    """A server that says these bytes to whoever connects, and resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(65536))
                    connection.sendall(data)
                    time.sleep(0.05)  # or the reset overtakes the bytes
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/users"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert len(asked) == 3


LARGE = make_users(1, 200)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(Answer(reset=True), id="connection reset"),
        pytest.param(Answer(LARGE, wait=2.0), id="timeout"),
        pytest.param(Answer(LARGE, cut=500), id="truncated body"),
        pytest.param(Answer(LARGE, chunked=True, cut=1700), id="truncated chunk"),
        pytest.param(Answer(LARGE, length=10**6), id="Content-Length too large"),
        pytest.param(Answer(LARGE, length=500), id="Content-Length too small"),
        pytest.param(Answer(status=500), id="500"),
    ],
)
def test_an_outage_is_retried_then_one_line(server: Server, configure: Configure, trouble: Answer) -> None:
    """Asked three times; and when the source is well again, the day is loaded."""
    configure("users", timeout=0.5)
    server.on("/users", trouble)
    assert "failed after 3 attempts" in fail()
    assert len(server.requests) == 3
    server.on("/users", trouble, trouble, Answer(LARGE))
    work()
    assert list_users() == list(range(1, 200))


def test_a_refused_connection_is_retried_then_one_line(configure: Configure) -> None:
    """Nobody listens."""
    with Server() as closed:
        configure("users", url=f"{closed.url}/users")
    forget_source()
    line = fail()
    assert "refused; failed after 3 attempts" in line


def test_a_reset_within_the_body_is_retried_then_one_line(configure: Configure) -> None:
    """The connection breaks when half of the body is here."""
    with answer_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b'[{"id": 7}' * 50) as url:
        configure("users", url=url)
        forget_source()
        assert "failed after 3 attempts" in fail()


def say_later(status: int) -> Callable[[Request], Answer]:
    """An answer that asks to come back in one to two seconds, in the words that go with the status."""

    def respond(_: Request) -> Answer:
        then = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=2)
        date = {"Retry-After": format_datetime(then, usegmt=True)}
        reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp()))}
        return Answer(
            status=abs(status), headers={429: {"Retry-After": "1"}, -429: date, 403: reset, 503: date}[status]
        )

    return respond


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(429, id="429 with seconds"),
        pytest.param(-429, id="429 with a date"),
        pytest.param(403, id="403 with an exhausted limit and a reset epoch"),
        pytest.param(503, id="503 with a date"),
    ],
)
def test_a_source_that_asks_to_wait_is_waited_for_then_read(server: Server, status: int) -> None:
    """In full, once, and the day is loaded."""
    server.on("/users", say_later(status), Answer(make_users(5, 7)))
    work()
    assert list_users() == list(range(1, 7))
    first, second = (request.at for request in server.requests)
    assert 1.0 <= second - first < 2.5


def test_wait_beyond_max_wait_fails_at_once(server: Server) -> None:
    """The line says how long the source asks to wait."""
    server.on("/users", Answer(status=429, headers={"Retry-After": "7200"}))
    line = fail()
    assert "asks to wait 2:00:00" in line
    assert "max_wait 0:10:00" in line
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 404, 410])
def test_a_refusal_fails_at_once(server: Server, status: int) -> None:
    """No retry: another time the answer would be the same."""
    server.on("/users", Answer({"message": "no"}, status=status))
    assert f": {status} " in fail()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("<!doctype html><title>Log in</title>", "HTML", id="an HTML page"),
        pytest.param(b"", "the body is empty", id="an empty body"),
        pytest.param(b'[{"id": 1, "name": "\xff"}]', "not UTF-8", id="invalid UTF-8"),
        pytest.param({"ok": False}, "the page reports a failure: 'ok' is false", id="ok: false"),
        pytest.param(
            {"ok": False, "users": []}, "the page reports a failure: 'ok' is false", id="ok: false and a list"
        ),
    ],
)
def test_an_answer_that_is_none_fails_at_once(server: Server, body: Any, words: str) -> None:
    """A good status does not make it one; on a later page neither."""
    server.on("/users", Answer(body))
    assert words in fail()
    assert len(server.requests) == 1
    server.on("/users", Answer(make_users(5, 7), headers=link_to("/users?page=2")), Answer(body))
    assert "page=2" in fail()


@pytest.mark.parametrize(
    "length", [pytest.param(1, id="one page"), pytest.param(2, id="two"), pytest.param(7, id="seven")]
)
@pytest.mark.parametrize("how", ["cursors", "new cursors", "page numbers"])
def test_a_cycle_of_pages_fails_and_names_the_cursor(
    server: Server, configure: Configure, length: int, how: str
) -> None:
    """Whether the source leads back to a page that came, or shows its records again under another name."""

    def respond(request: Request) -> Answer:
        at = int(request.query.get("page" if how == "page numbers" else "after", "1"))
        following = at % length + 1 if how == "cursors" else at + 1
        number = (at - 1) % length
        return Answer({"users": make_users(10 * number, 10 * number + 10), "next": following})

    server.on("/users", respond)
    keys = {"paginator": "page"} if how == "page numbers" else {"paginator": "cursor", "cursor_path": "next"}
    configure("users", cursor_param="after", **keys)
    line = fail()
    cursor = {"cursors": "after=1", "new cursors": f"after={length + 1}", "page numbers": f"page={length + 1}"}[how]
    assert f"{cursor})" in line
    assert "the source repeats itself" in line


@pytest.mark.parametrize("where", ["header", "field"])
def test_fewer_records_than_declared_fail_with_both_numbers(server: Server, configure: Configure, where: str) -> None:
    """Nine are declared, and five came."""

    def respond(request: Request) -> Answer:
        users = make_users(1, 4) if not request.query else make_users(4, 6)
        link = {} if request.query else link_to("/users?page=2")
        if where == "header":
            return Answer(users, headers=link | {"X-Total-Count": "9"})
        return Answer({"users": users, "meta": {"total": 9}}, headers=link)

    server.on("/users", respond)
    configure("users", paginator="link_header", total_path="meta.total" if where == "field" else "")
    assert "the source declares 9 records, and 5 came on 2 pages" in fail()


def test_a_record_on_two_pages_is_a_duplicate(server: Server) -> None:
    """Counted as one, and once in the warehouse."""
    server.on("/users", Answer(make_users(5, 8), headers=link_to("/users?page=2")), Answer(make_users(7, 10)))
    work()
    assert list_users() == list(range(1, 10))
    assert query("select extracted, inserted, duplicate from loads where date = ?", str(DAY)) == [(6, 5, 1)]
    manifest = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.records, manifest.keys) == (6, 5)


@pytest.mark.parametrize("shown", [pytest.param(0, id="empty"), pytest.param(1, id="short")])
@pytest.mark.parametrize("how", ["links", "page numbers and a total", "offsets and a flag"])
def test_a_page_in_the_middle_may_be_empty_or_short(server: Server, configure: Configure, shown: int, how: str) -> None:
    """It is not the end where the source says that there is more."""
    hidden = range(8, 11 - shown)  # users of the second page that nobody may see
    rows = make_users(5, 17)

    def respond(request: Request) -> Answer:
        start = int(request.query.get("offset", 3 * (int(request.query.get("page", "1")) - 1)))
        more = start + 3 < len(rows)
        link = link_to(f"/users?page={start // 3 + 2}") if how == "links" and more else {}
        users = [user for user in rows[start : start + 3] if user["id"] not in hidden]
        return Answer({"users": users, "total": len(rows) - len(hidden), "has_more": more}, headers=link)

    server.on("/users", respond)
    configure("users", **{
        "links": {"paginator": "link_header"},
        "page numbers and a total": {"paginator": "page", "total_path": "total"},
        "offsets and a flag": {"paginator": "offset", "more_path": "has_more", "page_size": 3},
    }[how])  # fmt: skip
    work()
    assert list_users() == [number for number in range(1, 17) if number not in hidden]


UNKEPT = "JSON that cannot be kept exactly"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param('{"id": "6", "name": "x"}', ("Expected `int`, got `str`", "id"), id="id as text"),
        pytest.param('{"name": "x"}', ("Object missing required field `id`", "id"), id="no id"),
        pytest.param('{"id": 6, "name": null, "email": "x@y"}', (6, None, "x@y", None), id="null name"),
        pytest.param('{"id": 6, "name": "x"}', (6, "x", None, None), id="missing email"),
        pytest.param('{"id": 6, "name": "x", "age": {"years": [1]}}', (6, "x", None, None), id="extra fields"),
        pytest.param('{"id": 6, "name": "x", "address": null}', (6, "x", None, None), id="nested object as null"),
        pytest.param('{"id": 6, "address": []}', ("Expected `object | null`, got", "address"), id="list for an object"),
        pytest.param("[6]", ("Expected `object`, got `array`", None), id="list for record"),
        pytest.param('{"id": 6, "name": NaN}', (UNKEPT, None), id="NaN"),
        pytest.param(f'{{"id": {10**30}}}', ("Expected `int` <= 9223372036854775807", "id"), id="huge integer as id"),
        pytest.param(f'{{"id": 6, "name": "x", "n": {10**400}}}', (6, "x", None, None), id="huge integer beside"),
        pytest.param('{"id": 6, "name": "\\ud800"}', (UNKEPT, None), id="lone surrogate"),
        pytest.param('{"id": 6, "name": "%s"}' % ("x" * 10**7), (6, "x" * 10**7, None, None), id="10 MB in one field"),
    ],
)  # fmt: skip
def test_a_malformed_record_is_rejected_or_loaded_exactly(
    server: Server, configure: Configure, record: str, expected: tuple[Any, ...]
) -> None:
    """With its reason and as it was sent; the records beside it are untouched."""
    configure("users", max_reject_ratio=1)
    beside = ['{"id": 5, "name": "a", "email": "A@b", "address": {"city": "Oslo"}}', '{"id": 7, "name": "c"}']
    server.on("/users", Answer(f"[{beside[0]}, {record}, {beside[1]}]"))
    work()
    rows = query("select user_id, name, email, city from users where user_id > 4 order by 1")
    rejects = query("select line, reason, field, record from rejects")
    neighbours = [(5, "a", "a@b", "Oslo"), (7, "c", None, None)]
    if isinstance(expected[0], int):
        assert rows == [neighbours[0], expected, neighbours[1]]
        assert rejects == []
    else:
        assert rows == neighbours
        ((line, reason, field, kept),) = rejects
        assert (line, field, kept) == (2, expected[1], record)
        assert reason.startswith(expected[0])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("\ufeff" + json.dumps(make_users(5, 7))), id="byte-order mark"),
        pytest.param(Answer(json.dumps(make_users(5, 7), indent=4).replace("\n", "\r\n")), id="pretty-printed"),
        pytest.param(Answer(make_users(5, 7), compress=True), id="gzip"),
        pytest.param(Answer(make_users(5, 7), chunked=True), id="chunked"),
        pytest.param(Answer(make_users(5, 7), compress=True, chunked=True), id="gzip and chunked"),
    ],
)
def test_a_list_is_read_however_it_is_wrapped(server: Server, answer: Answer) -> None:
    """What is around the records is not theirs."""
    server.on("/users", answer)
    work()
    assert query("select user_id, name, email from users where user_id > 4 order by 1") == [
        tuple(user.values()) for user in make_users(5, 7)
    ]


def test_a_decompression_bomb_fails_at_the_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB in 64 KiB, where one MiB is enough for a page."""
    monkeypatch.setattr(bodies, "MAX_BODY", 2**20)
    bomb = Answer(b"[" + b" " * 2**26 + b"]", compress=True)
    server.on("/users", bomb)
    assert "the body is larger than 1 MiB" in fail()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "target", ["{other}/users", "http://localhost:{port}/users", "//{host}/users", "file:///etc/passwd"]
)
@pytest.mark.parametrize("how", ["link", "next", "redirect", "redirect of a page"])
def test_what_leads_elsewhere_is_refused(server: Server, configure: Configure, target: str, how: str) -> None:
    """The other server hears nothing, least of all the token."""
    with Server() as other:
        host = other.url.removeprefix("http://")
        away = target.format(other=other.url, port=host.rpartition(":")[2], host=host)
        redirect = Answer(status=302, headers={"Location": away})
        users = make_users(5, 7)
        first = {
            "link": Answer(users, headers=link_to(away)),
            "next": Answer({"users": users, "next": away}),
            "redirect": redirect,
            "redirect of a page": Answer(users, headers=link_to("/two")),
        }[how]
        configure("users", paginator="next_url" if how == "next" else "link_header", cursor_path="next")
        server.on("/users", first)
        server.on("/two", redirect)
        other.on("/users", Answer(make_users(7, 9)))
        line = fail()
        assert "another origin than" in line
        assert "nothing was sent there" in line
        assert not other.requests
        assert len(server.requests) == (2 if how == "redirect of a page" else 1)


def test_half_of_all_users_gone_fails_at_the_delete_gate(server: Server, configure: Configure) -> None:
    """A snapshot that lists 11 of the 22 users of the one before is not believed."""
    configure("users", mode="snapshot")
    server.on("/users", Answer(make_users(1, 23)))
    work(BEFORE)
    server.on("/users", Answer(make_users(1, 12)))
    line = fail(PipelineError)
    assert "11 of 22 users in the warehouse are missing" in line
    assert "max_delete_ratio is 0.3" in line
    assert "--users-accept" in line


# What a process does to itself before it becomes the command: no file may grow, or root may no more than others.
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
NO_ROOT = "import ctypes; os.geteuid() or [ctypes.CDLL(None).prctl(24, cap) for cap in (1, 2)]"  # CAP_DAC_OVERRIDE


def fail_command(before: str = "pass") -> str:
    """The one line with which `luigi LoadUsers` fails for the day, after some Python in its process."""
    luigi, section = str(Path(sys.executable).with_name("luigi")), USERS.config()
    command = [luigi, "--module", "pipeline", "LoadUsers", "--date", str(DAY), "--users-url", section.url]
    result = run("python", "-c", f"import os; {before}; os.execv({luigi!r}, {command!r})")
    assert result.returncode in (30, 35), result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("ERROR"))
    assert f"Users(date={DAY})" in line
    return line


def finish() -> None:
    """The same command is enough when the trouble is over."""
    assert luigi_run("LoadUsers", "--date", str(DAY), "--users-url", USERS.config().url).returncode == 0
    assert list_users() == list(range(1, 300))


@pytest.fixture
def large(server: Server) -> None:
    """The day brings users in more bytes than there is room for."""
    server.on("/users", Answer(make_users(5, 300)))


@pytest.mark.usefixtures("large")
def test_a_full_disk_is_one_line_and_loses_nothing() -> None:
    """Nothing of the day is there, nor is the warehouse touched, until there is room again."""
    before = dump_warehouse()
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("select * from loads")  # keeps the file of shared memory, which else could not grow either
        line = fail_command(FULL)
    assert f"raw/users/date={DAY}/part-00000.jsonl.gz: File too large: check disk space" in line
    assert dump_warehouse() == before
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    finish()


@pytest.mark.usefixtures("large")
def test_a_warehouse_without_room_is_one_line_and_loses_nothing() -> None:
    """The files of the day stay, the warehouse is as it was."""
    stages.extract(read_workspace(USERS), DAY)
    stages.transform(read_workspace(USERS), DAY)
    before, files = dump_warehouse(), dump_tree("data/raw") | dump_tree("data/clean")
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("select * from loads")
        line = fail_command(FULL)
    assert re.search("warehouse.db: .*: (check the disk|free space)", line)
    assert dump_warehouse() == before
    assert dump_tree("data/raw") | dump_tree("data/clean") == files
    finish()


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("folder", ["data/raw/users", "data/clean/users", "data"])
def test_a_read_only_folder_is_one_line_and_loses_nothing(folder: str) -> None:
    """Of raw or clean files, or of the warehouse."""
    before = dump_warehouse()
    paths = [Path(folder), *Path(folder).glob("*.db*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    line = fail_command(NO_ROOT)
    assert re.search("Permission denied: .*permissions.* run again|the right to write.* and run again", line)
    for path in paths:
        path.chmod(0o755)
    assert dump_warehouse() == before
    finish()


@pytest.mark.usefixtures("large")
def test_a_locked_database_is_one_line_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that writes is waited for, but not for ever."""
    before = dump_warehouse()
    monkeypatch.setattr(sqlite.open, "BUSY_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect("data/warehouse.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(WarehouseError, match=r"locked: another program is writing to it: wait .* and run again$"):
            work()
    assert dump_warehouse() == before
    assert not LoadMarker(Pipeline().database, USERS.name, DAY).exists()
    finish()


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("change", "mend", "words"),
    [
        pytest.param(
            "alter table users rename column name to nick",
            "alter table users rename column nick to name",
            r"the table users has .*: declare it as it is, or choose another database",
            id="another schema",
        ),
        pytest.param(
            "alter table users rename to people",
            "alter table people rename to users",
            r"there is no table users, .*: if they are another program's, choose another database; else restore it",
            id="a marker without its table",
        ),
    ],
)
def test_a_warehouse_that_is_not_ours_is_one_line_and_loses_nothing(change: str, mend: str, words: str) -> None:
    """Nothing is written to tables that are not as they were left."""
    before = dump_warehouse()
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("drop view users_history")
        db.execute(change)
        tables = list(db.iterdump())
        assert re.search(words, fail_command())
        assert list(db.iterdump()) == tables
        db.execute(mend)
    assert dump_warehouse() == before
    finish()
