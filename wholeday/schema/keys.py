"""Read the key of raw records as the transform reads it, with the options of its columns."""

import functools
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from wholeday.schema.columns import Column
from wholeday.schema.kinds import TEXT, UUID
from wholeday.schema.lenient import convert_key
from wholeday.schema.raw_fields import FieldReader, KeyReader, RawRecord
from wholeday.schema.texts import change_texts


class ParentReader:
    """Reads, for each record, the same value of the parent."""

    def __init__(self, path: str, value: Any) -> None:
        self.path, self._value = path, value

    def read(self, records: Sequence[RawRecord]) -> list[Any]:
        """Return the value for each record."""
        return [self._value] * len(records)


def make_key_readers(
    key: Sequence[Column], lenient: bool = False, parent: Mapping[str, Any] | None = None
) -> list[KeyReader]:
    """Return a reader for each column of a key. It returns the value to store; any other value as it came.

    With the values of a `parent`, its columns are not looked for in the records.
    """
    return [
        FieldReader(column.source, _find_conversion(column, lenient))
        if parent is None or column.options.parent is None
        else ParentReader(column.source, parent[column.options.parent])
        for column in key
    ]


def _find_conversion(column: Column, lenient: bool) -> Any:
    options = column.options
    if column.kind == UUID:
        return lambda values: list(map(_write_uuid, values))
    if column.kind == TEXT:
        has_changes = options.strip_whitespace or options.to_lower or options.to_upper
        return functools.partial(_change, column=column) if has_changes else None
    return (lambda values: [convert_key(value, column) for value in values]) if lenient else None


def _write_uuid(value: Any) -> Any:
    with suppress(ValueError):
        return str(uuid.UUID(value)) if isinstance(value, str) else value
    return value


def _change(values: list[Any], column: Column) -> list[Any]:
    import pyarrow as pa

    texts = [value if isinstance(value, str) else None for value in values]
    with suppress(UnicodeEncodeError):  # half a surrogate pair, in a record that is rejected
        changed = change_texts(pa.array(texts, pa.string()), column).to_pylist()
        return [value if text is None else text for value, text in zip(values, changed, strict=True)]
    return values
