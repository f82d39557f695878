"""Test the types, names and keys that `new` infers, each from a few values."""

import json
from typing import Any

import pytest

from wholeday.commands.new.fit import Fitting
from wholeday.commands.new.infer import Rules
from wholeday.commands.new.keys import NoKeyError
from wholeday.commands.new.model import Field, Proposal
from wholeday.commands.new.module import write_field
from wholeday.commands.new.names import name_class, name_dataset, to_singular, to_snake


def infer(records: list[Any], **rules: Any) -> Proposal:
    return Fitting(Rules("things", **rules)).start([json.dumps(record).encode() for record in records])


def infer_column(name: str, values: list[Any], **rules: Any) -> Field:
    """Return the column of a field with these values in the records."""
    proposal = infer([{"id": number, name: value} for number, value in enumerate(values)], **rules)
    return next(column for column in proposal.model.fields if column.path == (name,))


@pytest.mark.parametrize(
    ("name", "values", "declared"),
    [
        ("size", [1, 2], "int"),
        ("size", [1, 2.5], "float"),
        ("size", [1, None], "int | None"),
        ("size", [2**63], "Json"),
        ("size", ["1", "-2"], "int"),
        ("size", ["1", ""], "int | None"),
        ("size", ["01", "2"], "str"),
        ("zip_code", ["12345", "54321"], "str"),
        ("phone", ["12345", "54321"], "str"),
        ("last4", ["4242", "1111"], "str"),
        ("price", ["1.50", "12.00"], "Decimal"),
        ("price", [1.5, 12], "Decimal"),
        ("price", [0.1234567, 12], "float"),
        ("price_change_percent", [0.25, 12], "float"),
        ("click_rate", [0, 1], "float"),
        ("latitude", ["59.91", "-7.1"], "float"),
        ("api_version", ["2010-04-01", "2010-04-01"], "str"),
        ("created", [1_795_168_800, 1_795_168_801], "Epoch"),
        ("createdAt", [1_795_168_800_123, 1_795_168_801_000], "EpochMillis"),
        ("created", ["1795168800", "1795168801"], "Epoch"),
        ("duration_time_seconds", [1_795_168_800, 1_795_168_801], "int"),
        ("at_day", ["2026-11-20", "2026-11-21"], "date"),
        ("at_day", ["2026-11-20", ""], "date | None"),
        ("at_day", ["2026-11-20", "soon"], "str"),
        ("at_day", ["2026-11-20", "2026-11-20T10:00:00Z"], "str"),
        ("seen", ["2026-11-20T10:00:00.123+0100", "2026-11-20 10:00:00"], "datetime"),
        ("opens", ["09:30:00", "17:00:00"], "time"),
        ("guid", ["6F9619FF-8B86-D011-B42D-00CF4FC964FF", "00000000-0000-4000-8000-000000000001"], "UUID"),
        ("hash", ["6f9619ff8b86d011b42d00cf4fc964ff", "00000000000040008000000000000001"], "str"),
        ("flag", [True, False], "bool"),
        ("flag", ["true", "false"], "bool"),
        ("value", [1, "one"], "Json"),
        ("tags", [["a"], []], "list[str]"),
        ("tags", [["a", None], []], "list[str | None]"),
        ("tags", [["a", 1], []], "Json"),
        ("point", [[1.5, 2], [3, 4]], "list[float]"),
        ("rates", [{"EUR": 1.5, "USD": 2.5, "CHF": 3.5}] * 2, "Json"),
        ("metadata", [{"a": 1}, {"b": 1}], "Json"),
        ("votes", [{f"ada{n}": 1, f"bo{n}": 2} for n in range(4)], "Json"),
        ("by_day", [{"2026-11-20": 1}, {"2026-11-21": 1}], "Json"),
    ],
)
def test_type_is_the_narrowest_that_holds(name: str, values: list[Any], declared: str) -> None:
    column = infer_column(name, values)
    assert f"{column.type.name}{' | None' if column.is_nullable else ''}" == declared


@pytest.mark.parametrize(
    ("texts", "digits"),
    [(["1.50", "2.00"], (12, 2)), (["1.12345", "1.5"], (12, 7)), (["123456789012.25"], (15, 2))],
)
def test_decimal_has_room_for_further_digits(texts: list[str], digits: tuple[int, int]) -> None:
    options = dict(infer_column("total", texts).type.options)
    assert (options["max_digits"], options["decimal_places"]) == digits


def test_decimal_beyond_the_digits_of_the_database_is_text() -> None:
    assert infer_column("total", ["1234567890123456.25"]).type.name == "str"
    assert infer_column("total", ["1234567890123456.25"], most_digits=38).type.name == "Decimal"


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        ({"customer": {"id": 7, "customer_id": 8}}, ['customer_id: int = Field("customer.id")']),
        ({"attributes": {"firstName": "a"}}, ['first_name: str = Field("attributes.firstName")']),
        ({"thing": {"size": 1}}, ['size: int = Field("thing.size")']),
        ({"name": {"given_name": "a"}}, ['given_name: str = Field("name.given_name")']),
        ({"class": 1, "date": 2, "deleted": True}, ['class_: int = Field("class")', 'thing_date: int = Field("date")']),
        ({"a.b": 1, "HTTPStatus": 2}, [r'a_b: int = Field(r"a\.b")', 'http_status: int = Field("HTTPStatus")']),
        ({"+1": 1, "-1": 2}, ['plus_1: int = Field("+1")', 'minus_1: int = Field("-1")']),
        ({"lines": {"object": "list", "data": [{"id": 1}]}}, ['lines: list[Line] = Field("lines.data")']),
    ],
)
def test_name_is_one_that_a_person_would_choose(record: Any, lines: list[str]) -> None:
    proposal = infer([{"id": number, **record} for number in range(2)])
    written = [line.strip() for column in proposal.model.fields for line in write_field(column)]
    assert set(lines) <= set(written)


@pytest.mark.parametrize(
    ("records", "key"),
    [
        ([{"id": 1, "uuid": "a"}, {"id": 2, "uuid": "b"}], ["id"]),
        ([{"id": 1, "thing_id": "a"}, {"id": 1, "thing_id": "b"}], ["thing_id"]),
        ([{"a": {"id": 1}}, {"a": {"id": 2}}], ["a_id"]),
        ([{"uri": "/1", "sid": "a"}, {"uri": "/2", "sid": "b"}], ["sid"]),
        ([{"code": "a", "size": 1}, {"code": "b", "size": 2}], ["code"]),
        (
            [{"user_id": 1, "team_id": 1}, {"user_id": 1, "team_id": 2}, {"user_id": 2, "team_id": 1}],
            ["user_id", "team_id"],
        ),
        ([{"date": "2026-11-20", "rate": 1}, {"date": "2026-11-21", "rate": 1}], ["thing_date"]),
        ([{"id": 1, "size": 2}, {"id": 1, "size": 2}], ["id"]),
    ],
)
def test_key_is_found_by_uniqueness_and_name(records: list[Any], key: list[str]) -> None:
    """A record that comes twice, as on two pages, repeats no key."""
    assert [column.name for column in infer(records).model.key] == key


@pytest.mark.parametrize("records", [[{"id": 1, "a": 1}, {"id": 1, "a": 2}], [{"id": None}, {"id": 1}], [{"a": 1.5}]])
def test_records_without_a_key_are_refused(records: list[Any]) -> None:
    with pytest.raises(NoKeyError):
        infer(records)


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"updated_at": "2026-11-20T10:00:00Z", "meta": {"modified": "2026-11-20T10:00:00Z"}}, ("updated_at",)),
        ({"created_at": "2026-11-20T10:00:00Z", "lastModified": "2026-11-20T10:00:00Z"}, ("lastModified",)),
        ({"updated": 1_795_168_800, "changes": 3}, ("updated",)),
        ({"updated_by": "ada", "created": "2026-11-20T10:00:00Z"}, ("updated_at",)),
        ({"updated_at": "yesterday"}, ("no_time_of_change",)),
    ],
)
def test_time_of_change_is_found_by_name_and_type(record: Any, path: tuple[str, ...]) -> None:
    last = infer([{"id": number, **record} for number in range(2)]).model.fields[-1]
    assert (last.name, last.path) == ("updated_at", path)


def test_time_that_orders_the_records_is_the_time_of_change() -> None:
    """Of two equal names; nothing else tells them apart."""
    records = [
        {"id": n, "edit_a": f"2026-11-2{9 - n % 2}T10:00:00Z", "edit_bc": f"2026-11-2{n}T10:00:00Z"} for n in range(4)
    ]
    assert infer(records).model.fields[-1].path == ("edit_bc",)


def test_personal_data_is_pointed_out() -> None:
    person = {"name": "a", "born": {"birth_date": "2026-11-20"}, "contact": "ada@example.org", "size": 1}
    proposal = Fitting(Rules("customers")).start([json.dumps({"id": n, **person}).encode() for n in range(2)])
    assert proposal.personal == ["name", "born_birth_date", "contact"]
    assert infer([{"id": 1, "name": "a"}]).personal == []


def test_values_of_a_list_are_what_the_list_is_named_after() -> None:
    """A phone number is text, and personal, wherever the word `phone` is. Each column is named once."""
    lists = {"emails": ["a@b.org"], "mails": [{"value": "a@b.org"}], "work_emails": [{"value": "a@b.org"}]}
    proposal = infer([{"id": n, "phones": [{"type": "home", "value": f"555010{n}"}], **lists} for n in range(3)])
    children, *_ = (column.children for column in proposal.model.fields if column.children)
    assert [column.type.name for column in children.fields if column.name == "value"] == ["str"]
    assert proposal.personal == ["phones.value", "emails", "mails.value", "work_emails.value"]


def test_key_is_not_the_id_of_something_else() -> None:
    records = [{"first_id": n, "last_id": n + 9, "symbol": f"S{n}"} for n in range(30)]
    proposal = infer(records)
    assert [column.name for column in proposal.model.key] == ["symbol"]
    line = "the key symbol is distinct in 30 records, but its name is not usual; "
    assert any(doubt.startswith(line) and "is distinct too" in doubt for doubt in proposal.key_doubts)


def test_key_of_two_names_is_found() -> None:
    records = [{"warehouse": f"W{n % 4}", "sku": f"S{n // 4}", "on_hand": n} for n in range(40)]
    proposal = infer(records)
    assert [column.name for column in proposal.model.key] == ["warehouse", "sku"]
    assert any("no field identifies a record alone" in doubt for doubt in proposal.key_doubts)


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("line_items", "line_item"),
        ("boxes", "box"),
        ("people", "person"),
        ("statuses", "status"),
        ("categories", "category"),
    ],
)
def test_singular_of_usual_plurals(plural: str, singular: str) -> None:
    assert to_singular(plural) == singular


def test_names_are_identifiers() -> None:
    assert [to_snake(name) for name in ("", "1st", "Größe", "Due date?", "@odata.id")] == [
        *("field", "n1st", "größe", "due_date", "odata_id"),
    ]
    assert name_class("records") == "RecordItem"
    assert name_class("lines", ["Line"]) == "Line2"
    assert name_dataset("/v1/users/{id}/Orders.json") == "orders"
