"""Run `wholeday new` in the current folder, and compare the tables with the records that a source sent.

The comparison uses nothing of wholeday but the declared columns.
"""

import contextlib
import datetime as dt
import json
import shutil
import subprocess
import sys
import typing
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from luigi.task_register import Register

import pipeline
from tests.support import ROOT
from tests.support.project import query, run, run_stages
from wholeday import Epoch, EpochMillis, Json, Record
from wholeday.commands.new.create import Created, Wanted, create
from wholeday.schema.columns import Column, Columns, read_columns
from wholeday.tasks import workflow

MISSING = (None, "")


def make_project() -> None:
    """Make the current folder a project: with the dataset `users`, luigi.cfg and an empty folder `tests`."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", "pipeline", dirs_exist_ok=True, ignore=ignored)
    Path("tests").mkdir(exist_ok=True)


@contextlib.contextmanager
def open_project() -> Iterator[None]:
    """Make the current folder a project of this process, which forgets the datasets that are added to it."""
    make_project()
    before = list(pipeline.__path__)
    pipeline.__path__[:] = [str(Path("pipeline").absolute())]
    try:
        yield
    finally:
        pipeline.__path__[:] = before
        for name in [each for each in sys.modules if each.startswith("pipeline.") and each != "pipeline.users"]:
            del sys.modules[name]
            Register._reg[:] = [cls for cls in Register._reg if cls.__module__ != name]
            workflow._known.discard(name.removeprefix("pipeline."))


def load_here(name: str, url: str, keys: Mapping[str, str]) -> Created:
    """Create a dataset in this process. If a day holds only changes, load the day of the first change."""
    created = create(Wanted(name, url, keys))
    if created.first_day:
        run_stages(created.dataset, created.first_day)
    return created


def run_new(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `wholeday new` with arguments."""
    return run("python", "-m", "wholeday", "new", *arguments, **environment)


def read_module(name: str) -> Columns:
    """Read the columns that pipeline/NAME.py declares, without its tasks."""
    text = Path("pipeline", f"{name}.py").read_text()
    return read_columns(read_class(text, name))


def read_class(text: str, name: str) -> type[Record]:
    """Run the text of a module up to its dataset, and return the record class of the dataset."""
    before, _, after = text.partition(f"{name.upper()} = Dataset(")
    space: dict[str, Any] = {"__name__": f"written_{name}"}
    exec(compile(before, f"{name}.py", "exec"), space)
    found: type[Record] = space[after.partition(", ")[2].partition(")")[0].partition(",")[0]]
    return found


def compare(columns: Columns, records: Sequence[Any], table: str, made: Collection[str] = ()) -> None:
    """Compare a table and its child tables with the records. Each record has a row, and each item of a list.

    `made` are columns that `clean` makes.
    """
    rows = {tuple(row[column.name] for column in columns.key): row for row in read_table(table)}
    assert len(rows) == len(records)
    for record in records:
        key = tuple(expect(column, find(record, column)) for column in columns.key)
        check_row([column for column in columns if column.name not in made], rows[key], record)
    for column in columns:
        if column.children:
            name = f"{table}_{column.name}"
            items = [item for record in records for item in find(record, column) or []]
            compare_items(column.children, items, name)


def compare_items(columns: Columns, items: Sequence[Any], table: str) -> None:
    """Compare a child table with the items of all lists, in any order."""
    names = [column.name for column in columns if column.children is None]
    found = sorted(repr([row[name] for name in names]) for row in read_table(table))
    sent = [[expect(column, find(item, column)) for column in columns if column.children is None] for item in items]
    assert found == sorted(map(repr, sent)), table
    for column in columns:
        if column.children:
            inner = [each for item in items for each in find(item, column) or []]
            compare_items(column.children, inner, f"{table}_{column.name}")


def read_table(table: str) -> Iterator[dict[str, Any]]:
    names = [name for (name,) in query(f"select name from pragma_table_info('{table}')")]
    assert names, f"no table {table}"
    for row in query(f'select * from "{table}"'):
        yield dict(zip(names, row, strict=True))


def check_row(columns: Iterable[Column], row: dict[str, Any], record: Any) -> None:
    for column in columns:
        if column.children is None and not column.options.rest:
            assert row[column.name] == expect(column, find(record, column)), (column.name, record)


def find(record: Any, column: Column) -> Any:
    for name in column.path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def expect(column: Column, value: Any) -> Any:
    """Return what SQLite holds of a JSON value in a column."""
    type_ = column.type
    if value is None or (value == "" and type_ not in (str, Json)):
        return None
    if type_ is Json or typing.get_origin(type_) is list:
        return write_json(value)
    if type_ in (Epoch, EpochMillis):
        seconds = Decimal(str(value)) / (1 if type_ is Epoch else 1000)
        micros = int(seconds * 10**6)
        return write_time(dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=micros))
    if type_ is dt.datetime:
        moment = dt.datetime.fromisoformat(value)
        return write_time(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    if type_ is dt.time:
        return dt.time.fromisoformat(value).isoformat("microseconds")
    if type_ is bool:
        return int(value in (True, "true"))
    if type_ is uuid.UUID:
        return str(uuid.UUID(value))
    if type_ is Decimal:
        return float(value)
    with contextlib.suppress(TypeError):
        if type_ in (int, float):
            return type_(value)
    return value


def write_time(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_json(value: Any) -> str:
    """Write a value as the warehouse does: names sorted, and whole numbers without a fraction."""

    def simplify(value: Any) -> Any:
        match value:
            case dict():
                return {name: simplify(member) for name, member in value.items()}
            case list():
                return [simplify(item) for item in value]
            case float() if value.is_integer():
                return int(value)
        return value

    return json.dumps(simplify(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
