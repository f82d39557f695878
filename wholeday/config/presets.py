"""Read presets: the keys of well-known APIs, from presets.ini, which has the form of luigi.cfg."""

import functools
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path


def names() -> list[str]:
    """List the names of the presets, in the order of the file."""
    return list(_read())


def get_keys(name: str) -> Mapping[str, str]:
    """Return the keys of a preset, each with its text as luigi.cfg would hold it."""
    return _read()[name]


@functools.cache
def _read() -> dict[str, dict[str, str]]:
    parser = RawConfigParser()
    parser.read_string(Path(__file__).with_name("presets.ini").read_text())
    return {name: dict(parser[name]) for name in parser.sections()}
