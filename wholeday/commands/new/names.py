"""Name columns, record classes and tasks as a person would, without clashes and reserved words."""

import builtins
import keyword
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from wholeday import PUBLIC
from wholeday.schema.tables import LONGEST_NAME

NEUTRAL = {"attributes", "properties", "fields", "data", "node", "relationships", "resource", "_source"}
"""Objects around the fields of a record that mean nothing themselves."""
LISTS = {"data", "items", "edges", "nodes", "results", "records", "values", "elements"}
"""Lists within an object that has the name of the list."""
SHADOWS = {"datetime", "date", "time", "int", "float", "str", "bool", "list"}
"""Types that a class could not use any more after a column of this name."""
TAKEN_CLASSES = {*PUBLIC, "Decimal", "UUID"}
PLURALS = {"people": "person", "children": "child", "indices": "index", "statuses": "status", "series": "series"}


def to_snake(name: str) -> str:
    """Return a name in snake_case, as an identifier: `createdAt` becomes `created_at`, `Due date` `due_date`."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"^([+-])(?=\d)", lambda sign: "plus_" if sign[1] == "+" else "minus_", text)
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text)
    text = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", text)
    text = re.sub(r"\W+", "_", text).strip("_").lower()
    text = re.sub(r"__+", "_", text)
    if not text or not f"x{text}".isidentifier():
        text = "field"
    return text if text.isidentifier() else f"n{text}"


def name_column(path: Sequence[str], taken: Collection[str], owner: str, reserved: Collection[str]) -> str:
    """Name the column for a path. `owner` is the singular name of the records, `taken` the names that exist."""
    *above, leaf = path
    if above and leaf.lower() in LISTS:
        *above, leaf = above
    own = [name for name in above if name.lower() not in NEUTRAL]
    own = own[1:] if own and to_snake(own[0]) == owner else own
    for words in ([*own, leaf], path):
        name = _avoid(_cut(_join(words)), owner, reserved)
        if name == "updated_at" and name in taken:  # the column of every class, which reads another field
            name = "updated_at_sent"
        if name not in taken:
            return name
    number = next(number for number in range(2, len(taken) + 3) if f"{name}_{number}" not in taken)
    return f"{name}_{number}"


def _join(words: Iterable[str]) -> str:
    """Join words, without a word that the next one repeats: `user`, `user_id` become `user_id`."""
    found: list[str] = []
    for word in map(to_snake, words):
        if found and (word.startswith(f"{found[-1]}_") or word.endswith(f"_{found[-1]}")):
            found.pop()
        found.append(word)
    return "_".join(found)


def _avoid(name: str, owner: str, reserved: Collection[str]) -> str:
    if name == "deleted":
        return "is_deleted"
    if name in reserved or name in SHADOWS:
        return f"{owner}_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _cut(name: str) -> str:
    while len(name.encode()) > LONGEST_NAME - 10:  # room for a number, or for the owner
        name = name.partition("_")[2] or name[: len(name) // 2]
    return name


def to_singular(name: str) -> str:
    """Return the singular of an English plural in snake_case; any other name unchanged."""
    *before, last = name.split("_")
    if last in PLURALS:
        last = PLURALS[last]
    elif last.endswith("ies") and len(last) > 4:
        last = f"{last[:-3]}y"
    elif re.search(r"(ss|x|ch|sh|z)es$", last):
        last = last[:-2]
    elif last.endswith("s") and not re.search(r"(ss|us|is|news)$", last) and len(last) > 2:
        last = last[:-1]
    return "_".join([*before, last])


def name_class(name: str, taken: Collection[str] = ()) -> str:
    """Return the name of the record class for records or items of this plural name."""
    words = to_singular(name).title().replace("_", "")
    if words in TAKEN_CLASSES or hasattr(builtins, words):
        words += "Item"
    number = next(
        number for number in range(1, len(taken) + 2) if f"{words}{number if number > 1 else ''}" not in taken
    )
    return f"{words}{number if number > 1 else ''}"


def name_dataset(url_path: str) -> str:
    """Name a dataset after the last word of a URL's path that is a name."""
    words = [word for word in url_path.split("/") if re.search(r"[A-Za-z]{2}", word) and "{" not in word]
    return to_snake(re.sub(r"\.json$", "", words[-1])) if words else ""
