"""Count the keys that raw records have after `clean`, for the gates of a snapshot."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wholeday.schema.census import Census, hash_keys
from wholeday.schema.conversion import Conversion
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import Part
from wholeday.storage.parents import Parent, add_parents, split_runs

if TYPE_CHECKING:
    import pandas as pd

    from wholeday.schema.reject import Reject


def count_cleaned(
    conversion: Conversion, folder: DayFolder, parts: Sequence[Part], parents: Sequence[Parent]
) -> Census:
    """Transform raw parts and count the keys of their rows and rejects. Raises DatasetError, FolderError."""
    from wholeday.transform.rows import transform

    key = [column.name for column in conversion.columns.key]
    census = Census()
    names = conversion.columns.taken
    for part, runs in zip(parts, split_runs(parents, parts) if names else [()] * len(parts), strict=True):
        cleaned = transform(add_parents(unpack(folder.read(part)), runs, names), conversion)
        add_cleaned(census, cleaned.rows, cleaned.rejects, key)
    return census


def add_cleaned(census: Census, rows: "pd.DataFrame", rejects: Sequence["Reject"], key: list[str]) -> None:
    """Add the keys of rejects to a census, then those of rows. For a key with both, the row counts."""
    import pyarrow as pa

    refused = [json.loads(reject.key) for reject in rejects if reject.key]
    census.add_keys(hash_keys(refused).tolist(), [False] * len(refused))
    columns = pa.Table.from_pandas(rows[key], preserve_index=False).columns
    deleted = rows["deleted"].tolist() if "deleted" in rows else [False] * len(rows)
    census.add_keys(hash_keys(zip(*(column.to_pylist() for column in columns), strict=True)).tolist(), deleted)
