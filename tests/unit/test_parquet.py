"""Rows come back from the bytes of a clean part."""

import sys

import pyarrow as pa
import pytest

from wholeday.storage.parquet import encode_rows, open_rows

TABLE = pa.table({"user_id": [1, 2, 3], "name": ["Ada", None, "Grace"]})


def test_rows_survive_encoding():
    data = encode_rows(TABLE)
    assert open_rows(data).read().equals(TABLE)
    assert open_rows(data).read(columns=["name"]).equals(TABLE.select(["name"]))
    assert encode_rows(TABLE) == data


@pytest.mark.parametrize("columns", [None, ["name"]])
def test_open_file_holds_no_python_object(columns):
    """A thread of Arrow that freed one while the interpreter ended would abort the process."""
    data = encode_rows(TABLE)
    before = sys.getrefcount(data)
    rows = open_rows(data)
    table = rows.read(columns=columns)
    assert len(table) == 3
    assert sys.getrefcount(data) == before
