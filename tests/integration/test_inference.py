"""Infer the classes of records of random schemas: they have the narrowest types, and load every record."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from tests.support.json_schemas import Expected, list_expected, sources
from tests.support.project import query
from tests.support.server import Answer, Server
from tests.support.things import TODAY
from tests.support.written import compare, read_class
from wholeday.commands.new.classes import build_class
from wholeday.commands.new.fit import Fitting
from wholeday.commands.new.infer import Rules
from wholeday.commands.new.module import write_module
from wholeday.schema.columns import Columns, read_columns
from wholeday.schema.conversion import Conversion
from wholeday.schema.dataset import Dataset
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

SCHEMAS = int(os.environ.get("PIPELINE_CLASSES", "10"))
SECONDS = 5  # for a schema, on a slow machine
FIRST = [Phase.explicit, Phase.generate]  # a failure is short without shrinking


def infer(records: list[Any], name: str = "things") -> tuple[str, Columns, bool]:
    """Return the text of the module for these records, its columns, and whether it is lenient."""
    proposal = Fitting(Rules(name, most_columns=100)).start([json.dumps(record).encode() for record in records])
    text = write_module(name, "https://api.example.com/things", proposal)
    record_class = read_class(text, name)
    built = build_class(proposal.model)
    versions = [Conversion(each).version for each in (record_class, built)]
    assert versions[0] == versions[1], "the class that was tried is not the class that was written"
    return text, read_columns(record_class), proposal.lenient


def describe(columns: Columns) -> dict[Any, Any]:
    """Describe columns by their paths, as `simplify` describes what is expected."""
    found = {}
    for column in columns:
        type_ = "list" if column.children else str(getattr(column.type, "__name__", column.type))
        type_ = str(column.type) if column.is_list else type_
        below = describe(column.children) if column.children else {}
        found[column.path] = (type_, column.is_nullable, column.options.primary_key, below)
    return found


def simplify(expected: dict[Any, Expected]) -> dict[Any, Any]:
    return {
        path: (each.type.removesuffix(" lenient"), each.is_nullable, each.is_key, simplify(each.children))
        for path, each in expected.items()
    }


def is_lenient(expected: dict[Any, Expected]) -> bool:
    return any("lenient" in each.type or is_lenient(each.children) for each in expected.values())


@pytest.mark.sweep
@pytest.mark.timeout(120 + SECONDS * SCHEMAS)
@pytest.mark.usefixtures("memory")
def test_written_class_has_narrowest_types_and_loads_all(server: Server, configure: Callable[..., None]) -> None:
    numbers = itertools.count()

    @settings(max_examples=SCHEMAS, deadline=None, suppress_health_check=list(HealthCheck), phases=FIRST, database=None)
    @given(sources())
    def hold(source: Any) -> None:
        fields, records = source
        note(json.dumps(records, ensure_ascii=False))
        text, columns, lenient = infer(records)
        note(text)
        expected = list_expected(fields, records)
        found = describe(columns)
        found.pop(("updated_at",))
        assert found == simplify(expected)
        assert lenient == is_lenient(expected)
        load(columns, text, records, lenient, f"data-{next(numbers)}")

    def load(columns: Columns, text: str, records: list[Any], lenient: bool, name: str) -> None:
        folder = Path(name).absolute()
        configure("pipeline", database=f"sqlite:///{folder}.db", data_dir=folder)
        url = server.on(f"/{name}", Answer(records))
        configure("things", url=url, mode="snapshot", paginator="single", lenient=lenient)
        workspace = read_workspace(Dataset("things", read_class(text, "things")))
        stages.extract(workspace, TODAY)
        stages.transform(workspace, TODAY)
        stages.load(workspace, TODAY)
        assert query("select count(*) from rejects") == [(0,)]
        compare(columns, records, "things")

    hold()


@pytest.mark.parametrize("name", ["", "a\\b", 'q"', "\n", "\ud800"])
def test_field_that_no_path_reaches_is_kept_as_json(name: str) -> None:
    """At the top in the column for the rest; in an object the column is Json."""
    text, columns, _ = infer([{"id": number, name: 1, "in": {name: 1, "other": 2}} for number in range(3)])
    found = {column.name: (column.path, column.kind, column.options.rest) for column in columns}
    assert found["in_"] == (("in",), "json", False)
    assert found["others"][1:] == ("json", True)
    assert columns.columns[-1].name == "updated_at"
    compile(text, "things.py", "exec")


def test_names_from_the_source_are_never_code() -> None:
    """A record of a hostile source."""
    name = "x'); import os; os._exit(1); ('"
    text, columns, _ = infer([{"id": number, name: 1, "'''": 2, "#{x}\u2028": 3} for number in range(3)])
    assert {column.path for column in columns} >= {(name,), ("'''",), ("#{x}\u2028",)}
    assert "\u2028" not in text


def test_names_of_child_tables_do_not_clash() -> None:
    """A child table has the key of its parent, and a position where its items have no key."""
    inner = [{"things_id": 1, "position": 2, "things_lists_id": 3, "load_date": "a"}]
    lists = [{"id": 1, "things_id": 2, "inner": inner}]
    text, columns, _ = infer([{"id": number, "lists": lists, "ingested_at": "b"} for number in range(3)])
    dataset = Dataset("things", read_class(text, "things"))
    tables = {child.name: sorted(child.table.columns) for child in dataset.declared.children}
    assert tables == {
        "things_lists": ["id", "inner", "things_id", "things_id_2"],
        "things_lists_inner": [
            *(
                "load_date",
                "position",
                "position_2",
                "things_id",
                "things_id_2",
                "things_lists_id",
                "things_lists_id_2",
            ),
        ],
    }
    assert "thing_ingested_at" in {column.name for column in columns}
