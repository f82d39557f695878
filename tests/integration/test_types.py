"""Any JSON value in a field of any type is stored exactly, or its record is rejected."""

import datetime as dt
import itertools
import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from tests.support.project import query
from tests.support.things import TIME, Things, keep, load, make_dataset
from wholeday.errors import DatasetError
from wholeday.schema.dataset import Dataset
from wholeday.transform.parts import check_clean

REJECT = object()
FIRST = [Phase.explicit, Phase.generate]  # failures are short without shrinking
TYPES: dict[str, tuple[Any, Any]] = {
    "whole": (int, sa.BigInteger),
    "real": (float, sa.Float),
    "flag": (bool, sa.Boolean),
    "words": (str, sa.Text),
    "moment": (dt.datetime, TIME),
    "day": (dt.date, sa.Date),
}
RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")


def make_types() -> Dataset:
    """Return a dataset with a field and a column of each type."""
    fields = [(name, field | None, None) for name, (field, _) in TYPES.items()]
    record_class = msgspec.defstruct("Thing", [("id", int), *fields], module=__name__)

    def table(metadata: sa.MetaData) -> sa.Table:
        columns = [sa.Column(name, column) for name, (_, column) in TYPES.items()]
        key = sa.Column("id", sa.BigInteger, primary_key=True)
        return sa.Table("things", metadata, key, *columns, sa.Column("updated_at", TIME))

    return Dataset(Things, record_class, lambda rows: (rows.assign(updated_at=None), {}), table, ("id",))


def store(name: str, text: str) -> Any:
    """Return the expected value of a field, or REJECT. Does not use code of the product."""
    value = json.loads(text, parse_float=Decimal)
    if value is None:
        return None
    if name == "whole" and type(value) is int and -(2**63) <= value < 2**63:
        return value
    if name == "real" and type(value) in (int, Decimal) and abs(Decimal(value)) < Decimal(2) ** 1024:
        return float(value)
    if name == "flag" and isinstance(value, bool):
        return int(value)
    if name == "words" and isinstance(value, str) and "\0" not in value:
        return value
    if name == "day" and isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return value if is_date(value) else REJECT
    if name == "moment" and isinstance(value, str) and (found := RFC_3339.fullmatch(value)):
        return store_time(*found.groups())
    return REJECT


def is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def store_time(date: str, time: str, fraction: str | None, offset: str | None) -> Any:
    """Return the expected text of an instant: in UTC, with the first six digits of its fraction."""
    try:
        local = dt.datetime.fromisoformat(f"{date}T{time}{offset if offset and offset not in 'zZ' else '+00:00'}")
        utc = local.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return REJECT
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{(fraction or '.')[1:7]:0<6}Z"


numbers = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.sampled_from(["0", "-0", "1", str(2**53 + 1), str(2**63), str(-(2**63)), "1795168815", str(2**70)]),
    st.sampled_from(["1.0", "-0.0", "12.0", "1e3", "1E-400", "1e400", "0.1", "10.50", "12345678901234567890.5"]),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
)
offsets = st.sampled_from(["", "Z", "z", "+00:00", "-05:00", "+14:00", "+05:45", "-23:59"])
fractions = st.sampled_from(["", ".0", ".5", ".123456", ".9999999", ".1234565", ".0000004999999999"])
moments = st.builds(
    lambda time, space, fraction, offset: f"{time:%Y-%m-%d}{space}{time:%H:%M:%S}{fraction}{offset}",
    st.datetimes(dt.datetime.fromisoformat("1000-01-01"), dt.datetime.fromisoformat("9999-12-31T23:59:59")),
    *(st.sampled_from(["T", "t", " "]), fractions, offsets),
)
texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    moments,
    st.dates(dt.date(1000, 1, 1)).map(str),
    st.sampled_from(["", "12", "1.5", "true", "null", "NaN", "0000-00-00", "2026-02-30", "0000-00-00 00:00:00"]),
    st.sampled_from(["2026-11-20T24:00:00Z", "2016-12-31T23:59:60Z", "Wed Oct 10 20:19:24 +0000 2018", "09:30:00"]),
)
values = numbers | texts.map(json.dumps) | st.sampled_from(["true", "false", "null", "[]", "{}", "[1]", '{"a":1}'])


@pytest.mark.sweep
def test_any_value_is_stored_exactly_or_rejected(server, configure, new_database, tmp_path: Path) -> None:
    numbers = itertools.count()

    @settings(
        max_examples=max(10, EXAMPLES // 10), deadline=None, suppress_health_check=list(HealthCheck), phases=FIRST
    )
    @given(st.lists(values, min_size=1, max_size=30))
    def hold(texts: Sequence[str]) -> None:
        """Put one value into one field of each record, so that no other value can cause its rejection."""
        configure("pipeline", database=new_database(), data_dir=tmp_path / str(next(numbers)))
        cases = list(enumerate(itertools.product(TYPES, texts)))
        body = ",".join(f'{{"id":{number},"{name}":{text}}}' for number, (name, text) in cases)
        load_types(server, configure, f"[{body}]".encode())
        found = dict.fromkeys(rejected(), REJECT)
        for name in TYPES:
            rows = dict(query(f"select id, {name} from things"))
            found |= {number: rows[number] for number, (field, _) in cases if field == name and number in rows}
        expected = {number: store(name, text) for number, (name, text) in cases}
        different = {case: (found.get(n), expected[n]) for n, case in cases if not same(found.get(n, ...), expected[n])}
        assert different == {}
        assert len(found) == len(cases)

    hold()


def load_types(server: Any, configure: Callable[..., None], body: bytes) -> None:
    load(make_types(), server, configure, body, column="id", max_reject_ratio=1)


def rejected() -> list[int]:
    return [json.loads(key)[0] for (key,) in query("select key from rejects")]


def same(found: Any, expected: Any) -> bool:
    return bool(type(found) is type(expected) and found == expected)


@pytest.mark.slow
@pytest.mark.parametrize("column", TYPES)
@pytest.mark.parametrize("field", TYPES)
def test_field_fits_only_a_column_of_its_type(field: str, column: str) -> None:
    dataset = make_dataset(TYPES[field][0], TYPES[column][1], keep)
    if field == column:
        check_clean(dataset, "")
    else:
        with pytest.raises(DatasetError, match=r"column value holds \w+, the table declares \w+: "):
            check_clean(dataset, "")
