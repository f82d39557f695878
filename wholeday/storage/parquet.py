"""Encode the rows of a clean part as Parquet, and open them again.

Non-goals: files and folders, which are in `storage`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile


def encode_rows(table: "pa.Table") -> bytes:
    """Return the bytes of a Parquet file; equal rows give equal bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = pa.BufferOutputStream()
    # Most columns hold as many values as rows: a dictionary takes twice the time, and zstd packs them better without.
    parquet.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return bytes(buffer.getvalue())


def open_rows(data: bytes) -> "ParquetFile":
    """Open the bytes of a Parquet file. Memory: a copy of `data`.

    The copy belongs to Arrow. A thread of Arrow that drops the last reference to a Python object while the interpreter
    ends would abort the process.
    """
    import pyarrow as pa
    from pyarrow import parquet

    buffer = pa.BufferOutputStream()
    buffer.write(data)
    return parquet.ParquetFile(pa.BufferReader(buffer.getvalue()))
