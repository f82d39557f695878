"""Define a second dataset as a user would: one file and one section of luigi.cfg."""

from datetime import datetime

from wholeday import Dataset, Extract, Field, Load, Record, Transform


class Order(Record):
    number: str = Field(primary_key=True)
    line: int = Field(primary_key=True, ge=1)
    amount: float | None = Field(ge=0)
    paid: bool | None
    updated_at: datetime | None = Field("changed")


ORDERS = Dataset("orders", Order)


class ExtractOrders(Extract, dataset=ORDERS):
    pass


class TransformOrders(Transform, dataset=ORDERS):
    pass


class LoadOrders(Load, dataset=ORDERS):
    pass
