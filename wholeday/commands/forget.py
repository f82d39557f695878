"""Forgetting: what is known of a user out of every file and table, and a tombstone that keeps the user out of them.

Owns the order of it: the tombstone, then day by day the files, then the warehouse, then what failures quote, then the
note that it is done. Cut off at any instant, it is completed by the next run, and until then no load stores anything of
the user. A day is changed by one step, when its raw manifest is swapped; the clean one lies prepared by then.

A line goes where its key, as text, is one of those forgotten (so `"id": "42"`, a reject, goes for 42), and where the
row or the reject that was made of it has such a key; where there are no clean files, that would be made of it. A line
whose key nobody can read is not found, nor is a user in the records of others. What the source sends of the user later
is in the files of those days until the next run. Days that are not finished are swept: what was read of them is read
again. A loaded one is not read again, so what is left of its files is a person's.
"""

import datetime as dt
import json
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.console import Console

from wholeday import clock
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.config.days import SNAPSHOT
from wholeday.errors import ConfigError, FolderError
from wholeday.load.catalog import prepare_tables
from wholeday.load.database import Connection, decode
from wholeday.load.markers import read_markers
from wholeday.load.sql import Words
from wholeday.load.staging import list_values
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.marker import CLASSES, Marker
from wholeday.schema.raw_fields import INTEGERS
from wholeday.schema.reject import Reject
from wholeday.schema.tables import REJECTS, Declared, Table
from wholeday.storage.day_folder import MADE_AGAIN, MANIFEST, DayFolder, list_all_days
from wholeday.storage.lines import pack, unpack
from wholeday.storage.manifest import CleanManifest, Erasure, Part, RawManifest, digest
from wholeday.storage.names import strip_run
from wholeday.storage.parquet import encode_rows, open_rows
from wholeday.storage.tombstones import Done, Finder, Key, Tombstone
from wholeday.storage.workspace import Workspace
from wholeday.tasks import failures

KEPT = ("unchanged", "updated", "inserted", "superseded", "deleted")  # the classes of a record that was staged
TYPES = {"integer": int, "text": str}


class Forgotten(NamedTuple):
    """What a run did: the lines it took out, by day; the rows out of the warehouse; what it could not do, a line each.

    `unknown` are those of the keys asked for of which there was nothing anywhere.
    """

    days: dict[dt.date, int]
    rows: int
    unknown: list[str]
    problems: list[str]


def forget(workspace: Workspace, keys: Sequence[str]) -> Forgotten:
    """Erase the users with these keys, and once more all those who were forgotten before.

    A key is text, or a JSON array where it is of several columns. A day whose files are damaged, or of which
    nobody can tell whose its lines are, stays as it is and is one of the problems. Raises ConfigError for what can be
    no key, FolderError, WarehouseError.
    """
    declared = Declared.read(workspace.name, workspace.dataset.table)
    asked = {parse_key(declared, text): text for text in keys}
    tombstones = _bury(workspace, declared, asked)
    finder = Finder(workspace.dataset.key, tombstones)
    days: dict[dt.date, int] = {}
    ever: dict[dt.date, int] = {}
    problems: list[str] = []
    done: set[dt.date] = set()
    # A day that another process began meanwhile may hold what it read before the tombstone was there.
    while found := sorted({*list_all_days(workspace.pipeline.data_dir, workspace.name)} - done):
        for date in found:
            try:
                days[date], ever[date] = _erase_day(workspace, date, finder, list(declared.key))
            except FolderError as error:
                problems.append(f"{workspace.name} {date}: {error}")
        done.update(found)
    rows = _erase_rows(workspace, declared, finder, ever, problems)
    try:
        failures.erase_causes(workspace.pipeline.data_dir, workspace.name, workspace.pipeline.is_private)
    except FolderError as error:
        problems.append(f"{workspace.name}: {error}")
    if not problems:
        _note_done(workspace, len(tombstones), {date: lines for date, lines in ever.items() if lines})
    unknown = [text for key, text in asked.items() if key not in finder.found]
    return Forgotten({date: lines for date, lines in days.items() if lines}, rows, unknown, problems)


class CleanPart:
    """What was made of a raw part: a row or a reject of each line."""

    def __init__(self, folder: DayFolder, rows: Part, rejects: Part | None, records: int) -> None:
        self._folder, self._rows, self._rejects = folder, rows, rejects
        self._data = folder.read(rows)
        self._refused: list[Reject] = []
        if rejects:
            self._refused = [msgspec.json.decode(line, type=Reject) for line in unpack(folder.read(rejects))]
        refused = {reject.line for reject in self._refused}
        self._lines = [line for line in range(1, records + 1) if line not in refused]
        if len(self._lines) != rows.records:
            raise FolderError(
                f"{folder}/{rows.name}: it has {rows.records} rows of {records} records, {len(refused)} of them "
                f"rejected: delete the folder {folder}, and reprocess the day"
            )

    def find(self, finder: Finder, columns: Sequence[str]) -> set[int]:
        """The numbers of the lines whose row or reject has a forgotten key."""
        table = open_rows(self._data).read(columns=list(columns))
        keys = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        rejects = finder.find_rejects(reject.key for reject in self._refused)
        return {self._lines[row] for row in finder.find(keys)} | {self._refused[number].line for number in rejects}

    def write_without(self, gone: set[int]) -> tuple[dict[Part, Part | None], list[str]]:
        """Write the rest as new parts: which stands for which, None for no rejects at all; why those gone were one."""
        import pyarrow as pa

        table = open_rows(self._data).read().filter(pa.array([n not in gone for n in self._lines]))
        chunks = [(len(table), encode_rows(table))]
        new: dict[Part, Part | None] = {self._rows: self._folder.write(_next_name(self._rows), chunks)}
        kept, reasons = [], []
        for reject in self._refused:
            if reject.line in gone:
                reasons.append(reject.describe())
            else:
                line = reject.line - sum(number < reject.line for number in gone)
                kept.append(msgspec.json.encode(msgspec.structs.replace(reject, line=line)))
        if self._rejects:
            name = _next_name(self._rejects)
            new[self._rejects] = self._folder.write(name, pack([kept])) if kept else None
        return new, reasons


def parse_key(declared: Declared, text: str) -> Key:
    """A key as the table has it; raises ConfigError where it can have no such key."""
    kinds = [TYPES[kind] for kind in declared.key.values()]
    with suppress(ValueError):
        values = [text] if kinds == [str] else json.loads(text)
        values = values if isinstance(values, list) else [values]
        letters = "".join(map(str, values)).encode()  # a lone surrogate is no text
        fitting = list(map(type, values)) == kinds and b"\0" not in letters
        if fitting and all(value in INTEGERS for value in values if type(value) is int):
            return tuple(values)
    columns = ", ".join(f"{column} ({kind})" for column, kind in declared.key.items())
    how = "as a JSON array" if len(kinds) > 1 else "as it stands there"
    raise ConfigError(f"{text!r} is no key of {declared.name}: give {columns} {how}")


def _bury(workspace: Workspace, declared: Declared, asked: Iterable[Key]) -> list[Key]:
    """Write the tombstones, into the file and the warehouse; returns all that there are."""
    file = workspace.tombstones()
    words = Words(declared)
    with open_warehouse(workspace).database.connect(create=True) as db:
        db.begin(workspace.name)
        prepare_tables(db, declared)
        stored = db.run("select {key} from {forgotten}".format_map(words)).fetchall()
        now, known = clock.utc_now(), set(file.keys())
        file.add(Tombstone(key, now) for key in dict.fromkeys([*stored, *asked]) if key not in known)
        keys = file.keys()
        db.insert(f"_{workspace.name}_forgotten", declared.key, keys, skip_known=True)
        db.commit()
    if not keys:
        raise ConfigError(f"{workspace.name}: nobody was forgotten so far: give the key of a user")
    return keys


def _erase_day(workspace: Workspace, date: dt.date, finder: Finder, key: list[str]) -> tuple[int, int]:
    """Take the lines out of the files of a day; returns how many, and how many ever. Raises FolderError."""
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    # Transform holds the clean day only, extract the raw one only: nobody waits for the other in turn.
    with raw.lock(), clean.lock():
        if not raw.exists():
            if clean.exists() and not raw.has_folder():
                raise FolderError(f"{clean} is all there is of the day: delete it, or bring {raw} back from a copy")
            if raw.has_parts() and _is_kept(workspace, date):
                raise FolderError(
                    f"{raw}/{MANIFEST} is gone, and the day is loaded: bring it back from a copy, or "
                    f"{MADE_AGAIN['raw']}"
                )
            _sweep(raw)
            _sweep(clean)
            return 0, 0
        read = raw.read_manifest(RawManifest)
        made = _open_clean(clean, read)
        raw.drop_strays([part.name for part in read.parts])
        if made:
            clean.drop_strays([part.name for part in (*made.parts, *made.rejects)])
        new, reasons = _write_parts(raw, clean, read, made, finder, key, workspace)
        if not new:
            return 0, read.forgotten
        less = _describe_less(read, new)
        if made:
            clean.prepare(_describe_less_clean(made, less, new, reasons))
        if raw.read_manifest(RawManifest) != read:  # as only in a bucket, where nothing can be locked
            raise FolderError(f"{raw} was changed by another run meanwhile: run this again")
        raw.replace(less)
        raw.drop_strays([part.name for part in less.parts])
        if made:
            clean.swap()
            made = clean.read_manifest(CleanManifest)
            clean.drop_strays([part.name for part in (*made.parts, *made.rejects)])
        return less.forgotten - read.forgotten, less.forgotten


def _is_kept(workspace: Workspace, date: dt.date) -> bool:
    """Whether a day is loaded, and its files are not given up."""
    marker = open_warehouse(workspace).read_marker(date)
    return marker is not None and not marker.pruned_at


def _sweep(folder: DayFolder) -> None:
    """Have nothing of an unfinished day, whoever is at work on it."""
    if folder.has_folder():
        folder.sweep()
        folder.drop_strays(keep=())


def _open_clean(clean: DayFolder, read: RawManifest) -> CleanManifest | None:
    """The manifest of the clean day that was made of this raw day. Any other is swept, as it is made again anyway."""
    hashes = [part.sha256 for part in read.parts]
    with suppress(FolderError):
        made = clean.read_manifest(CleanManifest)
        if made.raw_sha256 != hashes:
            clean.swap()  # what a run that was cut off had prepared
            made = clean.read_manifest(CleanManifest)
        if made.raw_sha256 == hashes:
            return made
    _sweep(clean)
    return None


def _write_parts(
    raw: DayFolder,
    clean: DayFolder,
    read: RawManifest,
    made: CleanManifest | None,
    finder: Finder,
    key: list[str],
    workspace: Workspace,
) -> tuple[dict[Part, Part | None], Counter[str]]:
    """Write the parts without the lines, beside those with them: which stands for which; the rejects gone by reason."""
    new: dict[Part, Part | None] = {}
    reasons: Counter[str] = Counter()
    for part, lines, gone, cleaned in find_gone(raw, clean, read, made, finder, key, workspace):
        if gone:
            kept = [line for line_number, line in enumerate(lines, 1) if line_number not in gone]
            new[part] = raw.write(_next_name(part), pack([kept]))
        if gone and cleaned:
            parts, why = cleaned.write_without(gone)
            new |= parts
            reasons.update(why)
    return new, reasons


def find_gone(
    raw: DayFolder,
    clean: DayFolder,
    read: RawManifest,
    made: CleanManifest | None,
    finder: Finder,
    key: list[str],
    workspace: Workspace,
) -> Iterator[tuple[Part, list[bytes], set[int], CleanPart | None]]:
    """Yield each raw part, its lines, the numbers of those with a key of the finder, and what was made of the part.

    Raises FolderError.
    """
    rejects = {_find_number(part): part for part in made.rejects} if made else {}
    for number, part in enumerate(read.parts):
        lines = unpack(raw.read(part))
        gone = finder.find_lines(lines)
        cleaned = CleanPart(clean, made.parts[number], rejects.get(number), len(lines)) if made else None
        gone |= cleaned.find(finder, key) if cleaned else _find_cleaned(workspace, raw, lines, finder, key)
        yield part, lines, gone, cleaned


def _find_cleaned(workspace: Workspace, raw: DayFolder, lines: list[bytes], finder: Finder, key: list[str]) -> set[int]:
    """The numbers of the lines of which a row or a reject with a forgotten key would be made."""
    import pyarrow as pa

    from wholeday.transform.rows import transform

    try:
        settings = workspace.settings
        rules = settings.deleted_when, settings.timezone
        rows, rejects = transform(lines, workspace.dataset.record_class, workspace.dataset.clean, key, *rules)
        table = pa.Table.from_pandas(rows[key], preserve_index=False)
    except Exception as error:  # whatever `clean` raises, and in words that may be those of a record
        what = type(error.__cause__ or error).__name__
        raise FolderError(
            f"{raw} has no clean files, and cannot be cleaned to see whose its lines are ({what}): correct the record "
            f"class or clean, and run this again"
        ) from error
    found = finder.find(zip(*(column.to_pylist() for column in table.columns), strict=True))
    refused = finder.find_rejects(reject.key for reject in rejects)
    return {int(rows.index[row]) for row in found} | {rejects[number].line for number in refused}


def _find_number(part: Part) -> int:
    return int(part.name.partition("-")[2].partition(".")[0].partition("-")[0])


def _next_name(part: Part) -> str:
    """part-00003.jsonl.gz, part-00003-r1.jsonl.gz, part-00003-r2.jsonl.gz, …"""
    name, _, kind = strip_run(part.name).partition(".")
    stem, _, revision = name.partition("-r")
    return f"{stem}-r{int(revision or 0) + 1}.{kind}"


def _replace(parts: Iterable[Part], new: dict[Part, Part | None]) -> tuple[list[Part], Erasure]:
    """The parts with new ones for old ones, and what to say of it."""
    before = list(parts)
    after = [part for old in before if (part := new.get(old, old))]
    lines = sum(part.records for part in before) - sum(part.records for part in after)
    return after, Erasure(lines=lines, sha256=digest(before), parts=[part for part in before if part in new])


def _describe_less(read: RawManifest, new: dict[Part, Part | None]) -> RawManifest:
    parts, erasure = _replace(read.parts, new)
    return msgspec.structs.replace(
        read, parts=parts, forgotten=read.forgotten + erasure.lines, erasures=[*read.erasures, erasure]
    )


def _describe_less_clean(
    made: CleanManifest, read: RawManifest, new: dict[Part, Part | None], gone: Counter[str]
) -> CleanManifest:
    after, erasure = _replace([*made.parts, *made.rejects], new)
    parts, rejects = after[: len(made.parts)], after[len(made.parts) :]
    return msgspec.structs.replace(
        made,
        raw_sha256=[part.sha256 for part in read.parts],
        rows=sum(part.records for part in parts),
        rejected=sum(part.records for part in rejects),
        reasons=dict(Counter(made.reasons) - gone),
        parts=parts,
        rejects=rejects,
        erasures=[*made.erasures, erasure],
    )


def _erase_rows(
    workspace: Workspace, declared: Declared, finder: Finder, days: Container[dt.date], problems: list[str]
) -> int:
    """Take the users out of the warehouse, and tell the markers of `days` what their files are now.

    Then the tables are written anew: what was deleted, or only moved, leaves its bytes there until then.
    Returns how many rows went.
    """
    with open_warehouse(workspace).database.connect(create=True) as db:
        db.begin(workspace.name)
        erased = _delete_rows(db, declared, finder) + _delete_rejects(db, workspace, finder)
        for marker in read_markers(db, workspace.name):
            if marker.date in days:
                _mend_marker(db, workspace, declared, marker)
        db.commit()
        if left := db.erase([*(table.name for table in declared.stored()), REJECTS.name]):
            problems.append(left)
    return erased


def _delete_rows(db: Connection, declared: Declared, finder: Finder) -> int:
    erased = 0
    same = " and ".join(f'"{column}" = :key_{number}' for number, column in enumerate(declared.key))
    for key in finder.keys:
        values = {f"key_{number}": value for number, value in enumerate(key)}
        for table in ("present", "events", "changes"):
            number = db.run(f"delete from {Words(declared)[table]} where {same}", **values).rowcount  # noqa: S608
            finder.found.update([key] * bool(number))
            erased += number
    return erased


def _delete_rejects(db: Connection, workspace: Workspace, finder: Finder) -> int:
    """Delete the rejects of forgotten users, of whatever day, and count them as forgotten in its marker."""
    sql = "select load_date, part, line, key, record from rejects where dataset = :name"
    rejects = db.stream(sql, name=workspace.name)
    gone: list[tuple[Any, ...]] = []
    while some := list(islice(rejects, 10_000)):
        found = finder.find_rejects(decode(db, "key in rejects", reject[3], "text") for reject in some)
        records = [decode(db, "record in rejects", reject[4], "text") or "{}" for reject in some]
        found |= {line - 1 for line in finder.find_lines([record.encode() for record in records])}
        gone += [some[number][:3] for number in found]
    for date, part, line in gone:
        place = {"name": workspace.name, "date": date, "part": part, "line": line}
        db.run("delete from rejects where (dataset, load_date, part, line) = (:name, :date, :part, :line)", **place)
        move = "update loads set rejected = rejected - 1, forgotten = forgotten + 1"
        db.run(f"{move} where dataset = :name and date = :date", name=workspace.name, date=date)
    return len(gone)


def _mend_marker(db: Connection, workspace: Workspace, declared: Declared, marker: Marker) -> None:
    """Have the marker, and the rejects, of a loaded day say what its files do, where they differ by erasures alone.

    Which class a record was counted in when it was loaded is not kept. What was rejected, forgotten or a duplicate is
    counted anew; of the other classes the commonest is lessened, as far as it goes, then the next.
    """
    date = marker.date
    raw, clean = workspace.folder("raw", date), workspace.folder("clean", date)
    if not raw.exists() or not clean.exists():
        return  # it says what was loaded once
    read, made = raw.read_manifest(RawManifest), clean.read_manifest(CleanManifest)
    new = {"raw_sha256": read.sha256, "clean_sha256": made.sha256}
    erasures = {"raw_sha256": read.erasures, "clean_sha256": made.erasures}
    if marker.has(**new) or made.raw_sha256 != [part.sha256 for part in read.parts]:
        return
    if any(getattr(marker, name) not in {new[name], *(erasure.sha256 for erasure in erasures[name])} for name in new):
        return
    counts = {name: marker.counts[name] for name in CLASSES} | {"forgotten": read.forgotten, "rejected": made.rejected}
    if counts["duplicate"]:
        snapshot = marker.mode == SNAPSHOT
        kept = _count_keys(db, declared, clean, made) if snapshot else _count_events(db, declared, date)
        counts["duplicate"] = made.rows - kept
    for name in KEPT:
        counts[name] -= min(counts[name], sum(counts.values()) - marker.extracted)
    values = new | counts
    sets = ", ".join(f"{column} = :{column}" for column in values)
    sql = f"update loads set {sets} where dataset = :name and date = :date"  # noqa: S608
    db.run(sql, **values, name=workspace.name, date=date)
    db.run("delete from rejects where dataset = :name and load_date = :date", name=workspace.name, date=date)
    for part in made.rejects:  # the numbers of the lines behind one that is gone have changed
        rejects = [msgspec.json.decode(line, type=Reject) for line in unpack(clean.read(part))]
        day = workspace.name, db.encode(date)
        db.insert("rejects", REJECTS.columns, [day + list_values(reject) for reject in rejects])


def _count_events(db: Connection, declared: Declared, date: dt.date) -> int:
    """How many records of an incremental day were kept: each is a row."""
    sql = "select count(*) from {events} where load_date = :date"
    return int(db.run(sql.format_map(Words(declared)), date=date).fetchone()[0])


def _count_keys(db: Connection, declared: Declared, clean: DayFolder, made: CleanManifest) -> int:
    """How many records of a snapshot were kept: one a key."""
    keys = Table("_keys", declared.key, tuple(declared.key))
    db.create(keys, temporary=True)
    for part in made.parts:
        table = open_rows(clean.read(part)).read(columns=list(declared.key))
        rows = zip(*(table.column(name).to_pylist() for name in declared.key), strict=True)
        db.insert(keys.name, keys.columns, rows, skip_known=True)
    number = db.run("select count(*) from _keys").fetchone()[0]
    db.run("drop table _keys")
    return int(number)


def _note_done(workspace: Workspace, tombstones: int, days: dict[dt.date, int]) -> None:
    with open_warehouse(workspace).database.connect() as db:
        db.begin(workspace.name)  # for as long as the file is written, nobody else writes it
        workspace.tombstones().add([Done(clock.utc_now(), tombstones, days)])


def command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset of the users.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY",
            help="The key of a user; a JSON array if it has several columns. Behind -- it may begin with a dash. "
            "Without a key, complete an interrupted run.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking; required where nobody can answer.")] = False,
    unknown: Annotated[bool, typer.Option("--unknown", help="Keep out keys too that no file and no table has.")] = (
        False
    ),
) -> bool:
    """Erase users, and print how many lines of which days held them. Returns whether nothing is left to do.

    Raises ConfigError unless a person confirms the keys that are not forgotten yet.
    """
    context.obj.dataset = dataset
    console = open_console()
    with open_datasets(context) as (load,):
        workspace = load.workspace()
        _confirm_keys(workspace, keys or [], yes, unknown, console)
        done = forget(workspace, keys or [])
    days = "".join(f"\n  {date}: {count(lines, 'line')}" for date, lines in done.days.items())
    lines, rows = count(sum(done.days.values()), "line"), count(done.rows, "row")
    console.print(f"{dataset}: {lines} of the files and {rows} of the warehouse are erased{days}")
    for key in done.unknown:
        console.print(f"{key}: found in no day; it is kept out from now on")
    for problem in done.problems:
        sys.stderr.write(f"ERROR: {problem}\n")
    return not done.problems


def _confirm_keys(workspace: Workspace, keys: Sequence[str], yes: bool, unknown: bool, console: Console) -> None:
    """Show what is known of the keys, and let a person confirm them. Raises ConfigError otherwise."""
    from wholeday.commands.lookup import look_up

    traces = look_up(workspace, keys)  # without the keys of an interrupted run: they are confirmed
    if (strangers := [trace.text for trace in traces if not trace.is_known]) and not unknown:
        raise ConfigError(
            f"{workspace.name}: no file and no table has the key {', '.join(strangers)}: check the spelling, or keep "
            "it out for good with --unknown. Nothing is erased"
        )
    for trace in traces:
        known = f"{count(trace.rows, 'row')} of the warehouse, {count(len(trace.days), 'day')}"
        console.print(f"{trace.text}: {known}", soft_wrap=True)
    if not traces or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("forget cannot be undone, and nobody can be asked here: run it again with --yes")
    what = count(len(traces), "key")
    sys.stderr.write(f"Erase {what} from every file and table of {workspace.name}, for good? [y/N] ")
    sys.stderr.flush()
    with suppress(KeyboardInterrupt):
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError("nothing is erased")
