"""Show the progress of an extraction in a terminal, in a pipe, and in the scheduler."""

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
from wholeday.schema.raw_fields import FieldReader
from wholeday.tasks import progress

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
PAGES, SIZE = 10, 50
LOAD = ("LoadUsers", "--date", DAY, "--users-paginator", "page", "--users-total-header", "X-Total-Count")
ONE = ("--users-concurrency", "1")


def serve_slowly(server: Server, wait: float, *, fail: int = 0) -> str:
    """Serve PAGES pages, each after `wait` seconds. The page `fail` fails once."""
    failed: list[int] = []

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        if page == fail and not failed:
            failed.append(page)
            return Answer("busy", status=503)
        users = [make_user(SIZE * page + number) for number in range(SIZE)] if page <= PAGES else []
        return Answer(users, headers={"X-Total-Count": str(PAGES * SIZE)}, wait=wait)

    return server.on("/users", respond)


def test_terminal_shows_a_transient_bar(server):
    """The bar shows pages, records, rate, share and time left. A retry is logged above the bar."""
    url = serve_slowly(server, 0.15, fail=8)
    code, written = run_on_terminal("luigi", "--module", "pipeline", *LOAD, *ONE, "--users-url", url)
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


def test_redirected_log_lines_stay_out_of_the_terminal(server):
    """The file receives every line, including lines logged while the bar is shown."""
    url = serve_slowly(server, 0.15, fail=8)
    with Path("log").open("wb") as log:
        code, written = run_on_terminal(
            "luigi", "--module", "pipeline", "ExtractUsers", *LOAD[1:], *ONE, "--users-url", url, out=log.fileno()
        )
    assert code == 0, written
    assert "━" in written
    retry, extracted = Path("log").read_text().splitlines()
    assert "retry 1 of 5" in retry
    assert extracted == "INFO: users 2026-11-20: extracted 500 records, 10 pages"
    assert "retry 1 of 5" not in written


def test_quick_extraction_shows_no_bar(server):
    """Hundreds of short days would only flicker. One day of three may take half a second on a busy machine."""
    url, quiet = server.on("/users", Answer([make_user(1)])), 0
    for day in ("2026-11-18", "2026-11-19", "2026-11-20"):
        command = ("luigi", "--module", "pipeline", "ExtractUsers", "--date", day, "--users-url", url)
        code, written = run_on_terminal(*command)
        assert code == 0, written
        quiet += "━" not in written and "\x1b" not in written
    assert quiet >= 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_pipe_shows_no_bar(server, workers):
    """The log has one line, with one worker or several."""
    url = serve_slowly(server, 0.1)
    result = luigi_run("ExtractUsers", *LOAD[1:], "--users-url", url, "--workers", workers, FORCE_COLOR="1")
    assert result.returncode == 0, result.stderr
    assert "━" not in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stdout == f"INFO: users {DAY}: extracted 500 records, 10 pages\n"


def test_worker_processes_show_no_bar(server):
    """Several bars would overwrite each other."""
    url = serve_slowly(server, 0.1)
    code, written = run_on_terminal(
        "luigi", "--module", "pipeline", "ExtractUsers", *LOAD[1:], "--users-url", url, "--workers", "2"
    )
    assert code == 0, written
    assert "\x1b" not in written


def test_visualiser_shows_progress_of_a_running_day(server):
    """A worker process reports the message and the share while it extracts and when it is done."""
    with start_scheduler() as environment:

        def ask(status: str) -> list[dict[str, Any]]:
            tasks = ask_scheduler("task_list", status=status, upstream_status="").values()
            return [task for task in tasks if task["name"] == "ExtractUsers"]

        url = serve_slowly(server, 0.4)
        command = start(
            "luigi", "--module", "pipeline", *LOAD, *ONE, "--users-url", url, "--workers", "2", **environment
        )
        running: list[dict[str, Any]] = []
        began = time.monotonic()
        deadline = time.monotonic() + 60
        while command.poll() is None and time.monotonic() < deadline:
            running += [task for task in ask("RUNNING") if task["status_message"]]
            time.sleep(0.1)
        _, stderr = command.communicate()
        assert command.returncode == 0, stderr
        seconds = time.monotonic() - began
        (done,) = ask("DONE")
    messages = {task["status_message"]: task["progress_percentage"] for task in running}
    for message, percentage in messages.items():
        found = re.fullmatch(r"(\d+) pages, (\d+) of 500 records, [\d,]+ records/s", message)
        assert found
        assert (percentage or 0) <= 100 * int(found[2]) // 500  # less if the request came between the two calls
    assert any(messages.values())
    assert 1 <= len(messages) <= 1 + seconds / progress.EVERY
    assert done["status_message"].startswith("10 pages, 500 of 500 records, ")
    assert done["progress_percentage"] == 100
    assert query("select extracted from loads") == [(500,)]


def follow(url: str, set_message: Callable[[str], None], set_percentage: Callable[[int], None], **keys: Any) -> None:
    """Extract from a source and report progress to the given setters."""
    reading = Reader(People(url=url, paginator="page", **keys), OTHER_DAY, census=Census([FieldReader("id")]))
    with progress.track_extraction(set_message, set_percentage) as tell:
        for _ in reading:
            tell(reading)


def test_scheduler_updates_are_throttled(server, monkeypatch):
    """The end is always reported. The share needs a declared total."""
    url = server.on("/users", make_pages(50, 10, server, ""))
    messages: list[str] = []
    monkeypatch.setattr(progress, "EVERY", 60)
    follow(url, messages.append, pytest.fail)
    (end,) = messages
    assert re.fullmatch(r"6 pages, 50 records, [\d,]+ records/s", end)
    monkeypatch.setattr(progress, "EVERY", 0)
    messages.clear()
    follow(url, messages.append, pytest.fail)
    assert messages[0] == "1 page, 10 records"
    assert [message.split(",")[0] for message in messages] == ["1 page", *(f"{number} pages" for number in range(2, 7))]


def test_share_is_at_most_100_percent(server):
    """With repeated records the source sends more than it declares."""
    users = [{"id": number} for number in (1, 2, 2, 3)]
    shares: list[int] = []
    body = {"total": 3, "users": users}
    follow(
        server.on("/users", Answer(body), Answer({"total": 3, "users": []})), print, shares.append, total_path="total"
    )
    assert shares == [100]


def test_unreachable_scheduler_does_not_fail_the_day(server, monkeypatch, caplog):
    """The run logs one line and stops its updates, because each failed call takes a minute."""
    monkeypatch.setattr(progress, "EVERY", 0)
    calls: list[str] = []

    def refuse(message: str) -> None:
        calls.append(message)
        raise RPCError("Errors (3 attempts) when connecting to remote scheduler")

    follow(server.on("/users", make_pages(50, 10, server, "")), refuse, pytest.fail)
    assert calls == ["1 page, 10 records"]
    (record,) = caplog.records
    assert record.getMessage().startswith("the scheduler receives no more progress of this extraction: Errors (3")
