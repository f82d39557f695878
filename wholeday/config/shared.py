"""Read a section `[source.NAME]` of luigi.cfg: what the datasets of one API share.

Responsibilities: which keys may be shared, how they combine with those of a dataset, and the URL of a path.
"""

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from luigi.configuration import get_config

from wholeday.config.section import Params, double_percents, explain_value, list_keys, suggest_key
from wholeday.errors import ConfigError

# Keys that say what the records of one dataset are, and how many. An API does not decide them.
OWN = frozenset(
    {
        *("source", "mode", "body", "deleted_when", "split", "parents", "missing_parent", "accept"),
        *("min_records", "max_drop_ratio", "max_delete_ratio", "max_reject_ratio"),
    }
)
PREFIX = "source."


def read_shared(dataset: str, name: str, params: Params) -> dict[str, Any]:
    """Return the values of the keys in `[source.NAME]`, which a dataset names. Keys of `[DEFAULT]` are left out.

    Raises ConfigError for an unknown source, an unusable key or value, and a base URL that no path can follow.
    """
    section, known = f"{PREFIX}{name}", dict(params)
    if not get_config().has_section(section):
        raise ConfigError(
            f"[{dataset}] source = {name}: luigi.cfg has no section [{section}]{_suggest_section(section)}"
        )
    double_percents(section)
    values = {}
    for key in list_keys(section):
        word = key.replace("-", "_")
        if word in OWN:
            raise ConfigError(f"luigi.cfg: [{section}] {word} belongs to one dataset: move it to the dataset's section")
        if word not in known:
            raise ConfigError(f"luigi.cfg: [{section}] has no key '{key}'{suggest_key(key, known.keys() - OWN)}")
        with explain_value(section, word, get_config().get(section, key, raw=True)):
            values[word] = known[word].normalize(known[word].parse(get_config().get(section, key)))
    for key in ("params", "headers"):
        if not isinstance(values.get(key, {}), Mapping):
            raise ConfigError(f'[{section}] {key} must be a JSON object, such as {{"name": "value"}}')
    _check_base(section, values.get("url", ""))
    return values


def merge(key: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Combine the shared `params` or `headers` with those of a dataset, which win. Case does not matter in headers."""
    taken = {name.lower() for name in own} if key == "headers" else set(own)
    return {
        **{name: value for name, value in shared.items() if (name.lower() if key == "headers" else name) not in taken},
        **own,
    }


def is_path(url: str) -> bool:
    """Return whether a `url` is a path that follows the base URL of a source."""
    return url.startswith("/")


def join(dataset: str, base: str, url: str) -> str:
    """Return the URL of a dataset: its path behind the base URL, or its own URL. Raises ConfigError."""
    if "://" in url.partition("?")[0] and not is_path(url):
        return url
    path = url.partition("?")[0].partition("#")[0]
    problem = ""
    if not is_path(url):
        problem = "is neither a path that begins with / nor a whole URL"
    elif url.startswith("//"):
        problem = "begins with //, which would name another host: write one /, or the whole URL"
    elif {".", ".."} & {unquote(part) for part in path.split("/")}:
        problem = "has a part . or .. in its path: write the path without"
    if problem:
        raise ConfigError(f"[{dataset}] url {problem}")
    return base.rstrip("/") + url


def _check_base(section: str, base: str) -> None:
    problem = ""
    if not base:
        problem = "is missing: set it to the part of the URL that all datasets of the API share"
    elif "://" not in base:
        problem = "has no scheme: write https://… in full"
    elif "?" in base or "#" in base:
        problem = "has a query or a fragment: write params instead (in a user or password, write ? # as %3F %23)"
    if problem:
        raise ConfigError(f"luigi.cfg: [{section}] url {problem}")


def _suggest_section(section: str) -> str:
    """Name a section that may be meant."""
    names = {name.lower(): name for name in get_config().sections()}
    near = difflib.get_close_matches(section.lower(), names, n=1, cutoff=0.8)
    return f"; it has [{names[near[0]]}]: correct one of the names" if near else ": add it, with the url of the API"
