"""The record classes that `new` proposes, as values: what `infer` finds out and `module` writes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

Path = tuple[str, ...]


@dataclass(frozen=True)
class Type:
    """The type of a column as a class declares it, without None."""

    name: str
    options: tuple[tuple[str, int], ...] = ()
    """Further arguments of Field."""
    is_lenient: bool = False
    """Whether the section needs `lenient = true` for it."""


@dataclass
class Field:
    """A column of a proposed class."""

    name: str
    path: Path
    type: Type
    is_nullable: bool
    is_key: bool = False
    children: "Model | None" = None

    @property
    def source(self) -> str:
        return write_path(self.path)


@dataclass
class Model:
    """A proposed record class."""

    class_name: str
    fields: list[Field]

    @property
    def key(self) -> list[Field]:
        return [column for column in self.fields if column.is_key]

    def walk(self) -> Iterator["Model"]:
        """Yield the classes of lists before the class that uses them."""
        for column in self.fields:
            if column.children:
                yield from column.children.walk()
        yield self


@dataclass
class Proposal:
    """What `infer` concludes from the records that it saw."""

    model: Model
    records: int
    lenient: bool = False
    time_format: str = ""
    """The format of strptime of the times of change, unless they are RFC 3339; `time_text` is their column."""
    time_text: str = ""
    key_evidence: str = ""
    key_doubts: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    personal: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """The paths of fields without a value, which the class leaves out."""
    local: list[str] = field(default_factory=list)
    """The paths of times without an offset."""
    rest: list[str] = field(default_factory=list)
    """The paths of fields that only the column `others` holds."""


def write_path(path: Path) -> str:
    r"""Return the dotted path that Field takes: a dot within a name becomes `\.`."""
    return ".".join(name.replace(".", r"\.") for name in path)
