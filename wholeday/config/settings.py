"""The sections of luigi.cfg, each key of which is also a flag (`url` in `[users]` is `--users-url`).

Owns names, types, defaults and what they mean for a day: its window, and whether it is over. A key
that no section reads, or a value that cannot be understood, is an error here, where Luigi only warns.
"""

import datetime as dt
import difflib
import operator
import re
from collections.abc import Iterable, Mapping
from configparser import InterpolationError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.parameter import MissingParameterException

from wholeday.config import presets
from wholeday.errors import ConfigError, DayNotClosedError

SNAPSHOT = "snapshot"
INCREMENTAL = "incremental"
PAGINATORS = ["auto", "single", "link_header", "next_url", "cursor", "page", "offset", "last_id"]
ENDS = ("204", "404", "400", "missing_list", "same_cursor", "repeated_page")  # the words of end_when
NOTHING: dict[str, Any] = {}
MAY_BE_SECRET = ("url", "params", "body", "headers", "auth", "webhook")  # not shown where they cannot be read

PERCENT = re.compile(r"%%|%\(|%")

Params = list[tuple[str, luigi.Parameter[Any]]]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Window:
    """What a day covers: `start` <= t < `stop`, both in UTC."""

    start: dt.datetime
    stop: dt.datetime


# What Luigi must be told, or it fails quietly; luigi.cfg may say otherwise. They hold without a luigi.cfg too.
LUIGI_DEFAULTS = {
    # It exits 0 after a failure.
    "retcode": {
        "already_running": "10",
        "missing_data": "20",
        "not_run": "25",
        "task_failed": "30",
        "scheduling_error": "35",
        "unhandled_exception": "40",
    },
    # Its own lock makes a second, equal command leave with nothing done; a lock a day does its work.
    "core": {"no_lock": "true"},
    "worker": {"check_complete_on_run": "true"},
}
for _section, _keys in LUIGI_DEFAULTS.items():
    for _key, _value in _keys.items():
        if not get_config().has_option(_section, _key):
            get_config().set(_section, _key, _value)


class Section(luigi.Config):
    """A section of luigi.cfg, under the name `section`."""

    section: ClassVar[str]
    _visible_in_registry = False
    _kept: ClassVar[tuple[Any, list[tuple[str, Any]]]]
    """Values, and what they come from."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._visible_in_registry = "section" in vars(cls)
        cls._kept = (), []

    @classmethod
    def get_task_family(cls) -> str:
        return getattr(cls, "section", cls.__name__)

    @classmethod
    def get_param_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """The values of the keys, as Luigi finds them; raises ConfigError for one that is unknown or unusable.

        A day asks for them some fifty times, and to find them takes Luigi a hundred look-ups: so they are kept for as
        long as nothing that they come from is another.
        """
        if args or kwargs:
            return cls._find_values(params, args, kwargs)
        origin, (kept, values) = cls._read_origin(), cls._kept
        if origin != kept:
            values = cls._find_values(params, args, kwargs)
            cls._kept = origin, values
        return values

    @classmethod
    def _read_origin(cls) -> Any:
        """What the values come from: flags, and the text of the section; None where Luigi cannot read that either."""
        conf = get_config()
        try:
            text = conf.items(cls.section) if conf.has_section(cls.section) else None
        except InterpolationError:
            return None
        return CmdlineParser.get_instance(), conf.sections(), text

    @classmethod
    def _find_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        cls._double_percents()
        cls._check_names([name for name, _ in params])
        cls._check_values(params)
        return super().get_param_values(params, args, kwargs)

    @classmethod
    def _double_percents(cls) -> None:
        """Let a single % stand for itself, as in a time format, unless it begins %(name)s: ConfigParser refuses it."""
        conf = get_config()
        for key, text in conf.items(cls.section, raw=True) if conf.has_section(cls.section) else ():
            doubled = PERCENT.sub(lambda match: match[0] if match[0] != "%" else "%%", text or "")
            if doubled != (text or ""):
                conf.set(cls.section, key, doubled)

    @classmethod
    def _check_names(cls, known: list[str]) -> None:
        conf = get_config()
        if cls.section in conf.sections():
            for key in conf[cls.section]:
                if key.replace("-", "_") not in known and key not in conf.defaults():
                    raise ConfigError(f"luigi.cfg: [{cls.section}] has no key '{key}'{_suggest(key, known)}")
            return
        for name in set(conf.sections()) - set(luigi.task_register.Register.task_names()):
            if difflib.get_close_matches(name.lower(), [cls.section], cutoff=0.8):
                raise ConfigError(f"luigi.cfg: there is no section [{name}]: did you mean [{cls.section}]?")

    @classmethod
    def _check_values(cls, params: Params) -> None:
        parser = CmdlineParser.get_instance()
        flags = vars(parser.known_args) if parser else {}
        for name, value in flags.items():
            if value == "":  # as of an unset variable in a script; Luigi would take the default
                raise ConfigError(f"the flag --{name.replace('_', '-')} is empty: give it a value, or leave it out")
        for name, param in params:
            try:
                param.has_task_value(cls.section, name)
            except ConfigError:
                raise
            except Exception as error:  # whatever a parameter's parser raises, the value is the cause
                value = flags.get(f"{cls.section}_{name}") or get_config().get(cls.section, name, None, raw=True)
                shown = "" if name in MAY_BE_SECRET else f" = {value!r}"
                raise ConfigError(f"[{cls.section}] {name}{shown} cannot be used: {error}") from error


def split_words(text: str) -> list[str]:
    """Return the words of a comma separated list."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f": did you mean '{near[0]}'?" if near else f"; it has: {', '.join(sorted(known))}"


def bounded(kind: type[Number], low: Any, high: Any, *, default: Number, description: str) -> luigi.Parameter[Number]:
    """A parameter for a number from `low` to `high`, both included."""
    return luigi.NumericalParameter(
        var_type=kind, min_value=low, max_value=high, right_op=operator.le, default=default, description=description
    )


class Duration(luigi.TimeDeltaParameter):
    """A length of time, as `15 minutes`; all of the text is read, where Luigi takes `1 month` for a minute."""

    def parse(self, text: str) -> dt.timedelta:
        try:
            return super().parse(text)
        except luigi.parameter.ParameterException:
            raise ValueError("write it as 15 minutes, 2 hours or 1 day") from None

    def _apply_regex(self, regex: str, text: str) -> dt.timedelta | None:
        return super()._apply_regex(rf"(?:{regex})\Z", text)


class Variable(luigi.Parameter):
    """The name of an environment variable. What is no name may be the secret that belongs there."""

    def parse(self, text: str) -> str:
        if text and not re.fullmatch(r"[A-Z][A-Z0-9_]*", text):
            raise ValueError("write the name of an environment variable that holds it, as ALERT_URL")
        return text


class Pipeline(Section):
    """Section `[pipeline]`: where files and tables are kept, and what a day is worked with."""

    section = "pipeline"

    data_dir = luigi.Parameter(default="data", description="folder of the raw and clean days, or s3://…")
    database = luigi.Parameter(default="sqlite:///data/warehouse.db", description="the warehouse, as a SQLAlchemy URL")
    part_records = bounded(int, 1, 10**7, default=16_000, description="records in a part; memory grows with it")
    engine = luigi.ChoiceParameter(
        choices=["local", "spark"], default="local", description="what maps over the parts of a day"
    )
    spark_master = luigi.Parameter(default="local[*]", description="where the engine spark works, as spark://host:7077")
    engine_workers = bounded(int, 0, 1000, default=0, description="processes of the local engine; 0: one a core")
    webhook = Variable(default="", description="environment variable with the URL that is told of a day that failed")
    log_format = luigi.ChoiceParameter(choices=["text", "json"], default="text", description="how a line is written")
    file_mode = luigi.ChoiceParameter(
        choices=["private", "umask"],
        default="private",
        description="who may read files and folders: this user alone (0600, 0700), or whom the umask lets",
    )

    @property
    def is_private(self) -> bool:
        """Whether new files and folders are for this user alone."""
        return bool(self.file_mode == "private")


class Source(Section):
    """The section of a dataset: how its API is read. A dataset derives from it and sets `section`.

    `url` has no default: a section that was lost must never load another source in silence.
    """

    url = luigi.Parameter(description="the first page; may hold {date} {day_start} {day_stop} {watermark}")
    mode = luigi.ChoiceParameter(
        choices=[INCREMENTAL, SNAPSHOT], default=INCREMENTAL, description="records changed in a window, or everybody"
    )
    preset = luigi.ChoiceParameter(
        choices=["", *presets.names()], default="", description="an API whose keys are known; yours go before its"
    )
    method = luigi.ChoiceParameter(choices=["GET", "POST"], default="GET", description="how a page is asked for")
    params = luigi.DictParameter(default=NOTHING, description="query parameters, a JSON object; values as in url")
    body = luigi.DictParameter(
        default=NOTHING, description="what a POST sends, a JSON object or list; values as in url"
    )
    headers = luigi.DictParameter(default=NOTHING, description="request headers, a JSON object; values as in url")
    auth = luigi.Parameter(
        default="none",
        description="none, bearer:ENV, basic:USER_ENV:PASSWORD_ENV, header:NAME:ENV, query:NAME:ENV, "
        "oauth2:TOKEN_URL:ID_ENV:SECRET_ENV or oauth2_refresh:TOKEN_URL:ID_ENV:SECRET_ENV:REFRESH_ENV; ENV is the name "
        "of an environment variable",
    )
    token_file = luigi.Parameter(
        default="", description="file that keeps the newest refresh token, for an endpoint that replaces it"
    )
    data_selector = luigi.Parameter(
        default="auto",
        description="dotted path of the list of records in a page; path.*: an object's members; @: the object itself",
    )
    paginator = luigi.ChoiceParameter(choices=PAGINATORS, default="auto", description="how a page says what follows")
    next_link = luigi.ChoiceParameter(
        choices=["whole", "path"],
        default="whole",
        description="what counts of a link to the next page: the whole of it, or path and query, at url's origin",
    )
    cursor_path = luigi.Parameter(default="", description="where a page holds what leads to the next: path or header")
    cursor_param = luigi.Parameter(
        default="", description="the name that the cursor is sent under; in a body, its path"
    )
    cursor_in = luigi.ChoiceParameter(
        choices=["query", "body", "header"], default="query", description="where cursor, page, offset and size are sent"
    )
    page_param = luigi.Parameter(default="page", description="the parameter that numbers a page")
    page_start = luigi.OptionalIntParameter(
        default=None, description="the number of the first page (1), or of the first record (0) for offset"
    )
    offset_param = luigi.Parameter(default="offset", description="the parameter that says how many records to skip")
    size_param = luigi.Parameter(default="", description="the parameter that asks for a page size")
    page_size = bounded(int, 0, 10**9, default=0, description="records asked for in a page; 0: as the source likes")
    keep_params = luigi.BoolParameter(
        default=True,
        parsing=luigi.BoolParameter.EXPLICIT_PARSING,
        description="whether later pages repeat the first page's params",
    )
    more_path = luigi.Parameter(default="", description="field that says whether there is more; !field turns it around")
    total_path = luigi.Parameter(
        default="", description="field that says how many records there are; pages:field: pages"
    )
    total_header = luigi.Parameter(default="", description="the same of a header")
    error_path = luigi.Parameter(
        default="", description="field, or field=value, by which an answer with status 200 is a failure"
    )
    ok_when = luigi.Parameter(
        default="", description="field=value, with commas between: words that look like a failure and are none"
    )
    end_when = luigi.Parameter(
        default="", description=f"answers that mean that there is nothing more, with commas: {', '.join(ENDS)}"
    )
    deleted_when = luigi.Parameter(default="", description="field, or field=value, by which a record is a deletion")
    ceiling = bounded(
        int, 0, 10**12, default=0, description="so many records are where the source stops in silence; 0: none"
    )
    requests_per_second = bounded(float, 0, 10**6, default=0.0, description="at most so many; 0: no limit")
    timeout = bounded(float, 0.001, 1800, default=30.0, description="seconds without a byte before a request fails")
    retries = bounded(int, 0, 1000, default=5, description="how often a request that may succeed later is made again")
    max_wait = Duration(default=dt.timedelta(minutes=10), description="the longest wait a source may ask for")
    lookback = Duration(
        default=dt.timedelta(0), description="how much earlier than the window to read, for late updates"
    )
    timezone = luigi.Parameter(
        default="UTC", description="whose midnight ends a day, and where times without an offset are read"
    )
    settle = Duration(
        default=dt.timedelta(minutes=15), description="how late the source may show a change, clock skew included"
    )
    max_reject_ratio = bounded(float, 0, 1, default=0.05, description="more than this share of rejects fails the day")
    min_records = luigi.OptionalIntParameter(
        default=None, description="fewer records fail the day; 1 for snapshots, else 0"
    )
    max_drop_ratio = bounded(
        float,
        0,
        1,
        default=0.3,
        description="more than this share below the median of the seven days before fails the day",
    )
    max_delete_ratio = bounded(
        float, 0, 1, default=0.3, description="more than this share of the known users gone fails the day"
    )
    accept = luigi.BoolParameter(default=False, description="let this run through the gates; recorded with the day")

    @classmethod
    def _find_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """The same, with the keys of a preset in the place of defaults. What lets a run through is not for a file."""
        if get_config().has_option(cls.section, "accept"):
            raise ConfigError(f"luigi.cfg: [{cls.section}] accept would open the gates for good: give it as a flag")
        try:
            values = dict(super()._find_values(params, args, kwargs))
        except MissingParameterException as error:
            raise cls._miss_url() from error
        if not values["url"].strip():
            raise cls._miss_url()
        known = dict(params)
        for name, text in (presets.find_keys(values["preset"]) if values["preset"] else {}).items():
            if name not in kwargs and not cls._is_set(name):
                values[name] = known[name].normalize(known[name].parse(text))
        cls._check_forms(values)
        return list(values.items())

    @classmethod
    def has_url(cls) -> bool:
        """Whether a flag or luigi.cfg names a source. Without one nothing may be made, not even a note of a failure."""
        parser = CmdlineParser.get_instance()
        flag = getattr(parser.known_args, f"{cls.section}_url", None) if parser else None
        return bool((flag or get_config().get(cls.section, "url", "", raw=True)).strip())

    @classmethod
    def _miss_url(cls) -> ConfigError:
        """Say where `url` was looked for. Luigi reads luigi.cfg in the current folder only."""
        file = Path.cwd() / "luigi.cfg"
        if not file.is_file():
            where = f"there is no luigi.cfg in {file.parent}"
        elif not get_config().has_section(cls.section):
            where = f"{file} has no section [{cls.section}]"
        else:
            where = f"section [{cls.section}] of {file} has no url"
        return ConfigError(
            f"[{cls.section}] url is missing: {where}. Run this in the project's folder, or set url in luigi.cfg"
        )

    @classmethod
    def _check_forms(cls, values: dict[str, Any]) -> None:
        for name in ("params", "body", "headers"):
            if not isinstance(values[name], (Mapping, tuple) if name == "body" else Mapping):
                kind = "object or list" if name == "body" else "object"
                raise ConfigError(f'[{cls.section}] {name} is no JSON {kind}: write it as {{"name": "value"}}')
        if values["cursor_in"] == "body" and isinstance(values["body"], tuple):
            raise ConfigError(f"[{cls.section}] cursor_in = body needs a JSON object as body, and it is a list")
        try:
            ZoneInfo(values["timezone"])
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            zone = values["timezone"]
            raise ConfigError(
                f"[{cls.section}] timezone = {zone!r} is not a time zone: use a name such as Europe/Berlin"
            ) from error
        for name in ("deleted_when", "error_path"):
            rule = values[name]
            if rule and (rule.removeprefix("!").lstrip().startswith("=") or set(rule) & set("'\"\\")):
                raise ConfigError(
                    f"[{cls.section}] {name} = {rule} cannot be used: write field or field=value, without quotes"
                )
        for rule in split_words(values["ok_when"]):
            path, _, text = rule.partition("=")
            if not path.strip() or not text.strip() or set(rule) & set("'\"\\"):
                raise ConfigError(
                    f"[{cls.section}] ok_when = {values['ok_when']} cannot be used: write field=value, without quotes "
                    "(field=* for any value), with commas between several"
                )
        if unknown := [word for word in split_words(values["end_when"]) if word not in ENDS]:
            raise ConfigError(
                f"[{cls.section}] end_when = {values['end_when']}: '{unknown[0]}' is not known; use {', '.join(ENDS)}"
            )

    @classmethod
    def _is_set(cls, name: str) -> bool:
        """Whether a flag or luigi.cfg gives a key its value."""
        parser = CmdlineParser.get_instance()
        flag = getattr(parser.known_args, f"{cls.section}_{name}", None) if parser else None
        return flag is not None or any(
            get_config().has_option(cls.section, key) for key in (name, name.replace("_", "-"))
        )

    def window(self, date: dt.date) -> Window:
        """The day `date` in `timezone`: from its midnight to the next day's, in UTC."""
        zone = self._zone()
        start, stop = (
            dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC) for day in (date, date + dt.timedelta(days=1))
        )
        return Window(start, stop)

    def localize(self, moment: dt.datetime) -> dt.datetime:
        """Return the same moment on the clock of `timezone`."""
        return moment.astimezone(self._zone())

    def last_closed_day(self, now: dt.datetime) -> dt.date:
        """The newest day that may be extracted at `now`: today in snapshot mode, else the last one over and settled."""
        if self.mode == SNAPSHOT:
            return now.astimezone(self._zone()).date()
        return (now - self.settle).astimezone(self._zone()).date() - dt.timedelta(days=1)

    def is_past(self, date: dt.date, now: dt.datetime) -> bool:
        """Return whether a snapshot can no longer stand for `date`: the day after it is over, too."""
        return self.mode == SNAPSHOT and date < self.last_closed_day(now) - dt.timedelta(days=1)

    def describe_past(self, now: dt.datetime) -> str:
        """Say why a range refuses its past days, and which day to ask for."""
        return (
            "a snapshot shows everybody as of now, so nobody can read past days any more. "
            f"Ask for {self.last_closed_day(now)}"
        )

    def check_closed(self, date: dt.date, now: dt.datetime) -> None:
        """Raise DayNotClosedError where `date` may not be extracted yet at `now`."""
        if date > self.last_closed_day(now):
            opens = self.window(date).start if self.mode == SNAPSHOT else self.window(date).stop + self.settle
            raise DayNotClosedError(
                f"{self.section} {date}: the day can be extracted from {opens:%Y-%m-%dT%H:%M:%SZ} on "
                f"(mode {self.mode}, timezone {self.timezone}, settle {self.settle}); "
                f"the newest day that can be is {self.last_closed_day(now)}"
            )

    @property
    def ends(self) -> frozenset[str]:
        """The words of `end_when`."""
        return frozenset(split_words(self.end_when))

    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)
