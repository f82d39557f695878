"""Call the `clean` of a dataset and check its result.

Responsibilities: each mistake in `clean` is one line with the function, the error, and the line of the file; the rules
that hold for the values of every dataset.
"""

import inspect
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from wholeday.errors import DatasetError
from wholeday.log import count, locate
from wholeday.schema.canonical import HAS_NUL, canonicalize
from wholeday.schema.columns import Column, Columns
from wholeday.schema.kinds import JSON, UUID
from wholeday.transform.values import OUT_OF_RANGE, Broken

if TYPE_CHECKING:
    from wholeday.schema.conversion import Clean, Rules


COLUMNS_SHOWN = 30
FIX = "fix it, then run the day again"


def clean_frame(clean: "Clean | None", frame: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, Broken]:
    """Return the rows that `clean` makes of a frame, and the rules that they break.

    A null in a rule counts as False. Raises DatasetError if `clean` raises, returns anything else, or changes the
    key or a list of records.
    """
    if clean is None:
        return frame, {}
    fixed = [column.name for column in columns if column.options.primary_key or column.children]
    before = frame[fixed].copy()
    texts = {column.name: frame[column.name] for column in columns if column.kind in (JSON, UUID)}
    index, names = frame.index, list(frame.columns)
    try:
        result: Any = clean(frame.copy())
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # `check` would end with the exit code of `clean`
        raise DatasetError(f"{_name(clean)} failed: {_describe(error, names)}: {FIX}") from error
    try:
        rows, rules = _check(result, index)
        for name in fixed:
            if name not in rows or not rows[name].equals(before[name]):
                raise ValueError(f"changed the column {name}: keep it, as it is the key or a list of records")
    except ValueError as error:
        raise DatasetError(f"{_name(clean)} ({_locate(clean)}) {error}") from error
    for column in columns:
        if column.name in rows:
            rules |= _check_values(rows, column, texts.get(column.name))
    return rows, {rule: mask.to_numpy(bool) for rule, mask in rules.items() if mask.any()}


def _check_values(rows: pd.DataFrame, column: Column, before: "pd.Series[Any] | None") -> "Rules":
    """Return the rules that the cleaned values of a column break. Write new JSON in its canonical form."""
    values = rows[column.name]
    if before is not None and not values.equals(before):
        rows[column.name], broken = _rewrite(values, column)
    elif isinstance(values.dtype, pd.StringDtype):
        broken = {HAS_NUL: values.str.contains("\0", regex=False, na=False)}
    elif values.dtype.kind == "M":
        broken = {OUT_OF_RANGE: values.notna() & ~values.dt.year.between(1, 9999)}
    else:
        broken = {}
    if not column.is_nullable:
        broken["is null"] = rows[column.name].isna()
    return {(column.name, reason): mask for reason, mask in broken.items()}


def _rewrite(values: "pd.Series[Any]", column: Column) -> "tuple[pd.Series[Any], dict[str, pd.Series[bool]]]":
    """Return JSON texts or UUIDs that `clean` made in their canonical form, and where there is none."""
    write = canonicalize if column.kind == JSON else lambda raw: str(uuid.UUID(raw.decode()))
    found: list[str | None] = []
    broken: dict[str, pd.Series[bool]] = {}
    for position, value in enumerate(values):
        try:
            found.append(None if pd.isna(value) else write(str(value).encode()))
        except ValueError as error:
            found.append(None)
            mask = broken.setdefault(str(error), pd.Series(data=False, index=values.index))
            mask.iloc[position] = True
    return pd.Series(found, values.index, dtype=pd.StringDtype(na_value=float("nan"))), broken


def _check(result: Any, index: "pd.Index[Any]") -> "tuple[pd.DataFrame, Rules]":
    """Raise ValueError with what is wrong, and the next step."""
    rows, rules = (result, {}) if isinstance(result, pd.DataFrame) else _split(result)
    if not rows.index.equals(index):
        raise ValueError(
            f"took {count(len(index), 'record')} and returned {count(len(rows), 'row')}, or changed their order or "
            f"index: keep the index, and name a rule for rows to reject"
        )
    names = list(rows.columns)
    if wrong := [name for name in names if not isinstance(name, str) or names.count(name) > 1]:
        raise ValueError(f"returned the column {wrong[0]!r}, which is not a name or is there twice: name each once")
    return rows, {name: _check_rule(name, rule, index) for name, rule in rules.items()}


def _split(result: Any) -> tuple[pd.DataFrame, Mapping[Any, Any]]:
    """Return the frame and the rules that `clean` returned."""
    if not isinstance(result, tuple) or len(result) != 2:
        kind = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise ValueError(f"returned {kind}: return the frame, or the frame and the rules: return frame, {{}}")
    rows, rules = result
    if not isinstance(rows, pd.DataFrame) or not isinstance(rules, Mapping):
        kinds = f"{type(rows).__name__} and {type(rules).__name__}"
        raise ValueError(f"returned {kinds}: return a DataFrame and a dict, as in: return frame, {{}}")
    return rows, rules


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


def _describe(error: BaseException, columns: list[str]) -> str:
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
