"""Propose the lines for fields that the class of a dataset lacks: from its raw files, without a request.

Responsibilities: which fields are new, and where their lines go in the file. Other lines do not change.
A new column may be null, as records of older days lack it.
"""

import ast
import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wholeday.commands.new.create import count_digits
from wholeday.commands.new.fit import Fitting
from wholeday.commands.new.infer import Rules
from wholeday.commands.new.keys import NoKeyError
from wholeday.commands.new.model import Field, Model, write_path
from wholeday.commands.new.module import LINE, STANDARD, list_types, write_class, write_field
from wholeday.commands.new.names import name_column, to_singular
from wholeday.commands.reprocess import list_raw
from wholeday.errors import DatasetError
from wholeday.schema.columns import Columns
from wholeday.schema.tables import RESERVED_CHILD_COLUMNS, RESERVED_COLUMNS
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.storage.workspace import Workspace

MOST_RECORDS = 20_000  # of the newest days
ALL = 10**6  # columns: no field is left out


@dataclass
class Update:
    """The proposed lines for a dataset."""

    path: Path
    before: str
    after: str
    columns: list[str] = field(default_factory=list)
    """The new columns. A column of a child table has the name of its list in front."""
    held: list[str] = field(default_factory=list)
    """The fields that the column with `rest=True` holds already."""
    records: int = 0

    @property
    def diff(self) -> str:
        """The change of the file as a unified diff."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, str(self.path), str(self.path)))


def propose(workspace: Workspace) -> Update:
    """Propose lines for a dataset. Raises DatasetError, FolderError."""
    columns = workspace.dataset.columns
    source = Path(inspect.getfile(workspace.dataset.record_class))
    source = source.relative_to(Path.cwd()) if source.is_relative_to(Path.cwd()) else source
    text = source.read_text(encoding="utf-8")
    lines = _read_newest(workspace)
    key = tuple(column.path for column in columns.key)
    rules = Rules(
        workspace.name,
        count_digits(workspace.pipeline),
        key=key,
        most_columns=ALL,
        may_be_lenient=workspace.settings.lenient,
        classes=tuple(re.findall(r"^class (\w+)", text, re.M)),
    )
    try:
        proposal = Fitting(rules, workspace.settings.timezone).start(lines)
    except NoKeyError:
        raise DatasetError(f"dataset {workspace.name}: the raw records have no key {columns.key[0].source}") from None
    update = Update(source, text, text, records=len(lines))
    new = dict(_list_new(proposal.model, columns, workspace.name, ()))
    if any(column.options.rest for column in columns):
        update.held = [write_path(each.path) for each in new.pop(columns.class_name, [])]
    if new:
        update.after = _edit(text, source, new, columns.class_name)
        update.columns = [f"{name}.{each.name}" for name, fields in new.items() for each in fields]
    return update


def _read_newest(workspace: Workspace) -> list[bytes]:
    """Read the raw records of the newest days. Raises DatasetError if there is none."""
    lines: list[bytes] = []
    for date in reversed(list_raw(workspace)):
        folder = workspace.folder("raw", date)
        for part in folder.read_manifest(RawManifest).parts:
            lines += unpack(folder.read(part))
            if len(lines) >= MOST_RECORDS:
                return lines
    if not lines:
        raise DatasetError(f"dataset {workspace.name} has no raw records to look at: load a day first")
    return lines


def _list_new(model: Model, columns: Columns, table: str, above: Sequence[str]) -> Iterator[tuple[str, list[Field]]]:
    """Yield the new columns of each class of the file, by the name of the class."""
    taken = [column.name for column in columns]
    reserved = RESERVED_CHILD_COLUMNS if above else RESERVED_COLUMNS
    found = []
    for each in model.fields:
        known = [column for column in columns if column.path == each.path[: len(column.path)] and column.path]
        same = next((column for column in known if column.path == each.path and column.children), None)
        if same is not None and same.children and each.children:
            yield from _list_new(each.children, same.children, f"{table}_{same.name}", (*above, same.name))
        if known or not each.path or (each.name == "updated_at" and each.path == ("updated_at",)):
            continue
        name = name_column(each.path, taken, to_singular(table), reserved)
        taken.append(name)
        found.append(replace(each, name=name, is_nullable=True, is_key=False))
    if found:
        yield columns.class_name, found


def _edit(text: str, path: Path, new: Mapping[str, Sequence[Field]], main: str) -> str:
    """Return the text of a file with new lines in its classes, new classes and their imports."""
    tree = ast.parse(text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if missing := [name for name in (*new, main) if name not in classes]:
        raise DatasetError(f"{path} does not define the class {missing[0]}: add the columns by hand")
    lines = text.splitlines(keepends=True)
    edits: list[tuple[int, str]] = []
    types: set[str] = set()
    for name, fields in new.items():
        edits.append((_find_end(classes[name]), "".join(f"{line}\n" for each in fields for line in write_field(each))))
        for each in fields:
            types |= list_types(Model(name, [each]))
            if each.children:
                for model in each.children.walk():
                    edits.append((_find_start(classes[main]), f"{write_class(model)}\n\n"))
    for number, added in sorted(edits, key=lambda edit: edit[0], reverse=True):
        lines.insert(number, added)
    uses_field = any("Field(" in added for _, added in edits)
    return add_imports("".join(lines), types | ({"Field"} if uses_field else set()))


def _find_end(node: ast.ClassDef) -> int:
    """Return the number of lines before the place of new columns: before updated_at if that is the last one."""
    columns = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    last = columns[-1]
    if isinstance(last.target, ast.Name) and last.target.id == "updated_at":
        return last.lineno - 1
    return last.end_lineno or last.lineno


def _find_start(node: ast.ClassDef) -> int:
    return min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1


def add_imports(text: str, types: set[str]) -> str:
    """Return the text of a module that also imports these names of types."""
    for name in sorted(types):
        module = STANDARD.get(name, "wholeday")
        nodes = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom) and not node.level]
        own = next((node for node in nodes if node.module == module), None)
        if own and any(alias.name == name and not alias.asname for alias in own.names):
            continue
        lines = text.splitlines(keepends=True)
        if own is None:
            later = [
                node for node in nodes if node.module in ("wholeday", *(x for x in STANDARD.values() if x > module))
            ]
            at = min((node.lineno for node in later), default=1) - 1
            is_group = not any(node.module in STANDARD.values() for node in nodes)
            lines.insert(at, f"from {module} import {name}\n" + "\n" * is_group)
        else:
            names = [f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in own.names] + [name]
            line = f"from {module} import {', '.join(sorted(names))}\n"
            if len(line) > LINE + 1:
                line = f"from {module} import (\n{''.join(f'    {each},{chr(10)}' for each in sorted(names))})\n"
            lines[own.lineno - 1 : own.end_lineno] = [line]
        text = "".join(lines)
    return text
