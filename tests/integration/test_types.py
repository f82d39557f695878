"""Any JSON value in a column of any type is stored exactly, or its record is rejected."""

import datetime as dt
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.histories import EXAMPLES
from tests.support.project import query
from tests.support.stored import read_database, unify
from tests.support.things import load, make_dataset
from tests.support.values import DIGITS, PLACES, REJECT, TYPES, State, store, usual, values
from wholeday import Field
from wholeday.config.pipeline import Pipeline
from wholeday.schema.dataset import Dataset

FIRST = [Phase.explicit, Phase.generate]  # failures are short without shrinking


def make_types() -> Dataset:
    """Return a dataset with a column of each type."""
    columns = {name: type_ | None for name, type_ in TYPES.items()}
    return make_dataset(columns=columns, fields={"money": Field(max_digits=DIGITS, decimal_places=PLACES)})


@pytest.mark.sweep
def test_any_value_is_stored_exactly_or_rejected(server, configure, new_database, tmp_path: Path) -> None:
    numbers, dataset = itertools.count(), make_types()

    @settings(
        max_examples=max(10, EXAMPLES // 10), deadline=None, suppress_health_check=list(HealthCheck), phases=FIRST
    )
    @given(st.lists(values | st.one_of(*usual.values()), min_size=1, max_size=20))
    def hold(texts: Sequence[str]) -> None:
        """Put one value into one field of each record, so that no other value can cause its rejection."""
        configure("pipeline", database=new_database(), data_dir=tmp_path / str(next(numbers)))
        cases = list(enumerate(itertools.product(TYPES, texts)))
        body = ",".join(f'{{"id":{number},"{name}":{text}}}' for number, (name, text) in cases)
        load(dataset, server, configure, f"[{body}]".encode(), column="id", max_reject_ratio=1)
        found = {json.loads(key)[0]: REJECT for (key,) in query("select key from rejects")}
        rows = {row["id"]: row for row in read_database(Pipeline().database, "things")}
        found |= {n: unify(name, rows[n][name]) for n, (name, _) in cases if n in rows}
        expected = {n: unify(name, store(name, text, {})) for n, (name, text) in cases}
        different = {case: (found.get(n), expected[n]) for n, case in cases if found.get(n, ...) != expected[n]}
        assert different == {}
        assert len(found) == len(cases)

    hold()


@pytest.mark.slow
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("type_", "sent", "stored"),
    [
        (State, ["open", None, "shut"], ["open", None, "shut"]),
        (Literal["a", "b"], [None, None], [None, None]),
        (Literal[1, 2], [2, None], [2, None]),
        (float, [12345678901234567890, 0.1], [1.2345678901234567e19, 0.1]),
    ],
)
def test_enumerated_type_is_stored_exactly(type_, sent, stored, server, configure) -> None:
    records = [{"id": number, "value": value} for number, value in enumerate(sent)]
    assert load(make_dataset(type_ | None), server, configure, records) == stored


@pytest.mark.slow
@pytest.mark.parametrize(
    ("type_", "sent", "stored", "reason"),
    [
        (bool, [1, 0, True], [1], "Expected `bool | null`, got `int`"),
        (int, [12.0, 12], [12], "Expected `int | null`, got `float`"),
        (int, ["12", 12], [12], "Expected `int | null`, got `str`"),
        (float, ["10.5", 10.5], [10.5], "Expected `float | null`, got `str`"),
        (dt.datetime, ["", "2026-11-20T10:00:00+0100"], ["2026-11-20T09:00:00.000000Z"], "Invalid RFC3339"),
        (dt.datetime, ["2026-11-20", "0000-00-00 00:00:00"], [], "Invalid RFC3339 encoded datetime"),
        (dt.datetime, [1795168815], [], "Expected `datetime | null`, got `int`"),
        (dt.date, ["2026-11-20T00:00:00Z", "2026-11-20"], ["2026-11-20"], "Invalid RFC3339 encoded date"),
        (State, ["open!", 1, True, "open"], ["open"], ""),
    ],
)
def test_value_of_another_type_is_rejected(type_, sent, stored, reason, server, configure) -> None:
    """The transform converts nothing by itself. `lenient` and `clean` may convert values."""
    records = [{"id": number, "value": value} for number, value in enumerate(sent)]
    assert load(make_dataset(type_ | None), server, configure, records, max_reject_ratio=1) == stored
    rejects: list[tuple[Any, ...]] = query("select field, reason from rejects")
    assert len(rejects) == len(sent) - len(stored)
    assert {name for name, _ in rejects} == {"value"}
    assert all(found.startswith(reason) for _, found in rejects)
