"""Test what lies behind the raw files of a source that is asked for each row of another dataset."""

import datetime as dt
import functools
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.forge import ISSUES, LABELS, REPOS, TOKEN, Forge, write_sections
from tests.support.forgetting import check_markers
from tests.support.project import execute, query, run_stages
from tests.support.reading import DAY
from tests.support.server import Answer, Server
from tests.support.things import TODAY, make_dataset, make_record_class
from wholeday import Dataset, Field, Json, clock
from wholeday.commands.explain.life import read_life
from wholeday.commands.forget import forget
from wholeday.commands.prune import prune
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.errors import DatasetError, QualityError
from wholeday.extract.http.client import Client
from wholeday.load.orphans import Orphans
from wholeday.storage.manifest import RawManifest
from wholeday.storage.parents import PARENTS, Parent, pack_parents, unpack_parents
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

Configure = Callable[..., None]
NEXT = DAY + dt.timedelta(days=1)


def stop_clock(monkeypatch: pytest.MonkeyPatch, day: dt.date) -> None:
    """Make it an hour after the end of a day."""
    now = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(1), dt.UTC)
    monkeypatch.setattr(clock, "utc_now", lambda: now)


@pytest.fixture
def forge(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """Load a day of repositories and issues."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    monkeypatch.setattr(Client, "_check_clock", lambda *_: None)
    stop_clock(monkeypatch, DAY)
    configure("pipeline", part_records=7)
    forge = Forge(server, repos=6, issues=30, per_page=4)
    write_sections(configure, forge)
    write_sections(configure, forge, "labels")
    run_stages(REPOS, DAY)
    run_stages(ISSUES, DAY)
    return forge


def lose_parents(forge: Forge) -> None:
    """Drop the table of the parents, and stop the source."""
    forge.broken_at = 0
    forge.asked.clear()
    execute("drop view repos_history", *(f"drop table {name}" for name in ("repos", "_repos_past", "_repos_events")))


@pytest.mark.usefixtures("database")
def test_rebuild_needs_raw_files_only(forge: Forge) -> None:
    lose_parents(forge)
    execute("delete from issues")
    rebuild(read_workspace(ISSUES))
    assert set(query("select id, repo, title from issues")) == forge.rows
    assert not forge.asked
    check_markers(ISSUES)


@pytest.mark.usefixtures("forge")
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda path: path.unlink(), "parents.json.gz: the file is missing. Restore it from a copy, or delete the"),
        (lambda path: path.write_bytes(b"x"), "parents.json.gz: the file does not match its manifest (sha256"),
    ],
    ids=["missing", "changed"],
)
def test_verify_finds_a_damaged_list(damage: Callable[[Path], None], line: str) -> None:
    assert [finding for finding in verify(read_workspace(ISSUES)) if not finding.remark] == []
    damage(Path(str(read_workspace(ISSUES).folder("raw", DAY).path), PARENTS))
    (found,) = (finding for finding in verify(read_workspace(ISSUES)) if not finding.remark)
    assert (found.date, found.thing) == (DAY, "raw")
    assert line in found.what
    assert "run the day again" in found.what


@pytest.mark.usefixtures("forge")
def test_verify_compares_the_list_with_the_parts() -> None:
    """A list that belongs to other parts would give records to another parent."""
    folder = read_workspace(ISSUES).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    assert manifest.parents
    parents = unpack_parents(folder.read(manifest.parents))
    part = folder.write(PARENTS, pack_parents([Parent(keys=[[0]], values={}, records=1), *parents]))
    folder.replace_manifest(
        RawManifest(**{**{f: getattr(manifest, f) for f in manifest.__struct_fields__}, "parents": part})
    )
    lines = [finding.what for finding in verify(read_workspace(ISSUES))]
    assert any("parents.json.gz counts 31 records, and the parts hold 30: restore" in line for line in lines)


def test_prune_removes_and_counts_the_list(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, clean = (read_workspace(ISSUES).folder(stage, DAY) for stage in ("raw", "clean"))
    size = sum(path.stat().st_size for folder in (raw, clean) for path in Path(str(folder.path)).glob("*.*"))
    size -= sum(Path(str(folder.path), "manifest.json").stat().st_size for folder in (raw, clean))
    stop_clock(monkeypatch, NEXT)
    (outcome,) = prune(read_workspace(ISSUES), 0, 0, dry_run=False)
    assert (outcome.what, outcome.bytes) == ("pruned", size)
    assert not raw.has_folder()
    run_stages(REPOS, NEXT)
    run_stages(ISSUES, NEXT)
    assert set(query("select id, repo, title from issues")) == forge.rows


def test_explain_names_the_parent(forge: Forge) -> None:
    """The key may contain a column of the parent."""
    run_stages(LABELS, DAY)
    for repo, issues in forge.issues.items():
        for issue in issues[:1]:  # a part begins with records of the repository before
            for dataset, key in ((ISSUES, str(issue["id"])), (LABELS, json.dumps([repo, issue["id"]]))):
                (fact,) = read_life(read_workspace(dataset), key).facts
                assert fact.result == "version"
                assert fact.parent
                assert fact.parent["name"] == repo
                assert json.loads(fact.record or "") == issue


@pytest.mark.usefixtures("database")
def test_orphans_are_counted_and_named(forge: Forge) -> None:
    assert read_status(read_workspace(ISSUES)).orphans is None
    (repo, issues), (other, more) = sorted(forge.issues.items(), key=lambda item: -len(item[1]))[:2]
    execute(f"delete from repos where name = '{repo}'")
    first = min(issue["id"] for issue in issues)
    status = read_status(read_workspace(ISSUES))
    assert status.orphans == Orphans(parents="repos", rows=len(issues), example=[first])
    execute(f"delete from repos where name = '{other}'")
    first = min(first, *(issue["id"] for issue in more))
    status = read_status(read_workspace(ISSUES))
    assert status.orphans == Orphans(parents="repos", rows=len(issues) + len(more), example=[first])
    lose_parents(forge)
    assert (orphans := read_status(read_workspace(ISSUES)).orphans)
    assert orphans.rows == 30


def test_orphans_with_a_key_of_the_parent(forge: Forge) -> None:
    run_stages(LABELS, DAY)
    assert read_status(read_workspace(LABELS)).orphans is None
    execute("update repos set owner = 'moved' where name = 'repo 0'")
    rows = forge.issues["repo 0"]
    assert read_status(read_workspace(LABELS)).orphans == Orphans(
        parents="repos", rows=len(rows), example=["repo 0", min(row["id"] for row in rows)]
    )
    assert read_status(read_workspace(ISSUES)).orphans is None


def test_gate_compares_keys_of_parents_with_a_snapshot(
    forge: Forge, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a table, the keys of the earlier snapshot are read with the columns of its parents."""
    run_stages(LABELS, DAY)
    stop_clock(monkeypatch, NEXT)
    configure("pipeline", database="sqlite:///data/new.db")
    configure("repos", max_delete_ratio=1)
    run_stages(REPOS, NEXT)
    stages.extract(read_workspace(LABELS), NEXT)
    read_workspace(LABELS).folder("raw", NEXT).remove()
    for issues in forge.issues.values():
        del issues[2:]
    with pytest.raises(QualityError, match=rf"of 30 keys of the earlier snapshot \({DAY}\) are missing"):
        stages.extract(read_workspace(LABELS), NEXT)


THING = {
    "n": int,
    "size": float | None,
    "is_open": bool | None,
    "guid": uuid.UUID,
    "day": dt.date,
    "moment": dt.datetime,
}
VALUES = [
    {"n": -7, "size": 0.1, "is_open": True, "guid": "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "day": "2026-02-28"},
    {
        "n": 2**53 + 1,
        "size": None,
        "is_open": False,
        "guid": "00000000-0000-0000-0000-000000000001",
        "day": "1999-12-31",
    },
    {"n": 0, "size": 1e300, "is_open": None, "guid": "ffffffff-ffff-ffff-ffff-ffffffffffff", "day": "2026-11-20"},
]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("is_lenient", [False, True])
def test_values_of_parents_are_stored_as_there(server: Server, configure: Configure, is_lenient: bool) -> None:
    """Columns of every kind, also in the key, together with a column for the rest, and in lenient records."""
    things = make_dataset(columns=THING)
    types = {"id": int, "thing": int, **THING, "others": Json | None, "updated_at": dt.datetime | None}
    fields = {name: Field(parent=name, primary_key=name in ("guid", "day")) for name in THING}
    fields |= {"id": Field(primary_key=True), "thing": Field(parent="id"), "others": Field(rest=True)}
    pieces = Dataset("pieces", make_record_class(types, "Piece", **fields))
    moments = ["2026-11-20T10:00:00.123456Z", "2026-11-20T23:30:00-05:00", "1969-12-31T23:59:59Z"]
    rows = [values | {"id": at, "moment": moments[at]} for at, values in enumerate(VALUES)]
    configure("things", url=server.on("/things", Answer(rows)), mode="snapshot", paginator="single")
    server.on("/pieces", lambda request: Answer([{"id": 1, "more": [1], "of": request.query["of"]}, {"id": 2}]))
    url = f"{server.url}/pieces?of={{things.guid}}"
    configure("pieces", url=url, mode="snapshot", paginator="single", lenient=is_lenient)
    for dataset in (things, pieces):
        run_stages(dataset, TODAY)
    same = " and ".join(f"(p.{name} = t.{name} or (p.{name} is null and t.{name} is null))" for name in THING)
    joined = f"from pieces p join things t on t.id = p.thing and {same}"
    assert query(f"select p.thing, p.id {joined} order by 1, 2") == [(at, n) for at in range(3) for n in (1, 2)]
    (other,) = query("select others from pieces where thing = 1 and id = 1")
    others = other[0] if isinstance(other[0], dict) else json.loads(other[0])
    assert others == {"more": [1], "of": VALUES[1]["guid"]}
    assert query("select count(*) from rejects") == [(0,)]
    assert read_status(read_workspace(pieces)).orphans is None
    check_markers(pieces)
    declared = list(pieces.declared.key)
    key = json.dumps([{"id": 1, "guid": VALUES[1]["guid"], "day": VALUES[1]["day"]}[name] for name in declared])
    assert [fact.result for fact in read_life(read_workspace(pieces), key).facts] == ["version"]
    assert forget(read_workspace(pieces), [key]).unknown == []
    assert query("select thing, id from pieces where thing = 1") == [(1, 2)]
    assert forget(read_workspace(things), ["2"]).problems == []
    assert query("select thing, id from pieces order by 1, 2") == [(0, 1), (0, 2), (1, 2)]
    check_markers(pieces)
    execute("delete from things where id = 1")
    assert (orphans := read_status(read_workspace(pieces)).orphans)
    assert orphans.rows == 1


@pytest.mark.parametrize(
    ("type_", "name", "line"),
    [
        (int, "nowhere", "Field(parent='nowhere'): things has no such column; it has id, value, updated_at, n, size"),
        (str, "n", "Field(parent='n'): the column of things holds integer, and text is needed"),
        (float, "size", "column taken must not be null, and size of things may be: declare it | None"),
    ],
)
def test_columns_of_parents_must_fit(configure: Configure, type_: Any, name: str, line: str) -> None:
    make_dataset(columns=THING)
    types = {"id": int, "taken": type_, "updated_at": dt.datetime | None}
    fields = {"id": Field(primary_key=True), "taken": Field(parent=name)}
    pieces = Dataset("pieces", make_record_class(types, "Piece", **fields))
    configure("things", url="http://localhost/things")
    configure("pieces", url="http://localhost/{things.id}", paginator="single")
    with pytest.raises(DatasetError) as raised:
        stages.extract(read_workspace(pieces), DAY)
    assert str(raised.value).startswith(f"dataset pieces: {line}")
    assert "\n" not in str(raised.value)


def test_source_is_not_asked_for_an_erased_parent(forge: Forge) -> None:
    """Also before the rows of the parent are erased."""
    execute("insert into _repos_forgotten (id) values (2)")
    read_workspace(ISSUES).folder("raw", DAY).remove()
    forge.asked.clear()
    stages.extract(read_workspace(ISSUES), DAY)
    assert len({path.split("?")[0] for path in forge.asked}) == 5


def test_column_that_the_list_lacks_fails_the_day(server: Server, configure: Configure) -> None:
    """The list of an older day has the columns that the class took then."""
    make = functools.partial(
        make_record_class, {"id": int, "taken": int | None, "updated_at": dt.datetime | None}, "Piece"
    )
    key = Field(primary_key=True)
    things = make_dataset(int | None, columns={"n": int | None})
    configure("things", url=server.on("/things", Answer([{"id": 1, "value": 5, "n": 6}])), paginator="single")
    url = server.on("/pieces", Answer([{"id": 1}, {"id": 2}]))
    configure("pieces", url=f"{url}?of={{things.id}}", mode="snapshot", paginator="single")
    configure("things", mode="snapshot")
    pieces = Dataset("pieces", make(id=key, taken=Field(parent="value")))
    for dataset in (things, pieces):
        run_stages(dataset, TODAY)
    pieces = Dataset("pieces", make(id=key, taken=Field(parent="n")))
    (outcome,) = reprocess(read_workspace(pieces), TODAY, TODAY + dt.timedelta(days=1))
    assert outcome.what == "failed"
    assert "parents.json.gz has no column n, as the day was extracted before the record class took it" in outcome.why
    assert query("select taken from pieces") == [(5,), (5,)]


def test_reprocess_takes_the_columns_from_the_list(forge: Forge) -> None:
    lose_parents(forge)
    (outcome,) = reprocess(read_workspace(ISSUES), DAY, NEXT, everything=True)
    assert outcome.what == "done"
    assert set(query("select id, repo, title from issues")) == forge.rows
    assert not forge.asked
    check_markers(ISSUES)
