"""Create a dataset from a URL: examine the source, infer the class, extract a day, write the files, load the day.

Responsibilities: the order of these steps. Until a day is extracted and fits, nothing is written to the project; what a
step wrote is removed if a later one fails. Non-goals: printing.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholeday import clock
from wholeday.commands.doctor.examination import NO_KEY, Examination, diagnose
from wholeday.commands.new import section as config_file
from wholeday.commands.new.classes import build_dataset
from wholeday.commands.new.files import import_module, name_module, name_test, write_all
from wholeday.commands.new.fit import Fitting
from wholeday.commands.new.infer import Rules
from wholeday.commands.new.keys import NoKeyError
from wholeday.commands.new.model import Proposal
from wholeday.commands.new.module import write_module
from wholeday.commands.new.openapi import read_document, read_hints
from wholeday.commands.new.sample import write_test
from wholeday.commands.session import list_loads, parse_keys
from wholeday.config.days import SNAPSHOT
from wholeday.config.pipeline import Pipeline
from wholeday.config.placeholders import EPOCH, find_placeholders
from wholeday.config.source import Source, make_section
from wholeday.errors import ConfigError, DatasetError, SourceError
from wholeday.extract.reader import Reader
from wholeday.load.sqlite.types import MAX_DIGITS as SQLITE_DIGITS
from wholeday.load.warehouse import open_warehouse
from wholeday.log import count
from wholeday.schema.columns import MAX_DIGITS
from wholeday.schema.dataset import Dataset
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import STAGES, list_all_days
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.storage.workspace import Workspace
from wholeday.tasks import progress, stages
from wholeday.tasks.stages import read_workspace

USUAL_SAMPLE = 2_000  # records
MOST_OBSERVED = 100_000  # records of a day, if some of them have fields that the sample lacked


@dataclass(frozen=True)
class Wanted:
    """The arguments of `wholeday new`."""

    name: str
    url: str
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of the section, as texts."""
    openapi: str = ""
    """The file or the URL of an OpenAPI document."""
    most_records: int | None = USUAL_SAMPLE
    """The records to read before the class is written; None: all."""


@dataclass
class Created:
    """A dataset that was created."""

    dataset: Dataset
    findings: list[tuple[str, str, str]]
    unsure: list[str]
    proposal: Proposal
    marker: Marker
    first_day: dt.date | None
    """The day of the earliest change seen, if a day holds only changes."""
    files: list[str]


def create(wanted: Wanted) -> Created:
    """Create a dataset, and load its last closed day. The caller has checked that the name is free.

    Raises ConfigError, SourceError, DatasetError or QualityError, and leaves nothing behind then.
    """
    pipeline = Pipeline()
    if list_all_days(pipeline.data_dir, wanted.name):
        raise ConfigError(f"the data folder has days of {wanted.name} already: choose another name for the dataset")
    section = make_section(wanted.name)
    document = read_document(wanted.openapi) if wanted.openapi else None
    given = section(url=wanted.url, **parse_keys(section, wanted.keys))
    examination = diagnose(given)
    settings = section(**parse_keys(section, _check_secrets(examination)))
    lines = read_sample(given, settings, wanted.most_records)
    selector = examination.client.lists.selector or ""
    hints = read_hints(document, wanted.url, selector) if document else {}
    fitting = Fitting(Rules(wanted.name, count_digits(pipeline), hints), settings.timezone)
    proposal = _start(fitting, lines)
    dataset = build_dataset(wanted.name, proposal)
    _check_tables(dataset)
    workspace = Workspace(dataset, _set_lenient(settings, proposal), pipeline)
    date = settings.last_closed_day(clock.utc_now())
    with _clear_on_failure(workspace, date):
        with progress.track_extraction() as update:
            stages.extract(workspace, date, update)
        proposal = _fit_day(fitting, proposal, workspace, date)
        return _write(wanted, examination, workspace, proposal, fitting, date, lines)


def _check_tables(dataset: Dataset) -> None:
    """Raise ConfigError if another dataset has a table of the same name, DatasetError for a name that is too long."""
    own = {dataset.name, *(child.name for child in dataset.declared.children)}
    for other in (load.dataset for load in list_loads().values()):
        with suppress(DatasetError):  # a mistake in another class
            if taken := own & {other.name, *(child.name for child in other.declared.children)}:
                raise ConfigError(
                    f"{min(taken)} is the name of a table of the dataset {other.name}: choose another name for "
                    f"{dataset.name}"
                )


def count_digits(pipeline: Pipeline) -> int:
    """Return the digits that a Decimal may have in the database."""
    return SQLITE_DIGITS if pipeline.database.startswith("sqlite") else MAX_DIGITS


def _check_secrets(examination: Examination) -> Mapping[str, str]:
    """Return the keys of the section. Raises ConfigError if one would hold a secret."""
    if secret := [name for name, text in examination.keys.items() if "***" in text]:
        raise ConfigError(
            f"{secret[0]} holds a secret, which luigi.cfg must not: export it in a variable, and name the variable in "
            "auth, as in --auth query:NAME:ENV or --auth bearer:ENV"
        )
    return examination.keys


def read_sample(given: Source, settings: Source, most: int | None) -> list[bytes]:
    """Read records without the filter that the section may have: at least `most` of them, if the source has so many.

    Raises SourceError if it has none.
    """
    if find_placeholders(given):
        date = settings.last_closed_day(clock.utc_now())
        settings = _copy(settings, lookback=settings.window(date).start - EPOCH)
    else:
        settings = _copy(settings, mode=SNAPSHOT, params=given.params)
    lines: list[bytes] = []
    with progress.track_extraction() as update:
        reader = Reader(settings, settings.last_closed_day(clock.utc_now()))
        with closing(iter(reader)) as pages:
            for page in pages:
                lines += map(bytes, page)
                update(reader)
                if most is not None and len(lines) >= most:
                    break
    if not lines:
        raise SourceError(f"{settings.section}: the source has no records: use a URL with records")
    return lines


def _copy(settings: Source, **changes: Any) -> Source:
    return type(settings)(**{**settings.param_kwargs, **changes})


def _set_lenient(settings: Source, proposal: Proposal) -> Source:
    return _copy(settings, lenient=True) if proposal.lenient else settings


def _start(fitting: Fitting, lines: Sequence[bytes]) -> Proposal:
    name = fitting.rules.dataset
    try:
        proposal = fitting.start(lines)
    except NoKeyError:
        records = count(len(fitting.sample.records), "record")
        raise DatasetError(
            f"dataset {name}: no field, and no few fields together, identify a record: each is missing or repeated in "
            f"{records}. A dataset needs a key: use a URL whose records have one"
        ) from None
    if not fitting.sample.records:
        raise DatasetError(
            f"dataset {name}: the records are no JSON objects: set --data-selector to the path of a list of objects"
        )
    return proposal


def _fit_day(fitting: Fitting, proposal: Proposal, workspace: Workspace, date: dt.date) -> Proposal:
    """Fit the class to the records of an extracted day as well."""
    raw = workspace.folder("raw", date)
    manifest, observed = raw.read_manifest(RawManifest), 0
    is_new = bool({*manifest.unknown_fields} - {*proposal.empty, *proposal.rest})
    while True:
        before = proposal
        fitting.hopeless.clear()
        for part in manifest.parts:
            lines = unpack(raw.read(part))
            everything = is_new and observed < MOST_OBSERVED
            proposal = fitting.extend(proposal, lines, has_new_fields=everything)
            observed += len(lines)
        if proposal.model == before.model:
            return proposal
        is_new = False


def _write(
    wanted: Wanted,
    examination: Examination,
    workspace: Workspace,
    proposal: Proposal,
    fitting: Fitting,
    date: dt.date,
    lines: Sequence[bytes],
) -> Created:
    """Write the files, and transform and load the day with them."""
    name = wanted.name
    text = examination.section
    if proposal.lenient and "lenient" not in examination.keys:
        text = config_file.add_key(text, "lenient = true")
    module, test = name_module(name), name_test(name)
    texts = {
        module: write_module(name, wanted.url, proposal),
        test: write_test(name, proposal),
        config_file.FILE: config_file.add_section(config_file.FILE.read_text(encoding="utf-8"), text),
    }
    with write_all(texts), import_module(name) as imported:
        config_file.reload()
        dataset: Dataset = getattr(imported, name.upper())
        workspace = read_workspace(dataset)
        stages.transform(workspace, date)
        stages.load(workspace, date)
    marker = open_warehouse(workspace).read_marker(date)
    assert marker is not None  # noqa: S101 - the load returned
    # The key is known by now, perhaps of several fields.
    unsure = [doubt for doubt in examination.unsure if doubt != NO_KEY]
    unsure += [*proposal.key_doubts, *proposal.doubts]
    if proposal.local and "timezone" not in wanted.keys:
        unsure.append(
            f"{', '.join(proposal.local)}: times without an offset, read as UTC: set timezone if they are not"
        )
    unsure += [f"{count(number, 'record')} would be rejected: {reason}" for reason, number in fitting.hopeless.items()]
    is_part = "day_start" in find_placeholders(workspace.settings)
    first = _find_first_day(workspace, lines) if is_part else None
    files = [str(module), str(test)]
    return Created(dataset, examination.findings, unsure, proposal, marker, first, files)


def _find_first_day(workspace: Workspace, lines: Sequence[bytes]) -> dt.date | None:
    from wholeday.transform.rows import transform

    times = transform(lines, workspace.conversion).rows["updated_at"].dropna()
    return None if times.empty else times.min().astimezone(dt.UTC).date()


@contextmanager
def _clear_on_failure(workspace: Workspace, date: dt.date) -> Iterator[None]:
    """Remove the files of a day, and the local folders that were made for them, if the block fails."""
    folders = [workspace.folder(stage, date) for stage in STAGES]
    above = {parent for folder in folders for parent in (*Path(folder.path).parents,)[:3]}
    made = sorted((path for path in above if not path.exists()), key=lambda path: len(path.parts), reverse=True)
    try:
        yield
    except BaseException:
        for folder in folders:
            folder.remove()
        for path in made:
            with suppress(OSError):  # it has other files meanwhile, or names a bucket
                path.rmdir()
        raise
