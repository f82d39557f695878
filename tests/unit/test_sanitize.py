"""Text of a source is cleaned for terminals, logs and chats."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.project import luigi_run, run_here
from tests.support.reading import read_error
from tests.support.server import Answer, Server
from wholeday.commands.screen import open_console
from wholeday.errors import PipelineError
from wholeday.guides import FAILED_DAY
from wholeday.log import logger
from wholeday.tasks import console
from wholeday.text import clean_chat, clean_line, clean_lines

ESC = "\x1b]0;pwned\x07\x1b[2J\x1b[32mINFO: users 2026-11-20: loaded, 100 inserted\x1b[0m"
CR = "x\rINFO: users 2026-11-20: loaded, 100 inserted"
USER = {"id": 1}


def write(head: str, body: bytes = b"") -> Answer:
    return Answer(raw=f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)


HOSTILE = {
    "reason": write(f"404 {ESC}"),
    "reason with CR": write(f"503 {CR}"),
    "status line": Answer(raw=f"{ESC}\r\n\r\n".encode()),
    "content encoding": write(f"200 OK\r\nContent-Encoding: {ESC}", b"[]"),
    "link": write(f'200 OK\r\nLink: <http://other.invalid/{ESC}>; rel="next"', json.dumps([USER]).encode()),
    "location": write(f"302 Found\r\nLocation: http://x.invalid/{ESC}"),
    "length": write(f"200 OK\r\nContent-Length: {ESC}"),
    "JSON names": Answer({f"{ESC}a": [USER], "\u202eb": [{"id": 2}]}),
    "next link": Answer({"data": [USER], "next": f"/{ESC}?page=2", "has_more": True}),
    "cursor": Answer({"data": [{"id": number} for number in range(10)], "next_cursor": f"{ESC}\u202e"}),
    "total": Answer({"data": [USER], "total": 7, f"{ESC}next": ESC}),
    "body": Answer(ESC, status=404),
}


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    line = clean_line(text)
    assert line.isprintable()
    assert clean_line(line) == line


@given(st.text())
def test_cleaned_lines_keep_their_breaks(text: str) -> None:
    """Nothing else that moves a cursor stays."""
    lines = clean_lines(text)
    assert lines.count("\n") == text.count("\n")
    assert lines.replace("\n", "").isprintable()


def test_printable_text_is_unchanged() -> None:
    assert clean_line("Zoë, 名前, 🙂 and \\x1b") == "Zoë, 名前, 🙂 and \\x1b"


@pytest.mark.parametrize("case", HOSTILE)
def test_error_of_hostile_answer_is_printable(case: str) -> None:
    with Server() as server:
        line = read_error(server.on("/users", HOSTILE[case]))
    assert line.isprintable()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<!channel> token expired", "`(!channel) token expired`"),
        ("<https://evil.example/login|renew it>", "`(https[:]//evil.example/login|renew it)`"),
        ("[renew it](http://evil.example) www.evil.example", "`[renew it](http[:]//evil.example) www[.]evil.example`"),
        ("@everyone @here <@U024BE7LH> <at>Ann</at>", "`(at)everyone (at)here ((at)U024BE7LH) (at)Ann(/at)`"),
        ("a ` closes code, and\na line", "`a ' closes code, and a line`"),
        ("&lt;!channel&gt;", "`&lt;!channel&gt;`"),
    ],
)
def test_chat_text_mentions_nobody_and_links_nowhere(said: str, shown: str) -> None:
    assert clean_chat(said) == shown


@pytest.mark.parametrize("error", [PipelineError(ESC), console.ParameterException(ESC), console.RPCError(ESC)])
def test_line_of_an_expected_error_is_clean(error: Exception) -> None:
    assert (console.describe_error(error) or ESC).isprintable()


def test_log_record_is_clean_for_any_handler(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback, and for the handlers of a logging_conf_file too."""
    try:
        raise KeyError(f"{ESC}\nERROR: forged")
    except KeyError:
        logger.exception("read %s\nERROR: forged", ESC)
    shown = caplog.handler.format(caplog.records[-1])
    assert logging.Formatter("%(message)s").format(caplog.records[-1]).startswith("read \\x1b]0;pwned\\x07")
    assert shown.replace("\n", "").isprintable()
    assert "\nERROR: forged" not in shown


def test_uncaught_error_is_printed_clean(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError(ESC)
    console.show_uncaught(RuntimeError, error, None)
    err = capsys.readouterr().err
    assert err.startswith("RuntimeError: \\x1b]0;pwned")
    assert err.replace("\n", "").isprintable()


def test_console_prints_clean_text(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(f"{ESC} :smile:", style="red", soft_wrap=True)
    out = capsys.readouterr().out
    assert out == f"{clean_line(ESC)} :smile:\n"


@pytest.mark.slow
def test_hostile_reason_reaches_every_place_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """The log with its retries, the failures file, status, the report and the webhook."""
    with Server() as server:
        answer = HOSTILE["reason with CR"]
        hostile = Answer(raw=answer.raw.replace(b"503 x", f"503 <!channel> {ESC} https://evil.example/ ".encode()))
        result = luigi_run(
            *("LoadUsers", "--date", "2026-11-20", "--users-url", f"{server.on('/users', hostile)}?date={{date}}"),
            *("--users-retries", "1", "--pipeline-webhook", "HOOK"),
            HOOK=server.on("/hook", Answer(b"ok")),
        )
        (sent,) = [json.loads(request.body) for request in server.requests if request.path == "/hook"]
    assert result.returncode == 30
    assert "retry 1 of 1" in result.stdout
    status, _, _ = run_here(capsys, "status")
    run_here(capsys, "report")
    texts = [result.stdout, result.stderr, status, *map(str, sent.values())]
    texts += [path.read_text() for path in (Path("data/failures/users.jsonl"), Path("data/report.html"))]
    for text in texts:
        assert text.replace("\n", "").replace("\t", "").isprintable()
    lines = (result.stdout + result.stderr + status).splitlines()
    assert not [line for line in lines if line.lstrip().startswith("INFO: users 2026-11-20: loaded")]
    assert "<!" not in sent["text"]
    assert "https://" not in sent["text"].replace(FAILED_DAY, "")
