"""Test the mistakes of a record class: one line each, with the column and the next step."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, ClassVar, Literal, Optional

import pytest

from tests.support.things import make_record_class
from wholeday import Epoch, EpochMillis, Field, Json, Record
from wholeday.errors import DatasetError
from wholeday.schema.columns import Columns, read_columns
from wholeday.schema.dataset import Dataset
from wholeday.schema.kinds import DATE, FLOAT, INTEGER, JSON, TEXT, TIME, TIMESTAMP, UUID, make_decimal
from wholeday.schema.structs import make_decoders

LONG = "a" * 64


class State(enum.Enum):
    OPEN = "open"
    SHUT = "shut"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Item(Record):
    sku: str


class Positioned(Record):
    position: int


class Node(Record):
    inner: "list[Node] | None"


class Others(Record):
    others: Json | None = Field(rest=True)


class Third(Record):
    id: int


class Second(Record):
    thirds: list[Third]


class First(Record):
    seconds: list[Second]


class Related(Record):
    Things_ID: int


class Dated(Record):
    valid_from: dt.datetime


def read(types: dict[str, Any], name: str = "things", **fields: Any) -> Columns:
    """Read a dataset with a key, `updated_at`, and these columns."""
    annotated = {"id": int, "updated_at": dt.datetime | None} | types
    dataset = Dataset(name, make_record_class(annotated, **{"id": Field(primary_key=True)} | fields))
    assert dataset.declared.name == name
    make_decoders(dataset.columns)
    return dataset.columns


def refuse(types: dict[str, Any], name: str = "things", **fields: Any) -> str:
    """Return the refusal of a dataset with a key, `updated_at`, and these columns."""
    with pytest.raises(DatasetError) as raised:
        read(types, name, **fields)
    line = str(raised.value)
    assert line.startswith(f"dataset {name}: ")
    assert "\n" not in line
    return line.removeprefix(f"dataset {name}: ")


KNOWN = (
    "declare it int, float, bool, str, datetime, date, time, Decimal, UUID, Epoch, EpochMillis, Json, a Literal or "
    "Enum of text or of integers, list[…] of a record class or of one of these"
)
UNSTORABLE = [
    (dt.timedelta, "timedelta"),
    (bytes, "bytes"),
    (dict, "dict"),
    (dict[str, int], "dict[str, int]"),
    (set[int], "set[int]"),
    (list, "list"),
    (list[list[int]], "list[int]"),
    (list[bytes], "bytes"),
    (Any, "Any"),
    (object, "object"),
    (Literal["a", 1], "Literal['a', 1]"),
    (Literal[True], "Literal[True]"),
    (Mixed, "Mixed"),
]


@pytest.mark.parametrize(("type_", "shown"), UNSTORABLE, ids=lambda value: str(value))
def test_type_that_cannot_be_stored_is_refused(type_: Any, shown: str) -> None:
    line = refuse({"value": type_})
    assert line == f"column value of record class Thing is declared {shown}, which cannot be stored: {KNOWN}"


TYPES = [
    (
        {"value": int | str},
        "value of record class Thing is declared int | str: declare one type, so that records with another one are "
        "rejected, or Json",
    ),
    (
        {"value": Item},
        "value of record class Thing is declared Item, a record class, without a list: declare list[Item], "
        'or a column for each field that you need, as in city: str | None = Field("address.city")',
    ),
    (
        {"value": list[Node]},
        "inner of record class Node holds Node, which holds itself: leave the column out",
    ),
    (
        {"value": list[First]},
        "value of record class Thing: seconds holds lists of records that hold lists of records: "
        "declare the innermost Json",
    ),
    (
        {"value": list[Others]},
        "value of record class Thing: Others has a column with rest=True: only a dataset's class has one",
    ),
]


@pytest.mark.parametrize(("types", "line"), TYPES, ids=str)
def test_structure_that_cannot_be_stored_is_refused(types: dict[str, Any], line: str) -> None:
    assert refuse(types) == f"column {line}"


OPTIONS = [
    (str, {"ge": 1}, ": ge is for numbers, the column is str: remove it"),
    (Epoch, {"lt": 1}, ": lt is for numbers, the column is Epoch: remove it"),
    (list[Item], {"le": 1}, ": le is for numbers, the column is list[tests.unit.test_columns.Item]: remove it"),
    (int, {"pattern": "a"}, ": pattern is for str, the column is int: remove it"),
    (int, {"strip_whitespace": True}, ": strip_whitespace is for str, the column is int: remove it"),
    (State, {"min_length": 1}, ": min_length is for str, the column is State: remove it"),
    (float, {"max_digits": 5}, ": max_digits is for Decimal, the column is float: remove it"),
    (str, {"to_lower": True, "to_upper": True}, ": to_lower and to_upper exclude each other: remove one"),
    (str, {"pattern": "("}, ": pattern = '(' is not a regular expression: missing ), unterminated subpattern at "),
    (str, {"pattern": 5}, ": pattern = 5 is not a text: correct it"),
    (int, {"ge": "1"}, ": ge = '1' is not a number: correct it"),
    (int, {"ge": True}, ": ge = True is not a number: correct it"),
    (float, {"ge": float("nan")}, ": ge = nan is not a number: correct it"),
    (int, {"ge": 1.5}, ": ge = 1.5 is for an int: give a whole number of at most 64 bits"),
    (int, {"le": 2**63}, ": le = 9223372036854775808 is for an int: give a whole number of at most 64 bits"),
    (int, {"ge": 1, "gt": 1}, " has both gt and ge: remove one"),
    (int, {"gt": 3, "lt": 1}, ": no value has gt = 3 and lt = 1: correct one of them"),
    (str, {"max_length": -1}, ": max_length = -1 is not a whole number from 0: correct it"),
    (str, {"min_length": 2, "max_length": 1}, ": no value has min_length = 2 and max_length = 1: correct one of them"),
]


@pytest.mark.parametrize(("type_", "options", "line"), OPTIONS, ids=str)
def test_option_of_no_use_is_refused(type_: Any, options: dict[str, Any], line: str) -> None:
    found = refuse({"value": type_}, value=Field(**options))
    assert found.startswith(f"column value of record class Thing{line}")


OF_PARENT = [
    (str, {"parent": ""}, ": parent = '' is not the name of a column: correct it"),
    (str, {"parent": "owner.login"}, ": parent = 'owner.login' is not the name of a column: correct it"),
    (str, {"parent": 5}, ": parent = 5 is not the name of a column: correct it"),
    (
        str,
        {"parent": "a", "source": "b"},
        " takes its value unchanged from the parent, and has a path: remove one of them",
    ),
    (
        str,
        {"parent": "a", "to_lower": True},
        " takes its value unchanged from the parent, and has to_lower: remove one",
    ),
    (int, {"parent": "a", "ge": 1}, " takes its value unchanged from the parent, and has ge: remove one of them"),
    (
        Json | None,
        {"parent": "a", "rest": True},
        " takes its value unchanged from the parent, and has rest: remove one",
    ),
    (
        Json,
        {"parent": "a"},
        " is declared Json and takes its value from the parent: declare it int, float, bool, str, ",
    ),
    (Epoch, {"parent": "a"}, " is declared Epoch and takes its value from the parent: declare it int, float, bool, "),
    (dt.time, {"parent": "a"}, " is declared time and takes its value from the parent: declare it int, float, bool, "),
    (
        list[Item],
        {"parent": "a"},
        " is declared list[tests.unit.test_columns.Item] and takes its value from the parent",
    ),
    (float, {"parent": "a", "primary_key": True}, " is part of the primary key and declared float: declare it int, "),
]


@pytest.mark.parametrize(("type_", "options", "line"), OF_PARENT, ids=str)
def test_column_of_the_parent_is_taken_as_it_is(type_: Any, options: dict[str, Any], line: str) -> None:
    path = [options.pop("source")] if "source" in (options := dict(options)) else []
    found = refuse({"value": type_}, value=Field(*path, **options))
    assert found.startswith(f"column value of record class Thing{line}")


def test_parent_is_not_the_whole_record() -> None:
    """The key and the time of the last change are the record's own; items of a list have no parent's column."""
    assert refuse({}, id=Field(primary_key=True, parent="id")) == (
        "record class Thing: the primary key is the parent's only: mark a column of the record too"
    )
    assert refuse({}, updated_at=Field(parent="updated_at")) == (
        "column updated_at of record class Thing is the time of the parent's change: give it the path of the record's "
        "own"
    )
    item = make_record_class({"sku": str}, "Item", sku=Field(parent="sku"))
    assert refuse({"value": list[item]}) == (
        "column value of record class Thing: Item has a column with parent: only a dataset's class has one"
    )


@pytest.mark.parametrize(("digits", "places"), [(None, None), (5, None), (None, 2), (2, 3), (0, 0)])
def test_decimal_without_digits_is_refused(digits: int | None, places: int | None) -> None:
    assert refuse({"value": Decimal}, value=Field(max_digits=digits, decimal_places=places)) == (
        f"column value of record class Thing is a Decimal with max_digits = {digits} and decimal_places = {places}: "
        "give both, as in Field(max_digits=12, decimal_places=2), with at most 38 digits"
    )


def test_decimal_has_at_most_38_digits() -> None:
    read({"value": Decimal}, value=Field(max_digits=38, decimal_places=38))
    assert "at most 38 digits" in refuse({"value": Decimal}, value=Field(max_digits=39, decimal_places=2))


@pytest.mark.parametrize(
    ("type_", "shown"),
    [
        (int | None, "int | None"),
        (Literal["a", None], "Literal['a'] | None"),
        (float, "float"),
        (bool, "bool"),
        (dt.datetime, "datetime"),
        (Epoch, "Epoch"),
        (Json, "Json"),
        (State, "State"),
        (list[str], "list[str]"),
    ],
    ids=str,
)
def test_type_that_cannot_be_a_key_is_refused(type_: Any, shown: str) -> None:
    assert refuse({"other": type_}, other=Field(primary_key=True)) == (
        f"column other of record class Thing is part of the primary key and declared {shown}: "
        "declare it int, str, UUID, date or a Literal"
    )


@pytest.mark.parametrize("type_", [int, str, uuid.UUID, dt.date, Literal["a"], Literal[1, 2]], ids=str)
def test_key_may_have_these_types(type_: Any) -> None:
    assert [column.name for column in read({"other": type_}, other=Field(primary_key=True)).key] == ["id", "other"]


def test_key_within_a_list_is_refused() -> None:
    assert refuse({"other": int}, other=Field("lines.0.id", primary_key=True)) == (
        "column other of record class Thing is part of the primary key and lies in a list: "
        "choose another column as the key"
    )


def test_class_without_key_is_refused() -> None:
    assert refuse({}, id=Field()) == (
        "record class Thing has no primary key: mark the column that identifies a record, as in "
        "id: int = Field(primary_key=True)"
    )


@pytest.mark.parametrize("type_", [str, dt.date, dt.time, int])
def test_class_without_time_of_last_change_is_refused(type_: Any) -> None:
    line = refuse({"updated_at": type_})
    assert line.startswith("record class Thing needs the column updated_at: datetime | None (or Epoch | None) outside")


NAMES = [
    ({"name": str, "Name": str}, {}, "record class Thing: the columns name and Name have one name: rename one"),
    ({"_x": int}, {}, "table things: the warehouse needs the name _x: rename the column"),
    ({"date": dt.date}, {}, "table things: the warehouse needs the name date: rename the column"),
    ({"Load_Date": dt.date}, {}, "table things: the warehouse needs the name Load_Date: rename the column"),
    ({"rowid": int}, {}, "table things: the warehouse needs the name rowid: rename the column"),
    ({'a"b': int}, {}, 'table things: the warehouse needs the name a"b: rename the column'),
    ({LONG: int}, {}, f"table things: the name {LONG} is longer than 63 bytes: choose a shorter name; "),
    ({"ä" * 32: int}, {}, f"table things: the name {'ä' * 32} is longer than 63 bytes: choose a shorter name; "),
    (
        {"b" * 50: list[Item]},
        {},
        f"table things_{'b' * 50}: the name _things_{'b' * 50}_forgotten is longer than 63 bytes: choose a shorter "
        "name; a column may have 63 bytes, a table 52",
    ),
    (
        {"items": list[Positioned]},
        {},
        "table things_items: its key needs the name position: rename the column in Positioned",
    ),
    (
        {"items": list[Related]},
        {},
        "table things_items: its key needs the name things_id: rename the column in Related",
    ),
    ({"items": list[Dated]}, {}, "table things_items: the warehouse needs the name valid_from: rename the column"),
    (
        {"history": list[Item]},
        {},
        "list history: the name things_history of its table or history is taken: rename the column",
    ),
    (
        {"items": list[Item], "items_history": list[Item]},
        {},
        "list items_history: the name things_items_history of its table or history is taken: rename the column",
    ),
    (
        {"seconds_thirds": list[Item], "seconds": list[Second]},
        {},
        "list seconds.thirds: the name things_seconds_thirds of its table or history is taken: rename the column",
    ),
    ({}, {"value": Field("a")}, "record class Thing: column value has no type: write value: int = …"),
    (
        {"value": "Nowhere"},
        {},
        "record class Thing cannot be read: name 'Nowhere' is not defined: import the name, or correct it",
    ),
    (
        {"one": Json | None, "two": Json | None},
        {"one": Field(rest=True), "two": Field(rest=True)},
        "record class Thing: two columns have rest=True: remove one",
    ),
    *(
        (
            {"value": type_},
            {"value": field},
            "column value of record class Thing holds the other fields: "
            "declare it as value: Json | None = Field(rest=True)",
        )
        for type_, field in (
            (Json, Field(rest=True)),
            (str | None, Field(rest=True)),
            (Json | None, Field("a", rest=True)),
        )
    ),
    *(
        (
            {"value": str | None},
            {"value": default},
            f"column value of record class Thing has the default {default!r}, which would hide that a record lacks "
            "it: remove the default; a column declared | None is null then",
        )
        for default in (None, "a", "")
    ),
]


@pytest.mark.parametrize(("types", "fields", "line"), NAMES, ids=lambda value: str(value)[:40])
def test_name_or_default_of_no_use_is_refused(types: dict[str, Any], fields: dict[str, Any], line: str) -> None:
    assert refuse(types, **fields).startswith(line)


PATHS = [
    ("a", "a.b", ": column value reads a value at a, and column other an object there (a.b): correct one of the paths"),
    ("a", "a.0", ": column value reads a value at a, and column other an object there (a.0): correct one of the paths"),
]


@pytest.mark.parametrize(("one", "other", "line"), PATHS)
def test_path_through_a_value_is_refused(one: str, other: str, line: str) -> None:
    for fields in ({"value": Field(one), "other": Field(other)}, {"other": Field(other), "value": Field(one)}):
        assert refuse({"value": str, "other": int}, **fields) == f"record class Thing{line}"


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a."])
def test_path_with_an_empty_name_is_refused(path: str) -> None:
    line = refuse({"value": str}, value=Field(path))
    assert line.startswith("column value of record class Thing: ")
    assert line.endswith(f": the path {path!r} has an empty name: write names with dots between")


def test_path_that_is_not_text_is_refused() -> None:
    line = refuse({"value": str}, value=Field(5))  # type: ignore[arg-type]  # the mistake
    assert line == "column value of record class Thing: the path = 5 is not a text: correct it"


@pytest.mark.parametrize(("argument", "value"), [("primary", True), ("source", "a"), ("default", None)])
def test_unknown_argument_of_field_is_refused(argument: str, value: Any) -> None:
    """The line of the class is in the traceback, as Field does not know its column."""
    line = f"^Field has no argument {argument}: remove it; the arguments are the path, and primary_key, "
    with pytest.raises(DatasetError, match=line):
        Field("a", **{argument: value})


@pytest.mark.parametrize("name", ["loads", "Rejects", "_users", "pg_users", "sqlite_x", "", 'a"b'])
def test_dataset_with_reserved_name_is_refused(name: str) -> None:
    others = "_…, pg_…, sqlite_…, loads, rejects"
    assert refuse({}, name) == f"the warehouse has no table of this name: choose another, not {others}"


def test_dataset_with_long_name_is_refused() -> None:
    """PostgreSQL would cut the names that are derived from it."""
    read({}, "b" * 52)
    assert f"the name _{'b' * 53}_forgotten is longer than 63 bytes: choose a shorter name" in refuse({}, "b" * 53)


def test_every_type_has_its_kind() -> None:
    types: dict[str, tuple[Any, str]] = {
        "count": (int, INTEGER),
        "ratio": (Optional[float], FLOAT),  # noqa: UP045 - people write this too
        "state": (State, TEXT),
        "level": (Level | None, INTEGER),
        "kind": (Literal["a", "b", None], TEXT),
        "day": (dt.date, DATE),
        "moment": (dt.datetime | None, TIMESTAMP),
        "created": (Epoch | None, TIMESTAMP),
        "millis": (EpochMillis, TIMESTAMP),
        "opens": (dt.time, TIME),
        "price": (Decimal, make_decimal(12, 2)),
        "guid": (uuid.UUID, UUID),
        "extra": (Json | None, JSON),
        "tags": (list[str] | None, JSON),
        "items": (list[Item], JSON),
    }
    columns = read({name: type_ for name, (type_, _) in types.items()}, price=Field(max_digits=12, decimal_places=2))
    assert {name: columns.kinds[name] for name in types} == {name: kind for name, (_, kind) in types.items()}
    nullable = {column.name for column in columns if column.is_nullable}
    assert nullable == {"updated_at", "ratio", "level", "kind", "moment", "created", "extra", "tags"}


def test_class_may_extend_a_class_and_have_constants() -> None:
    class Base(Record):
        LIMIT: ClassVar[int] = 5
        id: int = Field(primary_key=True)

    class Thing(Base):
        """A class with the columns of another one."""

        updated_at: Epoch | None = Field("changed")

    assert [(column.name, column.source) for column in read_columns(Thing)] == [("id", "id"), ("updated_at", "changed")]
