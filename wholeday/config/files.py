"""Check that the configuration files can be read, before Luigi is imported.

Luigi reads them while it is imported. It ends in a traceback if a file cannot be parsed, and ignores a file that is
missing. `python -m wholeday.config.files` checks them for Luigi's own command.
"""

import configparser
import os
import sys
from pathlib import Path

from wholeday.errors import ConfigError
from wholeday.text import clean_line


class ConfigFileError(ConfigError):
    """A configuration file that is missing or cannot be read."""


def check_files() -> None:
    """Check luigi.cfg and the file that LUIGI_CONFIG_PATH names. Raises ConfigFileError if one cannot be used."""
    named = os.environ.get("LUIGI_CONFIG_PATH")
    if named and not Path(named).is_file():
        what = "which is not a file" if Path(named).exists() else "which is not there"
        raise ConfigFileError(f"LUIGI_CONFIG_PATH names {named}, {what}")
    for file in filter(None, ("luigi.cfg", named)):
        try:
            configparser.RawConfigParser().read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigFileError(
                f"{file} cannot be read: {clean_line(str(error))}. Each line belongs to a [section], each section and "
                "key stands once, and further lines of a value are indented"
            ) from error


if __name__ == "__main__":
    try:
        check_files()
    except ConfigFileError as error:
        sys.exit(f"ERROR: {error}")
