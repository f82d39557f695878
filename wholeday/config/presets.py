"""APIs whose keys are known by name: the sections of presets.ini, in the form of luigi.cfg."""

import functools
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path


def names() -> list[str]:
    """The names of the presets, as they stand in the file."""
    return list(_read())


def find_keys(name: str) -> Mapping[str, str]:
    """The keys of a preset, each as the text that luigi.cfg would hold."""
    return _read()[name]


@functools.cache
def _read() -> dict[str, dict[str, str]]:
    parser = RawConfigParser()
    parser.read_string(Path(__file__).with_name("presets.ini").read_text())
    return {name: dict(parser[name]) for name in parser.sections()}
