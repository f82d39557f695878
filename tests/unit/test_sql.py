"""The words in braces of the SQL over a dataset."""

import pytest

from pipeline.users import USERS
from wholeday.load.sql import HISTORY, INDEXES, VERSIONS, Words
from wholeday.schema.marker import Marker, list_columns
from wholeday.schema.tables import LOADS


@pytest.fixture
def words() -> Words:
    return Words(USERS.declared, stage='"_stage"')


@pytest.mark.parametrize(
    ("sql", "error"),
    [("select 1 from {evnts}", KeyError), ("select {z.key}", KeyError), ("select {s.kye}", AttributeError)],
)
def test_misspelt_word_raises(words: Words, sql: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        sql.format_map(words)


def test_words_name_tables_and_columns(words: Words) -> None:
    assert "select {s.key} from {stage} s".format_map(words) == 'select s."user_id" from "_stage" s'
    assert "{events}, {past}, {unknown}".format_map(words) == '"_users_events", "_users_past", "_users_unknown"'


def test_view_and_indexes_have_known_words_only(words: Words) -> None:
    assert "{" not in "".join(sql.format_map(words) for sql in (HISTORY, VERSIONS, *INDEXES.values()))


def test_columns_of_loads_are_the_fields_of_marker() -> None:
    assert tuple(LOADS.columns) == Marker.__struct_fields__
    kinds = list_columns()
    assert (kinds["date"], kinds["as_of"], kinds["watermark"], kinds["pages"], kinds["seconds"], kinds["details"]) == (
        *("date", "timestamp", "timestamp", "integer", "float", "text"),
    )
