"""Test record classes and `clean`: an invalid declaration fails before the first request."""

import datetime as dt
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from tests.support import ROOT
from tests.support.databases import connect
from tests.support.project import add_dataset, query, run
from tests.support.server import Answer, Server
from tests.support.things import TODAY, load, make_dataset
from wholeday import Field, Json, Record
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import FAILED
from wholeday.config.pipeline import Pipeline
from wholeday.errors import DatasetError, QualityError
from wholeday.schema.dataset import Dataset
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace


class Unkeyed(Record):
    id: int
    updated_at: dt.datetime | None


class Item(Record):
    sku: str


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda: make_dataset(dt.timedelta), "column value of record class Thing is declared timedelta, which cannot"),
        (lambda: make_dataset(Item), "is declared Item, a record class, without a list: declare list[Item]"),
        (lambda: make_dataset(int, pattern="a"), "pattern is for str, the column is int: remove it"),
        (lambda: make_dataset(columns={"date": str | None}), "the warehouse needs the name date: rename the column"),
        (lambda: make_dataset(columns={"updated_at": int}), "needs the column updated_at: datetime | None"),
        (lambda: Dataset("things", Unkeyed), "record class Unkeyed has no primary key: mark the column"),
        (
            lambda: make_dataset(Decimal | None, max_digits=16, decimal_places=2),
            "column value of table things: SQLite holds decimals of at most 15 digits exactly, and max_digits is 16",
        ),
    ],
)
def test_invalid_declaration_sends_no_request(
    declared: Callable[[], Dataset], message: str, server: Server, configure: Callable[..., None]
) -> None:
    """Both the extraction and `check` fail with one line."""
    dataset = declared()
    with pytest.raises(DatasetError) as raised:
        load(dataset, server, configure, [{"id": 1}])
    assert message in str(raised.value)
    assert "things" in str(raised.value)
    assert list(check_source(read_workspace(dataset)).items()) == [("configuration", (FAILED, str(raised.value), ""))]
    assert server.requests == []


def drop_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["id", "value"]]


def count_letters(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=[len(text) if isinstance(text, str) else None for text in frame["value"]])


def make_dates(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=pd.to_datetime(frame["value"]).dt.date)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (make_dataset(clean=drop_time), "the column updated_at is missing among id, value: keep it"),
        (
            make_dataset(dt.datetime | None, lambda frame: frame.assign(value=5)),
            "column value holds integer, it is",
        ),
        (make_dataset(clean=lambda frame: frame.assign(other=1)), "the column other is not declared; the record class"),
        (make_dataset(clean=lambda frame: frame.assign(id=frame["id"] + 1)), "changed the column id: keep it"),
        (make_dataset(clean=lambda _: sys.exit()), r"<lambda> failed: SystemExit"),
    ],
)
def test_wrong_result_of_clean_fails_after_one_page(
    dataset: Dataset, message: str, server: Server, configure: Callable[..., None]
) -> None:
    with pytest.raises(DatasetError, match=message):
        load(dataset, server, configure, [{"id": 1}])
    assert len(server.requests) == 1


def spell_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=[f"n{number}" for number in frame["id"]])


def map_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=frame["id"].map("n{}".format))


def demand_names(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(value=frame["value"].map({"one": "n1", "two": "n2"}.__getitem__))


@pytest.mark.parametrize("clean", [spell_numbers, map_numbers, demand_names])
def test_clean_whose_types_depend_on_records_is_accepted(clean, server, configure) -> None:
    """Without records pandas guesses a type, and with sample values `clean` may fail. Neither is an error."""
    records = [{"id": 1, "value": "one"}, {"id": 2, "value": "two"}]
    assert load(make_dataset(clean=clean), server, configure, records) == ["n1", "n2"]


@pytest.mark.slow
def test_column_without_values_has_the_declared_type(server, configure) -> None:
    """On a day with only nulls, pandas would make the column float."""
    dataset = make_dataset(int | None, count_letters)
    assert load(dataset, server, configure, [{"id": 1, "value": None}]) == [None]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            [{"uid": number, "name": "x", "node": {"ref": f"n{number}"}} for number in (1, 2)],
            "no record has the key id: name another field as the key of the dataset, such as uid, node.ref",
        ),
        ([{"name": "x"}, {"name": "x"}], "no record has the key id: no other field identifies a record"),
        ([[1, "Ada"], [2, "Bob"]], "some records are arrays, not objects. Set data_selector to a list of objects"),
        ([{"id": None, "no": 1}], "no record has the key id: name another field as the key of the dataset, such as no"),
    ],
)
def test_day_without_any_key_fails(body, message, server, configure) -> None:
    """Without keys no quality gate can compare anything. `check` fails too."""
    dataset = make_dataset()
    with pytest.raises(QualityError, match=message):
        load(dataset, server, configure, {"items": body}, data_selector="items")
    assert not read_workspace(dataset).folder("raw", TODAY).exists()
    finding = check_source(read_workspace(dataset))["unique keys"]
    assert finding.verdict == FAILED
    assert message in finding.evidence


def test_record_without_key_is_rejected(server, configure) -> None:
    records = [{"id": number, "value": "x"} for number in range(30)]
    assert load(make_dataset(), server, configure, [*records, {"value": "y"}]) == ["x"] * 30


@pytest.mark.slow
@pytest.mark.parametrize("command", ["LoadBills", "backfill"])
def test_command_refuses_an_invalid_declaration(command, server) -> None:
    """The command fails with one line, without a traceback, a request or a file."""
    text = (ROOT / "tests" / "support" / "orders.py").read_text().replace("float | None", "complex | None")
    environment = add_dataset("bills", text.replace("orders", "bills").replace("Orders", "Bills"))
    url = server.on("/bills", Answer([]))
    Path("luigi.cfg").write_text(f"{Path('luigi.cfg').read_text()}\n[bills]\nurl = {url}?since={{day_start}}\n")
    words = {
        "LoadBills": ("luigi", "--module", "pipeline", "LoadBills", "--date", "2026-11-20"),
        "backfill": ("python", "-m", "wholeday", "--dataset", "bills", "backfill", "2026-11-01", "2026-11-21"),
    }
    result = run(*words[command], **environment)
    assert result.returncode != 0
    line = "column amount of record class Order is declared complex, which cannot be stored: declare it int"
    assert result.stderr.count(line) == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert server.requests == []
    assert not list(Path("data").rglob("part-*"))


SPELLINGS = [
    ({"total": 10.5, "extra": {"a": 1, "b": 2}, "sent": "2026-11-20T23:30:00-05:00", "tags": [1.0]}, "10.5"),
    ({"total": "10.50", "extra": {"b": 2.0, "a": 1}, "sent": "2026-11-21T04:30:00Z", "tags": [1]}, "10.50"),
]


@pytest.mark.usefixtures("database")
def test_another_spelling_is_no_change(server: Server, configure: Callable[..., None]) -> None:
    """The second snapshot writes the same values otherwise, in the dataset and in its lists."""

    class Line(Record):
        sku: str = Field(primary_key=True)
        total: Decimal | None = Field(max_digits=12, decimal_places=2)
        extra: Json | None
        sent: dt.datetime | None

    class Bill(Record):
        id: int = Field(primary_key=True)
        total: Decimal | None = Field(max_digits=12, decimal_places=2)
        extra: Json | None
        sent: dt.datetime | None
        tags: list[float] | None
        lines: list[Line]
        updated_at: dt.datetime | None

    dataset = Dataset("bills", Bill)
    bodies = [
        [{"id": 1, **record, "lines": [{"sku": "a", **record}, {"sku": "b"}][:: 1 if first else -1]}]
        for first, (record, _) in zip((True, False), SPELLINGS, strict=True)
    ]
    url = server.on("/bills", *map(Answer, bodies))
    configure("bills", url=url, mode="snapshot", paginator="single")
    for day in (TODAY - dt.timedelta(days=1), TODAY):
        stages.extract(read_workspace(dataset), day)
        stages.transform(read_workspace(dataset), day)
        stages.load(read_workspace(dataset), day)
    assert query("select count(*) from _bills_changes") == [(1,)]
    assert query("select count(*) from bills_history") == [(1,)]
    assert query("select count(*) from bills_lines_history") == [(2,)]


@pytest.mark.usefixtures("database")
def test_decimals_add_up_and_sort_as_numbers(server: Server, configure: Callable[..., None]) -> None:
    dataset = make_dataset(Decimal | None, max_digits=15, decimal_places=2)
    sent = ["9.99", "10.50", "-3.10", "100.01", "57.73", "0.10", "9999999999999.99", "-9999999999999.99"]
    records = [{"id": number, "value": value} for number, value in enumerate(sent)]
    load(dataset, server, configure, records)
    ordered = [float(value) for value in sorted(map(Decimal, sent))]
    with connect(Pipeline().database) as connection:
        rows = connection.execute("select value from things order by value").fetchall()
        ((total,),) = connection.execute("select sum(value) from things where abs(value) < 1000").fetchall()
    assert [float(value) for (value,) in rows] == ordered
    assert round(Decimal(str(total)), 2) == Decimal("175.23")
    assert query("select count(*) from things where value = 57.73") == [(1,)]


def test_decimal_with_more_digits_is_a_reject(server: Server, configure: Callable[..., None]) -> None:
    dataset = make_dataset(Decimal | None, max_digits=5, decimal_places=2)
    records = [{"id": number, "value": value} for number, value in enumerate(["999.99", "1000", "0.001", 1.0])]
    load(dataset, server, configure, records, max_reject_ratio=1)
    assert query("select id from things order by 1") == [(0,), (3,)]
    assert [reason for (reason,) in query("select reason from rejects order by line")] == [
        'has more than 3 digits before the point: "1000"',
        'has more than 2 digits after the point: "0.001"',
    ]


@pytest.mark.slow
def test_postgresql_holds_more_digits(server: Server, configure: Callable[..., None], postgresql: str) -> None:
    dataset = make_dataset(Decimal | None, max_digits=38, decimal_places=10)
    value = "1234567890123456789012345678.0123456789"
    load(dataset, server, configure, [{"id": 1, "value": value}])
    with connect(postgresql) as connection:
        assert connection.execute("select value from things").fetchall() == [(Decimal(value),)]
