"""Build the proposed record class, to try it before anything is written."""

import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wholeday.commands.new.model import Field, Model, Proposal
from wholeday.schema import record
from wholeday.schema.dataset import Dataset

if TYPE_CHECKING:
    import pandas as pd

SCALARS: dict[str, Any] = {type_.__name__: type_ for type_ in (int, float, bool, str)}
TYPES: dict[str, Any] = {
    **SCALARS,
    **{type_.__name__: type_ for type_ in (dt.datetime, dt.date, dt.time, decimal.Decimal, uuid.UUID)},
    **{type_.__name__: type_ for type_ in (record.Json, record.Epoch, record.EpochMillis)},
    **{f"list[{name}]": list[type_] for name, type_ in SCALARS.items()},  # type: ignore[valid-type]
    **{f"list[{name} | None]": list[type_ | None] for name, type_ in SCALARS.items()},  # type: ignore[valid-type]
}


def build_dataset(name: str, proposal: Proposal) -> Dataset:
    """Return the dataset that the module will define."""
    clean = None
    if proposal.time_format:
        clean = _make_clean(proposal.time_text, proposal.time_format)
    return Dataset(name, build_class(proposal.model), clean)


def build_class(model: Model) -> type[record.Record]:
    """Return the record class of a model."""
    annotations = {column.name: _annotate(column) for column in model.fields}
    fields = {
        column.name: record.Field(
            *((column.source,) if column.path not in ((), (column.name,)) else ()),
            primary_key=column.is_key,
            rest=not column.path,
            **dict(column.type.options),
        )
        for column in model.fields
    }
    return type(model.class_name, (record.Record,), {"__annotations__": annotations, "__module__": __name__, **fields})


def _annotate(column: Field) -> Any:
    type_: Any = TYPES[column.type.name] if column.children is None else list[build_class(column.children)]  # type: ignore[misc]
    return type_ | None if column.is_nullable else type_


def _make_clean(column: str, form: str) -> "Callable[[pd.DataFrame], pd.DataFrame]":
    def read_times(rows: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        return rows.assign(updated_at=pd.to_datetime(rows[column], format=form, utc=True))

    return read_times
