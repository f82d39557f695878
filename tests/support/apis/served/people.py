"""Serve members, messages, channels, profiles, answers and patients: Mailchimp, Twilio, Slack, Klaviyo and others."""

import re
from email.utils import format_datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.support.apis.served.endpoint import Endpoint, epoch, hide, reveal, with_millis
from tests.support.server import Answer, Request
from tests.support.vendor import Record, email, first, iso, last, make_uuid, username


class Slack(Endpoint):
    """Channels: an empty `next_cursor` is the end; seconds and milliseconds side by side."""

    path = "/api/conversations.list"
    size, largest = 100, 1000
    auth = "bearer:SLACK_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SLACK_TOKEN": "xoxb-0123456789"}
    updated = "updated"

    def describe(self, number: int) -> Record:
        at = epoch(self.moments(number))
        return {
            "id": f"C{number:08}",
            "name": f"channel-{number}",
            "is_channel": True,
            "is_archived": number % 5 == 4,
            "created": epoch(self.created(number)),
            "creator": "U061F7AUR",
            "updated": 1000 * at,
            "topic": {"value": "", "creator": "", "last_set": 0}
            if number % 2
            else {"value": "x", "creator": "U1", "last_set": at},
            "previous_names": ["old"] if number % 3 == 0 else [],
            "num_members": number % 50,
        }

    def list_page(self, request: Request) -> Answer:
        start = reveal(request.query.get("cursor"), "team")
        if start is None:
            return Answer({"ok": False, "error": "invalid_cursor"})
        came, following = self.cut(self.records, start, self.find_size(request.query.get("limit")))
        return Answer(
            {"ok": True, "channels": came, "response_metadata": {"next_cursor": hide(following, "team") or ""}}
        )


class Mailchimp(Endpoint):
    """Members of a list: `offset`, `count` and `total_items`; merge fields have the names of the list."""

    path = "/3.0/lists/a1b2c3/members"
    size, largest = 10, 1000
    auth = "basic:MAILCHIMP_USER:MAILCHIMP_KEY"
    environment: ClassVar[dict[str, str]] = {"MAILCHIMP_USER": "any", "MAILCHIMP_KEY": "0123456789-us6"}
    updated = "last_changed"

    def describe(self, number: int) -> Record:
        return {
            "id": make_uuid("mailchimp", number).replace("-", ""),
            "email_address": email(number),
            "unique_email_id": f"{number:010x}",
            "full_name": f"{first(number)} {last(number)}",
            "web_id": 100 + number,
            "status": "subscribed" if number % 4 else "unsubscribed",
            "merge_fields": {"FNAME": first(number), "LNAME": last(number), "PHONE": "", "BIRTHDAY": "05/12"},
            "stats": {"avg_open_rate": 0 if number < 5 else 0.25, "avg_click_rate": 0},
            "ip_signup": "",
            "timestamp_opt": f"{self.created(number):%Y-%m-%dT%H:%M:%S}+00:00",
            "member_rating": 1 + number % 5,
            "last_changed": f"{self.moments(number):%Y-%m-%dT%H:%M:%S}+00:00",
            "vip": False,
            "location": {"latitude": 0, "longitude": 0 if number % 2 else 10.75, "gmtoff": 0, "country_code": ""},
            "tags_count": number % 3,
            "tags": [{"id": tag, "name": f"tag {tag}"} for tag in range(number % 3)],
            "_links": [{"rel": "self", "href": "https://us6.api.mailchimp.com/3.0", "method": "GET"}],
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        start, size = int(query.get("offset", 0)), int(query.get("count", self.size))
        if size > self.largest:
            return Answer({"title": "Invalid Resource", "status": 400, "detail": "count is too large"}, 400)
        found = self.keep(query, "since_last_changed", "before_last_changed")
        came, _ = self.cut(found, start, size)
        return Answer({"members": came, "list_id": "a1b2c3", "total_items": len(found), "_links": []})


class Twilio(Endpoint):
    """Messages: a relative `next_page_uri`; numbers and prices are texts, and times follow RFC 2822."""

    path = "/2010-04-01/Accounts/AC0123/Messages.json"
    key = "sid"
    size, largest = 50, 1000
    auth = "basic:TWILIO_SID:TWILIO_TOKEN"
    environment: ClassVar[dict[str, str]] = {"TWILIO_SID": "AC0123", "TWILIO_TOKEN": "tw0123456789"}
    updated = "date_updated"

    def describe(self, number: int) -> Record:
        return {
            "body": "Hi",
            "num_segments": str(1 + number % 2),
            "direction": "outbound-api",
            "from": f"+1555000{number:04}",
            "to": f"+1555111{number:04}",
            "date_updated": format_datetime(self.moments(number)),
            "price": f"-0.0{75 + number % 9}0" if number % 4 else None,
            "error_message": None,
            "error_code": 30003 if number % 10 == 9 else None,
            "uri": f"/2010-04-01/Accounts/AC0123/Messages/SM{number:032}.json",
            "account_sid": "AC0123",
            "num_media": "0",
            "status": "delivered",
            "sid": f"SM{number:032}",
            "date_sent": format_datetime(self.moments(number)) if number % 5 else None,
            "date_created": format_datetime(self.created(number)),
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "subresource_uris": {"media": f"/2010-04-01/Accounts/AC0123/Messages/SM{number:032}/Media.json"},
        }

    def list_page(self, request: Request) -> Answer:
        size, page = self.find_size(request.query.get("PageSize")), int(request.query.get("Page", 0))
        if page and "PageToken" not in request.query:
            return Answer({"code": 20006, "message": "PageToken is required", "status": 400}, 400)
        came, following = self.cut(self.records, page * size, size)

        def link(number: int) -> str:
            return f"{self.path}?{urlencode({'PageSize': size, 'Page': number, 'PageToken': f'PASM{number}'})}"

        place = {"page": page, "page_size": size, "start": page * size, "end": page * size + len(came) - 1}
        links = {"uri": link(page), "first_page_uri": link(0), "previous_page_uri": link(page - 1) if page else None}
        return Answer({"messages": came, **place, **links, "next_page_uri": link(page + 1) if following else None})


class Klaviyo(Endpoint):
    """Profiles as JSON:API: attributes under `attributes`, links to pages, and no unknown parameters."""

    path = "/api/profiles"
    size, largest = 20, 100
    auth = "header:Authorization:KLAVIYO_KEY"
    environment: ClassVar[dict[str, str]] = {"KLAVIYO_KEY": "Klaviyo-API-Key pk_0123456789"}
    needs: ClassVar[dict[str, Any]] = {"headers": {"revision": "2026-01-15"}}
    updated = "attributes.updated"

    def describe(self, number: int) -> Record:
        key = f"01GDDKASAP8TKDDA2GRZDSVP{number:02}"
        attributes = {
            "email": email(number),
            "phone_number": f"+1500555{number:04}" if number % 3 else None,
            "external_id": make_uuid("klaviyo", number),
            "first_name": first(number),
            "last_name": last(number),
            "locale": None,
            "created": f"{self.created(number):%Y-%m-%dT%H:%M:%S}+00:00",
            "updated": f"{self.moments(number):%Y-%m-%dT%H:%M:%S}+00:00",
            "location": {"city": "Oslo", "zip": "0150", "latitude": "59.9", "longitude": None},
            "properties": {f"answer {number % 5}": "yes", "Visits": number} if number % 2 else {},
        }
        related = {"lists": {"links": {"self": f"https://a.klaviyo.com/api/profiles/{key}/relationships/lists/"}}}
        own = {"type": "profile", "id": key, "attributes": attributes, "relationships": related}
        return {**own, "links": {"self": f"https://a.klaviyo.com/api/profiles/{key}/"}}

    def list_page(self, request: Request) -> Answer:
        query = request.query
        start = reveal(query.get("page[cursor]"), "next")
        known = {"page[cursor]", "page[size]", "filter", "sort"}
        if start is None or query.keys() - known or not request.headers.get("revision"):
            return Answer({"errors": [{"status": 400, "code": "invalid", "title": "Invalid input."}]}, 400)
        size = int(query.get("page[size]", self.size))
        if size > self.largest:
            return Answer({"errors": [{"status": 400, "code": "invalid", "title": "Page size is too large."}]}, 400)
        bound = re.fullmatch(r"greater-than\(updated,([^)]*)\)", query.get("filter", ""))
        found = self.describe_all(lambda number: bound is None or iso(self.moments(number)) > bound[1])
        came, following = self.cut(found, start, size)
        more = f"{self.url}?{urlencode({**query, 'page[cursor]': hide(following, 'next')})}" if following else None
        return Answer({"data": came, "links": {"self": self.url, "next": more, "prev": None}})


class Typeform(Endpoint):
    """Answers to a form, the newest first: `before` takes the token of the last one."""

    path = "/forms/lT4Z3j/responses"
    key = "response_id"
    size, largest = 25, 50  # the real limit is 1000
    auth = "bearer:TYPEFORM_TOKEN"
    environment: ClassVar[dict[str, str]] = {"TYPEFORM_TOKEN": "tfp_0123456789"}

    def describe(self, number: int) -> Record:
        key = make_uuid("typeform", number).replace("-", "")
        answers: list[Record] = [
            {"field": {"id": "hVONkQcnSNRj", "type": "text", "ref": "a"}, "type": "text", "text": "Yes"},
            {
                "field": {"id": "RUqkXSeXBXSd", "type": "yes_no", "ref": "b"},
                "type": "boolean",
                "boolean": number % 2 == 0,
            },
            {"field": {"id": "JwWggjAKtOkA", "type": "rating", "ref": "c"}, "type": "number", "number": number % 5},
        ]
        return {
            "landing_id": key,
            "token": key,
            "response_id": key,
            "landed_at": iso(self.moments(self.count - number)),
            "submitted_at": iso(self.moments(self.count - number + 60)),
            "metadata": {"user_agent": "Mozilla/5.0", "platform": "mobile", "network_id": username(number)},
            "hidden": {},
            "calculated": {"score": number % 10},
            "answers": answers[: 1 + number % 3],
        }

    def list_page(self, request: Request) -> Answer:
        query, keys = request.query, self.keys
        size, before = self.find_size(query.get("page_size")), query.get("before")
        if before and before not in keys:
            return Answer({"code": "VALIDATION_ERROR", "description": "invalid token"}, 400)
        start = keys.index(before) + 1 if before else 0
        came, _ = self.cut(self.records, start, size)
        left = self.count - start
        return Answer({"total_items": left, "page_count": -(-left // size), "items": came})


class Fhir(Endpoint):
    """Patients of an R4 server: entries of a Bundle, and links in a list."""

    path = "/fhir/Patient"
    key = "resource.id"
    size, largest = 20, 200
    needs: ClassVar[dict[str, Any]] = {"headers": {"Accept": "application/fhir+json"}}
    updated = "resource.meta.lastUpdated"

    def describe(self, number: int) -> Record:
        patient = {
            "resourceType": "Patient",
            "id": str(592_000 + number),
            "meta": {"versionId": "1", "lastUpdated": with_millis(self.moments(number), "+00:00")},
            "active": True,
            "name": [{"use": "official", "family": last(number), "given": [first(number), "M"][: 1 + number % 2]}],
            "telecom": [{"system": "phone", "value": f"555-{number:04}", "use": "home"}] if number % 3 else [],
            "gender": "female" if number % 2 else "male",
            "birthDate": f"19{50 + number % 50}-0{1 + number % 9}-15",
            "deceasedBoolean": False,
            "address": [{"line": ["1 Main St"], "city": "Oslo", "postalCode": "0150"}],
        }
        entry = {"fullUrl": f"https://fhir.example.com/Patient/{592_000 + number}", "resource": patient}
        return {**entry, "search": {"mode": "match"}}

    def list_page(self, request: Request) -> Answer:
        query = dict(request.query)
        size, start = self.find_size(query.get("_count")), int(query.get("_getpagesoffset", 0))
        bound = query.get("_lastUpdated", "").removeprefix("ge")
        found = self.describe_all(lambda number: iso(self.moments(number)) >= bound)
        came, following = self.cut(found, start, size)
        links = [{"relation": "self", "url": self.url}]
        if following is not None:
            more = {"_getpages": "b5d4", "_getpagesoffset": following, "_count": size}
            kept = {name: text for name, text in query.items() if name == "_lastUpdated"}
            links.append({"relation": "next", "url": f"{self.url}?{urlencode({**kept, **more})}"})
        bundle = {"resourceType": "Bundle", "id": "b5d4", "type": "searchset", "total": len(found)}
        return Answer({**bundle, "meta": {"lastUpdated": iso(self.moments(0))}, "link": links, "entry": came})
