"""Child tables follow the record class, and the lists in the rows of the dataset.

The random histories of test_warehouse.py and test_audit.py have child tables, too.
"""

import datetime as dt
import decimal
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support import databases
from tests.support.databases import ON_REQUEST
from tests.support.project import add_dataset, execute, query, remove_warehouse, run, run_stages
from tests.support.server import Answer, Server
from tests.support.things import make_dataset, make_record_class
from wholeday.commands.forget import forget
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.errors import WarehouseError
from wholeday.load.day import describe_load, describe_removed
from wholeday.schema.dataset import Dataset
from wholeday.schema.record import Field, Json
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

DAYS = [dt.date(2026, 10, number) for number in (1, 2, 3)]
ID = Field(primary_key=True)
MADE = "2026-09-30T12:00:00+02:00"
ITEMS = [
    {"sku": "p", "price": 1.5, "colour": "red", "made": MADE, "parts": [{"name": "u"}]},
    {"sku": "q", "price": None},
]
SENT = {
    DAYS[0]: [{"id": 1, "items": ITEMS}, {"id": 2, "items": None}],
    DAYS[1]: [{"id": 3, "items": ITEMS[:1]}],
    DAYS[2]: [{"id": 4, "items": ITEMS[1:]}],
}
Part = make_record_class({"name": str}, "Part")


def declare(items: Any = None, **options: Any) -> Dataset:
    """Declare `things` with a type of the column `items`; without one, that column is missing."""
    return make_dataset(columns={"items": items} if items else {}, **options)


def make_item(**columns: Any) -> Any:
    """Return the type of a list of items with the key `sku` and these columns, each a type or (type, Field)."""
    fields = {name: column[1] for name, column in columns.items() if isinstance(column, tuple)}
    types = {name: column[0] if isinstance(column, tuple) else column for name, column in columns.items()}
    return list[make_record_class({"sku": str} | types, "Item", sku=ID, **fields)] | None  # type: ignore[misc]


PRICE = (decimal.Decimal | None, Field(max_digits=6, decimal_places=2))
NEVER_NULL = (decimal.Decimal, Field(max_digits=6, decimal_places=2))
WIDER = (decimal.Decimal | None, Field(max_digits=9, decimal_places=3))
PLAIN = make_item(price=PRICE)


def on_databases(cases: Iterable[str], alike: Iterable[str]) -> Any:
    """Run the cases on each database. The cases in `alike` run on PostgreSQL, which is slower, only on request."""
    pairs = [(name, case) for case in cases for name in (ON_REQUEST if case in alike else databases.DATABASES)]
    return pytest.mark.parametrize(("database", "case"), pairs, indirect=["database"])


@pytest.fixture
def source(server: Server, configure: Callable[..., None], database: str) -> str:
    """Run a source of things, and return the name of the configured database."""
    url = server.on("/things", lambda request: Answer(SENT[dt.date.fromisoformat(request.query["on"])]))
    configure("things", url=f"{url}?on={{date}}", mode="incremental", paginator="single")
    return database


def find_differences(dataset: Dataset) -> list[str]:
    return [f"{finding.thing}: {finding.what}" for finding in verify(read_workspace(dataset)) if not finding.remark]


def list_outdated(dataset: Dataset) -> list[dt.date]:
    """Return the days that `status` shows as outdated."""
    return [*read_status(read_workspace(dataset)).outdated]


def reprocess_all(dataset: Dataset) -> None:
    outcomes = list(reprocess(read_workspace(dataset), DAYS[1], DAYS[2] + dt.timedelta(days=1)))
    assert {outcome.what for outcome in outcomes} <= {"done", "current"}


KEPT = [(3, "p", 1.5)]
CHANGES: dict[
    str, Any
] = {  # the column items before and after, a column of the child, its rows before reprocess, after
    "a field is added": (
        *(PLAIN, make_item(price=PRICE, colour=str | None), "colour"),
        *([(3, "p", None)], [(3, "p", "red")]),
    ),
    "a decimal is widened": (PLAIN, make_item(price=WIDER), "price", KEPT, KEPT),
    "a field may be null": (make_item(price=NEVER_NULL), PLAIN, "price", KEPT, KEPT),
    "a Literal has more values": (
        make_item(colour=Literal["red"] | None),
        make_item(colour=Literal["red", "blue"] | None),
        *("colour", [(3, "p", "red")], [(3, "p", "red")]),
    ),
    "Json becomes a child table": (Json | None, PLAIN, "price", [], KEPT),
    "a child table is added": (None, PLAIN, "price", [], KEPT),
    "a lower level is added": (PLAIN, make_item(price=PRICE, parts=list[Part] | None), "price", KEPT, KEPT),
}


@pytest.mark.usefixtures("source")
@on_databases(CHANGES, ["a Literal has more values", "Json becomes a child table", "a lower level is added"])
def test_change_of_a_child_class_needs_no_hand(case: str) -> None:
    """The next day loads. `status` names the days before it, and `reprocess` gives them what they lack."""
    before, after, column, kept, reprocessed = CHANGES[case]
    run_stages(declare(before), DAYS[1])
    new = declare(after)
    run_stages(new, DAYS[2])
    select = f"select things_id, sku, {column} from things_items where things_id = 3"
    assert query(select) == kept
    assert query("select things_id, sku from things_items where things_id = 4") == [(4, "q")]
    assert query("select sku, valid_to from things_items_history where things_id = 4") == [("q", None)]
    assert list_outdated(new) == [DAYS[1]]
    reprocess_all(new)
    assert (query(select), list_outdated(new), find_differences(new)) == (reprocessed, [], [])
    tables = list_rows(new)
    rebuild(read_workspace(new))
    assert (list_rows(new), find_differences(new)) == (tables, [])


def list_rows(dataset: Dataset) -> dict[str, Any]:
    """Return the rows of the child tables and of their histories, by column name."""
    url = Pipeline().database
    names = [name for child in dataset.declared.children for name in (child.name, f"{child.name}_history")]
    columns = {name: ", ".join(sorted(databases.list_columns(url, name))) for name in names}
    return {name: sorted(query(f"select {columns[name]} from {name}"), key=repr) for name in names}


REFUSED: dict[str, Any] = {
    "Json of other values becomes a child table": (
        *(Json | None, make_item(made=dt.datetime | None)),
        "do not fit the child table things_items: items is ",
    ),
    "the child has another key": (PLAIN, list[make_record_class({"sku": str}, "Item")] | None, "the primary key"),  # type: ignore[misc]
    "a field has another type": (PLAIN, make_item(price=float | None), "the table things_items has price as"),
    "a decimal is narrowed": (make_item(price=WIDER), PLAIN, "the table things_items has price as"),
    "a field is removed": (PLAIN, make_item(), "the table things_items has a column price too many"),
    "the child table is removed": (PLAIN, Json | None, "has no child table things_items any more"),
    "the list is removed": (PLAIN, None, "has no child table things_items any more"),
    "the lower level is removed": (
        make_item(parts=list[Part] | None),
        make_item(parts=Json | None),
        "has no child table things_items_parts any more",
    ),
}


@pytest.mark.usefixtures("source")
@on_databases(REFUSED, REFUSED.keys() - {"a field has another type", "a decimal is narrowed", "the list is removed"})
def test_other_changes_of_a_child_class_need_a_rebuild(case: str) -> None:
    """A load and an erasure are refused before a row is touched. `verify` names the tables, `rebuild` helps."""
    before, after, message = REFUSED[case]
    old, new = declare(before), declare(after)
    run_stages(old, *DAYS[:2])
    stored = databases.dump(Pipeline().database)
    for work in (lambda: run_stages(new, DAYS[2]), lambda: forget(read_workspace(new), ["1"])):
        with pytest.raises(WarehouseError, match=re.escape(message)) as error:
            work()
        assert ("\n" in str(error.value), "run wholeday rebuild" in str(error.value)) == (False, True)
        assert databases.dump(Pipeline().database) == stored
    assert find_differences(new)
    rebuild(read_workspace(new))
    assert find_differences(new) == []
    left = {child.name for child in old.declared.children} - {child.name for child in new.declared.children}
    url = Pipeline().database
    assert not left & {*databases.list_tables(url)}
    for name in left:
        with pytest.raises(Exception, match=name):
            query(f"select * from {name}_history")


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("view", ["things_items_history", "things_items"])
def test_view_of_another_program_is_named(view: str) -> None:
    """A column cannot be widened below a view of another program."""
    run_stages(declare(PLAIN), DAYS[1])
    execute(f"create view report as select price from {view}")
    new = declare(make_item(price=WIDER))
    with pytest.raises(WarehouseError, match=r"report.*drop .* and create .* again afterwards") as error:
        run_stages(new, DAYS[2])
    assert "\n" not in str(error.value)
    execute("drop view report")
    run_stages(new, DAYS[2])
    assert query("select price from things_items_history order by things_id") == [(1.5,), (None,)]


@pytest.mark.usefixtures("source")
def test_dataset_with_the_name_of_a_child_table_is_refused(configure: Callable[..., None]) -> None:
    """Whichever of both is loaded first."""
    things = declare(PLAIN)
    items = Dataset("things_items", things.record_class)
    configure("things_items", url=things.config().url, mode="incremental", paginator="single")
    for first, second in ((things, items), (items, things)):
        run_stages(first, DAYS[1])
        with pytest.raises(
            WarehouseError, match="things_items is the name of a dataset, and of a child table of things"
        ):
            run_stages(second, DAYS[1])
        remove_warehouse()


DAMAGE = {
    "update things_items set price = 9 where things_id = 1 and sku = 'p'": "things_id 1, sku 'p': price is 9",
    "delete from things_items where things_id = 3": "things_id 3, sku 'p': the row is missing",
    "insert into things_items (things_id, sku) values (7, 'z')": "things_id 7, sku 'z': there should be no such row",
    "drop view things_items_history": "the view is missing or changed",
    "drop view things_items_history; drop table things_items": "the table things_items is missing",
}


@pytest.mark.usefixtures("source")
@on_databases(DAMAGE, [*DAMAGE][1:])
def test_verify_finds_damaged_child_tables(case: str) -> None:
    things = declare(PLAIN)
    run_stages(things, *DAYS)
    assert find_differences(things) == []
    execute(*case.split("; "))
    found = find_differences(things)
    assert DAMAGE[case] in found[0]
    rebuild(read_workspace(things))
    assert find_differences(things) == []


def test_forget_erases_child_rows_and_their_bytes(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "Kowalczyk"
    monkeypatch.setitem(SENT, DAYS[0], [{"id": 1, "items": [{"sku": secret, "parts": [{"name": f"{secret}2"}]}]}])
    things = declare(make_item(parts=list[Part] | None))
    run_stages(things, *DAYS)
    assert query("select name from things_items_parts where things_id = 1") == [(f"{secret}2",)]
    forget(read_workspace(things), ["1"])
    for table in ("things", "_things_events", "things_items", "things_items_parts", "things_items_parts_history"):
        assert secret not in str(query(f"select * from {table}"))
    assert find_differences(things) == []
    if source == "sqlite":
        assert secret.encode() not in b"".join(path.read_bytes() for path in Path("data").glob("warehouse.db*"))
    rebuild(read_workspace(things))
    assert query("select count(*) from things_items where things_id = 1") == [(0,)]


@pytest.mark.usefixtures("source")
def test_marker_counts_added_and_removed_child_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: the log line, `status` and the report name the removed rows."""
    things = declare(PLAIN)
    run_stages(things, DAYS[0])
    monkeypatch.setitem(SENT, DAYS[1], [{"id": 1, "items": [{"sku": "r"}]}, {"id": 2, "items": []}])
    run_stages(things, DAYS[1])
    first, second = read_status(read_workspace(things)).loads
    assert first.details == {"added": {"things_items": 2}}
    assert second.details == {"added": {"things_items": 1}, "removed": {"things_items": 2}}
    assert describe_removed(first) == ""
    assert describe_load(second) == "loaded, 2 updated; child rows removed: things_items 2"


SAME = {  # with a key, and without
    PLAIN: [{"unchanged": 1}, {"unchanged": 1}, {"updated": 1}],
    list[make_record_class({"sku": str, "price": PRICE[0]}, "Item", price=PRICE[1])]: [  # type: ignore[misc]
        {"updated": 1},
        {"unchanged": 1},
        {"updated": 1},
    ],
}


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("items", SAME, ids=["with a key", "without"])
def test_stored_list_is_canonical(items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of items with a key, and the spelling of values, change nothing. Other fields are left out."""
    p, q = {"sku": "p", "price": 1.5}, {"sku": "q", "price": None}
    sent = [[p, q], [q, p], [{"price": 1.50, "sku": "p"} | {"new": 1}, q][:: 1 if items is PLAIN else -1], [p]]
    things = declare(items)
    run_stages_of(monkeypatch, things, sent)
    markers = read_status(read_workspace(things)).loads
    found = [{name: getattr(m, name) for name in ("unchanged", "updated") if getattr(m, name)} for m in markers[1:]]
    assert found == SAME[items]
    text = '[{"price":"1.50","sku":"p"}]'
    assert query("select items from things") == [(text,)]


def run_stages_of(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, lists: list[Any]) -> None:
    """Run a day for each of the lists of one thing."""
    for number, items in enumerate(lists, 1):
        day = dt.date(2026, 10, number)
        monkeypatch.setitem(SENT, day, [{"id": 1, "items": items}])
        run_stages(dataset, day)


CARTS = """
from datetime import datetime
from wholeday import Dataset, Field, Load, Record

class Line(Record):
    sku: str

class Cart(Record):
    id: int = Field(primary_key=True)
    lines: list[Line] | None
    updated_at: datetime | None

class LoadCarts(Load, dataset=Dataset("carts", Cart)):
    pass
"""


def test_commands_for_all_datasets_refuse_a_shared_name() -> None:
    """One line names the dataset and the child table."""
    add_dataset("carts", CARTS)
    lines = CARTS.replace('Dataset("carts", Cart)', 'Dataset("carts_lines", Cart)').replace("LoadCarts", "LoadLines")
    environment = add_dataset("carts_lines", lines)
    result = run("python", "-m", "wholeday", "status", **environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "ERROR: carts_lines is the name of a dataset, and of a child table of carts: give the dataset another name"
    ]
