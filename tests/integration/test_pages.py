"""Bodies are split into records."""

import json
import re
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import People, read, read_bytes, read_error
from tests.support.server import Answer, Server
from wholeday.extract.http import body as bodies
from wholeday.extract.http import envelope
from wholeday.extract.http.envelope import split_envelope, split_list
from wholeday.extract.http.failures import BadPageError
from wholeday.extract.http.record_list import ListFinder
from wholeday.schema.scan import count_items


@pytest.mark.parametrize(
    "answer",
    [
        Answer('\ufeff[{"id": 1}, {"id": 2}]'),
        Answer(' \r\n[{"id": 1}, {"id": 2}]\n'),
        Answer([{"id": 1}, {"id": 2}], compress=True),
        Answer([{"id": 1}, {"id": 2}], chunked=True),
        Answer([{"id": 1}, {"id": 2}], compress=True, chunked=True),
        Answer({"data": [{"id": 1}, {"id": 2}], "errors": [], "tags": ["a"]}),
        Answer({"data": [{"id": 1}, {"id": 2}], "took": float("nan")}),
    ],
)
def test_records_do_not_depend_on_transfer(server: Server, answer: Answer) -> None:
    """A byte-order mark, white space, gzip, chunks or an object around the list change nothing."""
    assert read(server.on("/users", answer)) == [{"id": 1}, {"id": 2}]


def test_gzip_members_are_joined(server: Server) -> None:
    body = Answer('[{"id": 1},', compress=True).encode() + Answer('{"id": 2}]', compress=True).encode()
    assert read(server.on("/users", Answer(body, headers={"Content-Encoding": "gzip"}))) == [{"id": 1}, {"id": 2}]


def test_record_keeps_its_bytes_on_one_line(server: Server) -> None:
    """Order, numbers, escapes and spaces stay; line breaks become spaces."""
    body = '[\n {"b": 1.0,\r\n\t"a": "\\u00e9\\n", "big": 123456789012345678901234567890} ,\n 7, null]'
    assert read_bytes(server.on("/users", Answer(body))) == [
        b'{"b": 1.0,  \t"a": "\\u00e9\\n", "big": 123456789012345678901234567890}',
        b"7",
        b"null",
    ]


@pytest.mark.parametrize("bad", ["NaN", "-Infinity", '"\\ud800"', "1" * 5000, "1e999"])
@pytest.mark.parametrize(
    "page", ['[{"id":1},{"x":%s},{"id":3}]', '{"n":{"m":%s},"users":[{"id":1},{"x":%s},{"id":3}]}']
)
def test_odd_value_affects_only_its_record(server: Server, bad: str, page: str) -> None:
    """NaN, half surrogate pairs and numbers of any size are passed on."""
    records = read_bytes(server.on("/users", Answer(page.replace("%s", bad))))
    assert records == [b'{"id":1}', f'{{"x":{bad}}}'.encode(), b'{"id":3}']


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(JSON_VALUES, max_size=5), st.sampled_from([None, 1]))
def test_splitting_keeps_every_value(values: list[Any], indent: int | None) -> None:
    """The items keep their order, each on one line, in pretty-printed lists and with NaN too."""
    records = [bytes(record) for record in split_list(json.dumps(values, indent=indent).encode())]
    if not any(isinstance(value, (dict, list)) for value in values):
        values = [{"value": value} for value in values]
    assert json.dumps([json.loads(record) for record in records]) == json.dumps(values)
    assert not any(b"\n" in record for record in records)


BESIDE_DATA: list[dict[str, Any]] = [
    {"meta": {"facets": [{"value": "x"}]}},
    {"errors": {"list": []}, "_links": {"curies": [{"name": "doc"}]}},
    {"tags": ["a{b}", "c"], "counts": [1, 2]},
    {"bbox": [[1, 2], [3, 4]], "more": [None]},
]


@pytest.mark.parametrize(
    ("body", "selector", "count"),
    [
        ({"data": {"users": [1, 2]}, "other": [{}]}, "data.users", 2),
        ({"users": [{}], "teams": [{}, {}]}, "teams", 2),
        ({"users": []}, "auto", 0),
        ({"users": [{}], "tags": ["x"]}, "auto", 1),
        ({"users": [], "teams": [{"id": 7}]}, "users", 0),
        ({"@odata.page": {"the.users": [{"id": 1}]}, "teams": [{}]}, "@odata.page.the.users", 1),
        ({"schemas": ["urn:x"], "totalResults": 0, "Resources": []}, "auto", 0),
        ({"users": [], "links": [{"rel": "self"}]}, "auto", 0),
        *(({"data": [{"id": 1}]} | beside, "auto", 1) for beside in BESIDE_DATA),
    ],
)
def test_list_is_selected(server: Server, body: object, selector: str, count: int) -> None:
    """A dotted path names the list; auto finds the only possible one, or the one with a usual name."""
    assert len(read(server.on("/users", Answer(body)), data_selector=selector)) == count


AMBIGUOUS: list[tuple[dict[str, Any], str]] = [
    ({"users": [{}], "teams": [{}]}, "'users', 'teams'"),
    ({"users": [], "teams": []}, "'users', 'teams'"),
    ({"users": [], "teams": [{"id": 7}]}, "'users', 'teams'"),
    ({"users": [{"id": 7}], "teams": []}, "'users', 'teams'"),
    ({"data": {"users": [{}]}}, "'data.users'"),
    ({"tags": ["x"]}, "'tags'"),
    ({"errors": []}, "'errors'"),
    ({"result": {"users": [{"id": 1}]}, "groups": [{"id": 7}]}, "'result.users', 'groups'"),
    ({"result": {"users": []}, "groups": [{"id": 7}]}, "'result.users', 'groups'"),
    ({"result": {"users": None}, "groups": [{"id": 7}]}, "'groups', and null at 'result.users'"),
    ({"people_list": [None, {"id": 1}], "groups": [{"id": 7}]}, "'people_list', 'groups'"),
    ({"people_list": [None], "groups": [{"id": 7}]}, "'people_list', 'groups'"),
    ({"people_list": [7, {"id": 1}], "groups": [{"id": 7}]}, "'people_list', 'groups'"),
    ({"meta": [{"name": "id"}], "rows": [[1], [2]]}, "'meta', 'rows'"),
]


@pytest.mark.parametrize(
    ("body", "selector", "words"),
    [
        ({"ok": True}, "auto", "no list.*set data_selector"),
        ({"u1": {"id": 1}, "u2": {"id": 2}}, "auto", r"set data_selector to its path, or \* \(its members\) or @"),
        ({"users": 7}, "users", "no list at 'users'.*check"),
        ({"users": None}, "data.users", "no list at 'data.users'"),
        ({"data": None}, "data.users", "no list at 'data.users'"),
        ({"users": None}, "auto", "no list, and null at 'users'.*set data_selector"),
        ({"users": [{}]}, "data.users", "no list at 'data.users': the page has lists at 'users'"),
        ([{}], "users", "a list, expected an object with a list at 'users'"),
        *((body, "auto", f"not clear which .* has lists at {words}.*set data_selector") for body, words in AMBIGUOUS),
    ],
)
def test_ambiguous_list_is_refused(server: Server, body: object, selector: str, words: str) -> None:
    """The error names the candidates, which may be anywhere, with any first item. An empty list is one too."""
    assert re.search(words, read_error(server.on("/users", Answer(body)), data_selector=selector))


@pytest.mark.parametrize(
    ("said", "error_path", "words"),
    [
        ({"ok": False}, "", "'ok' is false"),
        ({"success": False}, "", "'success' is false"),
        ({"error": "busy"}, "", "'error' is \"busy\""),
        ({"errors": [{"code": 7}]}, "", "'errors' is .*7"),
        ({"meta": {"fault": {"code": 7}}}, "meta.fault", "'meta.fault' is .*7"),
        ({"status": "false"}, "!status", "'status' is \"false\""),
        ({"error": None, "errors": [], "ok": True, "success": "true"}, "", None),
        ({"error": "none, really"}, "meta.fault", "'error' is \"none, really\""),
    ],
)
def test_page_that_reports_a_failure_fails(
    server: Server, said: dict[str, object], error_path: str, words: str | None
) -> None:
    """The status may be 200, and the page may have records. `error_path` names a further field."""
    url = server.on("/users", Answer({"users": [{"id": 1}], **said}))
    if words is None:
        assert read(url, error_path=error_path) == [{"id": 1}]
    else:
        assert re.search(f"the page reports a failure: {words}.*set ok_when", read_error(url, error_path=error_path))


DUPLICATES = [
    ('{"a":1,"a":1,"data":[{"id":1}],"a":1}', "a"),
    ('{"a":1,"b":{"x":1,      "b":0},"a":"0123456789"}', "a"),  # the lengths alone would fit
    ('{"n":12,"n":1,"x":2,"data":[{"id":1}]}', "n"),
    ('{"n":"a,\\"n\\":","n":1,"data":[{"id":1}]}', "n"),
    ('{"data":[{"id":1}],"meta":{"page":{"next":1,"next":2}}}', "next"),
    ('{"data":[{"id":1}],"links":[{"rel":"next","href":"/a","href":"/b"}]}', "href"),
    ('{"data":[{"id":1}],"x":NaN,"total":2,"total":1}', "total"),
]


@pytest.mark.parametrize(
    ("body", "selector", "name"),
    [
        ('{"data": [{"id": 1}], "data": []}', "data", "data"),
        ('{"data": [{"id": 1}], "data": [{"id": 1}]}', "auto", "data"),
        ('{"data": [{"id": 1}], "next": "/two", "next": null}', "auto", "next"),
        ('{"has_more": true, "data": [{"id": 1}], "has_more": false}', "data", "has_more"),
        ('{"error": "busy", "data": [{"id": 1}], "error": null}', "data", "error"),
        ('{"data": [{"id": 1}], "meta": {"total": 2, "t\\u006ftal": 1}}', "auto", "total"),
        ('{"a": {"data": [{"id": 1}], "data": [{"id": 2}]}}', "a.data", "data"),
        ('{"data": [{"id": 1, "text": "x"}], "data": [{"id": 2, "text": "x"}]}'.replace("x", "x" * 99), "data", "data"),
        ('{"a": {"id": 1}, "a": {"id": 2}}', "*", "a"),
        ('{"users": {"a": {"id": 1}, "a": {"id": 2}}}', "users.*", "a"),
        ('{"users": {"a": {"id": 1}}, "users": {}}', "users.*", "users"),
        *((body, selector, name) for body, name in DUPLICATES for selector in ("data", "auto")),
    ],
)
def test_duplicate_name_in_a_page_is_refused(server: Server, body: str, selector: str, name: str) -> None:
    """The last value would win, and silently hide the records or the end of the other one.

    The duplicates may be anywhere, with any members in between.
    """
    line = read_error(server.on("/users", Answer(body)), data_selector=selector)
    assert f'the name "{name}" twice' in line


def test_duplicate_name_in_a_record_is_kept(server: Server) -> None:
    """The page does not look into its records."""
    record = '{"id": 1, "a": 1, "a": "%s"}' % ("x" * 99)
    assert read_bytes(server.on("/users", Answer(f'{{"data": [{record}], "note": "[]"}}'))) == [record.encode()]


@pytest.mark.parametrize(
    "cursor", ["1732872345.1234564", "1e2", "-1.50E+3", "0.10", "1732872345.123456789", "12345678901234567890123", "7"]
)
@pytest.mark.parametrize("where", ["query", "header", "body"])
def test_numeric_cursor_keeps_its_digits(server: Server, cursor: str, where: str) -> None:
    """A rounded or rewritten number requests other records."""
    first, last = Answer(f'{{"users":[{{"id":1}}],"at":{{"next":{cursor}}}}}'), Answer({"users": [], "at": {}})
    keys = {"paginator": "cursor", "cursor_path": "at.next", "cursor_param": "after", "cursor_in": where}
    read(server.on("/users", first, last), method="POST", **keys)
    sent = server.requests[1]
    found = {"query": sent.query, "header": sent.headers, "body": json.loads(sent.body)}[where]
    assert found["after"] == cursor


@pytest.mark.parametrize(
    ("total", "more", "end"), [("2.0", "0.5", "0.0"), ("2e0", "1e-1", "0e7"), ("20E-1", "1e9", "-0.0")]
)
def test_numbers_in_any_notation(server: Server, total: str, more: str, end: str) -> None:
    """As a total, and as a flag for further pages, where zero is false."""
    pages = [("[1]", more), ("[2]", end), ("[]", end)]
    answers = [Answer(f'{{"users":{users},"n":{total},"more":{word}}}') for users, word in pages]
    url = server.on("/users", *answers)
    assert read(url, data_selector="users", paginator="page", more_path="more", total_path="n") == [
        {"value": 1},
        {"value": 2},
    ]


def test_later_pages_have_the_shape_of_the_first(server: Server) -> None:
    """An error object with a list of its own is not a page."""
    first = Answer([{"id": 1}], headers={"Link": "</users?page=2>; rel=next"})
    line = read_error(server.on("/users", first, Answer({"details": [{"why": "busy"}]})))
    assert "an object, expected a list of records" in line


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<!doctype html>\n<title>Log in</title>", "HTML.*Log in"),
        ("", "empty"),
        ("  \n", "empty"),
        (b'[{"name": "\xff"}]', "not UTF-8"),
        ("[]".encode("utf-16"), "not UTF-8"),
        ("3", "not a JSON list or object"),
        ('"x"', "not a JSON list or object"),
        ("[{'id': 1}]", "not JSON"),
        ('[{"a": "line\nbreak"}]', "not JSON"),
        ("[1] [2]", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_unusable_body_fails_at_once(server: Server, body: str | bytes, words: str) -> None:
    """A status of 200 means no retry. The error quotes the body."""
    line = read_error(server.on("/users", Answer(body)), retries=3)
    assert re.search(words, line)
    assert f"GET {server.url}/users" in line
    assert "200 OK" in line
    assert len(server.requests) == 1


@pytest.mark.slow
def test_too_large_body_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Covers decompression bombs, plain or of endless empty members."""
    monkeypatch.setattr(bodies, "MAX_BODY", 2**20)
    packed = {"Content-Encoding": "gzip"}
    bomb = Answer(Answer(b"[" + b" " * 2**26 + b"]", compress=True).encode(), headers=packed)
    empty = Answer(Answer(b"", compress=True).encode() * 2**16, headers=packed)
    for answer in (bomb, empty, Answer(b" " * (2**20 + 1))):
        url = server.on("/users", answer)
        tracemalloc.start()
        assert "larger than 1 MiB" in read_error(url, retries=3)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        tracemalloc.stop()
    assert len(server.requests) == 3


def test_body_of_redirect_is_not_read(server: Server) -> None:
    url = server.on("/old", Answer(b" " * 2**26, status=302, headers={"Location": "/users"}))
    server.on("/users", Answer([{"id": 1}]))
    tracemalloc.start()
    assert read(url) == [{"id": 1}]
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("indent", [None, 1])
def test_null_list_is_empty(server: Server, indent: int | None) -> None:
    """Go writes null for a list without items."""
    body = json.dumps({"data": {"users": None}, "total": 0, "teams": [{"id": 7}]}, indent=indent)
    url = server.on("/users", Answer(body))
    assert read(url, data_selector="data.users", total_path="total") == []
    pages = [Answer({"users": users}) for users in ([{"id": 1}], [{"id": 2}], None)]
    for selector in ("users", "auto"):
        assert read(server.on("/users", *pages), data_selector=selector, paginator="page") == [{"id": 1}, {"id": 2}]
    failed = Answer({"users": None, "error": "busy"})
    assert "reports a failure" in read_error(server.on("/users", failed), data_selector="users")


@pytest.mark.parametrize(
    ("body", "null"),
    [
        ({"users": None, "groups": [{"id": 7}]}, "users"),
        ({"data": None, "included": [{"id": 7}]}, "data"),
        ({"Items": None, "facets": [{"id": 7}], "next": None}, "Items"),
        ({"people": None, "teams": [{"id": 7}]}, "people"),
    ],
)
def test_null_list_is_not_replaced_by_another(server: Server, body: Any, null: str) -> None:
    """Groups must not be loaded as users."""
    line = read_error(server.on("/users", Answer(body)))
    assert f"not clear which list holds the records: the page has lists at '{[*body][1]}', and null at '{null}'" in line
    assert read(server.on("/users", Answer(body)), data_selector=null) == []


BESIDE = "next prev error errors message meta links _links paging pagination cursor next_cursor nextPageToken warnings"
BESIDE += " total query sort filter included support page"


@pytest.mark.parametrize("name", ["data", "users", "items", "results", "Resources", "value", "employees", "people"])
def test_other_null_fields_do_not_matter(server: Server, name: str) -> None:
    """Pages use null for a missing link, cursor or error, and for a list that was not requested."""
    url = server.on("/users", Answer({**dict.fromkeys(BESIDE.split()), name: [{"id": 1}]}))
    assert read(url) == [{"id": 1}]
    if name in {"data", "users", "items", "results", "people"}:
        url = server.on("/users", Answer({**dict.fromkeys(["data", "users", "records", "people"]), name: [{"id": 1}]}))
        assert read(url) == [{"id": 1}]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", 'c"', "ä\\", ""]), JSON_VALUES), max_size=5), st.booleans())
def test_envelope_has_no_duplicates_or_is_refused(pairs: list[tuple[str, Any]], spaced: bool) -> None:
    """Covers any names and values, with and without spaces."""
    comma, colon = (" ,\n ", "\t: ") if spaced else (",", ":")
    text = comma.join(f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs)
    body = f"{{{text}}}".encode()
    if len(dict(pairs)) == len(pairs):
        members = split_envelope(body)
        assert json.dumps({name: json.loads(bytes(raw)) for name, raw in members.items()}) == json.dumps(dict(pairs))
    else:
        with pytest.raises(BadPageError, match="twice in one object"):
            split_envelope(body)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [200, 201, 990, 5000, 100_000])
@pytest.mark.parametrize("open_close", ["[]", '{"a":,}'])
def test_deep_record_does_not_fail_its_page(server: Server, depth: int, open_close: str) -> None:
    """The transform rejects it."""
    start, end = ("[", "]") if open_close == "[]" else ('{"a":', "}")
    deep = '{"id":2,"x":' + start * (depth - 2) + "[]" + end * (depth - 2) + "}"
    body = f'[{{"id":1}},{deep},{{"id":3,"x":"]"}}]'
    assert read_bytes(server.on("/users", Answer(body))) == [b'{"id":1}', deep.encode(), b'{"id":3,"x":"]"}']


@pytest.mark.parametrize(
    "inside", ["1 2", "1,", ",1", '"a":1', "tru", '"\n"', "01", "{1:2}", '{"a"}', '{"a":1,}', "]["]
)
def test_deep_invalid_record_fails_its_page(server: Server, inside: str) -> None:
    body = f'[{{"id":1}},{"[" * 5000}{inside}{"]" * 5000}]'
    assert "the body is not JSON" in read_error(server.on("/users", Answer(body)))


@pytest.mark.parametrize("name", ["meta", "links", "errors"])
def test_deep_envelope_is_refused(server: Server, name: str) -> None:
    """The depth of the records does not count."""
    deep = '{"id":1,"x":%s}' % ("[" * 300 + "]" * 300)
    for depth in (201, 5000):
        body = f'{{"data":[{deep}],"{name}":{"[" * depth}{"]" * depth}}}'
        assert f"'{name}' is nested more than 200 levels deep" in read_error(
            server.on("/users", Answer(body)), data_selector="data"
        )
    url = server.on("/users", Answer(f'{{"data":[{deep}],"meta":{"[" * 200}{"]" * 200}}}'))
    assert len(read(url, data_selector="data")) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * 100_000 + b"1]",
        b"[" + b"{}," * 100_000 + b"{}]",
        b"[{}" + b",1" * 100_000 + b"]",
        b"[" + b"NaN," * 100_000 + b"1]",
        b'{"data":[' + b"1," * 100_000 + b"1]}",
        b"{" + b"".join(b'"%d":1,' % number for number in range(100_000)) + b'"data":[]}',
        b"{}\n" * 100_000,
        b'{"data":[],"errors":[' + b"[]," * 100_000 + b"[]]}",
    ],
    ids=["numbers", "objects", "mixed", "NaN", "nested", "members", "lines", "errors"],
)
def test_page_with_too_many_records_fails(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """A short body may hold many records, and each needs memory."""
    monkeypatch.setattr(envelope, "MAX_RECORDS", 10_000)

    finder = ListFinder(People(url="http://localhost"))
    count_items(b"[]", 1)  # it imports NumPy
    tracemalloc.start()
    with pytest.raises(BadPageError, match=r"more than 10,000 (records|lines)"):
        split_list(finder.find(body, "").content)
    assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    tracemalloc.stop()


@settings(max_examples=25, deadline=None)
@given(st.lists(JSON_VALUES, min_size=1, max_size=5), st.integers(5, 30), st.sampled_from([None, 1]))
def test_items_are_counted_as_python_counts_them(values: list[Any], chunk: int, indent: int | None) -> None:
    """Brackets, commas and quotes within strings do not count, wherever a chunk ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wholeday.schema.scan.CHUNK", chunk)
        for value in (values, dict(zip(map(str, values), values, strict=True))):
            assert count_items(
                json.dumps(value, indent=indent, ensure_ascii=False).encode(errors="replace"), 99
            ) == len(value)


@pytest.mark.parametrize("count", [9, 10, 11])
def test_records_are_counted_and_not_commas(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Wide records have many commas."""
    monkeypatch.setattr(envelope, "MAX_RECORDS", 10)
    body = json.dumps([{"id": number, "tags": ["a", "b"], "name": "x"} for number in range(count)]).encode()
    if count > 10:
        with pytest.raises(BadPageError, match="more than 10 records"):
            split_list(body)
    else:
        assert len(split_list(body)) == count


def test_page_is_split_at_the_speed_of_msgspec() -> None:
    """A record is a view of the page, not an object."""
    page = b"[" + b",".join(b'{"id":%d,"name":"user"}' % number for number in range(100_000)) + b"]"

    def measure(split: Callable[[bytes], Sequence[msgspec.Raw]]) -> float:
        started = time.process_time()
        records = split(page)
        seconds = time.process_time() - started
        assert len(records) == 100_000
        assert isinstance(records[0], msgspec.Raw)
        return seconds

    decode = msgspec.json.Decoder(list[msgspec.Raw]).decode
    assert min(measure(split_list) for _ in range(3)) < 3 * min(measure(decode) for _ in range(3))
