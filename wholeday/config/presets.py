"""Read presets: the keys of well-known APIs, from presets.ini, which has the form of luigi.cfg."""

from configparser import RawConfigParser
from pathlib import Path

_parser = RawConfigParser()
_parser.read_string(Path(__file__).with_name("presets.ini").read_text())

ADDRESSES = {name: _parser[name].pop("address") for name in _parser.sections()}
"""A pattern for the URL of each API with a preset."""
TELLTALES = {name: _parser[name].pop("telltale") for name in _parser.sections() if "telltale" in _parser[name]}
"""A field of the pages of some of these APIs."""
PRESETS = {name: dict(_parser[name]) for name in _parser.sections()}
"""The keys of each preset, each with its text as luigi.cfg would hold it."""
