"""Test which changes of a dataset make the days that are loaded outdated."""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.things import make_record_class
from wholeday.schema.conversion import Conversion
from wholeday.schema.record import Field

COLUMNS = {"id": int, "name": str | None, "state": Literal["open", "closed"], "updated_at": datetime | None}


def make(
    columns: dict[str, Any] | None = None, class_name: str = "Thing", digits: int = 12, /, **fields: Any
) -> Conversion:
    """Return the conversion of the usual columns and these. The items of a list have prices of so many digits."""
    price = Field(max_digits=digits, decimal_places=2)
    item = make_record_class({"sku": str, "price": Decimal | None}, f"{class_name}Item", price=price)
    types = COLUMNS | {"items": list[item] | None} | (columns or {})  # type: ignore[valid-type]
    return Conversion(make_record_class(types, class_name, **{"id": Field(primary_key=True)} | fields))


BASE = make()
CHANGED = {
    "nullable": make({"name": str}),
    "type": make({"name": int | None}),
    "values of a Literal": make({"state": Literal["open", "closed", "new"]}),
    "column": make({"more": str | None}),
    "digits in a list": make({}, "Thing", 13),
    "path": make(id=Field("key", primary_key=True)),
    "option": make(name=Field(to_lower=True)),
    "deleted_when": dataclasses.replace(BASE, deleted_when="deleted"),
    "timezone": dataclasses.replace(BASE, timezone="Europe/Berlin"),
    "lenient": dataclasses.replace(BASE, lenient=True),
}


def test_name_of_a_record_class_keeps_the_version() -> None:
    """The class of a list's items may have another name too."""
    assert make({}, "Other").version == BASE.version


@pytest.mark.parametrize("change", CHANGED)
def test_changed_rule_changes_the_version(change: str) -> None:
    assert CHANGED[change].version != BASE.version


MODULE = '''
"""Clean."""
LIMIT = 3

class Thing:
    pass

def helper(text):
    """Shorten."""
    return text[:LIMIT]

def clean(frame):
    return frame.assign(name=frame["name"].map(helper))
'''


@pytest.fixture
def read_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Return a function that reads the version of a dataset whose `clean` is in a module of this text."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def read(text: str) -> str:
        names.append(f"cleaning_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return dataclasses.replace(BASE, clean=importlib.import_module(names[-1]).clean).version

    yield read
    for name in names:
        sys.modules.pop(name)


def test_comment_keeps_the_version(read_version: Callable[[str], str]) -> None:
    """So do docstrings, white space and classes."""
    other = (
        MODULE.replace("Shorten.", "Cut.").replace("[:LIMIT]", "[ : LIMIT ]  # short").replace("    pass", "    x = 1")
    )
    assert read_version(other) != BASE.version


@pytest.mark.parametrize(("old", "new"), [("LIMIT = 3", "LIMIT = 4"), ("text[:", "text[1:"), ('"name"]', '"state"]')])
def test_changed_code_of_clean_changes_the_version(read_version: Callable[[str], str], old: str, new: str) -> None:
    """The functions and constants that `clean` uses count too."""
    assert read_version(MODULE.replace(old, new)) != read_version(MODULE)
