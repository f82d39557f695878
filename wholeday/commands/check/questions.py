"""Answer the questions of `check` about a trial.

Responsibilities: a verdict, the evidence and the next step for each question. Two questions send a request of their
own: one without the secret, one for a day in the far future.
"""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from isal import igzip

from wholeday.commands.check.trial import Trial, hash_records
from wholeday.errors import DatasetError, QualityError, SourceError, WarehouseError
from wholeday.extract import gates
from wholeday.extract.http.auth import strip_userinfo
from wholeday.extract.http.client import AnswerError
from wholeday.extract.reader import Reader
from wholeday.load import day as load_stage
from wholeday.log import count
from wholeday.schema.raw_fields import RawRecord

OK, FAILED, UNTESTED = "ok", "failed", "could not be tested"
AHEAD = dt.timedelta(days=3650)  # later than any change, and before 2038, when 32-bit seconds overflow
REFUSED = re.compile(r": (40[13]) ")


class Finding(NamedTuple):
    """The verdict, its evidence in one line, and the next step if the evidence does not imply it."""

    verdict: str
    evidence: str
    next_step: str = ""


FAILED_FIRST = Finding(UNTESTED, "the first extraction failed")
NO_RECORDS = Finding(UNTESTED, "no records for the day", "use --date with a day that has changes")


def _ask_authentication(trial: Trial) -> Finding:
    if trial.error and not trial.reader.pages:
        return Finding(FAILED, str(trial.error))
    settings = trial.settings
    if settings.auth == "none" and urlsplit(settings.url).username is None:
        return Finding(OK, "received the first page; no secret is set")
    bare = {"auth": "none", "url": strip_userinfo(settings.url), "retries": 0}
    reader = trial.make_reader(type(settings)(**{**settings.param_kwargs, **bare}), trial.date, trial.watermark)
    refusal = _read_first_records(reader)
    if reader.pages or not isinstance(refusal, SourceError):
        evidence = "received the first page; the source also answers without the secret"
        return Finding(OK, evidence, "ask the vendor whether this is intended")
    if status := REFUSED.search(str(refusal)):
        return Finding(OK, f"received the first page; without the secret the source answers {status[1]}")
    verdict = OK if isinstance(refusal, AnswerError) else UNTESTED
    return Finding(verdict, f"received the first page; without the secret: {refusal}")


def _read_first_records(reader: Reader) -> Sequence[RawRecord] | SourceError:
    """Return the first records that a reader yields, none if it has none, or the error that ended it."""
    try:
        return next((page for page in reader if page), [])
    except SourceError as error:
        return error


def _ask_paging(trial: Trial) -> Finding:
    reader = trial.reader
    if trial.error:
        return Finding(FAILED, str(trial.error)) if reader.pages else FAILED_FIRST
    read = f"{count(reader.pages, 'page')}, {count(reader.records, 'record')} in {trial.seconds:.1f} s"
    if trial.asking:
        read = f"{trial.asking.name} {', '.join(map(str, trial.asking.parent.keys[0]))}, one of the parents: {read}"
    if reader.total is None:
        next_step = "set total_path or total_header if the source sends a total"
        return Finding(OK, f"{read}; the source declares no total; {reader.paginator}", next_step)
    return Finding(OK, f"{read}; the source declares {reader.total:,}; {reader.paginator}")


def _ask_keys(trial: Trial) -> Finding:
    records, key = trial.reader.records, ", ".join(column.source for column in trial.dataset.columns.key)
    if problem := trial.reader.census.explain_no_key():
        return Finding(FAILED, problem)
    repeated = records - trial.reader.census.distinct
    if not repeated:
        return Finding(OK, f"{count(records, 'record')} with distinct keys ({key})") if records else NO_RECORDS
    next_step = "request a stable order in params, or check the dataset's key"
    return Finding(FAILED, f"{repeated:,} of {count(records, 'record')} repeat a key ({key})", next_step)


def _ask_filter(trial: Trial) -> Finding:
    import numpy as np

    if not trial.placeholders:
        evidence = "url, params, body and headers name no day: every run reads all records"
        next_step = "add the source's filter to params, with {day_start} or another placeholder, or set mode = snapshot"
        return Finding(FAILED, evidence, next_step)
    future = trial.date + AHEAD
    records = _read_first_records(trial.make_reader(trial.settings, future, trial.settings.window(future).start))
    if isinstance(records, SourceError):
        return Finding(UNTESTED, str(records))
    if not records:
        return Finding(OK, f"no records for {future}") if trial.reader.records else NO_RECORDS
    ignored = np.isin(hash_records(records), trial.hashes).all()
    evidence = f"a page for {future} has {count(len(records), 'record')}"
    next_step = "compare names and formats in url, params and body with the API's documentation"
    return Finding(FAILED, f"{evidence}{f', as for {trial.date}: the filter is ignored' if ignored else ''}", next_step)


def _ask_window(trial: Trial) -> Finding:
    if trial.broken:
        return Finding(UNTESTED, "the records could not be transformed")
    if not trial.dated:
        return Finding(UNTESTED, "no row has a time in updated_at") if trial.reader.records else NO_RECORDS
    if trial.low is None:
        return Finding(UNTESTED, "the filter has no lower bound to compare updated_at with")
    until = f" to {trial.high:%Y-%m-%dT%H:%MZ}" if trial.high else " on"
    inside = trial.dated - trial.early - trial.late
    evidence = f"{inside:,} of {count(trial.dated, 'row')} changed from {trial.low:%Y-%m-%dT%H:%MZ}{until}"
    evidence += f", {trial.late:,} later" if trial.late else ""
    if trial.early:
        next_step = "find out which time the source filters by, and use it as updated_at"
        return Finding(FAILED, f"{evidence}, {trial.early:,} earlier", next_step)
    return Finding(OK, evidence)


def _ask_record_class(trial: Trial) -> Finding:
    records, rejects, limit = trial.reader.records, trial.reasons.total(), trial.settings.max_reject_ratio
    if not records:
        return NO_RECORDS
    if trial.broken:
        return Finding(FAILED, str(trial.broken))
    reasons = "; ".join(f"{number:,} times {reason}" for reason, number in trial.reasons.most_common(3))
    evidence = f"{count(rejects, 'reject')} of {count(records, 'record')}, max_reject_ratio is {limit:g}"
    evidence += f": {reasons}" if reasons else ""
    if rejects / records > limit:
        return Finding(FAILED, evidence, "fix the dataset's record class or its `clean`")
    return Finding(OK, evidence)


def _ask_load(trial: Trial) -> Finding:
    if not trial.reader.records:
        return NO_RECORDS
    if trial.broken:
        return Finding(FAILED, str(trial.broken))
    if trial.failure:
        return Finding(UNTESTED, "the second extraction failed, so there is nothing to load")
    try:
        marker = trial.load()
    except (DatasetError, WarehouseError) as error:
        return Finding(FAILED, str(error))
    except QualityError as error:
        if _ask_record_class(trial).verdict == FAILED:  # the error names the rejects in the temporary folder
            return Finding(UNTESTED, "too many records are rejected")
        return Finding(FAILED, str(error))
    other = "" if trial.pipeline.database.startswith("sqlite:") else "; the configured database was not tried"
    return Finding(OK, f"{load_stage.describe_load(marker)}, into a temporary SQLite database{other}")


def _ask_repeatability(trial: Trial) -> Finding:
    import numpy as np

    if trial.failure:
        verdict = FAILED if isinstance(trial.failure, SourceError) else UNTESTED
        return Finding(verdict, f"the second extraction failed: {trial.failure}")
    first, second = trial.hashes, trial.hashes_again
    missing, new = np.setdiff1d(first, second).size, np.setdiff1d(second, first).size
    records = count(first.size, "record")
    if not missing and not new:
        return Finding(OK, f"{records}, the same both times")
    keys = np.setxor1d(trial.reader.census.present_keys(), trial.census.present_keys()).size
    evidence = f"{missing:,} of {records} missing the second time, {new:,} new; {keys:,} keys differ"
    if trial.high is None:
        return Finding(OK, evidence, "nothing, if this many records change between two runs")
    return Finding(FAILED, evidence, "look for a field that changes on its own, or for an unstable order")


def _ask_gates(trial: Trial) -> Finding:
    if trial.asking:
        return Finding(UNTESTED, "one parent cannot be compared with the days of all")
    as_of = trial.started_at - trial.settings.settle
    folder, census = trial.sandbox.pipeline.data_dir, trial.reader.census
    verdicts = gates.judge(folder, trial.date, trial.settings, census, as_of, trial.warehouse, lambda: trial.cleaned)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return Finding(FAILED if failed else OK, "; ".join(map(str, failed or verdicts)))


def _ask_secrets(trial: Trial) -> Finding:
    """Search the files and the log for secrets. This is the last question, when the log is complete."""
    if not trial.secrets.known:
        return Finding(OK, "no secret is set")
    log, files = trial.log.getvalue(), [path for path in (trial.folder / "raw").rglob("*") if path.is_file()]
    places = [path.name for path in files if trial.secrets.are_in(_read_file(path))]
    places += ["the log"] if trial.secrets.are_in(log.encode()) else []
    searched = f"{count(len(files), 'file')} and {count(len(log.splitlines()), 'line')} of log"
    if places:
        next_step = "find out why the source sends it back, and change the secret"
        return Finding(FAILED, f"found in {', '.join(places)} (searched {searched})", next_step)
    return Finding(OK, f"not found in {searched}")


def _read_file(path: Path) -> bytes:
    return igzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


QUESTIONS: dict[str, Callable[[Trial], Finding]] = {
    "authentication": _ask_authentication,
    "paging": _ask_paging,
    "unique keys": _ask_keys,
    "filter": _ask_filter,
    "window": _ask_window,
    "record class": _ask_record_class,
    "load": _ask_load,
    "repeatability": _ask_repeatability,
    "quality gates": _ask_gates,
    "secrets": _ask_secrets,
}
OF_A_WINDOW = {_ask_filter, _ask_window}
OF_ANY_TRIAL = {_ask_authentication, _ask_paging, _ask_secrets}
