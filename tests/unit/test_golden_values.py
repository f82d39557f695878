"""Pin the transform of every type: a change of these rows needs a new LIBRARY_VERSION."""

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from typing import Literal

from tests.support import ROOT
from wholeday.schema.conversion import LIBRARY_VERSION, Conversion
from wholeday.schema.kinds import to_arrow
from wholeday.schema.record import Epoch, EpochMillis, Field, Json, Record
from wholeday.transform.rows import transform

GOLDEN = ROOT / "tests" / "golden"


class Colour(enum.Enum):
    RED = "red"


class Discount(Record):
    code: str
    percent: float | None


class Line(Record):
    sku: str = Field(primary_key=True, to_upper=True)
    price: Decimal | None = Field(max_digits=8, decimal_places=2)
    sold: dt.datetime | None
    discounts: list[Discount] | None


class Everything(Record):
    """One column of each type, and each way to find a value."""

    id: uuid.UUID = Field(primary_key=True)
    whole: int | None
    real: float | None
    flag: bool | None
    words: str | None = Field("text", strip_whitespace=True, to_lower=True, pattern="e")
    moment: dt.datetime | None
    day: dt.date | None
    clock: dt.time | None
    money: Decimal | None = Field("price.amount", max_digits=10, decimal_places=3)
    state: Literal["open", "shut"] | None
    colour: Colour | None
    seconds: Epoch | None
    millis: EpochMillis | None
    extra: Json | None
    tags: list[str] | None
    first_tag: str | None = Field("tags.0")
    dotted: int | None = Field(r"a\.b")
    lines: list[Line] | None = Field("lines.data")
    updated_at: dt.datetime | None
    others: Json | None = Field(rest=True)


def test_golden_records_pin_the_library_version():
    """If rows change on purpose, raise LIBRARY_VERSION and write the golden rows again."""
    records = (GOLDEN / "types.jsonl").read_bytes().splitlines()
    conversion = Conversion(Everything, timezone="America/New_York", lenient=True)
    rows, rejects, _ = transform(records, conversion)
    found = {
        "version": LIBRARY_VERSION,
        "rows": [
            {name: value if isinstance(value, int | float | None) else str(value) for name, value in row.items()}
            for row in to_arrow(rows, conversion.columns.kinds).to_pylist()
        ],
        "rejects": [[reject.line, reject.field, reject.reason] for reject in rejects],
    }
    assert found == json.loads((GOLDEN / "types.json").read_text())
