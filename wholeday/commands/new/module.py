"""Write the module of a dataset: its record classes and its tasks."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from wholeday.commands.new.model import Field, Model, Proposal
from wholeday.commands.new.names import to_singular

LINE = 120
STANDARD = {"date": "datetime", "datetime": "datetime", "time": "datetime", "Decimal": "decimal", "UUID": "uuid"}
OURS = ("Epoch", "EpochMillis", "Json")
TASKS = ("Backfill", "Dataset", "Extract", "Field", "Load", "Record", "Transform")

CLEAN = '''

def read_times(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Read the times of change, which JSON APIs usually send in another form."""
    import pandas as pd

    return rows.assign(updated_at=pd.to_datetime(rows["{column}"], format="{format}", utc=True))
'''
END = '''

{constant} = Dataset("{dataset}", {arguments})


class Extract{tasks}(Extract, dataset={constant}):
    """The raw files of a day."""


class Transform{tasks}(Transform, dataset={constant}):
    """The clean files of a day."""


class Load{tasks}(Load, dataset={constant}):
    """The rows and the marker of a day."""


class Backfill{tasks}(Backfill, dataset={constant}):
    """Load{tasks} for a range of days."""
'''


def write_module(dataset: str, url: str, proposal: Proposal) -> str:
    """Return the text of pipeline/NAME.py."""
    classes = write_classes(dataset, url, proposal)
    clean, arguments = "", proposal.model.class_name
    if proposal.time_format:
        clean = CLEAN.format(column=proposal.time_text, format=proposal.time_format)
        arguments += ", read_times"
    words = dataset.title().replace("_", "")
    end = END.format(dataset=dataset, constant=dataset.upper(), arguments=arguments, tasks=words)
    text = f'"""Define the dataset `{dataset}`: its record class and its tasks."""\n\n'
    return text + write_imports(list_types(proposal.model), bool(clean)) + classes + clean + end


def write_classes(dataset: str, url: str, proposal: Proposal) -> str:
    """Return the text of the record classes. The classes of lists come first."""
    thing = to_singular(dataset).replace("_", " ")
    doc = f"{_article(thing)} {thing} of {urlsplit(url).hostname or 'the API'}."
    return "".join(
        f"\n\n{write_class(model, doc if model is proposal.model else '')}" for model in proposal.model.walk()
    )


def write_class(model: Model, doc: str = "") -> str:
    """Return the text of one record class."""
    start = f'    """{doc}"""\n\n' if doc else ""
    lines = [line for column in model.fields for line in write_field(column)]
    return f"class {model.class_name}(Record):\n{start}" + "".join(f"{line}\n" for line in lines)


def write_field(column: Field) -> list[str]:
    """Return the line of a column, or its lines where one would be too long."""
    arguments = [] if column.path in ((column.name,), ()) else [_quote(column.source)]
    arguments += ["rest=True"] if not column.path else []
    arguments += ["primary_key=True"] if column.is_key else []
    arguments += [f"{name}={value}" for name, value in column.type.options]
    text = f"    {column.name}: {column.type.name}{' | None' if column.is_nullable else ''}"
    line = f"{text} = Field({', '.join(arguments)})" if arguments else text
    if len(line) <= LINE:
        return [line]
    return [f"{text} = Field(", f"        {', '.join(arguments)}", "    )"]


def list_types(model: Model) -> set[str]:
    """List the names of types that the classes use and have to import."""
    words = " ".join(column.type.name for each in model.walk() for column in each.fields)
    return {name for name in (*STANDARD, *OURS) if name in words.replace("[", " ").replace("]", " ").split()}


def write_imports(types: Iterable[str], needs_frame: bool = False) -> str:
    """Return the lines that import types, the words of a declaration, and the tasks."""
    by_module: dict[str, list[str]] = {}
    for name in sorted(types):
        if name in STANDARD:
            by_module.setdefault(STANDARD[name], []).append(name)
    if needs_frame:
        by_module["typing"] = ["TYPE_CHECKING"]
    lines = [f"from {module} import {', '.join(names)}" for module, names in sorted(by_module.items())]
    ours = sorted({*TASKS, *(name for name in types if name in OURS)})
    text = "\n".join(lines) + "\n\n" * bool(lines) + f"from wholeday import {', '.join(ours)}\n"
    return text + ("\nif TYPE_CHECKING:\n    import pandas as pd\n" if needs_frame else "")


def _quote(text: str) -> str:
    """Return a text as a literal of Python, raw if it has a backslash."""
    if "\\" in text and '"' not in text and text.isprintable():
        return f'r"{text}"'
    return f'"{text}"' if text.isprintable() and '"' not in text and "\\" not in text else repr(text)


def _article(word: str) -> str:
    return "An" if word[:1] in "aeiou" and not re.match(r"(us|uni|eu)", word) else "A"
