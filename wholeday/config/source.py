"""Declare the section of a dataset: how to read its API.

Responsibilities: the keys, the defaults of a preset, and errors for values that make no sense.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import luigi
from luigi.configuration import get_config
from luigi.parameter import MissingParameterException

from wholeday.config.days import Days
from wholeday.config.parameters import Duration, bounded, split_words
from wholeday.config.presets import PRESETS
from wholeday.config.section import Params, list_keys, read_flags
from wholeday.config.shared import PREFIX, is_path, join, merge, read_shared
from wholeday.errors import ConfigError
from wholeday.redaction import find_secrets

PAGINATORS = ["auto", "single", "link_header", "next_url", "cursor", "page", "offset", "last_id"]
ENDS = ("204", "404", "400", "missing_list", "same_cursor", "repeated_page")  # the words of end_when
EMPTY: dict[str, Any] = {}


class Source(Days):
    """The section of a dataset. `make_section` derives a class for each dataset.

    `url` has no default: without its section, a dataset must not silently load another source.
    """

    url = luigi.Parameter(description="URL of the first page; may hold {date} {day_start} {day_stop} {watermark}")
    source = luigi.Parameter(
        default="", description="NAME of a section [source.NAME] with keys that datasets share; url may be a path then"
    )
    preset = luigi.ChoiceParameter(
        choices=["", *PRESETS], default="", description="known API, whose keys replace the defaults"
    )
    method = luigi.ChoiceParameter(choices=["GET", "POST"], default="GET", description="HTTP method of a request")
    params = luigi.DictParameter(
        default=EMPTY, description="query parameters, a JSON object; may hold placeholders as url does"
    )
    body = luigi.DictParameter(
        default=EMPTY, description="body of a POST, a JSON object or list; may hold placeholders as url does"
    )
    headers = luigi.DictParameter(
        default=EMPTY, description="request headers, a JSON object; may hold placeholders as url does"
    )
    auth = luigi.Parameter(
        default="none",
        description="none, bearer:ENV, basic:USER_ENV:PASSWORD_ENV, header:NAME:ENV, query:NAME:ENV, "
        "oauth2:TOKEN_URL:ID_ENV:SECRET_ENV or oauth2_refresh:TOKEN_URL:ID_ENV:SECRET_ENV:REFRESH_ENV; ENV is the name "
        "of an environment variable",
    )
    token_file = luigi.Parameter(
        default="", description="file for the newest refresh token, if the token endpoint replaces it with each use"
    )
    data_selector = luigi.Parameter(
        default="auto",
        description="dotted path of the list of records; path.*: the members of an object; @: the object itself",
    )
    paginator = luigi.ChoiceParameter(
        choices=PAGINATORS, default="auto", description="how to find the next page; auto: detected on the first page"
    )
    next_link = luigi.ChoiceParameter(
        choices=["whole", "path"],
        default="whole",
        description="use the whole link to the next page, or only its path and query at the origin of url",
    )
    cursor_path = luigi.Parameter(default="", description="field or header with the cursor or link to the next page")
    cursor_param = luigi.Parameter(
        default="", description="parameter that sends the cursor; a dotted path with cursor_in = body"
    )
    cursor_in = luigi.ChoiceParameter(
        choices=["query", "body", "header"], default="query", description="where to send cursor, page, offset and size"
    )
    page_param = luigi.Parameter(default="page", description="parameter for the page number")
    page_start = luigi.OptionalIntParameter(
        default=None, description="number of the first page (default: 1), or of the first record for offset (0)"
    )
    offset_param = luigi.Parameter(default="offset", description="parameter for the number of records to skip")
    size_param = luigi.Parameter(default="", description="parameter for the page size")
    page_size = bounded(int, 0, 10**9, default=0, description="records to request per page; 0: the source decides")
    keep_params = luigi.BoolParameter(
        default=True,
        parsing=luigi.BoolParameter.EXPLICIT_PARSING,
        description="whether requests for later pages repeat params",
    )
    more_path = luigi.Parameter(
        default="", description="field or header that says whether more pages follow; !field negates it"
    )
    total_path = luigi.Parameter(
        default="", description="field with the total number of records; pages:field: the number of pages"
    )
    total_header = luigi.Parameter(
        default="", description="header with the total number of records; pages:header: the number of pages"
    )
    error_path = luigi.Parameter(
        default="", description="field, or field=value, that makes an answer with status 200 a failure"
    )
    ok_when = luigi.Parameter(
        default="", description="field=value, comma-separated: values that look like a failure and are not"
    )
    end_when = luigi.Parameter(
        default="", description=f"answers that mean no more records, comma-separated: {', '.join(ENDS)}"
    )
    deleted_when = luigi.Parameter(default="", description="field, or field=value, that marks a record as deleted")
    lenient = luigi.BoolParameter(
        default=False,
        parsing=luigi.BoolParameter.EXPLICIT_PARSING,
        description='accept "12" for 12, 12.0 for 12, "true" for true, and "" for null',
    )
    ceiling = bounded(
        int, 0, 10**12, default=0, description="number of records after which the source stops silently; 0: none"
    )
    concurrency = bounded(int, 1, 64, default=4, description="most requests at a time; fewer while the source refuses")
    split = bounded(int, 1, 1440, default=1, description="windows of a day that are read side by side")
    parents = luigi.ChoiceParameter(
        choices=["all", "changed"],
        default="all",
        description="with {DATASET.column}: ask each row of the dataset, or those that changed in the day",
    )
    missing_parent = luigi.ChoiceParameter(
        choices=["fail", "skip"],
        default="fail",
        description="with {DATASET.column}: what a 404 for the first page of a parent means to the day",
    )
    requests_per_second = bounded(float, 0, 10**6, default=0.0, description="limit of requests; 0: no limit")
    timeout = bounded(float, 0.001, 1800, default=30.0, description="seconds without a byte before a request fails")
    retries = bounded(int, 0, 1000, default=5, description="how often to repeat a request that may succeed later")
    max_wait = Duration(default=dt.timedelta(minutes=10), description="longest wait that a source may ask for")
    lookback = Duration(
        default=dt.timedelta(0), description="how much earlier than the day to start, to catch late updates"
    )
    max_reject_ratio = bounded(float, 0, 1, default=0.05, description="a larger share of rejects fails the day")
    min_records = luigi.OptionalIntParameter(
        default=None, description="fewer records fail the day (default: 1 for snapshots, else 0)"
    )
    max_drop_ratio = bounded(
        float, 0, 1, default=0.3, description="a larger drop below the median of the seven days before fails the day"
    )
    max_delete_ratio = bounded(
        float, 0, 1, default=0.3, description="deleting a larger share of the known users fails the day"
    )
    accept = luigi.BoolParameter(
        default=False, description="let this run through the quality gates; recorded with the day"
    )

    @property
    def ends(self) -> frozenset[str]:
        """The words of `end_when`."""
        return frozenset(split_words(self.end_when))

    @property
    def secrets(self) -> list[str]:
        """The values under secret-looking names in `url`, `params`, `body` and `headers`."""
        return list(find_secrets(self.url, [self.params, self.body], self.headers))

    @classmethod
    def _read_values(cls, params: Params, args: Any, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return the values of all keys. The keys of `[source.NAME]` and of a preset replace the defaults."""
        if get_config().has_option(cls.section, "accept"):
            raise ConfigError(
                f"luigi.cfg: [{cls.section}] accept would open the quality gates for good: give it as a flag"
            )
        try:
            values = dict(super()._read_values(params, args, kwargs))
        except MissingParameterException as error:
            raise cls._explain_missing_url() from error
        if not values["url"].strip():
            raise cls._explain_missing_url()
        shared = cls._share(values, params, kwargs)
        known = dict(params)
        for name, text in PRESETS.get(values["preset"], {}).items():
            if name not in kwargs and name not in shared and not cls._is_set(name):
                values[name] = known[name].normalize(known[name].parse(text))
        cls._check_json(values)
        cls._check_timezone(values["timezone"])
        cls._check_rules(values)
        return list(values.items())

    @classmethod
    def _share(cls, values: dict[str, Any], params: Params, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Put the values of `[source.NAME]` into `values`, where the dataset has none of its own. Return them."""
        if not values["source"]:
            if is_path(values["url"]):
                raise ConfigError(
                    f"[{cls.section}] url is a path, which needs a source: set source to the NAME of a section "
                    "[source.NAME], or write the whole URL"
                )
            return {}
        shared, known = read_shared(cls.section, values["source"], params), dict(params)
        values["url"] = join(cls.section, shared["url"], values["url"])
        for name in shared.keys() - {"url"}:
            if name not in kwargs and not cls._is_own(name):
                values[name] = shared[name]
            elif name in ("params", "headers") and isinstance(values[name], Mapping):
                values[name] = known[name].normalize(merge(name, shared[name], values[name]))
        return shared

    @classmethod
    def _is_own(cls, name: str) -> bool:
        """Return whether a flag or the section itself sets a key, not only `[DEFAULT]`."""
        keys = {key.replace("-", "_") for key in list_keys(cls.section)}
        return name in keys or read_flags().get(f"{cls.section}_{name}") is not None

    @classmethod
    def _list_sections(cls) -> list[str]:
        flag = read_flags().get(f"{cls.section}_source")
        return [cls.section, PREFIX + (flag or get_config().get(cls.section, "source", "", raw=True))]

    @property
    def base(self) -> str:
        """The base URL of `source`; nothing without a source."""
        return str(read_shared(self.section, self.source, self.get_params())["url"]) if self.source else ""

    @property
    def inherited(self) -> dict[str, Any]:
        """The values of `[source.NAME]` and of the preset, which stand for the defaults."""
        params = self.get_params()
        known = dict(params)
        preset = {
            name: known[name].normalize(known[name].parse(text)) for name, text in PRESETS.get(self.preset, {}).items()
        }
        return preset | (read_shared(self.section, self.source, params) if self.source else {})

    @classmethod
    def has_url(cls) -> bool:
        """Return whether a flag or luigi.cfg names a source. Without one, a run must write nothing at all."""
        flag = read_flags().get(f"{cls.section}_url")
        return bool((flag or get_config().get(cls.section, "url", "", raw=True)).strip())

    @classmethod
    def _explain_missing_url(cls) -> ConfigError:
        """Say where Luigi looked for `url`: only luigi.cfg in the current folder."""
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
    def _check_json(cls, values: dict[str, Any]) -> None:
        for name in ("params", "body", "headers"):
            if not isinstance(values[name], (Mapping, tuple) if name == "body" else Mapping):
                kind = "object or list" if name == "body" else "object"
                raise ConfigError(f'[{cls.section}] {name} must be a JSON {kind}, such as {{"name": "value"}}')
        if values["cursor_in"] == "body" and isinstance(values["body"], tuple):
            raise ConfigError(f"[{cls.section}] cursor_in = body needs a JSON object as body, not a list")

    @classmethod
    def _check_timezone(cls, zone: str) -> None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"[{cls.section}] timezone = {zone!r} is not a time zone: use a name such as Europe/Berlin"
            ) from error

    @classmethod
    def _check_rules(cls, values: dict[str, Any]) -> None:
        """Check the keys that hold `field=value` rules or words."""
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
                    "(field=* for any value), and separate several with commas"
                )
        if unknown := [word for word in split_words(values["end_when"]) if word not in ENDS]:
            raise ConfigError(
                f"[{cls.section}] end_when = {values['end_when']}: unknown word '{unknown[0]}': use {', '.join(ENDS)}"
            )


_sections: dict[str, type[Source]] = {}


def make_section(name: str) -> type[Source]:
    """Return the class of a dataset's section. From now on its keys are flags of Luigi's command line."""
    if name not in _sections:
        _sections[name] = type(name, (Source,), {"section": name, "__doc__": f"Section `[{name}]` of luigi.cfg."})
    return _sections[name]


def list_sections() -> list[str]:
    """List the names of all datasets that this process has defined."""
    return list(_sections)
