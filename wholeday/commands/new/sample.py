"""Write the test of a dataset: two invented records, one with a value in each field, one with the least.

Responsibilities: invented values, never values of the source.
"""

import datetime as dt
from typing import Any

from wholeday.commands.new.model import Field, Model, Proposal

VALUES: dict[str, Any] = {
    "int": 1,
    "float": 1.5,
    "bool": True,
    "str": "a",
    "datetime": "2026-11-20T10:00:00Z",
    "date": "2026-11-20",
    "time": "10:00:00",
    "Decimal": "1.00",
    "UUID": "00000000-0000-4000-8000-000000000001",
    "Epoch": 1763632800,
    "EpochMillis": 1763632800000,
    "Json": {"a": 1},
}
LONGEST = 90  # characters of a line
SECOND = {"int": 2, "str": "b", "UUID": "00000000-0000-4000-8000-000000000002", "date": "2026-11-21"}
"""The values of a second key."""
TEST = '''"""Test the dataset `{dataset}` with invented records."""

import json

from wholeday.transform.rows import transform

from pipeline.{dataset} import {constant}

FULL = {full}
LEAST = {least}


def test_records_become_rows():
    """The second record has only what the class requires."""
    lines = [json.dumps(record).encode() for record in (FULL, LEAST)]
    cleaned = transform(lines, {constant}.conversion({constant}.config()))
    assert cleaned.rejects == []
    assert len(cleaned.rows) == 2
'''


def write_test(dataset: str, proposal: Proposal) -> str:
    """Return the text of tests/test_NAME.py."""
    full, least = (_write(invent(proposal, is_full=is_full)) for is_full in (True, False))
    return TEST.format(dataset=dataset, constant=dataset.upper(), full=full, least=least)


def invent(proposal: Proposal, *, is_full: bool) -> dict[str, Any]:
    """Invent a record: with a value in each field, or in the fields that may not be null."""
    record = _invent(proposal.model, is_full)
    if proposal.time_text:
        column = next(column for column in proposal.model.fields if column.name == proposal.time_text)
        if is_full or not column.is_nullable:
            when = dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC)
            _put(record, column, when.strftime(proposal.time_format))
    return record


def _invent(model: Model, is_full: bool) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for column in model.fields:
        if column.path and (is_full or not column.is_nullable):
            _put(record, column, _choose(column, is_full))
    return record


def _choose(column: Field, is_full: bool) -> Any:
    if column.children:
        return [_invent(column.children, is_full)]
    name = column.type.name
    if name.startswith("list["):
        return [VALUES[name[len("list[") :].rstrip("]").removesuffix(" | None")]]
    return SECOND.get(name, VALUES[name]) if column.is_key and not is_full else VALUES[name]


def _put(record: dict[str, Any], column: Field, value: Any) -> None:
    node = record
    for name in column.path[:-1]:
        node = node.setdefault(name, {})
    node[column.path[-1]] = value


def _write(value: Any, indent: int = 0) -> str:
    """Return a value as a literal of Python: an object with a line for each member, if one line is too long."""
    inner = " " * (indent + 4)
    match value:
        case dict():
            members = [f"{_write(name)}: {_write(member, indent + 4)}" for name, member in value.items()]
            line = f"{{{', '.join(members)}}}"
            if len(line) + indent <= LONGEST and "\n" not in line:
                return line
            return "{\n" + "".join(f"{inner}{member},\n" for member in members) + " " * indent + "}"
        case list():
            return f"[{', '.join(_write(item, indent) for item in value)}]"
        case str() if value.isprintable() and '"' not in value and "\\" not in value:
            return f'"{value}"'
    return repr(value)
