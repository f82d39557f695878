"""Test the quality gate `fields` on random days: a field that disappears fails the day unless it was empty before."""

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.users import USERS
from tests.support.days import make_raw_manifest
from tests.support.histories import EXAMPLES
from wholeday.errors import QualityError
from wholeday.schema.conversion import Conversion
from wholeday.storage.lines import pack
from wholeday.storage.manifest import CleanManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

DAY = dt.date(2026, 11, 10)
OPTIONAL = ("name", "email", "address.city", "updated_at", "gone")
FIELDS = (*OPTIONAL, "id", "address")
HOWS = ("rename", "nest", "drop")

shares = st.sampled_from([0, 1, 2, 4])  # one in this many records has the field; 0: no record has it
days = st.lists(st.integers(10, 50), min_size=3, max_size=8)


def make_record(number: int, shares: dict[str, int]) -> dict[str, Any]:
    """Build a record; its number decides whether each field has a value, is null, or is absent."""
    values = {
        "name": "Ada",
        "email": "ada@example.com",
        "address.city": "Oslo",
        "updated_at": "2026-11-09T12:00:00Z",
        "gone": False,
    }
    has = {name: bool(share) and number % share == 0 for name, share in shares.items()}
    record: dict[str, Any] = {"id": number + 1}
    for name, value in values.items():
        if has[name] or number % 3:
            record[name] = value if has[name] else None
    city = record.pop("address.city", None)
    return record | ({"address": {"city": city}} if city else {"address": None} if number % 3 else {})


def lose(record: dict[str, Any], path: str, how: str) -> dict[str, Any]:
    """Return the record after the source renamed, nested or dropped a field."""
    parent, _, name = path.rpartition(".")
    if parent:
        inner = record.get(parent)
        return record | {parent: lose(inner, name, how)} if inner else record
    value = record.pop(name, None)
    if how == "drop" or value is None:
        return record
    return record | ({f"{name}_v2": value} if how == "rename" else {"attributes": {name: value}})


def transform(number: int, records: list[dict[str, Any]]) -> None:
    """Transform a day of these records, `number` days after DAY."""
    date = DAY + dt.timedelta(days=number)
    folder = read_workspace(USERS).folder("raw", date)
    folder.clear()
    lines = [msgspec.json.encode(record) for record in records]
    census = Conversion(USERS.record_class, deleted_when="gone").make_census()
    census.add(lines)
    parts = [
        folder.write(f"part-{place:05d}.jsonl.gz", pack([lines[start : start + 20]]))
        for place, start in enumerate(range(0, len(lines), 20))
    ]
    folder.publish(make_raw_manifest(date, records=len(lines), unknown_fields=census.unknown, parts=parts))
    stages.transform(read_workspace(USERS), date)


def check_loss(shares: dict[str, int], before: list[int], last: int, path: str, how: str) -> None:
    """Transform days of so many records, and a last one without a field. It fails, or the field was empty."""
    for number, records in enumerate(before):
        transform(number, [make_record(n, shares) for n in range(records)])
    lost = [lose(make_record(n, shares), path, how) for n in range(last)]
    try:
        transform(len(before), lost)
    except QualityError as error:
        line = str(error)
        if path == "id":
            assert "missing required field `id`" in line
            return
        assert f"no record has {'address.city' if path == 'address' else path} (in " in line, line
        new = {"rename": f"{path}_v2", "nest": "attributes" if "." not in path else "address.attributes", "drop": ""}
        assert line.partition("new fields: ")[2].startswith(new[how] or "none (gate"), line
    else:
        assert shares["address.city" if path == "address" else path] == 0
        made = read_workspace(USERS).folder("clean", DAY + dt.timedelta(days=len(before))).read_manifest(CleanManifest)
        assert (made.accepted, made.absent) == ([], {})


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("path", FIELDS)
def test_each_field_is_missed(configure: Callable[..., None], path: str, how: str) -> None:
    """Every record had it, or every second one."""
    configure("users", deleted_when="gone", max_reject_ratio=0.05)
    for share in (1, 2):
        configure("pipeline", data_dir=f"data/{share}")
        check_loss(dict.fromkeys(OPTIONAL, share), [20] * 3, 40, path, how)


@pytest.mark.sweep
@pytest.mark.timeout(120 + 3 * EXAMPLES)
def test_vanished_field_fails_the_day(configure: Callable[..., None]) -> None:
    """The source renames, nests or drops the field, which any share of the records had."""
    configure("users", deleted_when="gone", max_reject_ratio=0.05)
    numbers = itertools.count()

    @given(
        st.fixed_dictionaries(dict.fromkeys(OPTIONAL, shares)),
        days,
        st.integers(40, 60),
        st.sampled_from(FIELDS),
        st.sampled_from(HOWS),
    )
    @settings(max_examples=max(1, EXAMPLES // 4), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def hold(shares: dict[str, int], before: list[int], last: int, path: str, how: str) -> None:
        configure("pipeline", data_dir=f"data/{next(numbers)}")
        check_loss(shares, before, last, path, how)

    hold()
