"""Test record classes and tables: an invalid declaration fails before the first request."""

import datetime as dt
import decimal
import enum
import uuid
from pathlib import Path
from typing import Any, Literal, Optional

import msgspec
import pandas as pd
import pytest
import sqlalchemy as sa

from tests.support import ROOT
from tests.support.project import add_dataset, query, run
from tests.support.server import Answer
from tests.support.things import TIME, TODAY, load, make_dataset
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import FAILED
from wholeday.errors import ConfigError, DatasetError, QualityError
from wholeday.tasks.stages import read_workspace


class State(enum.Enum):
    OPEN = "open"
    SHUT = "shut"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Item(msgspec.Struct):
    sku: str


class Pair(msgspec.Struct, array_like=True):
    left: int


class Node(msgspec.Struct):
    inner: Optional["Node"] = None


class Unknown:
    pass


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"field": decimal.Decimal},
            "field value of record class Thing is declared Decimal, which cannot be stored: declare it str",
        ),
        ({"field": uuid.UUID}, "declared UUID, which cannot be stored: declare it str"),
        ({"field": dt.time}, "declared time, which cannot be stored: declare it str"),
        ({"field": dt.timedelta}, "declared timedelta, which cannot be stored: declare it str"),
        ({"field": bytes}, "declared bytes, which cannot be stored: declare it int, float, bool, str, datetime, date"),
        ({"field": dict}, "declared dict, which cannot be stored: declare a msgspec.Struct with the fields"),
        ({"field": dict[str, int]}, "declared dict"),
        ({"field": msgspec.Raw}, "declared Raw, which cannot be stored: declare a msgspec.Struct"),
        ({"field": list[Item]}, "declared list, which cannot be stored: leave the field out; raw files keep it"),
        ({"field": set[int]}, "declared set"),
        ({"field": Any}, "declared Any, which cannot be stored: declare one type"),
        ({"field": int | str | bool}, "declared int | str | bool, which cannot be stored: declare one type; records"),
        ({"field": Item | list[int]}, "declared Item | list"),
        ({"field": Literal["a", 1]}, "declared literal"),
        ({"field": Mixed}, "Enums must contain either all str or all int values"),
        ({"field": Pair}, "declared Pair, an array, which cannot be stored: leave array_like out"),
        ({"field": Node}, "field value.inner of record class Thing is declared Node, which holds itself"),
        ({"field": Unknown}, "declared custom"),
        ({"array_like": True}, "record class Thing is declared Thing, an array, which cannot be stored"),
        ({"id_types": (uuid.UUID, sa.Uuid)}, "field id of record class Thing is declared UUID"),
        ({"key": ("uid",)}, "the key names uid, which is not among its fields: id, value, updated_at: name the fields"),
        ({"key": ()}, "the key names nothing, which is not among"),
        ({"rename": "upper"}, "the key names id, which is not among its fields: ID, VALUE, UPDATED_AT"),
        ({"column": sa.Numeric(12, 2)}, "column value cannot be stored as Numeric(precision=12, scale=2)"),
        ({"column": sa.DateTime}, "column value cannot be stored as DateTime()"),
        ({"updated_at": None}, "table things: it needs a column updated_at"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_declaration_sends_no_request(declared, message, server, configure) -> None:
    """Both the extraction and `check` fail with one line."""
    dataset = make_dataset(**declared)
    with pytest.raises((DatasetError, ConfigError)) as raised:
        load(dataset, server, configure, [{"id": 1}])
    assert message in str(raised.value)
    assert "things" in str(raised.value)
    assert list(check_source(read_workspace(dataset)).items()) == [("configuration", (FAILED, str(raised.value), ""))]
    assert server.requests == []


@pytest.mark.slow
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("field", "column", "sent", "stored"),
    [
        (State, sa.Text, ["open", None, "shut"], ["open", None, "shut"]),
        (Level, sa.Integer, [2, None, 1], [2, None, 1]),
        (Literal["a", "b"], sa.Text, [None, None], [None, None]),
        (Literal["a", "b"], sa.Text, ["a", None], ["a", None]),
        (Literal[1, 2], sa.BigInteger, [2, None], [2, None]),
        (float, sa.Float, [12345678901234567890, 0.1], [1.2345678901234567e19, 0.1]),
    ],
)
def test_enumerated_type_is_stored_exactly(field, column, sent, stored, server, configure) -> None:
    dataset = make_dataset(field, column)
    records = [{"id": number, "value": value} for number, value in enumerate(sent)]
    assert load(dataset, server, configure, records) == stored


@pytest.mark.parametrize("value", ["open!", 1, True])
def test_value_outside_an_enum_is_rejected(value, server, configure) -> None:
    records = [{"id": number, "value": "open"} for number in range(30)]
    rows = load(make_dataset(State), server, configure, [*records, {"id": 30, "value": value}])
    assert rows == ["open"] * 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "column", "sent", "stored", "reason"),
    [
        (bool, sa.Boolean, [1, 0, True], [1], "Expected `bool | null`, got `int`"),
        (int, sa.BigInteger, [12.0, 12], [12], "Expected `int | null`, got `float`"),
        (int, sa.BigInteger, ["12", 12], [12], "Expected `int | null`, got `str`"),
        (float, sa.Float, ["10.5", 10.5], [10.5], "Expected `float | null`, got `str`"),
        (dt.datetime, TIME, ["", "2026-11-20T10:00:00+0100"], ["2026-11-20T09:00:00.000000Z"], "Invalid RFC3339"),
        (dt.datetime, TIME, ["2026-11-20", "0000-00-00 00:00:00"], [], "Invalid RFC3339 encoded datetime"),
        (dt.datetime, TIME, ["Wed Oct 10 20:19:24 +0000 2018"], [], "Invalid RFC3339 encoded datetime"),
        (dt.datetime, TIME, [1795168815], [], "Expected `datetime | null`, got `int`"),
        (dt.date, sa.Date, ["2026-11-20T00:00:00Z", "2026-11-20"], ["2026-11-20"], "Invalid RFC3339 encoded date"),
    ],
)
def test_value_of_another_type_is_rejected(field, column, sent, stored, reason, server, configure) -> None:
    """The transform converts nothing by itself. `clean` may convert values, because it knows their meaning."""
    records = [{"id": number, "value": value} for number, value in enumerate(sent)]
    assert load(make_dataset(field, column), server, configure, records, max_reject_ratio=1) == stored
    rejects = query("select field, reason from rejects")
    assert len(rejects) == len(sent) - len(stored)
    assert {name for name, _ in rejects} == {"value"}
    assert all(found.startswith(reason) for _, found in rejects)


def drop_time(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    return frame[["id", "value"]], {}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"field": int, "column": sa.DateTime(timezone=True)},
            "column value holds integer, the table declares time: for an",
        ),
        ({"field": int, "column": sa.Boolean}, "column value holds integer, the table declares boolean"),
        ({"field": int, "column": sa.Float}, "column value holds integer, the table declares float: declare the field"),
        ({"field": dt.datetime, "column": sa.Date}, "column value holds time, the table declares date: make dates"),
        ({"field": str, "column": sa.Float}, "column value holds text, the table declares float"),
        ({"clean": drop_time}, "the table declares updated_at, which is not among id, value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_column_types_fail_after_one_page(declared, message, server, configure) -> None:
    """The types of columns are known even if the page has no records."""
    with pytest.raises(DatasetError, match=message):
        load(make_dataset(**declared), server, configure, [])
    assert len(server.requests) == 1


def spell_numbers(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    return frame.assign(value=[f"n{number}" for number in frame["id"]]), {}


def map_numbers(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    return frame.assign(value=frame["id"].map("n{}".format)), {}


def demand_names(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    return frame.assign(value=frame["value"].map({"one": "n1", "two": "n2"}.__getitem__)), {}


@pytest.mark.parametrize("clean", [spell_numbers, map_numbers, demand_names])
def test_clean_whose_types_depend_on_records_is_accepted(clean, server, configure) -> None:
    """Without records pandas guesses a type, and with sample values `clean` may fail. Neither is an error."""
    records = [{"id": 1, "value": "one"}, {"id": 2, "value": "two"}]
    assert load(make_dataset(clean=clean), server, configure, records) == ["n1", "n2"]


@pytest.mark.slow
def test_column_without_values_has_the_declared_type(server, configure) -> None:
    """On a day with only nulls, pandas would make the column float."""

    def count_letters(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
        return frame.assign(value=[len(text) if isinstance(text, str) else None for text in frame["value"]]), {}

    dataset = make_dataset(column=sa.BigInteger, clean=count_letters)
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
@pytest.mark.parametrize("command", ["LoadOrders", "backfill"])
def test_command_refuses_an_invalid_declaration(command, server) -> None:
    """The command fails with one line, without a traceback, a request or a file."""
    text = (ROOT / "tests" / "support" / "orders.py").read_text().replace("sa.Float", "sa.Numeric(12, 2)")
    environment = add_dataset("bills", text.replace("orders", "bills").replace("Orders", "Bills"))
    url = server.on("/bills", Answer([]))
    Path("luigi.cfg").write_text(f"{Path('luigi.cfg').read_text()}\n[bills]\nurl = {url}?since={{day_start}}\n")
    words = {
        "LoadOrders": ("luigi", "--module", "pipeline", "LoadBills", "--date", "2026-11-20"),
        "backfill": ("python", "-m", "wholeday", "--dataset", "bills", "backfill", "2026-11-01", "2026-11-21"),
    }
    result = run(*words[command], **environment)
    assert result.returncode != 0
    assert result.stderr.count("column amount cannot be stored as Numeric(precision=12, scale=2): use Text") == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert server.requests == []
    assert not list(Path("data").rglob("part-*"))
