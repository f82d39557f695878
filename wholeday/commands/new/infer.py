"""Infer a record class from the records of a source.

Responsibilities: which fields become columns, child tables or JSON, the key, and the time of the last change.
Non-goals: the type of a value (`types`), names (`names`), and the text of the class (`module`).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wholeday.commands.new.keys import KEY_TYPES, Key, find_child_key, find_key, get
from wholeday.commands.new.model import Field, Model, Path, Proposal, Type, write_path
from wholeday.commands.new.names import name_class, name_column, to_singular, to_snake
from wholeday.commands.new.objects import find_wrapped, get_items, is_empty, is_map, is_reachable, list_empty
from wholeday.commands.new.observe import EMPTY, INTEGER, LINK, LIST, LOCAL, OBJECT, TEXT, Seen
from wholeday.commands.new.personal import VALUES, find_personal
from wholeday.commands.new.types import JSON, STR, decide_type, find_format, is_nearly_time
from wholeday.extract.vocabulary import UPDATED
from wholeday.schema.tables import RESERVED_CHILD_COLUMNS, RESERVED_COLUMNS

MOST_COLUMNS = 26  # of the class of a dataset, so that it fits a screen
MOST_LEVELS = 2  # of child tables
TIMES = ("datetime", "Epoch", "EpochMillis")
CONTRADICTED = {  # types of a document, with the narrower types that it allows too
    "int": ("Epoch", "EpochMillis"),
    "float": ("Decimal",),
    "bool": (),
    "datetime": (),
    "date": (),
    "UUID": (),
}
NOWHERE = ("no_time_of_change",)  # a path that no record has


@dataclass(frozen=True)
class Hint:
    """What an OpenAPI document says about a place in the records."""

    type: str = ""
    """The type of a column: `int`, `datetime`, `Json`, …; empty if the document does not say."""
    is_required: bool = False


@dataclass
class Sample:
    """The records seen so far."""

    seen: Seen = field(default_factory=Seen)
    """The observations at each place, also of records that are not kept."""
    records: list[Any] = field(default_factory=list)
    """The records that are kept, for the search of the key."""

    def add(self, records: Iterable[Any]) -> None:
        """Add decoded records, and keep them."""
        for record in records:
            self.seen.add(record)
            self.records.append(record)


@dataclass(frozen=True)
class Rules:
    """What decides on a class, in addition to the records."""

    dataset: str
    most_digits: int = 15
    """The digits of a Decimal in the database."""
    hints: Mapping[Path, Hint] = field(default_factory=dict)
    pinned: Mapping[Path, Type] = field(default_factory=dict)
    """Types by path, if the records showed that no narrower one holds."""
    key: tuple[Path, ...] = ()
    """The key, if it is known already."""
    most_columns: int = MOST_COLUMNS
    may_be_lenient: bool = True
    """Whether the section has, or may get, `lenient = true`."""
    classes: tuple[str, ...] = ()
    """Names that no class of a list may have."""


def infer(sample: Sample, rules: Rules) -> Proposal:
    """Propose the record class for a sample. Raises NoKeyError."""
    return _Inference(sample, rules).run()


@dataclass(frozen=True)
class _Table:
    """The table that columns are made for: of the dataset, or of a list."""

    names: tuple[str, ...]
    """The dataset, and the lists on the way."""
    path: Path = ()
    """The path of the list."""

    @property
    def level(self) -> int:
        return len(self.names) - 1

    @property
    def owner(self) -> str:
        return to_singular(self.names[-1])


class _Inference:
    def __init__(self, sample: Sample, rules: Rules) -> None:
        self._sample, self._rules = sample, rules
        self._total = sample.seen.objects
        self._root = _Table((rules.dataset,))
        self._proposal = Proposal(Model(name_class(rules.dataset), []), self._total)
        self._classes = [self._proposal.model.class_name, *rules.classes]

    def run(self) -> Proposal:
        proposal, leaves = self._proposal, dict(self._list_leaves(self._sample.seen))
        empty = list_empty(self._sample.seen)
        proposal.empty = [write_path(path) for path in empty if not self._is_declared(path)]
        found = Key([path for path in self._rules.key if path in leaves])
        if not found.places:
            found = find_key(leaves, self._sample.records, self._total, self._rules.dataset)
        key, proposal.key_evidence, proposal.key_doubts = found.places, found.evidence, found.doubts
        changed = self._find_changed({path: seen for path, seen in leaves.items() if path not in key})
        kept = {*key, changed} if changed else {*key}
        dropped = self._shorten(leaves, kept)
        taken = ["updated_at", "others"]
        for path in [*key, *(path for path in leaves if path not in {*kept, *dropped})]:
            column = self._make_field(self._root, path, leaves[path], self._total, taken, is_key=path in key)
            proposal.model.fields.append(column)
        self._add_changed(changed, leaves)
        if dropped or self._has_unreachable():
            proposal.rest = [write_path(path) for path in dropped]
            proposal.model.fields.insert(-1, Field("others", (), JSON, True))
        proposal.doubts += self._list_doubts(leaves)
        proposal.local = [write_path(path) for path, seen in leaves.items() if seen.forms[LOCAL]]
        proposal.lenient = any(column.type.is_lenient for model in proposal.model.walk() for column in model.fields)
        proposal.personal = find_personal(proposal.model, self._sample.seen)
        return proposal

    def _list_doubts(self, leaves: Mapping[Path, Seen]) -> Iterator[str]:
        """Yield what a person should look at in the values."""
        for path, seen in leaves.items():
            shown = write_path(path)
            type_ = next((each.type for each in self._proposal.model.fields if each.path == path), None)
            if type_ == JSON and len(seen.kinds) > 1:
                yield f"{shown} holds values of several types ({', '.join(sorted(seen.kinds))}), so its column is Json"
            if type_ == STR and find_format(seen) and not self._proposal.time_text:
                yield f"{shown} holds times in another form than RFC 3339, so its column is text: convert it in clean"
            is_time = bool(re.fullmatch(r"(updated|modified|changed)_at", to_snake(path[-1])))
            if is_time and type_ == STR and not find_format(seen):
                yield f"{shown} holds texts that are no times, so no column has the time of the last change"

    # Which places are columns.

    def _list_leaves(self, node: Seen, within: Path = (), path: Path = ()) -> Iterator[tuple[Path, Seen]]:
        """Yield the places of the columns: scalars, lists, and objects that are not split into columns.

        `within` is the path of the list whose items are looked at.
        """
        for name, seen in node.fields.items():
            place = (*path, name)
            full = (*within, *place)
            if not is_reachable(name, path) or (is_empty(seen) and not self._is_declared(full)):
                continue  # an object with an unreachable name is a leaf, so such a name is at the top
            if full in self._rules.pinned or set(seen.kinds) != {OBJECT} or is_map(seen, name):
                yield place, seen
            elif (inner := find_wrapped(seen)) is not None:
                yield (*place, inner), seen.fields[inner]
            else:
                yield from self._list_leaves(seen, within, place)

    def _is_declared(self, full: Path) -> bool:
        return full in self._rules.hints and self._rules.hints[full].type != ""

    def _has_unreachable(self) -> bool:
        return any(not is_reachable(name, ()) and seen.present for name, seen in self._sample.seen.fields.items())

    def _shorten(self, leaves: Mapping[Path, Seen], kept: Collection[Path]) -> list[Path]:
        """Return the places that a class leaves out to fit a screen: links first, then sparse and deep ones."""

        def rank(item: tuple[int, Path]) -> tuple[Any, ...]:
            number, path = item
            seen = leaves[path]
            is_link = seen.forms[LINK] == seen.present > 0
            is_table = self._holds_records(self._root, path, seen)
            return not is_table, is_link, 2 * seen.present < self._total, len(path), number

        if len(leaves) < self._rules.most_columns:  # updated_at is there, even if no place is its own
            return []
        order = sorted(((number, path) for number, path in enumerate(leaves) if path not in kept), key=rank)
        gone = {path for _, path in order[max(0, self._rules.most_columns - 2 - len(kept)) :]}
        return [path for path in leaves if path in gone]

    # The kind of a column.

    def _make_field(
        self, table: _Table, path: Path, seen: Seen, total: int, taken: list[str], *, is_key: bool = False
    ) -> Field:
        """Make the column at a place that `total` objects could have, and add its name to `taken`."""
        name = name_column(path, taken, table.owner, RESERVED_CHILD_COLUMNS if table.level else RESERVED_COLUMNS)
        taken.append(name)
        full = (*table.path, *path)
        column = Field(name, path, self._decide(full, seen, is_key), not is_key and seen.present < total, is_key)
        if self._holds_records(table, path, seen):
            children = self._make_children(_Table((*table.names, name), full), get_items(seen))
            column.children, column.type = children, Type(f"list[{children.class_name}]")
        if not is_key and (hint := self._rules.hints.get(full)):
            column.is_nullable |= not hint.is_required
        column.is_nullable |= column.type.is_lenient and seen.forms[EMPTY] > 0
        return column

    def _decide(self, full: Path, seen: Seen, is_key: bool = False) -> Type:
        if full in self._rules.pinned:
            return self._rules.pinned[full]
        # The `value` of `phones` is a phone number.
        name = to_snake("_".join((full[-1], full[-2]) if full[-1] in VALUES and len(full) > 1 else full[-1:]))
        found = decide_type(seen, name, is_key, self._rules.most_digits)
        if found.is_lenient and not self._rules.may_be_lenient:
            found = STR if set(seen.kinds) == {TEXT} else JSON
        if is_key and found.name not in KEY_TYPES:  # a few records have an unusable key, and will be rejects
            return Type("int") if seen.kinds[INTEGER] > seen.kinds[TEXT] else STR
        hint = self._rules.hints.get(full)
        if hint is None or is_key:
            return found
        type_ = apply_hint(found, hint.type, seen)
        if hint.type in CONTRADICTED and type_.name not in (hint.type, *CONTRADICTED[hint.type]):
            line = f"the document declares {write_path(full)} as {hint.type}, and other values came: {type_.name}"
            self._proposal.doubts += [] if line in self._proposal.doubts else [line]
        return type_

    def _holds_records(self, table: _Table, path: Path, seen: Seen) -> bool:
        """Return whether a place holds lists of records, which become a table."""
        items, full = seen.items, (*table.path, *path)
        return (
            full not in self._rules.pinned
            and table.level < MOST_LEVELS
            and set(seen.kinds) == {LIST}
            and items is not None
            and set(items.kinds) == {OBJECT}
            and items.present == items.count
            and not is_map(items, "")
            and any(self._list_leaves(items, full))
        )

    def _make_children(self, table: _Table, items: Seen) -> Model:
        """Make the class of the items of a list."""
        model = Model(name_class(table.names[-1], self._classes), [])
        self._classes.append(model.class_name)
        leaves = dict(self._list_leaves(items, table.path))
        key = find_child_key(leaves, items, table.owner)
        # The names of the parents' keys in the table; of lists, all that `find_child_key` can choose.
        taken = [f"{table.names[0]}_{column.name}" for column in self._proposal.model.key] + ["position"] * (
            key is None
        )
        above = "_".join(table.names[:-1])
        taken += [f"{above}_{name}" for name in ("id", "uuid", "guid", "position")] if table.level > 1 else []
        for path in sorted(leaves, key=lambda path: path != key):
            column = self._make_field(table, path, leaves[path], items.objects, taken, is_key=path == key)
            model.fields.append(column)
        return model

    # The time of the last change.

    def _find_changed(self, leaves: Mapping[Path, Seen]) -> Path | None:
        """Find the time of the last change: by name and type, and of two the one that orders the records."""
        names = {path: write_path(path) for path in leaves if UPDATED.search(to_snake("_".join(path)))}
        times = [
            path
            for path in names
            if self._decide(path, leaves[path]).name in TIMES
            or is_nearly_time(leaves[path])
            or find_format(leaves[path])
        ]

        def rank(path: Path) -> tuple[Any, ...]:
            is_exact = to_snake(path[-1]) in ("updated_at", "updated", "modified_at", "modified", "last_modified")
            values = [get(record, path) for record in self._sample.records]
            kinds = {type(value) for value in values}
            is_ordered = kinds in ({str}, {int}) and values in (sorted(values), sorted(values, reverse=True))
            return len(path), not is_exact, not is_ordered, len(names[path])

        return min(times, key=rank, default=None)

    def _add_changed(self, changed: Path | None, leaves: Mapping[Path, Seen]) -> None:
        """Add the column updated_at, which every class has."""
        fields = self._proposal.model.fields
        absent = NOWHERE if "updated_at" in self._sample.seen.fields else ("updated_at",)
        if changed is None:
            fields.append(Field("updated_at", absent, Type("datetime"), True))
            return
        seen = leaves[changed]
        if form := find_format(seen):
            taken = ["updated_at", *(column.name for column in fields)]
            text = self._make_field(self._root, changed, seen, self._total, taken)
            fields += [text, Field("updated_at", absent, Type("datetime"), True)]
            self._proposal.time_format, self._proposal.time_text = form, text.name
            return
        type_ = Type("datetime") if is_nearly_time(seen) else self._decide(changed, seen)
        hint = self._rules.hints.get(changed)
        is_nullable = seen.present < self._total or type_.is_lenient or bool(hint and not hint.is_required)
        fields.append(Field("updated_at", changed, type_, is_nullable))


def apply_hint(found: Type, hinted: str, seen: Seen) -> Type:
    """Return the type of an OpenAPI document where it holds all values seen, else the type found."""
    is_text = set(seen.kinds) == {TEXT}
    if is_empty(seen):
        return Type(hinted)
    if hinted == "float" and found.name == "int" and not is_text:
        return Type("float")
    return STR if hinted == "str" and is_text and found.is_lenient else found
