"""The cost of child rows, as ratios of processor time in one run. PIPELINE_ORDERS=100000 measures many orders.

The bounds are wide, as other programs share the processor and few orders are measured. The aims are beside them.
"""

import datetime as dt
import json
import os
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from tests.support.server import Answer, Request, Server
from wholeday import Dataset, Field, Record, clock
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ORDERS = int(os.environ.get("PIPELINE_ORDERS", "4000"))
ROUNDS = 3
ITEMS = 3  # of each order
PER_PAGE = 1000
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


class Item(Record):
    id: int = Field(primary_key=True)
    sku: str | None
    title: str | None
    price: Decimal | None = Field(max_digits=12, decimal_places=2)
    quantity: int


class Flat(Item):
    updated_at: dt.datetime | None


class Bare(Record):
    id: int = Field(primary_key=True)
    number: str | None
    email: str | None
    total: Decimal | None = Field("total_price", max_digits=12, decimal_places=2)
    customer_id: int | None = Field("customer.id")
    updated_at: dt.datetime | None


class Order(Bare):
    line_items: list[Item]


CLASSES: dict[str, type[Record]] = {"flats": Flat, "bares": Bare, "orders": Order}


def make_item(key: int) -> dict[str, Any]:
    return {"id": key, "sku": f"SKU-{key % 977}", "title": "Article", "price": f"{key % 300}.50", "quantity": key % 7}


def make_record(name: str, key: int) -> dict[str, Any]:
    """Make a record of a dataset."""
    changed = {"updated_at": "2026-11-20T10:00:00Z"}
    if name == "flats":
        return make_item(key) | changed
    order = {"id": key, "number": f"A-{key}", "email": f"user{key}@example.com", "total_price": f"{key % 900}.50"}
    items = {"line_items": [make_item(ITEMS * key + place) for place in range(ITEMS)]} if name == "orders" else {}
    return order | {"customer": {"id": 7 * key}} | items | changed


@pytest.fixture
def load(
    server: Server, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int, int], float]:
    """Serve the datasets. A call loads a snapshot of one, and returns the seconds of processor time."""
    pages = {
        (name, start // PER_PAGE + 1): json.dumps(
            [make_record(name, key) for key in range(start, min(start + PER_PAGE, ORDERS))]
        ).encode()
        for name in CLASSES
        for start in range(0, ORDERS, PER_PAGE)
    }

    def answer(request: Request) -> Answer:
        body = pages.get((request.path[1:], int(request.query["page"])), b"[]")
        return Answer(body, headers={"Date": format_datetime(clock.utc_now(), usegmt=True)})

    for name in CLASSES:
        server.on(f"/{name}", answer)
    configure("pipeline", engine_workers=1)

    def load_one(name: str, number: int, day: int) -> float:
        """Load a day into warehouse `number`."""
        now = NOON + dt.timedelta(days=day)
        monkeypatch.setattr(clock, "utc_now", lambda: now)
        configure("pipeline", data_dir=f"{name}-{number}", database=f"sqlite:///{name}-{number}.db")
        url = f"{server.url}/{name}"
        configure(name, url=url, mode="snapshot", paginator="page", page_size=PER_PAGE, ceiling=ORDERS + 1)
        workspace = read_workspace(Dataset(name, CLASSES[name]))
        before = time.process_time()
        stages.extract(workspace, now.date())
        stages.transform(workspace, now.date())
        stages.load(workspace, now.date())
        return time.process_time() - before

    return load_one


def test_item_costs_little_more_than_flat_row(load: Callable[[str, int, int], float]) -> None:
    """The aim is 1.3 times a flat row."""
    load("orders", 0, 0)  # imports
    ratios = []
    for number in range(1, ROUNDS + 1):
        flat, bare, whole = (load(name, number, 0) for name in CLASSES)
        ratios.append((whole - bare) / ITEMS / flat)
    print(ratios)
    assert statistics.median(ratios) < 2


def test_unchanged_items_cost_little(load: Callable[[str, int, int], float]) -> None:
    """The aim is 2.2 times a snapshot of orders without items."""
    ratios = []
    for name in ("bares", "orders"):
        load(name, 0, 0)
    for day in range(1, ROUNDS + 1):
        bare, whole = load("bares", 0, day), load("orders", 0, day)
        ratios.append(whole / bare)
    print(ratios)
    assert statistics.median(ratios) < 3.5
