"""Read and write the section of luigi.cfg that `doctor` examines and suggests."""

import re
from collections.abc import Mapping
from typing import Any

from wholeday.config.presets import ADDRESSES, PRESETS
from wholeday.config.source import Source
from wholeday.config.writer import escape_json

PACE = {"requests_per_second", "max_wait"}  # keys that a person may combine with any preset


def copy_section(config: Source, **changes: Any) -> Source:
    """Return the section with other keys. A key of a new preset replaces a default."""
    return type(config)(**{**list_set_keys(config), **changes})


def list_set_keys(config: Source) -> dict[str, Any]:
    """Return the keys with values that are neither defaults nor values of the preset or of `source`."""
    known = config.inherited
    values = {name: getattr(config, name) for name, _ in config.get_params()}
    defaults = {name: param._default for name, param in config.get_params()} | known
    return {name: value for name, value in values.items() if name == "url" or value != defaults[name]}


def serialize(param: Any, value: Any) -> str:
    """Return the value of a Luigi parameter as text for luigi.cfg."""
    text: str = param.serialize(value)
    return escape_json(text) if isinstance(value, (Mapping, tuple)) else text


def find_preset_by_url(url: str) -> str:
    """Return the preset whose address matches a URL, or nothing."""
    return next((name for name, address in ADDRESSES.items() if re.search(address, url)), "")


def list_clashes(config: Source, preset: str) -> list[str]:
    """List the keys that both the section and the preset set, except the keys of the pace."""
    return sorted(PRESETS[preset].keys() & list_set_keys(config).keys() - PACE)
