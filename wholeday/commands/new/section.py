"""Add the section of a dataset to luigi.cfg, and read its keys.

Responsibilities: comments and other sections stay as they are, byte for byte.
"""

from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from luigi.configuration import get_config

from wholeday.config.section import MAY_BE_SECRET
from wholeday.config.source import Source
from wholeday.errors import ConfigError

FILE = Path("luigi.cfg")


def add_section(text: str, section: str) -> str:
    """Return the text of luigi.cfg with a further section at its end."""
    return f"{text.rstrip()}\n\n{section}\n" if text.strip() else f"{section}\n"


def add_key(section: str, line: str) -> str:
    """Return the text of a section with a further key, before its comments."""
    keys, mark, comments = section.partition("\n# ")
    return f"{keys}\n{line}{mark}{comments}"


def has_section(name: str) -> bool:
    """Return whether luigi.cfg has a section."""
    parser = RawConfigParser()
    parser.read(FILE, encoding="utf-8")
    return parser.has_section(name)


def parse_keys(section: type[Source], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of keys that are given as texts. Raises ConfigError for a text that a key cannot have."""
    params = dict(section.get_params())
    values = {}
    for name, text in keys.items():
        try:
            values[name] = params[name].normalize(params[name].parse(text))
        except ConfigError:
            raise
        except Exception as error:  # parameters raise errors of any class for a bad value
            shown = "" if name in MAY_BE_SECRET else f" = {text!r}"
            raise ConfigError(f"[{section.section}] {name}{shown} cannot be used: {error}") from error
    return values


def reload() -> None:
    """Let Luigi read luigi.cfg again."""
    get_config().reload()
