"""Define a second dataset as a user would: one file and one section of luigi.cfg."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import msgspec
from luigi.util import requires

from wholeday.config.source import Source
from wholeday.schema.dataset import Dataset
from wholeday.tasks.day_tasks import Extract, Load, Transform

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa


class Orders(Source):
    section = "orders"


class Order(msgspec.Struct):
    number: str
    line: Annotated[int, msgspec.Meta(ge=1)]
    amount: float | None = None
    paid: bool | None = None
    changed: dt.datetime | None = None


def clean(orders: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[tuple[str, str], pd.Series[bool]]]":
    rows = orders.rename(columns={"changed": "updated_at"})
    return rows, {("amount", "is negative"): (rows["amount"] < 0).fillna(value=False)}


def table(metadata: "sa.MetaData") -> "sa.Table":
    import sqlalchemy as sa

    return sa.Table(
        "orders",
        metadata,
        sa.Column("number", sa.Text, primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("amount", sa.Float),
        sa.Column("paid", sa.Boolean),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    )


ORDERS = Dataset(Orders, Order, clean, table, key=("number", "line"))


class ExtractOrders(Extract):
    dataset = ORDERS


@requires(ExtractOrders)
class TransformOrders(Transform):
    dataset = ORDERS


@requires(TransformOrders)
class LoadOrders(Load):
    dataset = ORDERS
