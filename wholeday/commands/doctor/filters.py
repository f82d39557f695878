"""Find the parameters that filter the records of a source by their time of change.

Responsibilities: usual names of such parameters, and the proof: a window of all time gives the first page again, and
an empty window gives fewer records. A name that does not say which time it means must also keep the newest change.
Non-goals: filters in the body of a request.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wholeday.commands.doctor.probe import Probe
from wholeday.config.placeholders import EPOCH, render_all
from wholeday.extract.http.page import Page
from wholeday.extract.vocabulary import find_keys, load_records
from wholeday.schema.paths import find

FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
# Parameters with a lower bound, each with the parameters that add an upper bound, the likeliest first. {stem} is the
# verb in the name of the update field: updated, modified, lastModified.
FILTERS = {
    "{stem}_since": ("{stem}_before", "{stem}_until"),
    "updated_since": ("updated_before", "updated_until"),
    "updated_after": ("updated_before",),
    "modified_since": ("modified_before", "modified_until"),
    "modified_after": ("modified_before",),
    "{name}_gte": ("{name}_lt", "{name}_lte"),
    "{name}[gte]": ("{name}[lt]", "{name}[lte]"),
    "{name}_min": ("{name}_max",),
    "since": ("until", "before"),
    "start_time": ("end_time",),  # in seconds
    "{name}__gte": ("{name}__lt", "{name}__lte"),
    "{name}[after]": ("{name}[before]",),
    "_since": ("_until",),
    "{name}_after": ("{name}_before",),
    "{name}_since": ("{name}_until", "{name}_before"),
    "{name}_from": ("{name}_to",),
    "{name}.gte": ("{name}.lt", "{name}.lte"),
    "min_{name}": ("max_{name}",),
    "gt_{name}": ("lt_{name}",),
    "gte_{name}": ("lt_{name}",),
    "since_{name}": ("before_{name}",),
    "{stem}_after": ("{stem}_before",),
    "{stem}Since": ("{stem}Before", "{stem}Until"),
    "{stem}After": ("{stem}Before",),
    "updatedSince": ("updatedBefore", "updatedUntil"),
    "updatedAfter": ("updatedBefore",),
    "modifiedSince": ("modifiedBefore",),
    "modifiedAfter": ("modifiedBefore",),
    "{name}From": ("{name}To",),
    "filter[{name}][gte]": ("filter[{name}][lt]", "filter[{name}][lte]"),
    "filter[{name}][_gte]": ("filter[{name}][_lt]",),
    "filters[{name}][$gte]": ("filters[{name}][$lt]",),
    "filter[updated_since]": ("filter[updated_before]",),
}
VAGUE = ("since", "_since", "start_time")  # may mean the creation of a record
IN_SECONDS = "start_time"  # whose time is a number, whatever the records have
# Operators in the value of one parameter: of OData, PostgREST and FHIR.
COMPARISONS = (
    ("$filter", "{path} ge {lower}", "{path} ge {lower} and {path} lt {upper}"),
    ("{name}", "gte.{lower}", ["gte.{lower}", "lt.{upper}"]),
    ("_lastUpdated", "ge{lower}", ["ge{lower}", "lt{upper}"]),
)
LOWER, UPPER, ONLY = "day_start", "day_stop", "watermark"  # ONLY is a lower bound without an upper bound
MOST_SINGLE = 12  # parameters that are tried one by one at a source that refuses unknown ones

Params = dict[str, Any]


class Filter(NamedTuple):
    """Parameters with placeholders, and whether they have an upper bound."""

    params: Params
    has_upper: bool


class _Candidate(NamedTuple):
    """A parameter with a lower bound, and the parameters that have an upper bound as well."""

    since: Params
    windows: Sequence[Params]
    is_vague: bool = False

    @property
    def alone(self) -> Params:
        """The lower bound for a filter without an upper one."""
        return {name: text.replace(f"{{{LOWER}", f"{{{ONLY}") for name, text in self.since.items()}


def find_filter(probe: Probe, path: str, form: str, is_scim: bool) -> Filter | None:
    """Find the filter by the field at `path`, whose times have the format `form`. Prefer one with an upper bound."""
    for candidate in _list_heeded(probe, list(_list_candidates(path, form, is_scim))):
        if not _is_proven(probe, candidate.alone, ONLY):
            continue
        if candidate.is_vague and not _keeps_newest(probe, candidate.alone, path):
            continue
        window = next((params for params in candidate.windows if _is_proven(probe, params, UPPER)), None)
        return Filter(window or candidate.alone, window is not None)
    return None


def _list_candidates(path: str, form: str, is_scim: bool) -> Iterator[_Candidate]:
    lower, upper = f"{{{LOWER}{form}}}", f"{{{UPPER}{form}}}"
    if is_scim:
        above = f'{path} gt "{lower}"'
        yield _Candidate({"filter": above}, [{"filter": f'{above} and {path} lt "{upper}"'}])
    name = path.rpartition(".")[2]
    names = {"name": name, "stem": re.sub(r"(_|(?<=[a-z]))(at|on|time|date|datetime)+$", "", name, flags=re.IGNORECASE)}
    seen = set()
    for first, others in FILTERS.items():
        param, written = first.format(**names), ":epoch" if first == IN_SECONDS else form
        if param in seen:
            continue
        seen.add(param)
        since = {param: f"{{{LOWER}{written}}}"}
        windows = [since | {other.format(**names): f"{{{UPPER}{written}}}"} for other in others]
        yield _Candidate(since, windows, first in VAGUE)
    for param, above, between in COMPARISONS:
        values = {"path": path.replace(".", "/"), "lower": lower, "upper": upper}
        both = [text.format(**values) for text in ([between] if isinstance(between, str) else between)]
        window = both[0] if isinstance(between, str) else both
        yield _Candidate({param.format(**names): above.format(**values)}, [{param.format(**names): window}])


def _list_heeded(probe: Probe, candidates: list[_Candidate]) -> Iterator[_Candidate]:
    """Yield the candidates that the source may heed. Most sources ignore unknown parameters: ask with many at once."""
    params = {name: text for candidate in candidates for name, text in candidate.alone.items()}
    page = _ask(probe, params, {ONLY: FUTURE})
    if page is None:
        yield from candidates[:MOST_SINGLE]
    elif len(page.records) < len(probe.page.records):
        half = len(candidates) // 2
        parts = [candidates[:half], candidates[half:]] if half else []
        yield from (each for part in parts for each in _list_heeded(probe, part))
        yield from [] if half else candidates


def _is_proven(probe: Probe, params: Params, bound: str) -> bool:
    """Tell whether all time gives the first page again, and a window that `bound` makes empty gives fewer records."""
    all_time: dict[str, dt.datetime | dt.date] = {LOWER: EPOCH, ONLY: EPOCH, UPPER: FUTURE}
    none = _ask(probe, params, {**all_time, bound: EPOCH if bound == UPPER else FUTURE})
    if none is None or len(none.records) >= len(probe.page.records):
        return False
    everything = _ask(probe, params, all_time)
    return everything is not None and probe.read_keys(everything) == probe.read_keys(probe.page)


def _keeps_newest(probe: Probe, params: Params, path: str) -> bool:
    """Tell whether the record that changed last passes a filter from just before its change."""
    records = load_records(probe.page)
    newest = max(records, key=lambda record: str(find(record, path) or ""))
    key, time = next(iter(find_keys(records)), None), _parse_time(find(newest, path))
    page = None if key is None or time is None else _ask(probe, params, {ONLY: time})
    return page is not None and find(newest, key or "") in [find(each, key or "") for each in load_records(page)]


def _parse_time(value: Any) -> dt.datetime | None:
    try:
        if isinstance(value, str):
            time = dt.datetime.fromisoformat(value)
            return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
        return dt.datetime.fromtimestamp(value if value < 10**11 else value / 1000, dt.UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _ask(probe: Probe, params: Params, times: Mapping[str, dt.datetime | dt.date]) -> Page | None:
    request = probe.request
    for name, value in render_all(params, times).items():
        request = request.put("query", name, value)
    return probe.ask(request)
