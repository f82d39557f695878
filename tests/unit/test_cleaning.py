"""Test the results that `clean` may return, and the one-line error for each mistake."""

import datetime as dt
import functools
import re
from typing import Any

import pandas as pd
import pytest

from tests.acceptance.test_datasets import DAY, edit_users
from tests.support.project import luigi_run, query
from wholeday.errors import DatasetError
from wholeday.schema.columns import read_columns
from wholeday.schema.record import Field, Record
from wholeday.transform.cleaning import clean_frame

FRAME = pd.DataFrame({"id": [1, 2], "email": ["a@b", None]}, index=[1, 3])


class Person(Record):
    id: int = Field(primary_key=True)
    email: str | None
    updated_at: dt.datetime | None


COLUMNS = read_columns(Person)


def misspell(frame: pd.DataFrame) -> Any:
    frame["emial"] = frame["emial"].str.lower()
    return frame, {}


def misspell_attribute(frame: pd.DataFrame) -> Any:
    return frame.emial, {}


def divide(frame: pd.DataFrame, by: int = 0) -> Any:
    return frame["id"].map(lambda value: value // by), {}


RETURNED: dict[str, tuple[Any, str]] = {
    "nothing": (None, "returned a NoneType: return the frame"),
    "three": ((FRAME, {}, 1), "returned a tuple of 3: return the frame"),
    "series": ((FRAME["id"], {}), "returned Series and dict: return a DataFrame and a dict"),
    "list": ((FRAME, []), "returned DataFrame and list: return a DataFrame and a dict"),
    "index": ((FRAME.reset_index(drop=True), {}), "took 2 records and returned 2 rows, or changed"),
    "lost": ((FRAME.dropna(), {}), "took 2 records and returned 1 row, or"),
    "twice": ((pd.concat([FRAME, FRAME], axis=1), {}), "returned the column 'id', which is not a name or"),
    "number": ((FRAME.assign(x=1).rename(columns={"x": 7}), {}), "returned the column 7, which is not a name"),
    "unnamed": ((FRAME, {"is bad": FRAME["id"] > 1}), r"names a rule 'is bad': name it \(column, reason\)"),
    "others": ((FRAME, {("id", "x"): FRAME.reset_index()["id"] > 1}), r"has a rule of other rows than .* \(id: x\)"),
    "short": ((FRAME, {("id", "x"): [True]}), r"has a rule that is not one value a row \(id: x\)"),
    "words": ((FRAME, {("id", "x"): ["no", "no"]}), r"has a rule that is not True or False \(id: x\)"),
    "numbers": ((FRAME, {("id", "x"): FRAME["id"]}), r"has a rule that is not True or False \(id: x\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", RETURNED)
def test_wrong_result_of_clean_is_one_line(case):
    """The line names the function, its file and line, and the expected result."""
    result, line = RETURNED[case]

    def clean(_: pd.DataFrame) -> Any:
        return result

    name = re.escape(f"{clean.__module__}.{clean.__qualname__}")
    where = rf"{name} \(test_cleaning\.py, line \d+\) "
    with pytest.raises(DatasetError, match=f"^{where}{line}"):
        clean_frame(clean, FRAME, COLUMNS)


@pytest.mark.parametrize(
    ("clean", "line"),
    [
        (misspell, r"failed: KeyError: 'emial' \(test_cleaning.py, line 31\); the frame has the columns id, email: "),
        (misspell_attribute, r"has no attribute 'emial' \(test_cleaning.py, line 36\); the frame has the columns id"),
        (divide, r"divide failed: ZeroDivisionError: .* \(test_cleaning.py, line 40\): fix it, then run the day"),
        (functools.partial(divide, by=0), r"ZeroDivisionError: .* \(test_cleaning.py, line 40\)"),
        (int, r"builtins.int failed: TypeError: int\(\) argument .*: fix it, then run the day again$"),
    ],
)  # fmt: skip
def test_error_in_clean_is_one_line(clean, line):
    """The line names the last line of the user's file, even if pandas raises the error."""
    with pytest.raises(DatasetError, match=line):
        clean_frame(clean, FRAME, COLUMNS)


def test_memory_error_in_clean_is_raised_unchanged():

    def clean(_: pd.DataFrame) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        clean_frame(clean, FRAME, COLUMNS)


@pytest.mark.parametrize("rule", [[True, None], FRAME["id"] == 1, (FRAME["id"] == 1).astype("boolean"), True])
def test_rule_is_one_boolean_per_row(rule):
    """A null does not break a rule; a single value applies to all rows."""
    rows, rules = clean_frame(lambda frame: (frame, {("id", "x"): rule}), FRAME, COLUMNS)
    assert rows.equals(FRAME)
    assert rules["id", "x"].dtype == bool
    assert rules["id", "x"].tolist() == [True, rule is True]


def test_frame_alone_breaks_no_rule():
    rows, rules = clean_frame(lambda frame: frame.assign(email="x"), FRAME, COLUMNS)
    assert rows["email"].tolist() == ["x", "x"]
    assert rules == {}


CLEAN = """
def clean(users):
    {}
    return users


USERS = Dataset("users", User, clean)
"""
OF_SOME_ROWS = 'users["city"] = users["city"].map(lambda _: 1 // (len(users) < 2))'
FOR_ROWS = r"ZeroDivisionError: integer division or modulo by zero \(users.py, line \d+\): fix it"
MISSPELT = r"KeyError: 'cyti' \(users.py, line \d+\); the frame has the columns user_id, name, email, city, updated_at"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message", "part_records"),
    [
        ('users["city"] = users["cyti"]', MISSPELT, "16000"),
        (OF_SOME_ROWS, FOR_ROWS, "10"),
    ],
)
def test_error_in_clean_fails_day_in_one_line(line, message, part_records):
    """This holds in the main process and in the engine's workers. The corrected file loads the day."""
    changed = edit_users('\nUSERS = Dataset("users", User)\n', CLEAN.format(line))
    flags = ("--pipeline-part-records", part_records)
    failed = luigi_run("LoadUsers", "--date", DAY, *flags, **changed | {"PYTHONWARNINGS": ""})
    assert failed.returncode == 30
    (shown,) = failed.stderr.splitlines()
    stage = r"ERROR: (Extract|Transform)Users"
    assert re.match(rf"{stage}\(date={DAY}\) failed: pipeline.users.clean failed: {message}", shown)
    assert luigi_run("LoadUsers", "--date", DAY).returncode == 0
    assert query("select count(*) from loads") == [(1,)]
