"""Explain the life of one record: its versions, and the result of each fact about it."""

import datetime as dt
import decimal
import itertools
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.users import USERS
from tests.support.histories import EXAMPLES, KEY_VALUES, limit_examples, run_step, steps
from tests.support.project import execute, run_here, run_stages
from tests.support.server import Answer, Server
from tests.support.store import Store
from tests.support.things import make_dataset, make_record_class
from wholeday.commands.explain.life import Life, read_life, read_versions
from wholeday.commands.forget import forget
from wholeday.errors import ConfigError
from wholeday.schema.record import Field
from wholeday.schema.tables import join_names
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

on_each_database = pytest.mark.usefixtures("database")
DAYS = [dt.date(2026, 10, number) for number in range(1, 9)]
PRICE = {"sku": Field(primary_key=True), "price": Field(max_digits=6, decimal_places=2)}
Item = make_record_class({"sku": str, "price": decimal.Decimal}, "Item", **PRICE)
THINGS = make_dataset(columns={"items": list[Item] | None})  # type: ignore[valid-type]
FIRST = {"id": 1, "value": "a", "updated_at": "2026-10-01T10:00:00Z", "items": [{"sku": "p", "price": 1.5}]}
SECOND = FIRST | {"value": "b", "updated_at": "2026-10-02T10:00:00Z"}
OTHER = SECOND | {"value": "c", "items": [{"sku": "p", "price": "2"}, {"sku": "q", "price": 9}]}
THIRD = FIRST | {"value": "d", "updated_at": "2026-10-07T10:00:00Z"}
SENT: dict[dt.date, list[Any]] = {
    DAYS[0]: [FIRST],
    DAYS[1]: [{"id": 2}, SECOND, SECOND],
    DAYS[2]: [SECOND],
    DAYS[3]: [OTHER],  # at the same time as SECOND, and read later
    DAYS[4]: [FIRST | {"value": 5}, {"id": 2}],
    DAYS[5]: [{"id": 1, "gone": True, "updated_at": "2026-10-06T10:00:00Z"}],
    DAYS[6]: [THIRD],
    DAYS[7]: [{"id": 2}],
}
FACTS = [
    (1, "version", 1, FIRST),
    (2, "duplicate", 2, SECOND),
    (2, "superseded", 3, SECOND),
    (3, "superseded", 1, SECOND),
    (4, "version", 1, OTHER),
    (5, "rejected", 1, SENT[DAYS[4]][0]),
    (6, "deletion", 1, SENT[DAYS[5]][0]),
    (7, "not loaded", 1, THIRD),
]


@pytest.fixture
def life(server: Server, configure: Callable[..., None]) -> Callable[[], Life]:
    """Load THINGS, all days but the last two, and return a function that explains its record 1."""
    url = server.on("/things", lambda request: Answer(SENT[dt.date.fromisoformat(request.query["on"])]))
    configure("things", url=f"{url}?on={{date}}", paginator="single", deleted_when="gone", max_reject_ratio=1)
    run_stages(THINGS, *DAYS[:6])
    stages.extract(read_workspace(THINGS), DAYS[6])
    return lambda: read_life(read_workspace(THINGS), "1")


def show(found: Life) -> list[Any]:
    return [(fact.date.day, fact.result, fact.line, fact.record and json.loads(fact.record)) for fact in found.facts]


@on_each_database
def test_every_fact_has_its_result_place_and_raw_record(life):
    """Only days that say something of the record are read."""
    found = life()
    assert show(found) == FACTS
    assert all(fact.file == f"data/raw/things/date={fact.date}/part-00000.jsonl.gz" for fact in found.facts)
    assert [fact.reason for fact in found.facts if fact.reason] == ["value: Expected `str | null`, got `int`"]
    assert (found.key, found.erased_since) == ((1,), None)


@on_each_database
def test_versions_name_their_day_and_what_changed(life):
    """An item of a list is named by its key. A time of absence has no row."""
    first, second, gone = life().versions
    assert [version.date.day for version in (first, second, gone)] == [1, 4, 6]
    assert [version.valid_to for version in (first, second, gone)] == [second.valid_from, gone.valid_from, None]
    assert (first.row["items"], first.changed, gone.row, gone.changed) == (
        [{"price": "1.50", "sku": "p"}],
        {},
        None,
        {},
    )
    assert second.changed == {
        "value": ("a", "c"),
        "updated_at": (first.valid_from, second.valid_from),
        "items[p].price": ("1.50", "2.00"),
        "items[q]": (None, {"price": "9.00", "sku": "q"}),
    }


@on_each_database
def test_snapshot_brings_versions_and_absence(life, configure):
    configure("things", mode="snapshot", max_drop_ratio=1, max_delete_ratio=1)
    run_stages(THINGS, *DAYS[6:])
    found = life()
    assert show(found)[-2:] == [(7, "version", 1, THIRD), (8, "vanished", None, None)]
    assert [version.row and version.row["value"] for version in found.versions] == ["a", "c", None, "d", None]


@on_each_database
def test_pruned_days_keep_their_facts(life):
    """Without their raw records; the reason of a reject is in the warehouse."""
    shutil.rmtree("data/raw")
    shutil.rmtree("data/clean")
    found = life()
    results = [fact[1] for fact in FACTS if fact[1] not in ("duplicate", "not loaded")]
    assert [fact[1:] for fact in show(found)] == [(each, None, None) for each in results]
    assert "value: Expected `str | null`, got `int`" in [fact.reason for fact in found.facts]


@on_each_database
def test_unknown_and_erased_keys_are_named(life):
    with pytest.raises(ConfigError, match=r"^things: no file and no table has the key 42: check the spelling$"):
        read_life(read_workspace(THINGS), "42")
    with pytest.raises(ConfigError, match="'x' is not a key of things: give id"):
        read_life(read_workspace(THINGS), "x")
    forget(read_workspace(THINGS), ["1"])
    found = life()
    assert (found.versions, found.facts) == ([], [])
    assert found.erased_since


def test_command_prints_versions_facts_and_raw_records(capsys):
    """As lines for people, and as one JSON document."""
    for day in ("2026-11-15", "2026-11-17"):
        run_stages(USERS, dt.date.fromisoformat(day))
    out, _, code = run_here(capsys, "explain", "users", "79425")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "users 79425: 2 versions, present"
    assert "2026-11-15T04:56:45Z to 2026-11-17T14:40:24Z: first seen, by the day 2026-11-15" in lines
    assert "city Jyväskylä -> Київ" in lines
    assert "2026-11-17 version 2026-11-17T14:40:24Z part-00000.jsonl.gz:62" in lines
    assert "data/raw/users/date=2026-11-17/part-00000.jsonl.gz, line 62:" in lines
    document = json.loads(run_here(capsys, "explain", "users", "79425", "--json")[0])
    assert [version["row"]["city"] for version in document["versions"]] == ["Jyväskylä", "Київ"]
    assert json.loads(document["facts"][1]["record"])["id"] == 79425
    _, err, code = run_here(capsys, "explain", "users", "0")
    assert (code, err) == (1, "ERROR: users: no file and no table has the key 0: check the spelling")


def test_damaged_time_is_one_line(capsys):
    """SQLite stores any text in a column."""
    run_stages(USERS, dt.date(2026, 11, 15))
    execute("update _users_events set at = 'soon' where user_id = 79425")
    _, err, code = run_here(capsys, "explain", "users", "79425")
    assert (code, "\n" in err, "is 'soon', not of type timestamp" in err) == (1, False, True)


def test_control_characters_do_not_reach_the_terminal(server, configure, capsys):
    for day, name in zip(DAYS, ("a", "a\x1b[31mb"), strict=False):
        time = f"{day}T10:00:00Z"
        record = {"id": 1, "name": name, "email": "a@b", "address": {"city": "\x9bc"}, "updated_at": time}
        body = json.dumps([record], ensure_ascii=False).encode()
        configure("users", url=server.on("/users", Answer(body)), paginator="single")
        run_stages(USERS, day)
    out, _, code = run_here(capsys, "explain", "users", "1")
    assert (code, "\x1b" in out, "\x9b" in out) == (0, False, False)
    assert "name a -> a\\x1b[31mb" in " ".join(out.split())


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["users", "orders", "carts"])
@pytest.mark.timeout(120 + EXAMPLES)
def test_versions_agree_with_the_history(name: str, new_database: Callable[[], str]) -> None:
    """Of every key of a random history. Each change leads from one row to the next."""

    @given(st.lists(steps, min_size=3, max_size=8))
    @limit_examples(new_database)
    def hold(steps: list[Any]) -> None:
        store, days, forgotten = Store(new_database(), name), {}, set[Any]()
        for step in steps:
            run_step(step, store, days, forgotten)
        if not days:
            return
        declared = store.warehouse.dataset.declared
        with store.warehouse.database.connect(readonly=True) as db:
            for value in KEY_VALUES[name]:
                key = value if isinstance(value, tuple) else (value,)
                columns = join_names(declared.key)
                places = ", ".join(f":k{number}" for number in range(len(key)))
                select = f"select valid_from, valid_to, updated_at from {name}_history"
                expected = db.run(
                    f"{select} where ({columns}) = ({places}) order by 1",
                    **{f"k{number}": part for number, part in enumerate(key)},
                ).fetchall()
                versions = read_versions(db, declared, key)
                rows = [version for version in versions if version.row is not None]
                found = [(each.valid_from, each.valid_to, each.row["updated_at"]) for each in rows if each.row]
                assert found == [tuple(db.decode(time, "timestamp") for time in row) for row in expected]
                assert {each.date for each in versions} <= days.keys()
                for before, after in itertools.pairwise(rows):
                    assert before.row
                    assert after.row
                    flat = {name for name in after.row if "[" not in name and before.row[name] != after.row[name]}
                    assert {name.partition("[")[0] for name in after.changed} == flat

    hold()
