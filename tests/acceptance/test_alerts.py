"""Alerts: one for each day and cause, without delaying a run."""

import datetime as dt
import json
import logging
import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.users import USERS
from tests.support.project import execute, luigi_run, run_line
from tests.support.server import Answer, Server
from wholeday import clock
from wholeday.commands import cli
from wholeday.guides import FAILED_DAY
from wholeday.tasks import alerts
from wholeday.tasks.failures import Failure
from wholeday.text import clean_chat

DAY = dt.date(2026, 11, 20)
UNREACHABLE = (
    "the webhook of A_HOOK: no connection: check its host and port, the network, and the proxy and CA settings"
)
NO_URL = "the webhook of A_HOOK: its value is not a URL: export one with https:// and a host"
NOBODY = ("--users-url", "http://127.0.0.1:9/x", "--users-retries", "0")


def fail(line: str = "why", date: dt.date = DAY, stage: str = "extract") -> None:
    """Send an alert for a day that fails now."""
    alerts.send_alert(USERS, Failure(clock.utc_now(), date, stage, line))


@pytest.fixture
def hook(server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Serve a webhook. Return a function that lists the causes it received."""
    monkeypatch.setenv("A_HOOK", server.on("/services/s3cr3t", Answer("ok")))
    configure("pipeline", webhook="A_HOOK")
    return lambda: [json.loads(request.body)["line"] for request in server.requests]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_failed_day_sends_one_alert_for_two_runs(server, workers):
    """The alert names the day, the stage, the cause, the place, and the command that shows more."""
    command = ("LoadUsers", "--date", str(DAY), "--workers", workers, *NOBODY, "--pipeline-webhook", "A_HOOK")
    environment = {"A_HOOK": server.on("/services/s3cr3t", Answer("ok"))}
    first, again = (luigi_run(*command, **environment) for _ in range(2))
    assert (first.returncode, again.returncode) == (30, 30)
    (request,) = server.requests
    told: dict[str, Any] = json.loads(request.body)
    assert (request.method, request.headers["Content-Type"]) == ("POST", "application/json")
    assert told.keys() == {"text", "dataset", "at", "date", "stage", "line", "host", "more", "guide"}
    assert (told["dataset"], told["date"], told["stage"]) == ("users", str(DAY), "extract")
    assert f"ERROR: ExtractUsers(date={DAY}) failed: {told['line']}\n" in first.stderr
    assert told["text"] == f"users {DAY} extract: {clean_chat(told['line'])}\nnext: `wholeday status`, {told['guide']}"
    assert told["guide"] == f"{FAILED_DAY}#the-source"
    assert told["more"] == f"on {socket.gethostname()} in {Path.cwd()}: wholeday status"


def test_cause_is_sent_once_for_a_day(hook):
    """Numbers in the cause do not count. Another cause, stage or day is sent."""
    fail("503 after 2.1 s, request 7f3a")
    fail("503 after 9.8 s, request 01bc")
    fail("connection refused")
    fail("503 after 2.1 s, request 7f3a")
    fail("503 after 2.1 s, request 7f3a", stage="load")
    fail("503 after 2.1 s, request 7f3a", date=DAY - dt.timedelta(days=1))
    lines = hook()
    assert lines == ["503 after 2.1 s, request 7f3a", "connection refused", *["503 after 2.1 s, request 7f3a"] * 2]


@pytest.mark.slow
def test_failure_after_a_load_is_sent_again(server):
    """A deleted marker makes the day run again."""
    flags = ("LoadUsers", "--date", str(DAY), "--pipeline-webhook", "A_HOOK")
    environment = {"A_HOOK": server.on("/services/s3cr3t", Answer("ok"))}
    for url in (NOBODY, (), NOBODY, NOBODY):
        result = luigi_run(*flags, *url, **environment)
        assert result.returncode == (30 if url else 0)
        if not url:
            execute("delete from loads")
            shutil.rmtree("data/raw")
    assert len(server.requests) == 2


def tell_some(number: int) -> None:
    fail(f"why {number}")


@pytest.mark.slow
def test_concurrent_processes_send_one_alert(hook):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(tell_some, range(8))
    assert len(hook()) == 1


@pytest.mark.slow
def test_silent_webhook_delays_nothing(server, hook, monkeypatch, caplog):
    """The run logs one warning and pauses alerts for a minute. Then it sends the undelivered alerts."""
    server.on("/services/s3cr3t", Answer("late", wait=30))
    monkeypatch.setattr(alerts, "PATIENCE", 1)
    for n in range(20):
        fail(date=DAY - dt.timedelta(days=n))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"users {DAY}: cannot send the failure alert: the webhook of A_HOOK: no answer in 1 s"
    server.on("/services/s3cr3t", Answer("ok"))
    now = clock.utc_now() + alerts.PAUSE
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    fail()
    fail()
    assert hook() == ["why", "why"]


def test_clock_that_was_ahead_blocks_no_alert(hook, monkeypatch):
    """The pause after an unanswered request ends, although its time lies in the future."""
    url, now = os.environ["A_HOOK"], clock.utc_now()
    monkeypatch.setenv("A_HOOK", "http://127.0.0.1:9/s3cr3t")
    monkeypatch.setattr(clock, "utc_now", lambda: now + dt.timedelta(days=365))
    fail()
    monkeypatch.setenv("A_HOOK", url)
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    fail("another")
    assert hook() == ["another"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which takes nothing")
def test_late_day_alerts_on_full_disk(server):
    """`status` cannot print to a full standard output, but the alert is sent."""
    url = server.on("/services/s3cr3t", Answer("ok"))
    command = "python -m wholeday status --max-age '1 day' --pipeline-webhook A_HOOK > /dev/full"
    result = run_line(command, A_HOOK=url)
    late, full = result.stderr.splitlines()
    assert (result.returncode, len(server.requests)) == (1, 1)
    assert late.startswith("ERROR: users: no day is loaded")
    assert full == "ERROR: cannot write to stdout: No space left on device"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "[pipeline] webhook: the environment variable A_HOOK is not set: export it"),
        ("http://127.0.0.1:9/s3cr3t", UNREACHABLE),
        ("http://no-such-host.invalid/s3cr3t", "the webhook of A_HOOK: "),
        ("http://127.0.0.1:s3cr3t/", UNREACHABLE),
        ("{server}/half/s3cr3t", UNREACHABLE),
        ("hooks.example/s3cr3t", NO_URL),
        ("ftp://hooks.example/s3cr3t", NO_URL),
        ("https:///s3cr3t", NO_URL),
        ("{server}/gone/s3cr3t", "the webhook of A_HOOK: 404 Not Found"),
        ("{server}/moved/s3cr3t", "the webhook of A_HOOK: 302 Found"),
    ],
)
@pytest.mark.usefixtures("hook")
def test_undelivered_alert_is_a_warning_without_the_url(server, monkeypatch, caplog, url, problem):
    """The URL is a secret: it allows posting to the chat."""
    server.on("/moved/s3cr3t", Answer(status=302, headers={"Location": "/services/s3cr3t"}))
    server.on("/half/s3cr3t", Answer(reset=True))
    monkeypatch.setenv("A_HOOK", url.format(server=server.url))
    caplog.set_level(logging.DEBUG)
    fail()
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.startswith(f"users {DAY}: cannot send the failure alert: {problem}")
    assert "s3cr3t" not in caplog.text
    assert Path("data/failures/users.alerts.jsonl").read_text().count("s3cr3t") == 0


def test_alert_is_sent_without_a_record(hook):
    """A full disk prevents the record. A repeated alert is better than none."""
    Path("data").mkdir()
    Path("data/failures").write_text("a file where the folder should be")
    fail()
    assert hook() == ["why"]


def test_without_a_webhook_no_file_is_written():
    fail()
    assert not Path("data").exists()


def test_late_day_sends_one_alert_a_day(hook, capsys, monkeypatch):
    """A monitor may run `status` as often as it likes."""
    for age in ("30 hours", "1 day"):
        with pytest.raises(SystemExit):
            cli.main(["status", "--max-age", age])
    alerts.record_recovery(USERS, USERS.config().last_closed_day(clock.utc_now()))  # the data is late in any case
    with pytest.raises(SystemExit):
        cli.main(["status", "--max-age", "30 hours"])
    assert hook() == ["users: no day is loaded, and --max-age allows 1 day 6 hours: see wholeday status"]
    tomorrow = clock.utc_now() + dt.timedelta(days=1)
    monkeypatch.setattr(clock, "utc_now", lambda: tomorrow)
    with pytest.raises(SystemExit):
        cli.main(["status", "--max-age", "30 hours"])
    assert len(hook()) == 2
    assert capsys.readouterr().err.count("ERROR: users: no day is loaded") == 4


def test_trial_alert_prints_its_result(hook, capsys, monkeypatch):
    cli.main(["alert"])
    assert hook() == ["nothing failed: this is a trial"]
    assert capsys.readouterr() == ("the webhook of A_HOOK took a trial message\n", "")
    monkeypatch.setenv("A_HOOK", "http://127.0.0.1:9/s3cr3t")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["alert"])
    assert exit_.value.code == 1
    assert capsys.readouterr() == ("", f"ERROR: {UNREACHABLE}\n")


@pytest.mark.usefixtures("hook")
def test_unverifiable_certificate_is_explained(monkeypatch):
    """requests raises no specific error for a missing certificate file."""
    monkeypatch.setenv("A_HOOK", "https://127.0.0.1:9/s3cr3t")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
    assert alerts.post("A_HOOK", {}) == UNREACHABLE


@pytest.mark.parametrize(
    ("webhook", "line"),
    [
        ("", r"\[pipeline\] webhook is not set"),
        ("https://hooks.example/s3cr3t", r"^ERROR: \[pipeline\] webhook cannot be used: write the name of an env"),
    ],
)
def test_trial_refuses_an_unusable_webhook(configure, webhook, line):
    """If the key holds a URL instead of a variable's name, the error does not show the URL."""
    configure("pipeline", webhook=webhook)
    with pytest.raises(SystemExit, match=line) as exit_:
        cli.main(["alert"])
    assert "s3cr3t" not in str(exit_.value)


@pytest.mark.slow
def test_missing_scheduler_sends_an_alert_for_a_range(server):
    """No day can run, so the newest day fails."""
    text = Path("central.cfg").read_text().replace("scheduler_port = 8082", "scheduler_port = 9")
    Path("central.cfg").write_text(text.replace("[core]", "[core]\nrpc_retry_wait = 0"))
    result = luigi_run(
        *("BackfillUsers", "--start", "2026-11-18", "--stop", "2026-11-21", "--pipeline-webhook", "A_HOOK"),
        LUIGI_CONFIG_PATH="central.cfg",
        A_HOOK=server.on("/services/s3cr3t", Answer("ok")),
    )
    assert result.returncode == 40
    (request,) = server.requests
    told = json.loads(request.body)
    assert (told["date"], told["stage"]) == (str(DAY), "load")
    assert "is luigid running?" in told["line"]
