"""Record classes for endpoints of real APIs, each with a small invented page and the rows that it becomes.

The vendors document these fields; nothing is copied.
"""

from dataclasses import dataclass, field
from typing import Any

from wholeday import Record
from wholeday.schema.conversion import Clean


@dataclass(frozen=True)
class Api:
    """An endpoint: its record class, its page, and what the warehouse has after a load of it."""

    record_class: type[Record]
    page: Any
    """The body of the answer."""
    tables: dict[str, list[tuple[Any, ...]]]
    """By query, whose `things` is the table: the rows."""
    rejects: list[tuple[str, str]]
    """Field and reason of each record that is rejected."""
    selector: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    """Further keys of the section."""
    clean: "Clean | None" = None
