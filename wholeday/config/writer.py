"""Write sections of luigi.cfg.

Responsibilities: reading a written section returns the same values. A text from a source, such as the name of a field,
never adds a key, an environment variable or a reference to another key.
Non-goals: reading, which section.py does.
"""

from collections.abc import Mapping

from luigi.configuration.cfg_parser import LuigiConfigParser


def write_section(name: str, values: Mapping[str, str]) -> str:
    """Return the text of a section. Raises ValueError, with the reason, for a value that luigi.cfg cannot hold."""
    return "\n".join([f"[{name}]", *(f"{key} = {write_value(text)}" for key, text in values.items())])


def write_value(text: str) -> str:
    """Return a value as luigi.cfg writes it. Raises ValueError, with the reason, if luigi.cfg cannot hold it."""
    if not text.isprintable():
        raise ValueError("it holds a line break or another unprintable character")
    if "${" in text:
        raise ValueError("luigi.cfg would replace ${…} by an environment variable")
    written, parser = text.replace("%", "%%"), LuigiConfigParser()
    parser.read_string(f"[section]\nkey = {written}\n")
    if parser.get("section", "key") != text:
        raise ValueError("it begins or ends with a space")
    return written


def escape_json(text: str) -> str:
    """Escape `${` in JSON, which luigi.cfg would replace."""
    return text.replace("${", r"\u0024{")
