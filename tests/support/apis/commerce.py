"""Orders, charges and payments: Stripe, Shopify, Square, WooCommerce."""

from datetime import datetime
from decimal import Decimal
from typing import Literal

from tests.support.apis import Api
from wholeday import Epoch, Field, Json, Record


class Refund(Record):
    id: str = Field(primary_key=True)
    amount: int
    reason: str | None


class StripeCharge(Record):
    id: str = Field(primary_key=True)
    amount: int = Field(ge=0)
    currency: str = Field(to_upper=True, min_length=3, max_length=3)
    status: Literal["succeeded", "pending", "failed"]
    created: Epoch
    customer: str | None
    card_brand: str | None = Field("payment_method_details.card.brand")
    metadata: Json | None
    refunds: list[Refund] | None = Field("refunds.data")
    updated_at: datetime | None  # Stripe has none


CHARGE = {
    "object": "charge",
    "currency": "eur",
    "status": "succeeded",
    "created": 1795168800,
    "customer": None,
    "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242"}},
}
STRIPE_CHARGES = Api(
    StripeCharge,
    {
        "object": "list",
        "has_more": False,
        "data": [
            CHARGE
            | {"id": "ch_1", "amount": 1999, "metadata": {"order": "7", "gift": "no"}}
            | {"refunds": {"data": [{"id": "re_1", "amount": 500, "reason": None}], "has_more": False}},
            CHARGE | {"id": "ch_2", "amount": 5, "metadata": {}, "payment_method_details": None, "refunds": None},
            CHARGE | {"id": "ch_3", "amount": 9, "refunds": {"data": [{"id": "re_2", "amount": 1}], "has_more": True}},
        ],
    },
    {
        "select id, amount, currency, created, card_brand, metadata from things order by id": [
            ("ch_1", 1999, "EUR", "2026-11-20T10:00:00.000000Z", "visa", '{"gift":"no","order":"7"}'),
            ("ch_2", 5, "EUR", "2026-11-20T10:00:00.000000Z", None, "{}"),
        ],
        "select things_id, id, amount, reason from things_refunds": [("ch_1", "re_1", 500, None)],
    },
    [("refunds.data", "is not complete, by the field has_more beside it")],
    "data",
)


class InvoiceLine(Record):
    id: str = Field(primary_key=True)
    amount: int
    quantity: int | None
    period_end: Epoch | None = Field("period.end")


class StripeInvoice(Record):
    id: str = Field(primary_key=True)
    number: str | None
    total: int
    due_date: Epoch | None
    finalized_at: Epoch | None = Field("status_transitions.finalized_at")
    lines: list[InvoiceLine] = Field("lines.data")
    updated_at: datetime | None


STRIPE_INVOICES = Api(
    StripeInvoice,
    {
        "object": "list",
        "has_more": False,
        "data": [
            {
                "id": "in_1",
                "number": "A-0001",
                "total": 2400,
                "due_date": None,
                "status_transitions": {"finalized_at": 1795168800, "paid_at": None},
                "lines": {
                    "object": "list",
                    "has_more": False,
                    "total_count": 2,
                    "data": [
                        {"id": "il_2", "amount": 400, "quantity": None, "period": {"start": 1, "end": 1795168800}},
                        {"id": "il_1", "amount": 2000, "quantity": 2, "period": {"start": 1, "end": 1795168801}},
                    ],
                },
            },
            {"id": "in_2", "total": 1, "lines": {"has_more": False, "total_count": 11, "data": []}},
            {"id": "in_3", "total": 1, "due_date": 1795168800000, "lines": {"has_more": False, "data": []}},
        ],
    },
    {
        "select id, number, total, finalized_at from things": [("in_1", "A-0001", 2400, "2026-11-20T10:00:00.000000Z")],
        "select id, amount, quantity, period_end from things_lines order by id": [
            ("il_1", 2000, 2, "2026-11-20T10:00:01.000000Z"),
            ("il_2", 400, None, "2026-11-20T10:00:00.000000Z"),
        ],
    },
    [
        ("lines.data", "is not complete, by the field total_count beside it"),
        ("due_date", "is 100000000000 or more: declare the column EpochMillis"),
    ],
    "data",
)


class TaxLine(Record):
    title: str
    rate: Decimal = Field(max_digits=9, decimal_places=5)


class LineItem(Record):
    id: int = Field(primary_key=True)
    sku: str | None
    price: Decimal = Field(max_digits=12, decimal_places=2)
    quantity: int = Field(ge=0)
    tax_lines: list[TaxLine] | None


class ShopifyOrder(Record):
    id: int = Field(primary_key=True)
    name: str
    total: Decimal = Field("total_price", max_digits=12, decimal_places=2)
    tags: str | None = Field(strip_whitespace=True)
    customer_id: int | None = Field("customer.id")
    note_attributes: Json | None
    line_items: list[LineItem]
    updated_at: datetime


SHOPIFY_ORDERS = Api(
    ShopifyOrder,
    {
        "orders": [
            {
                "id": 5000000000001,
                "name": "#1001",
                "total_price": "49.90",
                "tags": "",
                "customer": {"id": 77, "email": "ada@example.com"},
                "note_attributes": [{"name": "gift", "value": "yes"}],
                "updated_at": "2026-11-20T05:00:00-05:00",
                "line_items": [
                    {
                        "id": 12,
                        "sku": "MUG",
                        "price": "20.00",
                        "quantity": 2,
                        "tax_lines": [{"title": "VAT", "rate": 0.19}, {"title": "City", "rate": 0.005}],
                    },
                    {"id": 11, "sku": None, "price": "9.9", "quantity": 1, "tax_lines": []},
                ],
            },
            {
                "id": 5000000000002,
                "name": "#1002",
                "total_price": "1.999",
                "customer": None,
                "line_items": [],
                "updated_at": "2026-11-20T05:00:00-05:00",
            },
        ]
    },
    {
        "select id, total, tags, customer_id, note_attributes, updated_at from things": [
            (5000000000001, 49.9, None, 77, '[{"name":"gift","value":"yes"}]', "2026-11-20T10:00:00.000000Z")
        ],
        "select id, sku, price, quantity from things_line_items order by id": [
            (11, None, 9.9, 1),
            (12, "MUG", 20.0, 2),
        ],
        "select things_line_items_id, position, title, rate from things_line_items_tax_lines order by 2": [
            (12, 0, "VAT", 0.19),
            (12, 1, "City", 0.005),
        ],
    },
    [("total_price", 'has more than 2 digits after the point: "1.999"')],
    "orders",
)


class SquareFee(Record):
    type: str
    amount: int = Field("amount_money.amount")


class SquarePayment(Record):
    id: str = Field(primary_key=True)
    amount: int = Field("amount_money.amount")
    currency: str = Field("amount_money.currency")
    tip: int | None = Field("tip_money.amount")
    status: Literal["APPROVED", "PENDING", "COMPLETED", "CANCELED", "FAILED"]
    last_4: str | None = Field("card_details.card.last_4")
    fees: list[SquareFee] | None = Field("processing_fee")
    updated_at: datetime


SQUARE_PAYMENTS = Api(
    SquarePayment,
    {
        "payments": [
            {
                "id": "pay1",
                "amount_money": {"amount": 1000, "currency": "USD"},
                "status": "COMPLETED",
                "card_details": {"status": "CAPTURED", "card": {"card_brand": "VISA", "last_4": "1111"}},
                "processing_fee": [{"type": "INITIAL", "amount_money": {"amount": 59, "currency": "USD"}}],
                "updated_at": "2026-11-20T10:00:00.123Z",
            },
            {
                "id": "pay2",
                "amount_money": {"amount": 5, "currency": "USD"},
                "status": "LOST",
                "updated_at": "2026-11-20T10:00:00.123Z",
            },
        ]
    },
    {
        "select id, amount, currency, tip, status, last_4, updated_at from things": [
            ("pay1", 1000, "USD", None, "COMPLETED", "1111", "2026-11-20T10:00:00.123000Z")
        ],
        "select things_id, position, type, amount from things_fees": [("pay1", 0, "INITIAL", 59)],
    },
    [("status", "Invalid enum value 'LOST'")],
    "payments",
)


class MetaData(Record):
    id: int = Field(primary_key=True)
    key: str
    value: Json | None


class WooOrder(Record):
    id: int = Field(primary_key=True)
    status: str
    total: Decimal = Field(max_digits=12, decimal_places=2)
    email: str | None = Field("billing.email", strip_whitespace=True, to_lower=True, pattern="@")
    first_sku: str | None = Field("line_items.0.sku")
    meta_data: list[MetaData]
    paid_at: datetime | None = Field("date_paid_gmt")
    updated_at: datetime = Field("date_modified_gmt")


WOO = {"status": "processing", "total": "29.35", "date_modified_gmt": "2026-11-20T10:00:00"}
WOOCOMMERCE_ORDERS = Api(
    WooOrder,
    [
        WOO
        | {"id": 727, "billing": {"email": " Bo@Example.com"}, "line_items": [{"id": 1, "sku": "CAP", "price": 14.675}]}
        | {"meta_data": [{"id": 3, "key": "plan", "value": {"b": 1, "a": 2}}, {"id": 4, "key": "x", "value": "1"}]},
        WOO | {"id": 728, "billing": {"email": "nobody"}, "line_items": [], "meta_data": []},
        WOO | {"id": 729, "billing": {"email": ""}, "line_items": [], "meta_data": [], "date_paid_gmt": None},
    ],
    {
        "select id, total, email, first_sku, paid_at, updated_at from things order by id": [
            (727, 29.35, "bo@example.com", "CAP", None, "2026-11-20T10:00:00.000000Z"),
            (729, 29.35, None, None, None, "2026-11-20T10:00:00.000000Z"),
        ],
        "select id, key, value from things_meta_data order by id": [(3, "plan", '{"a":2,"b":1}'), (4, "x", '"1"')],
    },
    [("billing.email", "does not match the pattern @")],
)
