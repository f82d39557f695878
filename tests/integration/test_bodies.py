"""Test bodies other than a list of objects: JSON lines, a single object, an object of objects, a list of scalars."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import DAY, read, read_bytes, read_error
from tests.support.server import Answer, Server
from tests.support.wire import Raw, Wire
from wholeday.errors import ConfigError
from wholeday.extract.http.body_shapes import unfold
from wholeday.extract.http.envelope import split_list
from wholeday.extract.http.failures import BadPageError, RecoverableError

NDJSON = {"Content-Type": "application/x-ndjson; charset=utf-8"}
NO_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
KINDS = ("ndjson", "x-ndjson", "jsonl", "x-jsonlines", "json-lines", "stream+json")
LINES = ["text/x-ndjson", *(f"application/{kind}" for kind in KINDS)]


@pytest.mark.parametrize("kind", ["application/json", *LINES])
@pytest.mark.parametrize("selector", ["auto", "@"])
def test_lines_are_records(server: Server, kind: str, selector: str) -> None:
    """The bytes stay; blank lines and Windows line ends do not matter."""
    body = '{"id": 1,  "a": 1.0}\r\n\n  \n{"id": 2}\n{"b": {}, "id": 3}'
    url = server.on("/users", Answer(body, headers={"Content-Type": kind}))
    assert read_bytes(url, data_selector=selector) == [b'{"id": 1,  "a": 1.0}', b'{"id": 2}', b'{"b": {}, "id": 3}']


def test_content_type_makes_a_single_line_a_record(server: Server) -> None:
    """Otherwise only data_selector = @ makes it one. An empty body has no lines."""
    body = '{"id": 1, "items": [{"id": 7}]}\n'
    url = server.on("/users", Answer(body, headers=NDJSON))
    assert read(url) == [{"id": 1, "items": [{"id": 7}]}]
    assert read(server.on("/users", Answer("", headers=NDJSON))) == []
    assert "the body is empty" in read_error(server.on("/users", Answer("")), data_selector="@")


def test_pages_of_lines_follow_links(server: Server) -> None:
    first = Answer('{"id": 1}\n{"id": 2}\n', headers=NDJSON | {"Link": "</two>; rel=next"})
    server.on("/two", Answer('{"id": 3}\n', headers=NDJSON))
    assert read(server.on("/users", first)) == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_lines_without_declared_length_fail() -> None:
    """A connection that ends after a line looks complete. A JSON list has a closing bracket."""
    with Wire() as wire:
        for head in (NO_LENGTH, NO_LENGTH.replace(b"x-ndjson", b"json")):
            wire.show({"/users": [Raw(head + b'{"id": 1}\n{"id": 2}\n')]})
            assert "JSON lines without a declared length" in read_error(f"{wire.url}/users")
        wire.show({"/users": [Raw(NO_LENGTH.replace(b"x-ndjson", b"json") + b'[{"id": 1}]')]})
        assert read(f"{wire.url}/users") == [{"id": 1}]


@pytest.mark.parametrize(
    "cut",
    [b'Content-Length: 10\r\n\r\n{"id": 1}\n', b'Transfer-Encoding: chunked\r\n\r\na\r\n{"id": 1}\n\r\n0\r\n\r\n'],
)
def test_lines_after_the_declared_end_are_retried(cut: bytes) -> None:
    head, line = NO_LENGTH.removesuffix(b"\r\n"), b'{"id": 2}\n'
    with Wire() as wire:
        wire.show({"/users": [Raw(head + cut + line)]})
        assert "the answer is longer than its headers declare" in read_error(f"{wire.url}/users")
        wire.show({"/users": [Raw(head + cut)]})
        assert read(f"{wire.url}/users") == [{"id": 1}]


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_cut_last_line_is_retried(server: Server, headers: dict[str, str]) -> None:
    """The page fails if every attempt is cut."""
    cut, whole = ['{"id": 1}\n{"id": 2, "na', '{"id": 1}\n{"id": 2, "name": "B"}']
    url = server.on("/users", Answer(cut, headers=headers), Answer(whole, headers=headers))
    assert read(url) == [{"id": 1}, {"id": 2, "name": "B"}]
    assert "the body is cut: its JSON has no end" in read_error(server.on("/users", Answer(cut, headers=headers)))


def test_error_after_the_last_line_fails(server: Server) -> None:
    """An interrupted stream ends with an error object. A field `error` in a normal record is data."""
    body = '{"id": 1, "error": "a past one"}\n{"id": 2, "error": "another"}\n'
    url = server.on("/users", Answer(body))
    assert len(read(url)) == 2
    assert "reports a failure: 'error' is" in read_error(server.on("/users", Answer(body + '{"error": "timeout"}')))
    assert "reports a failure" in read_error(server.on("/users", Answer('{"error": "busy"}', headers=NDJSON)))


@pytest.mark.parametrize("bad", ["NaN", '"\\ud800"', "1e999"])
def test_line_with_odd_value_is_kept(server: Server, bad: str) -> None:
    assert read_bytes(server.on("/users", Answer(f'{{"id": 1}}\n{{"x": {bad}}}'))) == [
        b'{"id": 1}',
        f'{{"x": {bad}}}'.encode(),
    ]


def test_single_object_needs_its_key(server: Server) -> None:
    """Only `data_selector = @` accepts it. The record becomes one line, and its fields do not start paging."""
    body = '{\n  "id": 1,\n  "total": 50, "has_more": true, "next": "/two", "items": [{"id": 7}]\n}'
    url = server.on("/users", Answer(body))
    (record,) = read_bytes(url, data_selector="@")
    assert json.loads(record)["total"] == 50
    assert b"\n" not in record
    assert "not clear which list" in read_error(server.on("/users", Answer({"id": 1, "name": "Ada"})))
    job = {"id": 1, "status": "error", "name": "nightly"}
    assert read(server.on("/jobs/1", Answer(job)), data_selector="@") == [job]


MEMBERS = '{"u1": {"name": "Ada"}, "ü2": {"_key": "own", "n": 1}, "u3": { }}'


@pytest.mark.parametrize(
    ("selector", "body"),
    [
        ("users.*", f'{{"users": {MEMBERS}, "count": 3}}'),
        ("data.users.*", f'{{"data": {{"x": 1, "users": {MEMBERS}}}}}'),
        ("a.b.*", f'{{"a.b": {MEMBERS}}}'),
        ("*", MEMBERS.replace("{ }", "{}")),
    ],
)
def test_members_of_an_object_are_records(server: Server, selector: str, body: str) -> None:
    """The name of each member goes into `_key`, before the original bytes, unless the member has a `_key`."""
    assert read_bytes(server.on("/users", Answer(body)), data_selector=selector) == [
        b'{"_key":"u1","name": "Ada"}',
        b'{"_key": "own", "n": 1}',
        b'{"_key":"u3"}',
    ]


@pytest.mark.parametrize("members", ["{}", "[]", "null"])
def test_object_without_members_is_an_empty_list(server: Server, members: str) -> None:
    """PHP writes `[]` for an empty object, and Go writes null."""
    assert read(server.on("/users", Answer(f'{{"users": {members}}}')), data_selector="users.*") == []


def test_scalar_member_becomes_value(server: Server) -> None:
    """Tables of exchange rates have this shape."""
    url = server.on("/rates", Answer('{"rates": {"EUR": 1.10, "JPY": [1, 2], "XXX": null}}'))
    assert read_bytes(url, data_selector="rates.*") == [
        b'{"_key":"EUR","value":1.10}',
        b'{"_key":"JPY","value":[1, 2]}',
        b'{"_key":"XXX","value":null}',
    ]


@pytest.mark.parametrize(
    ("selector", "body", "words"),
    [
        ("users.*", {"users": [{"id": 1}]}, "there is a list at 'users', not an object"),
        ("users.*", {"teams": {}}, "there is no list at 'users'"),
        ("users.*", {"users": {"u1": {"id": 1}}, "error": "busy"}, "reports a failure"),
        ("*", {"error": {"code": 7}}, "reports a failure"),
        ("*", {"ok": False}, "reports a failure"),
        ("*", [{"id": 1}], "the body is a list"),
        ("@", {"error": "busy"}, "reports a failure"),
        ("@", {"ok": False, "id": 1}, "reports a failure"),
        ("@", {"status": "error", "message": "Too many requests"}, "reports a failure"),
        ("@", [{"id": 1}], "not a single object, which data_selector = @ needs"),
        ("@", "<html>", "not a single object"),
        ("@", '{"id": 1', "the body is cut"),
        ("auto", '{"id": 1}\n7\n', "a line of the body is not a JSON object"),
        ("auto", '{"id": 1}\n[{"id": 2}]\n', "a line of the body is not a JSON object"),
        ("auto", '{"id": 1}\n<html>', "a line of the body is not a JSON object"),
        ("auto", '{"id": 1}\n{id: 2}\n{"id": 3}', "the body is not JSON"),
        ("auto", '{"id": 1}\n{"id": 2},{"id": 3}\n{"id": 4}', "the body is not JSON"),
        ("auto", '{"id": 1}\n{"a": [{"id": 2}\n{"id": 3}]}', "the body is"),
        ("users", '{"users": []}\n{"users": []}', "leave data_selector out, or set it to @"),
        ("auto", {"users": {"u1": {"a": 1}}, "meta": {"took": 7}}, "data_selector to its path, or users.* (its memb"),
    ],
)
def test_body_of_another_shape_fails(server: Server, selector: str, body: Any, words: str) -> None:
    """The error names what was found instead, and the key to change. An error object may look like a record."""
    assert words in read_error(server.on("/users", Answer(body)), data_selector=selector)


def test_paging_fields_inside_members_are_ignored(server: Server) -> None:
    """Only fields outside the members are used for paging."""
    member = {"total": 50, "has_more": True, "next": "/three"}
    pages = [Answer({"users": {"u1": member}, "next": "/two"}), Answer({"users": {"u2": member}, "next": None})]
    server.on("/two", pages[1])
    records = read(server.on("/users", pages[0]), data_selector="users.*", paginator="next_url", cursor_path="next")
    assert [record["_key"] for record in records] == ["u1", "u2"]


def test_scalar_items_become_values(server: Server) -> None:
    """If any item is an object or a list, all items stay unchanged."""
    url = server.on("/ids", Answer('{"ok": true, "members": ["U0\\u00e9", 1.50, null], "meta": {"next": ""}}'))
    shown = [b'{"value": "U0\\u00e9"}', b'{"value": 1.50}', b'{"value": null}']
    assert read_bytes(url, data_selector="members") == read_bytes(url) == shown
    assert read_bytes(server.on("/ids", Answer("[7, 8]"))) == [b'{"value": 7}', b'{"value": 8}']
    assert read_bytes(server.on("/ids", Answer('[7, {"id": 8}]'))) == [b"7", b'{"id": 8}']


def test_list_of_texts_needs_a_usual_name(server: Server) -> None:
    """Tags are not users: if the list of users is missing, no other list replaces it."""
    assert "'tags'" in read_error(server.on("/users", Answer({"tags": ["a"]})))
    assert read(server.on("/users", Answer({"people": ["a"], "total": 1}))) == [{"value": "a"}]
    assert read(server.on("/users", Answer({"members": [], "tags": ["x"]}))) == []


OBJECTS = st.lists(
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.booleans(), max_size=2), max_size=4),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(OBJECTS, st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]), st.booleans())
def test_lines_keep_every_record(records: list[dict[str, Any]], between: str, ends: bool) -> None:
    """This holds for any content. A cut within the last line fails."""
    lines = [json.dumps(record, ensure_ascii=ends).encode("utf-8", "surrogatepass") for record in records]
    body = between.encode().join(lines) + (between.encode() if ends else b"")
    assert [bytes(raw) for raw in split_list(unfold(body, None, LINES[0]).body)] == lines
    for size in range(1, min(len(lines[-1]), 20)):
        with pytest.raises((RecoverableError, BadPageError)):
            unfold(between.encode().join([*lines[:-1], lines[-1][:-size]]), None, LINES[0])


def test_post_body_may_be_a_list(server: Server) -> None:
    """The list may contain placeholders. A cursor needs an object, because it has a name."""
    keys: dict[str, Any] = {"method": "POST", "body": [{"path": "/users?since={date}"}, {"path": "/teams"}]}
    assert read(server.on("/batch", Answer([{"id": number} for number in range(10)])), paginator="single", **keys)
    assert json.loads(server.requests[0].body) == [{"path": f"/users?since={DAY}"}, {"path": "/teams"}]
    assert read(server.on("/batch", Answer([{"id": 1}])), **keys) == [{"id": 1}]
    with pytest.raises(ConfigError, match="cursor_in = body needs a JSON object as body"):
        read(server.url, cursor_in="body", paginator="cursor", cursor_path="a", cursor_param="b", **keys)
    with pytest.raises(ConfigError, match="body must be a JSON object or list"):
        read(server.url, method="POST", body="text")
