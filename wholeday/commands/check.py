"""An acceptance test of a dataset's section against its living source: whether the source keeps what is relied upon.

Owns what is asked, and what is concluded from the answers; Refuses to leave anything behind: it
writes into a folder of its own that is gone afterwards. The source is read twice, and a day far ahead is begun; what
the second reading gives is transformed and loaded, into a SQLite database in that folder.
"""

import base64
import contextlib
import datetime as dt
import io
import json
import logging
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple
from urllib.parse import quote, quote_plus, urlsplit

import typer
from isal import igzip
from rich.table import Table
from rich.text import Text

from wholeday import clock
from wholeday.commands.arguments import parse_day
from wholeday.commands.screen import open_console
from wholeday.commands.session import open_datasets
from wholeday.config.days import SNAPSHOT
from wholeday.config.pipeline import Pipeline
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import ConfigError, DatasetError, QualityError, SourceError, WarehouseError
from wholeday.extract import gates
from wholeday.extract.day import extract_day
from wholeday.extract.http.auth import Auth, strip_userinfo
from wholeday.extract.http.client import AnswerError
from wholeday.extract.reader import Reader
from wholeday.load import day as load_stage
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.redaction import SHORTEST, Mask
from wholeday.schema.census import Census
from wholeday.schema.marker import Marker
from wholeday.schema.raw_fields import Record
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import Part, RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import progress, stages
from wholeday.transform import keys

if TYPE_CHECKING:
    import numpy as np

    Hashes = np.ndarray[tuple[int], np.dtype[np.int64]]

OK, FAILED, UNTESTED = "ok", "failed", "could not be tested"
AHEAD = dt.timedelta(days=3650)  # later than any change, and before 2038, when seconds outgrow 32 bits
SLACK = dt.timedelta(days=1)  # a source may mean the midnight of another time zone
REFUSED = re.compile(r": (40[13]) ")


class Finding(NamedTuple):
    """The verdict, what shows it in one line, and what to do next where the line does not say it."""

    verdict: str
    evidence: str
    next_step: str = ""


UNREAD = Finding(UNTESTED, "the day was not read to its end")
NOTHING = Finding(UNTESTED, "no record came for the day", "give --date, a day with changes")


def check_source(workspace: Workspace, date: dt.date | None = None) -> dict[str, Finding]:
    """What is found of the source of a dataset, asked for `date`, or for the last closed day, by what was asked.

    Raises DayNotClosedError, DatasetError, FolderError, WarehouseError.
    """
    with tempfile.TemporaryDirectory() as folder, _listen() as log:
        try:
            workspace.dataset.check()
            trial = _Trial(workspace, date, Path(folder), log)
        except (ConfigError, DatasetError) as error:
            return {"configuration": Finding(FAILED, str(error))}
        trial.run()
        findings = {"configuration": Finding(OK, f"[{workspace.name}] is valid{trial.describe_auth()}")}
        for name, ask in QUESTIONS.items():
            if trial.settings.mode != SNAPSHOT or ask not in OF_A_WINDOW:
                findings[name] = UNREAD if trial.error and ask not in OF_ANY_READING else ask(trial)
        return findings


@contextlib.contextmanager
def _listen() -> Iterator[io.StringIO]:
    """Everything that is logged meanwhile, at DEBUG."""
    log = io.StringIO()
    handler, level = logging.StreamHandler(log), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(level)


class _Secrets(Mask):
    """A mask that can be asked whether there was something to hide. Raises ConfigError where a secret is not set."""

    def __init__(self, settings: Source) -> None:
        self.told: set[str] = set()
        super().__init__(settings.secrets)
        Auth(settings, self)

    def add(self, *secrets: str) -> None:
        self.told.update(secret for secret in secrets if len(secret) >= SHORTEST)
        super().add(*secrets)

    def are_in(self, data: bytes) -> bool:
        """Whether one of them stands there: plain, percent-encoded, as in JSON, or in base64."""
        text = data.decode("utf-8", "replace").lower()
        return any(form.lower() in text for secret in self.told for form in _list_forms(secret))


def _list_forms(secret: str) -> set[str]:
    code = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], code}


class _Trial:
    """What is asked about: two readings of a day, the first as it comes, the second as a day is extracted."""

    def __init__(self, workspace: Workspace, date: dt.date | None, folder: Path, log: io.StringIO) -> None:
        self.dataset, self.folder, self.log = workspace.dataset, folder, log
        self.warehouse = open_warehouse(workspace)
        self.settings, self.started_at = workspace.settings, clock.utc_now()
        self.date = date or self.settings.last_closed_day(self.started_at)
        self.settings.check_closed(self.date, self.started_at)
        self.window = self.settings.window(self.date)
        self.placeholders = find_placeholders(self.settings)
        self.secrets = _Secrets(self.settings)
        asked = "watermark" in self.placeholders
        self.watermark = self.warehouse.watermark_before(self.date) if asked else None
        self.reading = Reader(self.settings, self.date, self.watermark, self._make_census())
        self.seconds = 0.0
        self.low, self.high = self._find_bounds()
        self.dated = self.early = self.late = 0
        """How many rows have a time of change; of these, how many before `low`, and how many from `high` on."""
        self.reasons: Counter[str] = Counter()
        self.cleaned = Census()
        """The keys after cleaning, in mode snapshot."""
        self.error: SourceError | None = None
        """What ended the first reading."""
        self.broken: DatasetError | None = None
        """The error in the dataset's code that cleaning the first reading found."""
        self.failure: SourceError | QualityError | DatasetError | None = None
        """What ended the second."""
        pipeline = Pipeline(data_dir=str(folder), database=f"sqlite:///{folder}/check.db")
        self.elsewhere = replace(workspace, pipeline=pipeline, trial_of=workspace.pipeline.data_dir)
        """The same dataset, whose files and tables are in a temporary folder."""

    def run(self) -> None:
        """Read the day, and if that could be done, again."""
        try:
            self.hashes = self._read()
        except SourceError as error:
            self.error = error
            return
        if self.broken:
            self.failure = self.broken
            return
        try:
            self.census, self.hashes_again = self._extract()
        except (SourceError, QualityError, DatasetError) as error:
            self.failure = error

    def load(self) -> Marker:
        """Transform and load what the second reading extracted; returns the marker.

        Raises QualityError, DatasetError, WarehouseError.
        """
        stages.transform(self.elsewhere, self.date, engine="local")  # no other machine sees the folder
        stages.load(self.elsewhere, self.date)
        (marker,) = open_warehouse(self.elsewhere).read_markers()
        return marker

    def describe_auth(self) -> str:
        auth = self.settings.auth
        return "" if auth == "none" else f", and what auth = {self.secrets(auth)} names is set"

    def _make_census(self) -> Census:
        return Census(self.dataset.record_class, self.dataset.key, self.settings.deleted_when)

    def _find_bounds(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """Between which times the changes lie that the filter asks for, as far as it has bounds."""
        start = self.window.start if self.placeholders & {"date", "day_start"} else self.watermark
        low = None if start is None else start - self.settings.lookback - SLACK
        return low, self.window.stop + SLACK if self.placeholders & {"date", "day_stop"} else None

    def _read(self) -> "Hashes":
        import numpy as np
        import sqlalchemy as sa

        key = [column.name for column in self.dataset.table(sa.MetaData()).primary_key]
        hashes, lines, started = [_hash([])], list[bytes](), time.monotonic()
        with progress.track_reading() as tell:
            for page in self.reading:
                tell(self.reading)
                hashes.append(_hash(page))
                lines += map(bytes, page)
                if len(lines) >= Pipeline().part_records:
                    self._clean(lines, key)
                    lines.clear()
        self.seconds = time.monotonic() - started
        self._clean(lines, key)
        return np.unique(np.concatenate(hashes))

    def _clean(self, lines: Sequence[bytes], key: Sequence[str]) -> None:
        from wholeday.transform.rows import transform

        rules = self.settings.deleted_when, self.settings.timezone
        try:
            rows, rejects = transform(lines, self.dataset.record_class, self.dataset.clean, key, *rules)
        except DatasetError as error:
            self.broken = self.broken or error
            return
        self.reasons.update(reject.describe() for reject in rejects)
        if self.settings.mode == SNAPSHOT:
            keys.add_cleaned(self.cleaned, rows, rejects, list(key))
        if "updated_at" in rows:
            changed = rows["updated_at"].dropna()
            self.dated += len(changed)
            self.early += int((changed < self.low).sum()) if self.low else 0
            self.late += int((changed >= self.high).sum()) if self.high else 0

    def _count_cleaned(self, folder: DayFolder, parts: Iterable[Part]) -> Census:
        return keys.count_cleaned(self.dataset, self.settings, folder, parts)

    def _extract(self) -> "tuple[Census, Hashes]":
        """Extract the day into the folder; what its files hold then."""
        import numpy as np

        with progress.track_reading() as tell:
            extract_day(self.elsewhere, self.date, self.warehouse, self._count_cleaned, tell)
        raw, census, hashes = self.elsewhere.folder("raw", self.date), self._make_census(), [_hash([])]
        for part in raw.read_manifest(RawManifest).parts:
            lines = unpack(raw.read(part))
            census.add(lines)
            hashes.append(_hash(lines))
        return census, np.unique(np.concatenate(hashes))


def _hash(records: Sequence[Record]) -> "Hashes":
    """Eight bytes a record."""
    import numpy as np

    return np.frombuffer(b"".join(blake2b(record, digest_size=8).digest() for record in records), np.int64)


def _ask_auth(trial: _Trial) -> Finding:
    if trial.error and not trial.reading.pages:
        return Finding(FAILED, str(trial.error))
    settings = trial.settings
    if settings.auth == "none" and urlsplit(settings.url).username is None:
        return Finding(OK, "the first page came, and no secret is set")
    bare = {"auth": "none", "url": strip_userinfo(settings.url), "retries": 0}
    reading = Reader(type(settings)(**{**settings.param_kwargs, **bare}), trial.date, trial.watermark)
    refusal = _look(reading)
    if reading.pages or not isinstance(refusal, SourceError):
        return Finding(
            OK, "the first page came; the source answers without the secret as well", "ask if it is to do so"
        )
    if status := REFUSED.search(str(refusal)):
        return Finding(OK, f"the first page came; without the secret the source refuses, with {status[1]}")
    verdict = OK if isinstance(refusal, AnswerError) else UNTESTED
    return Finding(verdict, f"the first page came; without the secret none does: {refusal}")


def _look(reading: Reader) -> Sequence[Record] | SourceError:
    """The first records of a reading, or what ended it; none if it has none."""
    try:
        return next((page for page in reading if page), [])
    except SourceError as error:
        return error


def _ask_pages(trial: _Trial) -> Finding:
    reading = trial.reading
    if trial.error:
        return Finding(FAILED, str(trial.error)) if reading.pages else UNREAD
    came = f"{count(reading.pages, 'page')}, {count(reading.records, 'record')} in {trial.seconds:.1f} s"
    if reading.total is None:
        hint = "set total_path or total_header, if it says anywhere how many there are"
        return Finding(OK, f"{came}; the source declares no number; {reading.paginator}", hint)
    return Finding(OK, f"{came}; the source declares {reading.total:,}; {reading.paginator}")


def _ask_keys(trial: _Trial) -> Finding:
    records, key = trial.reading.records, ", ".join(trial.dataset.key)
    if problem := trial.reading.census.explain_no_key():
        return Finding(FAILED, problem)
    again = records - trial.reading.census.distinct
    if not again:
        return Finding(OK, f"{count(records, 'record')}, and no {key} twice") if records else NOTHING
    hint = "ask for an order that stays while pages are turned (params), or check the dataset's key"
    return Finding(FAILED, f"{again:,} of {count(records, 'record')} with a key ({key}) that came before", hint)


def _ask_filter(trial: _Trial) -> Finding:
    import numpy as np

    if not trial.placeholders:
        hint = "add the source's filter to params, with {day_start} or another placeholder, or set mode = snapshot"
        return Finding(FAILED, "url, params, body and headers ask for no day: everybody is read each day", hint)
    future = trial.date + AHEAD
    came = _look(Reader(trial.settings, future, trial.settings.window(future).start))
    if isinstance(came, SourceError):
        return Finding(UNTESTED, str(came))
    if not came:
        return Finding(OK, f"nothing comes for {future}") if trial.reading.records else NOTHING
    ignored = np.isin(_hash(came), trial.hashes).all()
    evidence = f"{count(len(came), 'record')} came on a page for {future}"
    hint = "compare names and formats in url, params and body with the source's manual"
    return Finding(FAILED, f"{evidence}{f', as for {trial.date}: the filter is ignored' if ignored else ''}", hint)


def _ask_window(trial: _Trial) -> Finding:
    if trial.broken:
        return Finding(UNTESTED, "the records could not be cleaned")
    if not trial.dated:
        return Finding(UNTESTED, "no row has a time in updated_at") if trial.reading.records else NOTHING
    if trial.low is None:
        return Finding(UNTESTED, "there is no lower bound to hold updated_at against")
    until = f" and before {trial.high:%Y-%m-%dT%H:%MZ}" if trial.high else ""
    inside = trial.dated - trial.early - trial.late
    evidence = f"{inside:,} of {count(trial.dated, 'row')} changed from {trial.low:%Y-%m-%dT%H:%MZ} on{until}"
    evidence += f", {trial.late:,} later" if trial.late else ""
    if trial.early:
        hint = "find out by which time the source filters: it ought to be the one that becomes updated_at"
        return Finding(FAILED, f"{evidence}, {trial.early:,} earlier", hint)
    return Finding(OK, evidence)


def _ask_record_class(trial: _Trial) -> Finding:
    records, rejects, limit = trial.reading.records, trial.reasons.total(), trial.settings.max_reject_ratio
    if not records:
        return NOTHING
    if trial.broken:
        return Finding(FAILED, str(trial.broken))
    reasons = "; ".join(f"{number:,} times {reason}" for reason, number in trial.reasons.most_common(3))
    evidence = f"{count(rejects, 'reject')} of {count(records, 'record')}, and max_reject_ratio is {limit:g}"
    evidence += f": {reasons}" if reasons else ""
    if rejects / records > limit:
        return Finding(FAILED, evidence, "fix the dataset's record class or its `clean`")
    return Finding(OK, evidence)


def _ask_load(trial: _Trial) -> Finding:
    if not trial.reading.records:
        return NOTHING
    if trial.broken:
        return Finding(FAILED, str(trial.broken))
    if trial.failure:
        return Finding(UNTESTED, "the second reading, which is loaded, came to nothing")
    try:
        marker = trial.load()
    except (DatasetError, WarehouseError) as error:
        return Finding(FAILED, str(error))
    except QualityError as error:  # too many rejects are told of the record class
        return Finding(UNTESTED if _ask_record_class(trial).verdict == FAILED else FAILED, str(error))
    other = "" if Pipeline().database.startswith("sqlite:") else "; the configured database was not tried"
    return Finding(OK, f"{load_stage.describe_load(marker)}, into a temporary SQLite database{other}")


def _ask_again(trial: _Trial) -> Finding:
    import numpy as np

    if trial.failure:
        verdict = FAILED if isinstance(trial.failure, SourceError) else UNTESTED
        return Finding(verdict, f"the second reading came to nothing: {trial.failure}")
    first, second = trial.hashes, trial.hashes_again
    gone, new = np.setdiff1d(first, second).size, np.setdiff1d(second, first).size
    if not gone and not new:
        return Finding(OK, f"{count(first.size, 'record')}, and the same the second time")
    keys = np.setxor1d(trial.reading.census.present_keys(), trial.census.present_keys()).size
    evidence = f"{gone:,} of {count(first.size, 'record')} did not come again, {new:,} others did; {keys:,} keys differ"
    if trial.high is None:
        return Finding(OK, evidence, "nothing, if so many users change meanwhile")
    return Finding(FAILED, evidence, "look for a field that changes by itself, and for an order that is not fixed")


def _ask_gates(trial: _Trial) -> Finding:
    as_of = trial.started_at - trial.settings.settle
    known = trial.warehouse
    verdicts = gates.judge(
        str(trial.elsewhere.pipeline.data_dir),
        trial.date,
        trial.settings,
        trial.reading.census,
        as_of,
        known,
        lambda: trial.cleaned,
    )
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return Finding(FAILED if failed else OK, "; ".join(map(str, failed or verdicts)))


def _ask_secrets(trial: _Trial) -> Finding:
    """Comes last, when everything is logged."""
    if not trial.secrets.told:
        return Finding(OK, "no secret is set")
    log, files = trial.log.getvalue(), [path for path in (trial.folder / "raw").rglob("*") if path.is_file()]
    places = [path.name for path in files if trial.secrets.are_in(_read(path))]
    places += ["the log"] if trial.secrets.are_in(log.encode()) else []
    searched = f"{count(len(files), 'file')} and {count(len(log.splitlines()), 'line')} of log"
    if places:
        hint = "find out why the source sends it back, and change the secret"
        return Finding(FAILED, f"it stands in {', '.join(places)} ({searched})", hint)
    return Finding(OK, f"{searched}, and in none of them")


def _read(path: Path) -> bytes:
    return igzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


QUESTIONS: dict[str, Callable[[_Trial], Finding]] = {
    "authenticates": _ask_auth,
    "pages to the end": _ask_pages,
    "no key twice": _ask_keys,
    "the filter filters": _ask_filter,
    "records of the window": _ask_window,
    "fits the record class": _ask_record_class,
    "loads": _ask_load,
    "reads twice the same": _ask_again,
    "gates": _ask_gates,
    "no secret is written": _ask_secrets,
}
OF_A_WINDOW = {_ask_filter, _ask_window}
OF_ANY_READING = {_ask_auth, _ask_pages, _ask_secrets}


def command(
    context: typer.Context,
    date: Annotated[
        dt.date | None,
        typer.Option(parser=parse_day, metavar="DATE", help="The day to read (default: the last closed one)."),
    ] = None,
) -> bool:
    """Print the result of each test of each source. Returns whether none failed."""
    sound = True
    with open_datasets(context) as loads:
        for load in loads:
            findings = check_source(load.workspace(), date)
            table = Table(box=None, pad_edge=False, show_header=False)
            for what, (verdict, evidence, next_step) in findings.items():
                style = {OK: "green", FAILED: "red"}.get(verdict, "yellow")
                table.add_row(what, Text(verdict, style), "; ".join(filter(None, (evidence, next_step))))
            open_console().print(table)
            sound &= all(finding.verdict != FAILED for finding in findings.values())
    return sound
