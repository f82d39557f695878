"""Collect what `doctor` learns about a source."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from wholeday.config.writer import write_section


class Finding(NamedTuple):
    """A property of the source, its value, and the evidence."""

    what: str
    found: str
    evidence: str = ""


@dataclass
class Diagnosis:
    """The known properties of a source, the doubts, and the keys of its section as texts for luigi.cfg.

    `mask` removes secrets from a text.
    """

    name: str
    mask: Callable[[str], str]
    findings: list[Finding] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    requests: int = 0

    @property
    def section(self) -> str:
        """The section to paste into luigi.cfg."""
        return write_section(self.name, self.keys)

    def add(self, what: str, found: str, evidence: str = "") -> None:
        self.findings.append(Finding(what, found, self.mask(evidence)))

    def doubt(self, text: str) -> None:
        """Add a doubt, once."""
        text = self.mask(text)
        if text not in self.unsure:
            self.unsure.append(text)
