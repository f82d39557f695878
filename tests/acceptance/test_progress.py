"""How far a reading is: on a terminal, in a pipe, and at the scheduler."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from luigi.rpc import RPCError

from tests.support.project import ask_scheduler, luigi_run, query, start, start_scheduler
from tests.support.reading import DAY as OTHER_DAY
from tests.support.reading import People, make_pages, make_user
from tests.support.server import Answer, Request, Server
from tests.support.terminal import look_at, run_on_terminal
from wholeday.extract.reader import Reader
from wholeday.schema.census import Census
from wholeday.tasks import progress

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
PAGES, SIZE = 10, 50
LOAD = ("LoadUsers", "--date", DAY, "--users-paginator", "page", "--users-total-header", "X-Total-Count")


def serve_slowly(server: Server, wait: float, *, fail: int = 0) -> str:
    """A source of PAGES pages, each after so many seconds; it fails once at the page `fail`."""
    failed: list[int] = []

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        if page == fail and not failed:
            failed.append(page)
            return Answer("busy", status=503)
        users = [make_user(SIZE * page + number) for number in range(SIZE)] if page <= PAGES else []
        return Answer(users, headers={"X-Total-Count": str(PAGES * SIZE)}, wait=wait)

    return server.on("/users", respond)


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(server):
    """Pages, records, their rate, share and time left; a retry's line stands above it, whole; then the log's line."""
    url = serve_slowly(server, 0.15, fail=8)
    code, written = run_on_terminal("luigi", "--module", "pipeline", *LOAD, "--users-url", url)
    assert code == 0, written
    bar = r"━ +(\d+)% (?:\d:\d\d:\d\d|-:--:--) (\d+) pages, (\d+) of 500 records, [\d,]+ records/s"
    shown = [tuple(map(int, found)) for found in re.findall(bar, written)]
    assert (70, 7, 350) in shown
    assert all(share == 100 * records // 500 and records == SIZE * pages for share, pages, records in shown)
    assert re.search(r"records/s\r\x1b\[2KINFO: users 2026-11-20: GET [^\n]*page=8: 503", written)
    lines = look_at(written)
    assert not [line for line in lines if "━" in line or "records/s" in line]
    (retry,) = [number for number, line in enumerate(lines) if "503" in line]
    assert re.fullmatch(r"INFO: users .*: 503 .*; retry 1 of 5 in \d\.\d s", "".join(lines[retry : retry + 2]))
    assert lines.count("INFO: users 2026-11-20: extracted 500 records, 10 pages") == 1


def test_lines_for_a_file_do_not_go_to_the_terminal_with_the_bar(server):
    """`> file` has all of them, also those that were written while there was a bar."""
    url = serve_slowly(server, 0.15, fail=8)
    with Path("log").open("wb") as log:
        code, written = run_on_terminal(
            "luigi", "--module", "pipeline", "ExtractUsers", *LOAD[1:], "--users-url", url, out=log.fileno()
        )
    assert code == 0, written
    assert "━" in written
    retry, extracted = Path("log").read_text().splitlines()
    assert "retry 1 of 5" in retry
    assert extracted == "INFO: users 2026-11-20: extracted 500 records, 10 pages"
    assert "retry 1 of 5" not in written


def test_what_is_read_at_once_needs_no_bar(server):
    """Hundreds of small days would only flicker."""
    url = server.on("/users", Answer([make_user(1)]))
    code, written = run_on_terminal("luigi", "--module", "pipeline", "ExtractUsers", *LOAD[1:3], "--users-url", url)
    assert code == 0, written
    assert "━" not in written
    assert "\x1b" not in written


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_pipe_gets_no_bar(server, workers):
    """Nor does a worker's child: the log has its one line."""
    url = serve_slowly(server, 0.1)
    result = luigi_run("ExtractUsers", *LOAD[1:], "--users-url", url, "--workers", workers, FORCE_COLOR="1")
    assert result.returncode == 0, result.stderr
    assert "━" not in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stdout == f"INFO: users {DAY}: extracted 500 records, 10 pages\n"


def test_a_worker_s_child_draws_no_bar_on_the_terminal(server):
    """Several of them would write over each other."""
    url = serve_slowly(server, 0.1)
    code, written = run_on_terminal(
        "luigi", "--module", "pipeline", "ExtractUsers", *LOAD[1:], "--users-url", url, "--workers", "2"
    )
    assert code == 0, written
    assert "\x1b" not in written


def test_the_visualiser_shows_how_far_a_running_day_is(server):
    """Its message and share while the child of a worker reads, and that of the end when it is done."""
    with start_scheduler() as environment:

        def ask(status: str) -> list[dict[str, Any]]:
            tasks = ask_scheduler("task_list", status=status, upstream_status="").values()
            return [task for task in tasks if task["name"] == "ExtractUsers"]

        url = serve_slowly(server, 0.4)
        command = start("luigi", "--module", "pipeline", *LOAD, "--users-url", url, "--workers", "2", **environment)
        running: list[dict[str, Any]] = []
        deadline = time.monotonic() + 30
        while command.poll() is None and time.monotonic() < deadline:
            running += [task for task in ask("RUNNING") if task["status_message"]]
            time.sleep(0.1)
        _, stderr = command.communicate()
        assert command.returncode == 0, stderr
        (done,) = ask("DONE")
    messages = {task["status_message"]: task["progress_percentage"] for task in running}
    for message, percentage in messages.items():
        found = re.fullmatch(r"(\d+) pages, (\d+) of 500 records, [\d,]+ records/s", message)
        assert found
        assert percentage in (None, 100 * int(found[2]) // 500)  # None: asked between the two calls
    assert 1 <= len(messages) <= 3
    assert done["status_message"].startswith("10 pages, 500 of 500 records, ")
    assert done["progress_percentage"] == 100
    assert query("select extracted from loads") == [(500,)]


def follow(url: str, set_message: Callable[[str], None], set_percentage: Callable[[int], None], **keys: Any) -> None:
    """Read a source, with the setters of a task."""
    reading = Reader(People(url=url, paginator="page", **keys), OTHER_DAY, census=Census(None, ("id",)))
    with progress.track_extraction(set_message, set_percentage) as tell:
        for _ in reading:
            tell(reading)


def test_the_scheduler_is_told_now_and_then_and_at_the_end(server, monkeypatch):
    """A page that comes too soon is not told; without a declared total there is no share."""
    url = server.on("/users", make_pages(50, 10, server, ""))
    messages: list[str] = []
    follow(url, messages.append, pytest.fail)
    (end,) = messages
    assert re.fullmatch(r"6 pages, 50 records, [\d,]+ records/s", end)
    monkeypatch.setattr(progress, "EVERY", 0)
    messages.clear()
    follow(url, messages.append, pytest.fail)
    assert messages[0] == "1 page, 10 records"
    assert [message.split(",")[0] for message in messages] == ["1 page", *(f"{number} pages" for number in range(2, 7))]


def test_a_share_is_never_more_than_all(server):
    """Where records come again, there are more of them than the source declares."""
    users = [{"id": number} for number in (1, 2, 2, 3)]
    shares: list[int] = []
    body = {"total": 3, "users": users}
    follow(
        server.on("/users", Answer(body), Answer({"total": 3, "users": []})), print, shares.append, total_path="total"
    )
    assert shares == [100]


def test_a_scheduler_that_does_not_hear_fails_no_day(server, monkeypatch, caplog):
    """It is told no more, as each call that nobody answers takes a minute; the log has a line."""
    monkeypatch.setattr(progress, "EVERY", 0)
    calls: list[str] = []

    def refuse(message: str) -> None:
        calls.append(message)
        raise RPCError("Errors (3 attempts) when connecting to remote scheduler")

    follow(server.on("/users", make_pages(50, 10, server, "")), refuse, pytest.fail)
    assert calls == ["1 page, 10 records"]
    (record,) = caplog.records
    assert record.getMessage().startswith("the scheduler receives no more progress of this extraction: Errors (3")
