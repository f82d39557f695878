"""Add the section of a dataset to luigi.cfg.

Responsibilities: comments and other sections do not change by a byte.
"""

from configparser import RawConfigParser
from pathlib import Path

from luigi.configuration import get_config

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


def reload() -> None:
    """Let Luigi read luigi.cfg again."""
    get_config().reload()
