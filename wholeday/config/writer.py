"""Write sections of luigi.cfg.

Responsibilities: a value that is read back is the value that was meant, whoever chose it. The name of a field, or
whatever else a source chooses, adds no key, no variable of the environment and no reference to another key.
Non-goals: reading, which config.py does.
"""

from collections.abc import Mapping

from luigi.configuration.cfg_parser import LuigiConfigParser


def write_section(name: str, values: Mapping[str, str]) -> str:
    """Return the section. Raises ValueError, which says why, for a value that luigi.cfg cannot hold."""
    return "\n".join([f"[{name}]", *(f"{key} = {write_value(text)}" for key, text in values.items())])


def write_value(text: str) -> str:
    """Return a value as luigi.cfg holds it. Raises ValueError, which says why, where luigi.cfg cannot hold it."""
    if not text.isprintable():
        raise ValueError("it holds a line break or another character that does not print")
    if "${" in text:
        raise ValueError("luigi.cfg would replace ${…} by an environment variable")
    written = text.replace("%", "%%")
    if _read(written) != text:
        raise ValueError("it begins or ends with a space")
    return written


def escape_json(text: str) -> str:
    """Return the same JSON without `${`, which luigi.cfg would replace."""
    return text.replace("${", r"\u0024{")


def _read(written: str) -> str:
    parser = LuigiConfigParser()
    parser.read_string(f"[section]\nkey = {written}\n")
    return str(parser.get("section", "key"))
