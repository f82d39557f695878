"""Test common faults of sources, disks and databases from end to end.

Every test runs the stages of a day against a server on loopback. A day fails with one line, and the warehouse does not
change until the day is complete. The tests of each module cover the same faults in more detail.
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
    """Load users 1 to 4 for the day before. The source requires a token; the client makes at most three attempts."""
    monkeypatch.setenv("USERS_API_TOKEN", TOKEN)
    url = server.on("/users", Answer(make_users(1, 5)))
    configure("users", url=url, auth="bearer:USERS_API_TOKEN", retries=2)
    work(BEFORE)
    server.requests.clear()


def forget_source() -> None:
    """Allow another server for the next day: a marker from an older version has no source."""
    execute("update loads set source = null")


def work(day: dt.date = DAY) -> None:
    """Run all stages of a day."""
    stages.extract(read_workspace(USERS), day)
    stages.transform(read_workspace(USERS), day)
    stages.load(read_workspace(USERS), day)


def fail(error: type[PipelineError] = SourceError) -> str:
    """Run the day, which must fail and leave no raw files, no marker and the same warehouse. Return the error line."""
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
    """Serve these bytes on every connection, then reset the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(65536))
                    connection.sendall(data)
                    time.sleep(0.05)  # let the bytes arrive before the reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/users"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert len(asked) == 3


LARGE = make_users(1, 200)


@pytest.mark.slow
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
def test_outage_fails_after_retries(server: Server, configure: Configure, trouble: Answer) -> None:
    """The client makes three attempts. The day loads once the source has recovered."""
    configure("users", timeout=0.5)
    server.on("/users", trouble)
    assert "failed after 3 attempts" in fail()
    assert len(server.requests) == 3
    server.on("/users", trouble, trouble, Answer(LARGE))
    work()
    assert list_users() == list(range(1, 200))


def test_refused_connection_fails_after_retries(configure: Configure) -> None:
    with Server() as closed:
        configure("users", url=f"{closed.url}/users")
    forget_source()
    line = fail()
    assert "refused; failed after 3 attempts" in line


@pytest.mark.slow
def test_reset_within_the_body_fails_after_retries(configure: Configure) -> None:
    """The connection breaks in the middle of the body."""
    with answer_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b'[{"id": 7}' * 50) as url:
        configure("users", url=url)
        forget_source()
        assert "failed after 3 attempts" in fail()


def say_later(status: int) -> Callable[[Request], Answer]:
    """Build an answer that asks to wait one to two seconds, in the headers that fit the status."""

    def respond(_: Request) -> Answer:
        then = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=2)
        date = {"Retry-After": format_datetime(then, usegmt=True)}
        reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(then.timestamp()))}
        return Answer(
            status=abs(status), headers={429: {"Retry-After": "1"}, -429: date, 403: reset, 503: date}[status]
        )

    return respond


@pytest.mark.slow
@pytest.mark.parametrize(
    "status",
    [
        pytest.param(429, id="429 with seconds"),
        pytest.param(-429, id="429 with a date"),
        pytest.param(403, id="403 with an exhausted limit and a reset epoch"),
        pytest.param(503, id="503 with a date"),
    ],
)
def test_wait_requested_by_the_source_is_respected(server: Server, status: int) -> None:
    """The client waits once for the full time, then loads the day."""
    server.on("/users", say_later(status), Answer(make_users(5, 7)))
    work()
    assert list_users() == list(range(1, 7))
    first, second = (request.at for request in server.requests)
    assert 1.0 <= second - first < 2.5


def test_wait_beyond_max_wait_fails_at_once(server: Server) -> None:
    """The error names the requested wait and the limit."""
    server.on("/users", Answer(status=429, headers={"Retry-After": "7200"}))
    line = fail()
    assert "asks to wait 2:00:00" in line
    assert "max_wait 0:10:00" in line
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 404, 410])
def test_refused_request_fails_without_retry(server: Server, status: int) -> None:
    """A retry would get the same answer."""
    server.on("/users", Answer({"message": "no"}, status=status))
    assert f": {status} " in fail()
    assert len(server.requests) == 1


@pytest.mark.slow
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
def test_invalid_body_fails_without_retry(server: Server, body: Any, words: str) -> None:
    """Status 200 is not enough, neither on the first page nor on a later one."""
    server.on("/users", Answer(body))
    assert words in fail()
    assert len(server.requests) == 1
    server.on("/users", Answer(make_users(5, 7), headers=link_to("/users?page=2")), Answer(body))
    assert "page=2" in fail()


@pytest.mark.slow
@pytest.mark.parametrize(
    "length", [pytest.param(1, id="one page"), pytest.param(2, id="two"), pytest.param(7, id="seven")]
)
@pytest.mark.parametrize("how", ["cursors", "new cursors", "page numbers"])
def test_cycle_of_pages_fails_and_names_the_cursor(server: Server, configure: Configure, length: int, how: str) -> None:
    """The source may point back to an earlier page, or repeat its records under a new cursor."""

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
    """The source declares nine records and sends five."""

    def respond(request: Request) -> Answer:
        users = make_users(1, 4) if not request.query else make_users(4, 6)
        link = {} if request.query else link_to("/users?page=2")
        if where == "header":
            return Answer(users, headers=link | {"X-Total-Count": "9"})
        return Answer({"users": users, "meta": {"total": 9}}, headers=link)

    server.on("/users", respond)
    configure("users", paginator="link_header", total_path="meta.total" if where == "field" else "")
    assert "the source declares 9 records, and 5 came on 2 pages" in fail()


def test_record_on_two_pages_is_a_duplicate(server: Server) -> None:
    """The marker counts one duplicate, and the warehouse has one row."""
    server.on("/users", Answer(make_users(5, 8), headers=link_to("/users?page=2")), Answer(make_users(7, 10)))
    work()
    assert list_users() == list(range(1, 10))
    assert query("select extracted, inserted, duplicate from loads where date = ?", str(DAY)) == [(6, 5, 1)]
    manifest = read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest)
    assert (manifest.records, manifest.keys) == (6, 5)


@pytest.mark.slow
@pytest.mark.parametrize("shown", [pytest.param(0, id="empty"), pytest.param(1, id="short")])
@pytest.mark.parametrize("how", ["links", "page numbers and a total", "offsets and a flag"])
def test_page_in_the_middle_may_be_short(server: Server, configure: Configure, shown: int, how: str) -> None:
    """Such a page does not end the list while the source announces more."""
    hidden = range(8, 11 - shown)  # users that the second page leaves out
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


@pytest.mark.slow
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
def test_malformed_record_is_rejected_or_loaded_exactly(
    server: Server, configure: Configure, record: str, expected: tuple[Any, ...]
) -> None:
    """A reject keeps the reason and the original bytes. The records around it load normally."""
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
def test_encoding_of_the_body_does_not_change_records(server: Server, answer: Answer) -> None:
    """A byte-order mark, whitespace, compression and chunks are not part of a record."""
    server.on("/users", answer)
    work()
    assert query("select user_id, name, email from users where user_id > 4 order by 1") == [
        tuple(user.values()) for user in make_users(5, 7)
    ]


@pytest.mark.slow
def test_decompression_bomb_fails_at_the_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB compressed to 64 KiB, with a limit of 1 MiB for a page."""
    monkeypatch.setattr(bodies, "MAX_BODY", 2**20)
    bomb = Answer(b"[" + b" " * 2**26 + b"]", compress=True)
    server.on("/users", bomb)
    assert "the body is larger than 1 MiB" in fail()
    assert len(server.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["{other}/users", "http://localhost:{port}/users", "//{host}/users", "file:///etc/passwd"]
)
@pytest.mark.parametrize("how", ["link", "next", "redirect", "redirect of a page"])
def test_no_request_to_another_origin(server: Server, configure: Configure, target: str, how: str) -> None:
    """The other server gets no request, so it cannot get the token."""
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


def test_snapshot_without_half_of_the_users_fails(server: Server, configure: Configure) -> None:
    """The new snapshot lists 11 of 22 users, so the quality gate for deletions stops the day."""
    configure("users", mode="snapshot")
    server.on("/users", Answer(make_users(1, 23)))
    work(BEFORE)
    server.on("/users", Answer(make_users(1, 12)))
    line = fail(PipelineError)
    assert "11 of 22 users in the warehouse are missing" in line
    assert "max_delete_ratio is 0.3" in line
    assert "--users-accept" in line


# Python that runs before the command: limit the size of files, or drop the privileges of root.
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
NO_ROOT = "import ctypes; os.geteuid() or [ctypes.CDLL(None).prctl(24, cap) for cap in (1, 2)]"  # CAP_DAC_OVERRIDE


def fail_command(before: str = "pass") -> str:
    """Run some Python, then `luigi LoadUsers` in the same process. Return the one error line."""
    luigi, section = str(Path(sys.executable).with_name("luigi")), USERS.config()
    command = [luigi, "--module", "pipeline", "LoadUsers", "--date", str(DAY), "--users-url", section.url]
    result = run("python", "-c", f"import os; {before}; os.execv({luigi!r}, {command!r})")
    assert result.returncode in (30, 35), result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("ERROR"))
    assert f"Users(date={DAY})" in line
    return line


def finish() -> None:
    """Run the same command again without the fault. It must load the day."""
    assert luigi_run("LoadUsers", "--date", str(DAY), "--users-url", USERS.config().url).returncode == 0
    assert list_users() == list(range(1, 300))


@pytest.fixture
def large(server: Server) -> None:
    """Serve a day that needs more space than FULL allows."""
    server.on("/users", Answer(make_users(5, 300)))


@pytest.mark.slow
@pytest.mark.usefixtures("large")
def test_full_disk_fails_and_loses_nothing() -> None:
    """No raw files and no rows are written until there is space again."""
    before = dump_warehouse()
    with contextlib.closing(sqlite3.connect("data/warehouse.db")) as db:
        db.execute("select * from loads")  # keeps the shared-memory file, which could not be created under the limit
        line = fail_command(FULL)
    assert f"raw/users/date={DAY}/part-00000.jsonl.gz: File too large: check disk space" in line
    assert dump_warehouse() == before
    assert not read_workspace(USERS).folder("raw", DAY).exists()
    finish()


@pytest.mark.slow
@pytest.mark.usefixtures("large")
def test_warehouse_without_space_fails_and_loses_nothing() -> None:
    """The files of the day stay, and the warehouse does not change."""
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


@pytest.mark.slow
@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("folder", ["data/raw/users", "data/clean/users", "data"])
def test_read_only_folder_fails_and_loses_nothing(folder: str) -> None:
    """The folder holds raw files, clean files or the warehouse."""
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


@pytest.mark.slow
@pytest.mark.usefixtures("large")
def test_locked_database_fails_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load waits for another writer, but not indefinitely."""
    before = dump_warehouse()
    monkeypatch.setattr(sqlite.open, "BUSY_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect("data/warehouse.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(WarehouseError, match=r"locked: another program is writing to it: wait .* and run again$"):
            work()
    assert dump_warehouse() == before
    assert not LoadMarker(Pipeline().database, USERS.name, DAY).exists()
    finish()


@pytest.mark.slow
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
def test_unexpected_tables_fail_and_lose_nothing(change: str, mend: str, words: str) -> None:
    """The load writes nothing to tables that differ from the declared schema."""
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
