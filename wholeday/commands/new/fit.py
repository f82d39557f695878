"""Fit a proposed class to records: what the transform rejects widens the class until nothing is rejected.

Responsibilities: the loop, and the sample that grows with the records of a day. Values have the last word.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from wholeday.commands.new.classes import build_dataset
from wholeday.commands.new.infer import Rules, Sample, infer
from wholeday.commands.new.model import Field, Model, Path, Proposal, Type
from wholeday.commands.new.observe import TEXT, Seen, load_all
from wholeday.commands.new.types import JSON, STR
from wholeday.schema.conversion import Conversion
from wholeday.schema.reject import Reject


@dataclass
class Fitting:
    """A sample, and the class that holds all of its records."""

    rules: Rules
    timezone: str = "UTC"
    sample: Sample = field(default_factory=Sample)
    hopeless: Counter[str] = field(default_factory=Counter)
    """The records that no class holds, by the reason."""
    _key: tuple[str, list[str]] = ("", [])
    """The evidence of the key, and the doubts about it."""

    def start(self, lines: Sequence[bytes]) -> Proposal:
        """Add records, and return the class that holds them. Raises NoKeyError."""
        self.sample.add(load_all(lines))
        first = infer(self.sample, self.rules)
        # What identifies a record does not change with further records.
        self.rules = replace(self.rules, key=tuple(column.path for column in first.model.key))
        self._key = first.key_evidence, first.key_doubts
        return self._settle(lines)

    def extend(self, proposal: Proposal, lines: Sequence[bytes], *, has_new_fields: bool = False) -> Proposal:
        """Return a class that holds these records too: `proposal` itself if it does, and names all of their fields."""
        rejects = self.reject(proposal, lines)
        if not rejects and not has_new_fields:
            return proposal
        for record in load_all(lines if has_new_fields else (reject.record.encode() for reject in rejects)):
            self.sample.seen.add(record)
        return self._settle(lines)

    def _settle(self, lines: Sequence[bytes]) -> Proposal:
        """Infer the class, and widen the columns that reject records."""
        while True:
            proposal = infer(self.sample, self.rules)
            proposal.key_evidence, proposal.key_doubts = self._key
            rejects = self.reject(proposal, lines)
            if not rejects or not self._pin(proposal, rejects):
                self.hopeless.update(reject.describe() for reject in rejects)
                return proposal

    def reject(self, proposal: Proposal, lines: Sequence[bytes]) -> list[Reject]:
        """Return the records that the class rejects."""
        from wholeday.transform.rows import transform

        dataset = build_dataset(self.rules.dataset, proposal)
        conversion = Conversion(dataset.record_class, dataset.clean, timezone=self.timezone, lenient=proposal.lenient)
        return transform(lines, conversion).rejects

    def _pin(self, proposal: Proposal, rejects: Iterable[Reject]) -> bool:
        """Widen the columns that rejected records, each to text or to JSON. Return whether one could be widened."""
        pinned = dict(self.rules.pinned)
        for name in {reject.field for reject in rejects if reject.field}:
            for column, path in _walk(proposal.model):
                wider = _widen(column, find_seen(self.sample.seen, path))
                is_fixed = column.is_key or column.name == "updated_at"
                if ".".join(path) == name and not is_fixed and wider != column.type:
                    pinned[path] = wider
        is_wider = pinned != self.rules.pinned
        self.rules = replace(self.rules, pinned=pinned)
        return is_wider


def find_seen(seen: Seen, path: Path) -> Seen | None:
    """Return what was seen at a path, which may lead through lists of records."""
    place: Seen | None = seen
    for name in path:
        if place is not None and not place.objects and place.items is not None:
            place = place.items
        place = place.fields.get(name) if place is not None else None
    return place


def _walk(model: Model, within: Path = ()) -> Iterable[tuple[Field, Path]]:
    """Yield the columns of a class and of the classes of its lists, with their paths in a record."""
    for column in model.fields:
        yield column, (*within, *column.path)
        if column.children:
            yield from _walk(column.children, (*within, *column.path))


def _widen(column: Field, seen: Seen | None) -> Type:
    is_text = seen is not None and set(seen.kinds) == {TEXT}
    return STR if is_text and column.type not in (STR, JSON) else JSON
