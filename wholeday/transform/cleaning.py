"""Call the `clean` of a dataset and check its result.

Responsibilities: each mistake in `clean` is one line with the function, the error, and the line of the file.
Non-goals: the rules that hold for every dataset, which `rows` applies.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from wholeday.errors import DatasetError
from wholeday.log import count, locate

if TYPE_CHECKING:
    from wholeday.schema.dataset import Clean, Rules


COLUMNS_SHOWN = 30
FIX = "fix it, then run the day again"


def run_clean(clean: "Clean", frame: pd.DataFrame) -> "tuple[pd.DataFrame, Rules]":
    """Return the rows that `clean` makes of a frame, and per rule a boolean for each row.

    A null in a rule counts as False. Raises DatasetError if `clean` raises, or returns anything else.
    """
    index, columns = frame.index, list(frame.columns)
    try:
        result: Any = clean(frame)
    except MemoryError:
        raise
    except Exception as error:
        raise DatasetError(f"{_name(clean)} failed: {_describe(error, columns)}: {FIX}") from error
    try:
        return _check(result, index)
    except ValueError as error:
        raise DatasetError(f"{_name(clean)} ({_locate(clean)}) {error}") from error


def _check(result: Any, index: "pd.Index[Any]") -> "tuple[pd.DataFrame, Rules]":
    """Raise ValueError with what is wrong, and the next step."""
    if not isinstance(result, tuple) or len(result) != 2:
        kind = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise ValueError(f"returned {kind}: return the rows and the rules that they break, as in: return rows, {{}}")
    rows, rules = result
    if not isinstance(rows, pd.DataFrame) or not isinstance(rules, Mapping):
        kinds = f"{type(rows).__name__} and {type(rules).__name__}"
        raise ValueError(f"returned {kinds}: return a DataFrame and a dict, as in: return rows, {{}}")
    if not rows.index.equals(index):
        raise ValueError(
            f"took {count(len(index), 'record')} and returned {count(len(rows), 'row')}, or changed their order or "
            f"index: keep the index, and name a rule for rows to reject"
        )
    names = list(rows.columns)
    if wrong := [name for name in names if not isinstance(name, str) or names.count(name) > 1]:
        raise ValueError(f"returned the column {wrong[0]!r}, which is not a name or is there twice: name each once")
    return rows, {name: _check_rule(name, rule, index) for name, rule in rules.items()}


def _check_rule(name: Any, rule: Any, index: "pd.Index[Any]") -> "pd.Series[bool]":
    if not isinstance(name, tuple) or len(name) != 2 or not all(isinstance(part, str) for part in name):
        raise ValueError(f"names a rule {name!r}: name it (column, reason)")
    shown = ": ".join(name)
    if isinstance(rule, pd.Series) and not rule.index.equals(index):
        raise ValueError(f"has a rule of other rows than the frame ({shown}): keep the index")
    try:
        values = pd.Series(rule, index)
    except ValueError:
        raise ValueError(f"has a rule that is not one value a row ({shown}): compare columns of the frame") from None
    if values.dtype != bool:
        known = values.dropna()
        if len(known) and pd.api.types.infer_dtype(known) != "boolean":
            raise ValueError(f"has a rule that is not True or False ({shown}): compare columns of the frame")
        values = values.fillna(value=False).astype(bool)
    return values


def _describe(error: Exception, columns: list[str]) -> str:
    """Describe an error with the last line of `clean`'s file that led to it; for a wrong name list the columns."""
    trace = error.__traceback__ and error.__traceback__.tb_next
    where = f" ({locate(trace, trace.tb_frame.f_code.co_filename)})" if trace else ""
    line = f"{type(error).__name__}: {error}{where}"
    if isinstance(error, (KeyError, AttributeError)):
        more = ", …" if len(columns) > COLUMNS_SHOWN else ""
        line += f"; the frame has the columns {', '.join(map(str, columns[:COLUMNS_SHOWN]))}{more}"
    return line


def _name(clean: "Clean") -> str:
    return f"{getattr(clean, '__module__', '?')}.{getattr(clean, '__qualname__', type(clean).__name__)}"


def _locate(clean: "Clean") -> str:
    function: Any = inspect.unwrap(clean)
    code = getattr(function, "__code__", None)
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}" if code else type(clean).__name__
