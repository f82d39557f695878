"""Render the times of a day in the url, params, body and headers of a source: `{day_start}`, `{watermark:epoch}`.

Responsibilities: which braces are placeholders, and the formats of times. A lower bound is always slightly too low, as
a record that comes twice is harmless, and a record that a filter leaves out is lost.
Non-goals: other braces, as in GraphQL or a formula. They are text.
"""

import datetime as dt
import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit

from wholeday.config.days import SNAPSHOT
from wholeday.config.source import Source, list_sections
from wholeday.errors import ConfigError
from wholeday.text import walk_texts

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND, SECOND, DAY = dt.timedelta(microseconds=1), dt.timedelta(seconds=1), dt.timedelta(days=1)
UNITS = {"iso": SECOND, "date": DAY, "epoch": SECOND, "epoch_ms": dt.timedelta(milliseconds=1)}
LOWER_BOUNDS = ("day_start", "watermark")
NAMES = ("date", "day_start", "day_stop", "watermark")
PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w-]*)(?::([^{}]*))?\}")
OF_PARENT = re.compile(r"\{([A-Za-z_]\w*)\.([A-Za-z_]\w*)\}")
EITHER = re.compile(rf"(?P<of_parent>{OF_PARENT.pattern})|{PLACEHOLDER.pattern}")
DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)

Values: TypeAlias = Mapping[str, dt.datetime | dt.date | str | int]
"""The value of each placeholder: of `repos.owner`, a text or an integer."""

# Likely misspellings and the placeholder that they mean. `date` has none, as `{Date}` and `{data}` are common fields.
MEANT = {"daystart": "day_start", "daystop": "day_stop", "dayend": "day_stop", "watermark": "watermark"}
NEAR = 0.8  # similarity of a misspelt name

# The directives of strftime that name a time unambiguously, grouped by meaning.
YEAR, HOUR, HALF, AM_PM, MINUTE, SECONDS, FRACTION = "%Y", "%H", "%I", "%p", "%M", "%S", "%f"
MONTHS, DAY_OF_MONTH, DAY_OF_YEAR = ("%m", "%b", "%B"), "%d", "%j"
PLAIN = ("%%", "%a", "%A", "%z", "%Z")  # a percent sign, and what the time implies
DIRECTIVES = (YEAR, *MONTHS, DAY_OF_MONTH, DAY_OF_YEAR, HOUR, HALF, AM_PM, MINUTE, SECONDS, FRACTION, *PLAIN)


def render(text: str, values: Values, quote: bool = False) -> str:
    """Replace the placeholders `{name}` and `{name:format}` in a text; with `quote`, percent-encode the values.

    `{DATASET.column}` is a placeholder if `values` has this name.

    Formats are iso (2026-10-31T00:00:00Z, the default), date, epoch, epoch_ms, or directives of strftime. A lower bound
    is rounded down to the unit of its format, less one unit, so that no comparison at the source loses a record at the
    bound. An upper bound is rounded up. Times are in UTC; strftime formats them in the time zone of the value. A date
    becomes 2026-10-31. Raises ConfigError for a misspelt name or an unusable format.
    """

    def replace(match: re.Match[str]) -> str:
        if match["of_parent"]:
            shown = values.get(match[0][1:-1], match[0])
        elif (found := _check_placeholder(match[0])) is None:
            return match[0]
        else:
            shown = _format(values[found[0]], *found)
        return percent_encode(str(shown), safe="") if quote and shown != match[0] else str(shown)

    return EITHER.sub(replace, text)


def _format(value: Any, name: str, form: str) -> str:
    if isinstance(value, dt.datetime):
        return _format_time(value, form, is_lower=name in LOWER_BOUNDS)
    return value.strftime(form) if "%" in form else value.isoformat()


def find_placeholders(config: Source) -> set[str]:
    """Return the names of the placeholders in `url`, `params`, `body` and `headers`.

    Raises ConfigError for a misspelt name or an unusable format, and in mode snapshot for a placeholder that filters.
    """
    names = set()
    for text in walk_texts([config.url, config.params, config.body, config.headers]):
        for match in PLACEHOLDER.finditer(text):
            if (found := _check_placeholder(match[0])) is None:
                continue
            if config.mode == SNAPSHOT and found[0] != "date":
                raise ConfigError(
                    f"[{config.section}] {match[0]} cannot be used in mode snapshot, which reads all records: a "
                    "record that a filter leaves out would look deleted. Leave it out, or set mode = incremental"
                )
            names.add(found[0])
    return names


def find_parent(config: Source) -> tuple[str, tuple[str, ...]] | None:
    """Return the dataset whose rows a source is asked for, and its columns in `{DATASET.column}`; None without one.

    Raises ConfigError for an unknown dataset in `url`, for two datasets, and for a place that no value may fill.
    """
    where, known = f"[{config.section}]", list_sections()
    found: dict[str, dict[str, None]] = {}
    for text in walk_texts([config.url, config.params, config.body, config.headers]):
        for match in OF_PARENT.finditer(text):
            dataset, column = match.groups()
            if dataset in known:
                found.setdefault(dataset, {})[column] = None
            elif text == config.url or difflib.get_close_matches(dataset, known, n=1, cutoff=NEAR):
                raise ConfigError(
                    f"{where} {match[0]}: there is no dataset {dataset}; there are {', '.join(sorted(known))}. "
                    "To write it as text, add a space after the brace"
                )
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(
            f"{where} asks for each row of {' and of '.join(sorted(found))}: use the columns of one dataset"
        )
    ((dataset, columns),) = found.items()
    if dataset == config.section:
        raise ConfigError(f"{where} asks for each of its own rows: name another dataset in {{{dataset}.…}}")
    if OF_PARENT.search(urlsplit(config.url).netloc):
        raise ConfigError(f"{where} url: a column of {dataset} cannot stand in the host: write it in the path or query")
    return dataset, tuple(columns)


def find_units(config: Source) -> list[tuple[str, dt.timedelta]]:
    """Return each placeholder for a bound of the day, with the smallest step that its format shows."""
    found = []
    for text in walk_texts([config.url, config.params, config.body, config.headers]):
        for match in PLACEHOLDER.finditer(text):
            name, form = _check_placeholder(match[0]) or ("", "")
            if name in ("day_start", "day_stop"):
                found.append((match[0], _find_unit(match[0], form, name) if "%" in form else UNITS[form]))
    return found


def _check_placeholder(text: str) -> tuple[str, str] | None:
    """Return name and format of a placeholder; None if the braces are text. Raises ConfigError for a likely mistake."""
    name, colon, form = text[1:-1].partition(":")
    form = form if colon else "iso"
    if name not in NAMES:
        word = re.sub(r"[^a-z]", "", name.lower())
        if near := difflib.get_close_matches(word, MEANT, n=1, cutoff=NEAR):
            raise ConfigError(
                f"unknown placeholder {text}: did you mean {{{MEANT[near[0]]}}}? "
                "To write it as text, add a space after the brace"
            )
        return None
    if "%" in form:
        _find_unit(text, form, name)
    elif form not in UNITS or (name == "date" and form not in ("iso", "date")):
        known = ", ".join(UNITS if name != "date" else ("date",))
        near = difflib.get_close_matches(form.lower(), UNITS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ConfigError(
            f"{text} has an unknown format '{form}': use {known} or directives of strftime, such as %Y-%m-%d"
            f"{hint}. To write it as text, add a space after the brace"
        )
    return name, form


def _find_unit(text: str, form: str, name: str = "") -> dt.timedelta:
    """Return the smallest step that a strftime format shows.

    Raises ConfigError, which quotes the placeholder `text`, if the format is ambiguous: each unit needs the next larger
    unit, up to the year. `date` has no time of day.
    """
    used = {match[0] for match in DIRECTIVE.finditer(form)}
    hours, finer = {HOUR, HALF} & used, [each for each in (MINUTE, SECONDS, FRACTION) if each in used]
    unknown = sorted(used - set(DIRECTIVES))
    problem = ""
    if unknown:
        problem = f"{unknown[0]} cannot be used: use {' '.join(DIRECTIVES)}"
    elif YEAR not in used:
        problem = f"it has no year: add {YEAR}"
    elif DAY_OF_YEAR not in used and not (used & set(MONTHS) and DAY_OF_MONTH in used):
        problem = f"it has no day: add %m and {DAY_OF_MONTH}, or {DAY_OF_YEAR}"
    elif HALF in used and AM_PM not in used:
        problem = f"{HALF} does not distinguish morning and evening: write {HOUR}, or add {AM_PM}"
    elif finer and not hours:
        problem = f"{finer[0]} needs the hour: add {HOUR}"
    elif finer != [MINUTE, SECONDS, FRACTION][: len(finer)]:
        problem = f"{finer[-1]} needs the larger units too: add {MINUTE}" + (
            f" and {SECONDS}" if FRACTION in used else ""
        )
    elif name == "date" and (hours or AM_PM in used or {"%z", "%Z"} & used):
        problem = "a date has no time of day: use {day_start}"
    if problem:
        raise ConfigError(f"{text}: {problem}")
    return (DAY, dt.timedelta(hours=1), dt.timedelta(minutes=1), SECOND, MICROSECOND)[len(finer) + 1 if hours else 0]


def _format_time(value: dt.datetime, form: str, is_lower: bool) -> str:
    if "%" in form:
        return _round(value, _find_unit("", form), is_lower).strftime(form)
    value = _round(value.astimezone(dt.UTC), UNITS[form], is_lower)
    match form:
        case "date":
            return f"{value:%Y-%m-%d}"
        case "iso":
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case _:
            return str((value - EPOCH) // UNITS[form])


def _round(value: dt.datetime, unit: dt.timedelta, is_lower: bool) -> dt.datetime:
    """Round a time on the clock of its zone to `unit`: a lower bound down and one unit lower, an upper bound up.

    When clocks go back, an hour occurs twice; when they go forward, an hour is missing. Even then a lower bound lies
    before `value`, and an upper bound does not.
    """
    wall = value.replace(fold=0)  # within one zone, Python calculates with local times
    beyond = (wall - dt.datetime.min.replace(tzinfo=value.tzinfo)) % unit
    if is_lower:
        wall -= beyond
        if value > EPOCH:  # nothing changed before, and many sources refuse negative numbers
            wall -= unit
    elif beyond:
        wall += unit - beyond
    early, late = sorted(wall.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    step = -(-(late - early) // unit) * unit
    if is_lower and late >= value > EPOCH:
        wall -= step
    elif not is_lower and early < value:
        wall += step
    return wall


def render_all(value: Any, values: Values) -> Any:
    """Replace the placeholders in each text of nested lists and objects."""
    if isinstance(value, str):
        return render(value, values)
    if isinstance(value, Mapping):
        return {name: render_all(item, values) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render_all(item, values) for item in value]
    return value
