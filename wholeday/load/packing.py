"""Rows of Arrow in the binary format of PostgreSQL's COPY, in which no value becomes an object of Python on the way.

Owns that format, and nothing else: https://www.postgresql.org/docs/current/sql-copy.html, Binary Format. It costs
client and server together a fifth of what text does.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
NULL = b"\xff\xff\xff\xff"  # a length of -1
# What a value of a kind is cast to, what is taken from it (days and times begin with 2000), and NumPy's type for it.
FORMATS = {
    "integer": ("int64", 0, ">i8"),
    "float": ("float64", 0, ">f8"),
    "boolean": ("uint8", 0, ">u1"),
    "date": ("int32", 10_957, ">i4"),
    "time": ("int64", 946_684_800_000_000, ">i8"),
}


def pack_rows(
    batches: "Iterable[pa.RecordBatch]", kinds: Mapping[str, str], number: str
) -> "Iterator[memoryview | bytes]":
    """The columns in `kinds` of batches, in that order; the column `number` is the place of the row among all."""
    import numpy as np
    import pyarrow as pa

    yield HEADER
    rows = 0
    for batch in batches:
        numbers = pa.array(np.arange(rows, rows + batch.num_rows))
        arrays = [numbers if name == number else batch.column(name) for name in kinds]
        yield _join([_pack(array, kind) for array, kind in zip(arrays, kinds.values(), strict=True)])
        rows += batch.num_rows
    yield TRAILER


def _join(fields: "list[pa.Array[Any]]") -> memoryview:
    """Rows one after the other: the number of its fields, and the fields."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pc.binary_join_element_wise(pa.scalar(len(fields).to_bytes(2, "big")), *fields, pa.scalar(b""))
    return memoryview(rows.buffers()[2])[: pc.sum(pc.binary_length(rows)).as_py() or 0]


def _pack(array: "pa.Array[Any]", kind: str) -> "pa.Array[Any]":
    """Fields: the length of a value in bytes, and the value."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "text":
        lengths = pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False).astype(">i4")
        return pc.binary_join_element_wise(
            _read_bytes(lengths), pc.fill_null(array.cast(pa.binary()), b""), pa.scalar(b"")
        )
    arrow_type, epoch, packed_type = FORMATS[kind]
    values = np.empty(len(array), [("length", ">i4"), ("value", packed_type)])
    values["length"] = values.dtype["value"].itemsize
    values["value"] = pc.fill_null(array.cast(arrow_type), 0).to_numpy(zero_copy_only=False) - epoch
    fields = _read_bytes(values)
    return pc.if_else(array.is_valid(), fields, pa.scalar(NULL)) if array.null_count else fields


def _read_bytes(values: "np.ndarray[Any, Any]") -> "pa.Array[Any]":
    """The bytes of each of NumPy's values."""
    import pyarrow as pa

    size = values.dtype.itemsize
    return pa.Array.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(values)]).cast(pa.binary())
