"""Extract a day twice from its source: first page by page in memory, then as a task does, into a temporary folder.

Responsibilities: what the questions of `check` need to know about both extractions.
Non-goals: conclusions.
"""

import base64
import datetime as dt
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import msgspec

from wholeday import clock
from wholeday.config.days import SNAPSHOT, Window
from wholeday.config.pipeline import Pipeline
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import DatasetError, QualityError, SourceError
from wholeday.extract.day import extract_day
from wholeday.extract.http.auth import Auth
from wholeday.extract.reader import Reader
from wholeday.extract.series import name_values
from wholeday.load.parents import ParentTable
from wholeday.load.warehouse import open_warehouse
from wholeday.redaction import SHORTEST, Mask
from wholeday.schema.census import Census
from wholeday.schema.marker import Marker
from wholeday.schema.raw_fields import RawRecord
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.storage.parents import Parent, Run, add_parents
from wholeday.storage.workspace import Workspace
from wholeday.tasks import progress, stages
from wholeday.transform import keys

if TYPE_CHECKING:
    import numpy as np

    Hashes = np.ndarray[tuple[int], np.dtype[np.int64]]

SLACK = dt.timedelta(days=1)  # a source may use the midnight of another time zone


class Secrets(Mask):
    """A mask that finds its secrets in a text. Raises ConfigError if a secret is not set."""

    def __init__(self, settings: Source) -> None:
        self.known: set[str] = set()
        super().__init__(settings.secrets)
        Auth(settings, self)

    def add(self, *secrets: str) -> None:
        self.known.update(secret for secret in secrets if len(secret) >= SHORTEST)
        super().add(*secrets)

    def are_in(self, data: bytes) -> bool:
        """Tell whether the data holds a secret: in plain text, percent-encoded, escaped as in JSON, or in base64."""
        text = data.decode("utf-8", "replace").lower()
        return any(form.lower() in text for secret in self.known for form in _list_forms(secret))


def _list_forms(secret: str) -> set[str]:
    code = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], code}


class Trial:
    """Two extractions of a day."""

    def __init__(self, workspace: Workspace, date: dt.date | None, folder: Path, log: io.StringIO) -> None:
        self.dataset, self.pipeline, self.folder, self.log = workspace.dataset, workspace.pipeline, folder, log
        self.settings, self.started_at = workspace.settings, clock.utc_now()
        self.conversion = workspace.conversion
        self.warehouse = open_warehouse(workspace)
        self.date = date or self.settings.last_closed_day(self.started_at)
        self.settings.check_closed(self.date, self.started_at)
        self.window = self.settings.window(self.date)
        self.placeholders = find_placeholders(self.settings)
        self.secrets = Secrets(self.settings)
        parents = self.dataset.find_parents(self.settings)
        self.asking = OneParent(ParentTable(workspace, parents), self.settings, self.date) if parents else None
        """One of the parents, if the source is asked for each."""
        needed = "watermark" in self.placeholders and not parents
        self.watermark = self.warehouse.watermark_before(self.date) if needed else None
        self.reader = self.make_reader(self.settings, self.date, self.watermark)
        self.seconds = 0.0
        self.low, self.high = self._compute_bounds()
        self.dated = self.early = self.late = 0
        """The number of rows with a time in `updated_at`; of these, the numbers before `low`, and from `high` on."""
        self.reasons: Counter[str] = Counter()
        self.cleaned = Census()
        """The keys after the transform, in mode snapshot."""
        self.error: SourceError | None = None
        """The error that ended the first extraction."""
        self.broken: DatasetError | None = None
        """The error in the dataset's code that the first transform raised."""
        self.failure: SourceError | QualityError | DatasetError | None = None
        """The error that ended the second extraction."""
        pipeline = Pipeline(data_dir=str(folder), database=f"sqlite:///{folder}/check.db")
        compared = "" if self.asking else workspace.pipeline.data_dir  # one parent cannot be compared with all
        self.sandbox = replace(workspace, pipeline=pipeline, trial_of=compared)
        """The same dataset, whose files and tables are in the temporary folder."""

    def run(self) -> None:
        """Extract the day, and if this succeeds, again."""
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
        """Transform and load the second extraction. Return the marker.

        Raises QualityError, DatasetError, WarehouseError.
        """
        stages.transform(self.sandbox, self.date, engine="local")  # other machines cannot see the folder
        stages.load(self.sandbox, self.date)
        (marker,) = open_warehouse(self.sandbox).read_markers()
        return marker

    def make_reader(self, settings: Source, date: dt.date, watermark: dt.datetime | None) -> Reader:
        """Make a reader for the trial's source, of one parent where the source is asked for each."""
        if self.asking is None:
            return Reader(settings, date, watermark, self._create_census())
        values = name_values(self.asking.name, self.asking.parent)
        return Reader(settings, date, watermark, self._create_census(), parent=values)

    def describe_auth(self) -> str:
        auth = self.settings.auth
        return "" if auth == "none" else f", and the secret of auth = {self.secrets(auth)} is set"

    def _create_census(self) -> Census:
        return self.conversion.make_census(self.asking.parent.values if self.asking else None)

    def _compute_bounds(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """Return the bounds of the times of change that the filter asks for, None for no bound."""
        start = self.window.start if self.placeholders & {"date", "day_start"} else self.watermark
        low = None if start is None else start - self.settings.lookback - SLACK
        return low, self.window.stop + SLACK if self.placeholders & {"date", "day_stop"} else None

    def _read(self) -> "Hashes":
        """Read and transform the day page by page. Return the hashes of its records."""
        import numpy as np

        hashes, lines, started = [hash_records([])], list[bytes](), time.monotonic()
        with progress.track_extraction() as update:
            for page in self.reader:
                update(self.reader)
                hashes.append(hash_records(page))
                lines += map(bytes, page)
                if len(lines) >= self.pipeline.part_records:
                    self._transform(lines)
                    lines.clear()
        self.seconds = time.monotonic() - started
        self._transform(lines)
        return np.unique(np.concatenate(hashes))

    def _transform(self, lines: list[bytes]) -> None:
        from wholeday.transform.rows import transform

        try:
            rows, rejects, _ = transform(self._add_parent(lines), self.conversion)
        except DatasetError as error:
            self.broken = self.broken or error
            return
        self.reasons.update(reject.describe() for reject in rejects)
        if self.settings.mode == SNAPSHOT:
            keys.add_cleaned(self.cleaned, rows, rejects, list(self.dataset.declared.key))
        if "updated_at" in rows:
            changed = rows["updated_at"].dropna()
            self.dated += len(changed)
            self.early += int((changed < self.low).sum()) if self.low else 0
            self.late += int((changed >= self.high).sum()) if self.high else 0

    def _add_parent(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines with the columns of their parent."""
        if self.asking is None:
            return lines
        return add_parents(lines, [Run(len(lines), self.asking.parent.values)], self.conversion.columns.taken)

    def _extract(self) -> "tuple[Census, Hashes]":
        """Extract the day into the folder. Return the census and the hashes of its records."""
        import numpy as np

        with progress.track_extraction() as update:
            count_cleaned = partial(stages.count_cleaned, self.sandbox)
            known = open_warehouse(self.sandbox) if self.asking else self.warehouse
            extract_day(self.sandbox, self.date, known, count_cleaned, update, asking=self.asking)
        raw, census, hashes = self.sandbox.folder("raw", self.date), self._create_census(), [hash_records([])]
        for part in raw.read_manifest(RawManifest).parts:
            lines = unpack(raw.read(part))
            census.add(lines)
            hashes.append(hash_records(lines))
        return census, np.unique(np.concatenate(hashes))


class OneParent:
    """Asks for one parent instead of all: the one that brought the most records last, or else the first."""

    def __init__(self, table: ParentTable, settings: Source, date: dt.date) -> None:
        self.name, self.placeholders = table.name, table.placeholders
        known = list(table.list_parents(settings.window(date), None))
        if not known:
            raise DatasetError(f"{settings.section}: {self.name} has no row to ask for: load it first")
        last = next((parents for parents in table.list_asked(dt.date.max) if parents), [])
        records = {msgspec.json.encode(key): parent.records for parent in last for key in parent.keys}
        key, values = max(known, key=lambda each: records.get(msgspec.json.encode(each[0]), 0))
        self.parent = Parent(keys=[key], values=values)

    def list_parents(
        self,
        window: Window,  # noqa: ARG002
        changed_since: dt.datetime | None,  # noqa: ARG002
    ) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """Yield the parent."""
        yield self.parent.keys[0], self.parent.values

    def list_asked(self, date: dt.date) -> Iterator[Sequence[Parent]]:  # noqa: ARG002
        """Yield nothing: the parent is not late."""
        yield from ()

    def read_watermarks(self, date: dt.date) -> dict[tuple[Any, ...], dt.datetime]:  # noqa: ARG002
        """Return no watermark: the parent is read from its beginning."""
        return {}


def hash_records(records: Sequence[RawRecord]) -> "Hashes":
    """Hash each record into eight bytes."""
    import numpy as np

    return np.frombuffer(b"".join(blake2b(record, digest_size=8).digest() for record in records), np.int64)
