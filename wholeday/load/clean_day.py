"""A transformed day, as a load takes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wholeday.schema.marker import Marker
from wholeday.schema.reject import Reject

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CleanDay:
    """A day as `load` takes it. Rows and rejects are read once, a batch at a time."""

    draft: Marker
    """The marker that the load completes. It counts what the manifests say: `extracted`, `rejected`, and the erased
    records as `forgotten`."""
    rows: "Iterable[pa.RecordBatch]"
    """The columns of the table in any order, and optionally `deleted` (boolean: the record is a deletion)."""
    rejects: Iterable[Reject]
