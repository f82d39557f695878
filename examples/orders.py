"""Define the dataset `orders` of a shop, with a table of the line items of its orders."""

from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from wholeday import Backfill, Dataset, Epoch, Extract, Field, Json, Load, Record, Transform


class LineItem(Record):
    id: int = Field(primary_key=True)
    sku: str | None = Field("variant.sku", to_upper=True)
    price: Decimal = Field(max_digits=12, decimal_places=2)
    quantity: int = Field(ge=1)


class Order(Record):
    id: UUID = Field(primary_key=True)
    customer_id: int | None = Field("customer.id")
    status: Literal["open", "paid", "cancelled"]
    total: Decimal | None = Field("total_price", max_digits=12, decimal_places=2)
    placed_at: Epoch | None = Field("created")
    metadata: Json | None
    line_items: list[LineItem] | None = Field("lines.data")
    updated_at: datetime | None


ORDERS = Dataset("orders", Order)


class ExtractOrders(Extract, dataset=ORDERS):
    """The raw files of a day."""


class TransformOrders(Transform, dataset=ORDERS):
    """The clean files of a day."""


class LoadOrders(Load, dataset=ORDERS):
    """The rows and the marker of a day."""


class BackfillOrders(Backfill, dataset=ORDERS):
    """LoadOrders for a range of days."""
