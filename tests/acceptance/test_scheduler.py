"""Run luigid: its pages in a browser, its stored state, and its limits on requests to an API."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.browser import Browser, Page
from tests.support.project import ask_scheduler, find_scheduler, luigi_run, run, start, start_scheduler
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

FAILING = "2026-11-17"


@pytest.fixture
def without_retries(home: Path) -> None:
    """Disable the retries of luigid."""
    text = (home / "central.cfg").read_text().replace("keep_alive = true", "keep_alive = false")
    (home / "central.cfg").write_text(text.replace("retry_delay = 5", "retry_delay = 600"))


@pytest.fixture
def scheduler(without_retries: None) -> Iterator[tuple[str, dict[str, str]]]:  # noqa: ARG001
    """Return the URL of luigid, and the environment for commands."""
    with start_scheduler() as environment:
        yield find_scheduler(), environment


def check_alone(page: Page, url: str) -> None:
    """Check that the page loads local resources only and has no other console errors."""
    forbidden = {asked for asked in page.requests() if not asked.startswith(url)}
    errors = [error for error in page.errors() if "favicon.ico" not in error]
    assert len(errors) == len(forbidden)
    assert all(any(asked in error and "Content Security Policy" in error for error in errors) for asked in forbidden)


def test_pages_show_backfill_failure_and_tracking_link(scheduler, tmp_path):
    """The history page works as well."""
    url, environment = scheduler
    with Server() as server:
        source = server.on(
            "/users",
            lambda request: Answer(status=500 if request.query["on"] == FAILING else 200, body=[make_user(1)]),
        )
        result = luigi_run(
            *("BackfillUsers", "--start", "2026-11-16", "--stop", "2026-11-18", "--workers", "2"),
            *("--users-url", f"{source}?on={{date}}", "--users-retries", "0", "--users-paginator", "single"),
            **environment,
        )
        assert result.returncode == 30, result.stderr
    (line,) = set(re.findall(r"^ERROR: ExtractUsers.* failed: (.*)$", result.stderr, re.MULTILINE))
    with Browser(tmp_path) as browser:
        page = browser.open(url)
        page.wait_for("document.querySelector('#taskTable .showError') && !document.querySelector('.fa-spinner')")
        page.evaluate("$('#taskTable').DataTable().page.len(100).draw() && 1")
        rows = page.evaluate("[...document.querySelectorAll('#taskTable tbody tr')].map(row => row.innerText)")
        # A task after a failed one is pending or "upstream failed", depending on the order of updates.
        shown = {tuple(row.replace("UPSTREAM_FAILED", "PENDING").split()[:3]) for row in rows}
        assert {each for each in shown if "BackfillUsers" not in each} == {
            (status, f"{task}Users", f"date=2026-11-{day}")
            for day, statuses in {16: "DONE " * 3, 17: "FAILED PENDING PENDING"}.items()
            for task, status in zip(("Extract", "Transform", "Load"), statuses.split(), strict=True)
        }
        (whole,) = (row for row in rows if "BackfillUsers" in row)
        assert "start=2026-11-16, stop=2026-11-18" in " ".join(whole.split())
        assert not re.search("reverse|days_|task_limit", whole)  # these parameters have one possible value
        assert page.evaluate("document.querySelector('a[title=\"Track Progress\"]').href").startswith(f"{source}?on=")
        page.evaluate("document.querySelector('.showError').click()")
        page.wait_for("document.querySelector('.modal.in pre')")
        assert page.evaluate("document.querySelector('.modal.in pre').innerText").strip('"') == line
        check_alone(page, url)
        page.wait_for("document.querySelector('.modal-dialog').getAnimations().length == 0")
        page.screenshot(Path("visualiser.png"), whole=False)
        history = browser.open(f"{url}/history")
        assert "Luigi Task History" in history.text()
        check_alone(history, url)
        history.screenshot(Path("history.png"), whole=False)


def test_luigid_state_survives_a_restart():
    """Tasks and history are stored. Prometheus can scrape the metrics."""
    with start_scheduler() as environment:
        url = find_scheduler()
        assert luigi_run("ExtractUsers", "--date", FAILING, **environment).returncode == 0
        metrics = requests.get(f"{url}/metrics").text
    assert 'luigi_task_done_total{family="ExtractUsers"} 1.0\n' in metrics
    with start_scheduler():
        done = ask_scheduler("task_list", status="DONE", upstream_status="")
        history = requests.get(f"{url}/history/by_name/ExtractUsers").text
    assert [task["name"] for task in done.values()] == ["ExtractUsers"]
    assert FAILING in history


@pytest.mark.usefixtures("without_retries")
def test_luigid_stores_no_failure_cause():
    """A cause may quote a person. The visualiser shows it while luigid runs."""
    with start_scheduler() as environment, Server() as server:
        url = server.on("/users", Answer(status=404, body={"error": "cannot serialise Jane Hidden"}))
        result = luigi_run(
            *("ExtractUsers", "--date", FAILING, "--users-url", url, "--users-retries", "0"),
            **environment,
        )
        assert "Jane Hidden" in result.stderr
        (failed,) = ask_scheduler("task_list", status="FAILED", upstream_status="")
        assert "Jane Hidden" in ask_scheduler("fetch_error", task_id=failed)["error"]
    files = [path for path in Path("data").glob("luigid.*") if path.is_file()]
    assert {path.suffix for path in files} >= {".pickle", ".db"}
    assert not [path for path in files if b"Jane Hidden" in path.read_bytes()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    with start_scheduler():
        (failed,) = ask_scheduler("task_list", status="FAILED", upstream_status="")
        assert "wholeday status" in ask_scheduler("fetch_error", task_id=failed)["error"]


def test_luigid_listens_on_loopback_only():
    """luigid has no password. The test also tries another loopback address."""
    with start_scheduler():
        port = urlsplit(find_scheduler()).port
        reached = {}
        for address in ("127.0.0.1", "127.0.0.2"):
            with socket.socket() as probe:
                reached[address] = probe.connect_ex((address, port)) == 0
    assert reached == {"127.0.0.1": True, "127.0.0.2": False}


@pytest.mark.parametrize(
    ("more", "kept"), [("", ["pickle"]), ("[scheduler]\nrecord_task_history = true\n", ["db", "pickle"])]
)
def test_minimal_luigid_configuration_works(more, kept):
    """The state goes to the paths of central.cfg by default."""
    shipped = Path("central.cfg").read_text()
    Path("central.cfg").write_text(f"[core]\nscheduler_port = 8082\n{more}")
    with start_scheduler():
        pass
    assert "Traceback" not in Path("luigid.log").read_text()
    places = [str(path) for path in sorted(Path("data").iterdir())]
    assert places == [f"data/luigid.{kind}" for kind in kept]
    assert all(place in shipped for place in places)


@pytest.mark.parametrize("history", ["nowhere", "sqlite:///central.cfg", "sqlite:///%(nothing)s"])
def test_unwritable_history_is_one_line(history):
    """The output has no traceback."""
    text = Path("central.cfg").read_text()
    Path("central.cfg").write_text(text.replace("sqlite:///data/luigid.db", history))
    result = run("python", "-m", "wholeday", "luigid", LUIGI_CONFIG_PATH="central.cfg", PYTHONWARNINGS="")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"ERROR: luigid cannot start: .*\. Correct \[scheduler\] and \[task_history\] .*", line)


def test_second_luigid_fails_with_one_line():
    """The output has no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run(
            *("python", "-m", "wholeday", "luigid", "--port", str(taken.getsockname()[1])),
            LUIGI_CONFIG_PATH="central.cfg",
            PYTHONWARNINGS="",
        )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("ERROR: luigid cannot start: [Errno 98] Address already in use")


class Crowd:
    """A server handler that waits so many seconds for concurrent requests. `most` is the highest number at once."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock, self._here, self.most = threading.Lock(), 0, 0

    def respond(self, _: Request) -> Answer:
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        deadline = time.monotonic() + self._patience
        while self.most < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._lock:
            self._here -= 1
        return Answer([])


def test_extractions_are_limited_across_commands():
    """With the limit of central.cfg the second command waits."""
    text = Path("central.cfg").read_text()
    Path("central.cfg").write_text(f"[resources]\nusers_api = 1\n\n{text}")
    crowd = Crowd(1.5)
    with start_scheduler() as environment, Server() as server:
        command = (
            "luigi",
            "--module",
            "pipeline",
            "ExtractUsers",
            "--users-url",
            server.on("/users", crowd.respond),
        )
        both = [start(*command, "--date", day, **environment) for day in (FAILING, "2026-11-18")]
        results = [process.communicate(timeout=90) for process in both]
        assert [process.returncode for process in both] == [0, 0], results
        assert len(server.requests) == 2
    assert crowd.most == 1


def test_extractions_are_not_limited_by_default():
    """Luigi's default for an unnamed resource is one at a time."""
    crowd = Crowd(60)
    with Server() as server:
        url = server.on("/users", crowd.respond)
        span = ("--start", FAILING, "--stop", "2026-11-19", "--workers", "2")
        result = luigi_run("RangeDaily", "--of", "ExtractUsers", *span, "--users-url", url)
    assert result.returncode == 0, result.stderr
    assert crowd.most == 2
