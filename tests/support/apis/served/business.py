"""Serve orders, payments, subscriptions, deals, accounts and hours: Shopify, Stripe, Square, Salesforce and others."""

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.support.apis.served.endpoint import Endpoint, epoch, hide, reveal, with_millis
from tests.support.server import Answer, Request, Server
from tests.support.vendor import Record, email, first, iso, last, make_link, name


class Shopify(Endpoint):
    """Orders: links with `page_info`, which goes with `limit` only."""

    path = "/admin/api/2026-01/orders.json"
    query = "?status=any"
    size, largest = 50, 250
    auth = "header:X-Shopify-Access-Token:SHOPIFY_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SHOPIFY_TOKEN": "shpat_0123456789"}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        items = [
            {
                "id": 10 * number + item,
                "sku": None if item == 2 else f"SKU-{item}",
                "title": "Mug",
                "price": f"{item}.50",
                "quantity": item,
                "taxable": True,
                "tax_lines": [{"title": "VAT", "rate": 0.19, "price": "0.19"}],
            }
            for item in range(1, 2 + number % 3)
        ]
        return {
            "id": 5_000_000_000_000 + number,
            "name": f"#{1001 + number}",
            "email": email(number),
            "created_at": f"{self.created(number):%Y-%m-%dT%H:%M:%S}-00:00",
            "updated_at": iso(self.moments(number)),
            "cancelled_at": iso(self.moments(number)) if number % 9 == 8 else None,
            "currency": "EUR",
            "total_price": f"{10 + number}.90",
            "taxes_included": number % 2 == 0,
            "tags": "vip" if number % 4 == 1 else "",
            "financial_status": ("paid", "pending", "refunded")[number % 3],
            "customer": None
            if number % 7 == 6
            else {"id": 77 + number, "first_name": first(number), "orders_count": 2},
            "note_attributes": [{"name": "gift", "value": "yes"}] if number % 5 == 2 else [],
            "line_items": items,
        }

    def list_page(self, request: Request) -> Answer:
        query = dict(request.query)
        if "page_info" in query and query.keys() - {"page_info", "limit", "fields"}:
            return Answer({"errors": {"page_info": "cannot be passed with other parameters"}}, 400)
        start = reveal(query.get("page_info"), "after")
        if start is None:
            return Answer({"errors": {"page_info": "Invalid value"}}, 400)
        size = self.find_size(query.get("limit"))
        came, after = self.cut(self.keep(query, "updated_at_min", "updated_at_max"), start, size)
        links = {} if after is None else {"next": {"page_info": hide(after, "after"), "limit": size}}
        headers = {"X-Shopify-Shop-Api-Call-Limit": "1/40", "Link": make_link(self.url.partition("?")[0], {}, links)}
        return Answer({"orders": came}, headers=headers)


class Stripe(Endpoint):
    """Charges: after the id of the last one; unknown parameters are refused."""

    path = "/v1/charges"
    size, largest = 10, 100
    auth = "bearer:STRIPE_KEY"
    environment: ClassVar[dict[str, str]] = {"STRIPE_KEY": "sk_test_0123456789"}

    def describe(self, number: int) -> Record:
        refunds = [{"id": f"re_{number}", "amount": 5, "reason": None, "created": epoch(self.moments(number))}]
        return {
            "id": f"ch_{number:05}",
            "object": "charge",
            "amount": 1999 + number,
            "amount_refunded": 5 if number % 4 == 0 else 0,
            "captured": True,
            "created": epoch(self.created(number)),
            "currency": "eur",
            "customer": f"cus_{number}" if number % 3 else None,
            "description": None,
            "livemode": False,
            "metadata": {f"key_{number}": "x"} if number % 2 else {},
            "billing_details": {
                "email": email(number),
                "name": name(number),
                "address": {"city": "Oslo", "line1": None},
            },
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "exp_year": 2030, "last4": "4242"}},
            "refunds": {
                "object": "list",
                "data": refunds if number % 4 == 0 else [],
                "has_more": False,
                "url": f"/v1/charges/ch_{number:05}/refunds",
            },
            "status": ("succeeded", "pending", "failed")[number % 3],
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        known = {
            "limit",
            "starting_after",
            "ending_before",
            "created[gte]",
            "created[lt]",
            "created[gt]",
            "created[lte]",
        }
        if unknown := sorted(query.keys() - known):
            error = {"code": "parameter_unknown", "message": f"Received unknown parameter: {unknown[0]}"}
            return Answer({"error": {**error, "type": "invalid_request_error"}}, 400)
        if int(query.get("limit", 1)) > self.largest:
            return Answer({"error": {"message": "This value must be less than or equal to 100", "param": "limit"}}, 400)
        keys, after = self.keys, query.get("starting_after")
        if after and after not in keys:
            return Answer({"error": {"code": "resource_missing", "message": f"No such charge: '{after}'"}}, 400)
        start = keys.index(after) + 1 if after else 0
        came, following = self.cut(self.records, start, self.find_size(query.get("limit")))
        return Answer({"object": "list", "url": self.path, "has_more": following is not None, "data": came})


class WooCommerce(Endpoint):
    """Orders of WordPress: numbered pages, totals in headers, times without a zone."""

    path = "/wp-json/wc/v3/orders"
    size, largest = 10, 100
    auth = "basic:WOO_KEY:WOO_SECRET"
    environment: ClassVar[dict[str, str]] = {"WOO_KEY": "ck_0123456789", "WOO_SECRET": "cs_0123456789"}
    updated = "date_modified_gmt"

    def describe(self, number: int) -> Record:
        return {
            "id": 727 + number,
            "parent_id": 0,
            "number": str(727 + number),
            "status": "completed" if number % 3 else "processing",
            "currency": "USD",
            "date_created_gmt": iso(self.created(number))[:-1],
            "date_modified_gmt": iso(self.moments(number))[:-1],
            "date_paid_gmt": iso(self.moments(number))[:-1] if number % 2 else None,
            "total": f"{29 + number}.35",
            "prices_include_tax": False,
            "billing": {"first_name": first(number), "last_name": last(number), "city": "Oslo", "email": email(number)},
            "meta_data": [{"id": 10 * number + 1, "key": "plan", "value": {"a": 1} if number % 2 else "gold"}],
            "line_items": [
                {"id": 3 * number, "name": "Cap", "sku": "CAP", "quantity": 1, "price": 14.5 if number else 14}
            ],
            "coupon_lines": [],
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        size, page = int(query.get("per_page", self.size)), int(query.get("page", 1))
        if not 1 <= size <= self.largest or page < 1:
            return Answer(
                {"code": "rest_invalid_param", "message": "Invalid parameter(s)", "data": {"status": 400}}, 400
            )
        low, high = query.get("modified_after", "")[:19], query.get("modified_before", "~")[:19]
        found = [each for each in self.records if low < each["date_modified_gmt"] < high]
        start = int(query.get("offset", (page - 1) * size))
        came, following = self.cut(found, start, size)
        pages = -(-len(found) // size)
        links = ({"prev": {"page": page - 1}} if page > 1 else {}) | ({"next": {"page": page + 1}} if following else {})
        headers = {
            "X-WP-Total": str(len(found)),
            "X-WP-TotalPages": str(pages),
            "Link": make_link(self.url, query, links),
        }
        return Answer(came, headers=headers)


class Chargebee(Endpoint):
    """Subscriptions, each with its customer; `next_offset` is a text; times are seconds."""

    path = "/api/v2/subscriptions"
    key = "subscription.id"
    size, largest = 10, 100
    auth = "basic:CHARGEBEE_KEY:CHARGEBEE_NONE"
    environment: ClassVar[dict[str, str]] = {"CHARGEBEE_KEY": "test_0123456789", "CHARGEBEE_NONE": ""}
    updated = "subscription.updated_at"

    def describe(self, number: int) -> Record:
        at = epoch(self.moments(number))
        subscription = {
            "id": f"AzZ{number:04}",
            "plan_quantity": 1 + number % 5,
            "status": "active" if number % 3 else "cancelled",
            "current_term_start": at,
            "created_at": epoch(self.created(number)),
            "updated_at": at,
            "resource_version": 1000 * at,
            "has_scheduled_changes": False,
            "deleted": False,
            "currency_code": "EUR",
            "mrr": 1000,
            "subscription_items": [{"item_price_id": "basic", "item_type": "plan", "quantity": 1, "unit_price": 1000}],
        }
        optional = {"cancelled_at": at} if number % 3 == 0 else {}
        customer = {"id": f"cust{number}", "first_name": first(number), "email": email(number), "net_term_days": 0}
        return {"subscription": subscription | optional, "customer": customer | {"deleted": False}}

    def list_page(self, request: Request) -> Answer:
        query = request.query
        start = reveal(query.get("offset"))
        if start is None or int(query.get("limit", 1)) > self.largest:
            return Answer({"message": "invalid offset or limit", "api_error_code": "param_wrong_value"}, 400)
        low, high = int(query.get("updated_at[after]", 0)), int(query.get("updated_at[before]", 10**12))
        found = self.describe_all(lambda number: low < epoch(self.moments(number)) < high)
        came, after = self.cut(found, start, self.find_size(query.get("limit")))
        return Answer({"list": came} | ({} if after is None else {"next_offset": hide(after)}))


class HubSpot(Endpoint):
    """Deals: all properties are texts or null; the last page has no `paging`."""

    path = "/crm/v3/objects/deals"
    size, largest = 10, 100
    auth = "bearer:HUBSPOT_TOKEN"
    environment: ClassVar[dict[str, str]] = {"HUBSPOT_TOKEN": "pat-0123456789"}
    updated = "updatedAt"

    def describe(self, number: int) -> Record:
        at = with_millis(self.moments(number))
        properties = {
            "amount": None if number % 5 == 4 else f"{1500 + number}.25" if number % 2 else str(1500 + number),
            "closedate": at if number % 3 else None,
            "createdate": with_millis(self.created(number)),
            "dealname": f"Deal {number}",
            "dealstage": "closedwon" if number % 2 else "appointmentscheduled",
            "hs_is_closed": "true" if number % 2 else "false",
            "hs_lastmodifieddate": at,
            "hs_num_contacts": str(number % 4),
            "hs_object_id": str(9000 + number),
        }
        own = {"id": str(9000 + number), "properties": properties, "createdAt": with_millis(self.created(number))}
        return {**own, "updatedAt": at, "archived": False}

    def list_page(self, request: Request) -> Answer:
        after = request.query.get("after", "0")
        if not after.isdigit() or int(request.query.get("limit", 1)) > self.largest:
            return Answer({"status": "error", "message": "Invalid input", "category": "VALIDATION_ERROR"}, 400)
        size = self.find_size(request.query.get("limit"))
        came, following = self.cut(self.records, int(after), size)
        link = f"{self.url}?{urlencode({'limit': size, 'after': following})}"
        paging = {} if following is None else {"paging": {"next": {"after": str(following), "link": link}}}
        return Answer({"results": came, **paging})


class Salesforce(Endpoint):
    """Accounts by a query: `nextRecordsUrl` names another path."""

    path = "/services/data/v60.0/query"
    query = "?q=SELECT+Id%2CName+FROM+Account"
    key = "Id"
    size = 20
    auth = "bearer:SALESFORCE_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SALESFORCE_TOKEN": "00D0123456789"}
    updated = "SystemModstamp"

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        super().__init__(server, count, **traits)
        for start in range(self.size, count, self.size):
            server.on(f"{self.path}/01gD0000002HU6K-{start}", self._respond)

    def describe(self, number: int) -> Record:
        key = f"0015g00000{number:05}AAA"
        at = with_millis(self.moments(number), "+0000")
        return {
            "attributes": {"type": "Account", "url": f"/services/data/v60.0/sobjects/Account/{key}"},
            "Id": key,
            "IsDeleted": False,
            "Name": f"Acme {number}",
            "AnnualRevenue": None if number % 4 == 0 else 350000000.0 + number / 4,
            "NumberOfEmployees": 10 * number if number % 3 else None,
            "BillingAddress": {"city": "Oslo", "postalCode": "0150", "latitude": 59.9} if number % 5 else None,
            "Owner": {
                "attributes": {"type": "User", "url": "/services/data/v60.0/sobjects/User/1"},
                "Name": name(number),
            },
            "LastActivityDate": f"{self.created(number):%Y-%m-%d}" if number % 2 else None,
            "CreatedDate": with_millis(self.created(number), "+0000"),
            "SystemModstamp": at,
        }

    def list_page(self, request: Request) -> Answer:
        if request.path == self.path and "q" not in request.query:
            return Answer([{"message": "SOQL statements cannot be empty or null", "errorCode": "MALFORMED_QUERY"}], 400)
        start = int(request.path.rpartition("-")[2]) if request.path != self.path else 0
        came, following = self.cut(self.records, start, self.size)
        body = {"totalSize": self.count, "done": following is None, "records": came}
        more = {} if following is None else {"nextRecordsUrl": f"{self.path}/01gD0000002HU6K-{following}"}
        return Answer({**body, **more})


class Square(Endpoint):
    """Payments: a cursor in the body; money is an object; `begin_time` is about the creation."""

    path = "/v2/payments"
    size, largest = 20, 100
    auth = "bearer:SQUARE_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SQUARE_TOKEN": "EAAA0123456789"}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        money = {"amount": 1000 + number, "currency": "USD"}
        card = {"status": "CAPTURED", "card": {"card_brand": "VISA", "last_4": f"{number:04}", "exp_month": 11}}
        optional = {"tip_money": {"amount": 5, "currency": "USD"}} if number % 4 == 3 else {}
        fee = {"type": "INITIAL", "effective_at": with_millis(self.moments(number)), "amount_money": money}
        return {
            "id": f"pay{number:06}",
            "created_at": with_millis(self.created(number)),
            "updated_at": with_millis(self.moments(number)),
            "amount_money": money,
            **optional,
            "status": "COMPLETED" if number % 6 else "FAILED",
            "delay_duration": "PT168H",
            "source_type": "CARD" if number % 5 else "CASH",
            **({"card_details": card, "processing_fee": [fee]} if number % 5 else {}),
            "location_id": "L88917AVBK2S5",
            "receipt_number": f"B{number}",
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        start = reveal(query.get("cursor"))
        if start is None or int(query.get("limit", 1)) > self.largest:
            return Answer({"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "INVALID_VALUE"}]}, 400)
        low, high = query.get("begin_time", ""), query.get("end_time", "~")
        found = self.describe_all(lambda number: low <= iso(self.created(number)) < high)
        came, after = self.cut(found, start, self.find_size(query.get("limit")))
        return Answer({"payments": came} | ({} if after is None else {"cursor": hide(after)}))


class Harvest(Endpoint):
    """Time entries: numbered pages with links beside the totals; `spent_date` is a date, `started_time` a text."""

    path = "/v2/time_entries"
    size, largest = 25, 2000
    auth = "bearer:HARVEST_TOKEN"
    environment: ClassVar[dict[str, str]] = {"HARVEST_TOKEN": "1234.pt.0123456789"}
    needs: ClassVar[dict[str, Any]] = {"headers": {"Harvest-Account-Id": "42"}}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        return {
            "id": 636_709_355 + number,
            "spent_date": f"{self.created(number).date():%Y-%m-%d}",
            "user": {"id": 1782959, "name": name(number)},
            "client": {"id": 5735774, "name": "ABC Corp", "currency": "USD"},
            "hours": 2 if number < 3 else 2.11 + number / 4,
            "notes": "Adding CSS" if number % 2 else None,
            "created_at": iso(self.created(number)),
            "updated_at": iso(self.moments(number)),
            "is_locked": number % 2 == 0,
            "locked_reason": "Item Invoiced" if number % 2 == 0 else None,
            "timer_started_at": None,
            "started_time": "3:00pm",
            "billable_rate": None if number % 3 else 100.0,
            "invoice": {"id": 13150403, "number": "1001"} if number % 4 == 0 else None,
            "external_reference": None,
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        if request.headers.get("Harvest-Account-Id") != "42":
            return Answer({"message": "Missing account id"}, 403)
        size, page = self.find_size(query.get("per_page")), int(query.get("page", 1))
        found = self.keep(query, "updated_since")
        came, following = self.cut(found, (page - 1) * size, size)

        def link(number: int) -> str:
            return f"{self.url}?{urlencode({**query, 'page': number, 'per_page': size})}"

        pages = -(-len(found) // size)
        counts = {"per_page": size, "total_pages": pages, "total_entries": len(found), "page": page}
        turns = {"next_page": page + 1 if following else None, "previous_page": page - 1 or None}
        links = {"first": link(1), "next": link(page + 1) if following else None, "last": link(max(pages, 1))}
        return Answer({"time_entries": came, **counts, **turns, "links": links})


class GraphQl(Endpoint):
    """Products by a query: the cursor is a variable in the body, and the list is deep in the answer."""

    path = "/admin/api/2026-01/graphql.json"
    size, largest = 50, 250
    auth = "header:X-Shopify-Access-Token:SHOPIFY_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SHOPIFY_TOKEN": "shpat_0123456789"}
    needs: ClassVar[dict[str, Any]] = {
        "method": "POST",
        "body": {
            "query": "query($after: String) { products(first: 50, after: $after) { nodes { id title vendor "
            "totalInventory priceRange { min currency } tags createdAt updatedAt } "
            "pageInfo { hasNextPage endCursor } } }"
        },
    }
    updated = "updatedAt"

    def describe(self, number: int) -> Record:
        return {
            "id": f"gid://shopify/Product/{8_000_000 + number}",
            "title": f"Product {number}",
            "vendor": "Acme" if number % 4 else None,
            "totalInventory": number - 3,
            "priceRange": {"min": f"{number}.95", "currency": "EUR"},
            "tags": ["new", "sale"][: number % 3],
            "createdAt": iso(self.created(number)),
            "updatedAt": iso(self.moments(number)),
        }

    def list_page(self, request: Request) -> Answer:
        asked = json.loads(request.body or b"{}")
        if "query" not in asked:
            return Answer({"errors": [{"message": "Must provide query string."}]}, 400)
        start = reveal((asked.get("variables") or {}).get("after"))
        if start is None:
            return Answer({"data": None, "errors": [{"message": "Invalid cursor", "path": ["products"]}]})
        came, following = self.cut(self.records, start, self.size)
        end = {"hasNextPage": following is not None, "endCursor": hide(start + len(came))}
        cost = {"cost": {"requestedQueryCost": 52, "actualQueryCost": 12}}
        return Answer({"data": {"products": {"nodes": came, "pageInfo": end}}, "extensions": cost})
