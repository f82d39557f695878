"""The limit of nesting is the same on every path, and does not depend on the Python stack."""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.users import User
from tests.support.histories import EXAMPLES
from tests.support.reading import make_user
from wholeday.schema.census import Census
from wholeday.schema.columns import read_columns
from wholeday.schema.conversion import Conversion
from wholeday.schema.depth import BLOCK, MAX_DEPTH, hide_deep, is_deep
from wholeday.schema.raw_fields import FieldReader
from wholeday.schema.reject import Reject
from wholeday.schema.structs import make_decoders
from wholeday.storage.tombstones import Finder
from wholeday.transform.rows import transform


def nest(levels: int, key: int = 5, **fields: object) -> bytes:
    """Build a user with this many levels, the record itself included."""
    deep = "[" * (levels - 1) + "]" * (levels - 1)
    return json.dumps(make_user(key, **fields)).encode()[:-1] + b',"deep":%b}' % deep.encode()


def measure(value: Any) -> int:
    """Return the levels of a Python value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(measure, inner), default=0)


TEXTS = st.text(alphabet='[]{}"\\,ä', max_size=4)
VALUES = st.recursive(
    TEXTS | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=max(60, EXAMPLES), deadline=None)
@given(VALUES, st.integers(0, 5), st.booleans())
def test_depth_is_that_of_python(value: Any, limit: int, is_ascii: bool) -> None:
    """Brackets, quotes and backslashes within strings do not count."""
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wholeday.schema.depth.MAX_DEPTH", limit)
        assert is_deep(text) == (measure(value) > limit and len(text) > 2 * limit)


@pytest.mark.parametrize("kind", [bytes, msgspec.Raw])
@pytest.mark.parametrize(
    "wide",
    ["[" * 150 + "]" * 150, "[]," * 500 + "1", '"' + "[{" * 500 + '"'],
    ids=["nested", "wide", "text"],
)
def test_deep_record_is_found_among_others(kind: Callable[[bytes], Any], wide: str) -> None:
    """Only the members that are too deep are hidden, and the neighbours stay the same objects."""
    records = [kind(b'{"id":%d,"x":[%b]}' % (number, wide.encode())) for number in range(3 * BLOCK)]
    assert hide_deep(records) is records
    records[BLOCK + 7] = kind(nest(MAX_DEPTH + 1))
    shown = hide_deep(records)
    assert [number for number, record in enumerate(shown) if record is not records[number]] == [BLOCK + 7]
    assert json.loads(bytes(shown[BLOCK + 7])) == make_user(5) | {"deep": None}


def on_stack(depth: int, call: Callable[[], Any]) -> Any:
    return call() if depth == 0 else on_stack(depth - 1, call)


@pytest.mark.parametrize("stack", [0, 300, 600])
def test_result_does_not_depend_on_the_stack(stack: int) -> None:
    """Transform, census and `forget` agree on each record."""
    levels = [199, 200, 201, 300, 600, 900, 950, 1000, 5000]
    lines = [nest(level, number) for number, level in enumerate(levels, 1)]

    def run() -> tuple[list[int], list[Reject], list[int], set[int]]:
        census = Census([FieldReader("id")])
        census.add(lines)
        rows, rejects, _ = transform(lines, Conversion(User))
        found = Finder([FieldReader("id")], [(7,)]).find_lines(lines)
        return rows["user_id"].tolist(), rejects, census.present_keys().tolist(), found

    keys, rejects, counted, found = on_stack(stack, run)
    assert keys == [1, 2]
    assert [(reject.line, reject.key) for reject in rejects] == [(n, f"[{n}]") for n in range(3, 10)]
    assert {reject.describe() for reject in rejects} == {"is nested more than 200 levels deep"}
    assert [reject.record.encode() for reject in rejects] == lines[2:]
    assert counted == [*range(1, 10)]
    assert found == {7}


def test_deep_deletion_is_a_row() -> None:
    """A deletion needs only its key."""
    lines = [nest(500, 1, gone=True), nest(500, 2, gone=False), nest(200, 3)]
    rows, rejects, _ = transform(lines, Conversion(User, deleted_when="gone"))
    assert rows[["user_id", "deleted"]].to_numpy().tolist() == [[1, True], [3, False]]
    assert [reject.line for reject in rejects] == [2]


@pytest.mark.parametrize(
    "record",
    [b"[" * 500, b'{"x":' * 500, b'{"id":1,"x":\xff' + b"[" * 500, b"[" * 300 + b"]" * 300],
    ids=["list", "object", "no UTF-8", "whole"],
)
def test_deep_non_object_line_is_a_reject(record: bytes) -> None:
    rows, rejects, _ = transform([record], Conversion(User))
    assert len(rows) == 0
    assert [(reject.key, reject.describe()) for reject in rejects] == [(None, "is nested more than 200 levels deep")]


@pytest.mark.slow
def test_check_of_depth_costs_little() -> None:
    """The check takes less than half of the time to decode the records."""
    records = [json.dumps(make_user(number)).encode() for number in range(1, 100_001)]
    text, decode = b"\n".join(records), make_decoders(read_columns(User))[0].json.decode_lines

    def take(call: Callable[[], object]) -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    checking = min(take(lambda: hide_deep(records)) for _ in range(5))
    assert checking < 0.5 * min(take(lambda: decode(text)) for _ in range(5))
