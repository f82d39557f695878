"""Find the parameters that filter the records of a source by their time of change.

Responsibilities: usual names of such parameters, and the proof: a window of all time gives the first page again, and
an empty window gives fewer records.
Non-goals: filters in the body of a request.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from wholeday.commands.doctor.probe import Probe
from wholeday.config.placeholders import EPOCH, render
from wholeday.extract.http.page import Page

FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
# Parameters with a lower bound, each with the parameters that add an upper bound.
FILTERS = {
    "updated_since": ("updated_before", "updated_until"),
    "updated_after": ("updated_before",),
    "modified_since": ("modified_before", "modified_until"),
    "{name}_gte": ("{name}_lt", "{name}_lte"),
    "{name}[gte]": ("{name}[lt]", "{name}[lte]"),
    "since": ("until", "before"),
    "start_time": ("end_time",),  # in seconds
}
LOWER, UPPER, ONLY = "day_start", "day_stop", "watermark"  # ONLY is a lower bound without an upper bound


class Filter(NamedTuple):
    """Parameters with placeholders, and whether they have an upper bound."""

    params: dict[str, str]
    has_upper: bool


def find_filter(probe: Probe, path: str, form: str, is_scim: bool) -> Filter | None:
    """Find the filter by the field at `path`, whose times have the format `form`. Prefer one with an upper bound."""
    for since, windows in _list_filters(path, form, is_scim):
        alone = {name: text.replace(LOWER, ONLY) for name, text in since.items()}
        if _is_proven(probe, alone, ONLY):
            window = next((params for params in windows if _is_proven(probe, params, UPPER)), None)
            return Filter(window or alone, window is not None)
    return None


def _list_filters(path: str, form: str, is_scim: bool) -> Iterator[tuple[dict[str, str], list[dict[str, str]]]]:
    """Yield parameters with a lower bound, each with the parameters that have an upper bound as well."""
    if is_scim:
        above = f'{path} gt "{{{LOWER}}}"'
        yield {"filter": above}, [{"filter": f'{above} and {path} lt "{{{UPPER}}}"'}]
    for lower, uppers in FILTERS.items():
        leaf, written = path.rpartition(".")[2], ":epoch" if lower == "start_time" else form
        since = {lower.format(name=leaf): f"{{{LOWER}{written}}}"}
        yield since, [since | {upper.format(name=leaf): f"{{{UPPER}{written}}}"} for upper in uppers]


def _is_proven(probe: Probe, params: Mapping[str, str], bound: str) -> bool:
    """Tell whether all time gives the first page again, and a window that `bound` makes empty gives fewer records."""
    all_time: dict[str, dt.datetime | dt.date] = {LOWER: EPOCH, ONLY: EPOCH, UPPER: FUTURE}
    none = _ask(probe, params, {**all_time, bound: EPOCH if bound == UPPER else FUTURE})
    if none is None or len(none.records) >= len(probe.page.records):
        return False
    everything = _ask(probe, params, all_time)
    return everything is not None and probe.read_keys(everything) == probe.read_keys(probe.page)


def _ask(probe: Probe, params: Mapping[str, str], times: Mapping[str, dt.datetime | dt.date]) -> Page | None:
    request = probe.request
    for name, text in params.items():
        request = request.put("query", name, render(text, times))
    return probe.ask(request)
