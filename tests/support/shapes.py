"""Simulate real APIs of users as documented by their vendors: paths, names, sizes, limits, authentication.

Responsibilities: the responses of the vendors. presets.ini defines the requests. A shape runs on a Server:

    shape = SHAPES["github"](server, 250, busy=[2])
    shape.section                            # its keys of [users]: preset, url and auth
    shape.environment                        # the variables of auth
    shape.keys                               # the values of `shape.key` in the expected records
    SHAPES["gitlab"](server, 7, largest=3)   # other traits by name, such as the largest page
"""

import base64
import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Collection
from typing import Any, ClassVar

from tests.support.server import Answer, Request, Server
from tests.support.vendor import (
    OAuth2Shape,
    Record,
    Shape,
    email,
    first,
    iso,
    last,
    make_link,
    make_uuid,
    name,
    username,
)


class JsonPlaceholder(Shape):
    """json-server 0.x, as on jsonplaceholder.typicode.com: all users, unless the request asks for fewer."""

    size = 10
    largest = 10**9

    def describe(self, number: int) -> Record:
        return {
            "id": number + 1,
            "name": name(number),
            "username": username(number),
            "email": email(number),
            "address": {"street": "Kulas Light", "city": "Oslo", "geo": {"lat": "-37.3159", "lng": "81.1496"}},
            "company": {"name": "Romaguera"},
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        users = self.describe_all()
        for field, bound in query.items():
            if field.endswith("_gte"):
                users = [user for user in users if str(user[field[:-4]]) >= bound]
            elif field.endswith("_lte"):
                users = [user for user in users if str(user[field[:-4]]) <= bound]
            elif users and field in users[0]:
                users = [user for user in users if str(user[field]) == bound]
        if "_page" not in query:
            limited = "_limit" in query
            headers = {"X-Total-Count": str(len(users) + self.hidden)} if limited else {}
            return Answer(users[: int(query["_limit"])] if limited else users, headers=headers)
        page, size = max(int(query["_page"]), 1), self.find_size(query.get("_limit"))
        came = users[(page - 1) * size : page * size]
        pages = {"next": page + 1} if page * size < len(users) else {}
        pages |= {"first": 1, "last": -(-len(users) // size)} if 0 < len(came) < len(users) else {}
        link = make_link(self.url, query, {rel: {"_page": number} for rel, number in pages.items()})
        return Answer(came, headers={"X-Total-Count": str(len(users) + self.hidden), "Link": link})


class JsonServer(JsonPlaceholder):
    """json-server with its own file, with the time of change in each user."""

    def describe(self, number: int) -> Record:
        return {**super().describe(number), "updated_at": iso(self.moments(number))}

    @property
    def section(self) -> dict[str, str]:
        return super().section | {"preset": "jsonplaceholder"}


class DummyJson(Shape):
    """dummyjson.com: `limit` and `skip`; a limit of 0 means no limit."""

    size = 30
    largest = 10**9

    def describe(self, number: int) -> Record:
        return {
            "id": number + 1,
            "firstName": first(number),
            "lastName": last(number),
            "email": email(number),
            "address": {"city": "Oslo", "coordinates": {"lat": -77.16, "lng": -92.08}},
            "role": "user",
        }

    def list_page(self, request: Request) -> Answer:
        skip, limit = int(request.query.get("skip", 0)), int(request.query.get("limit", self.size))
        came = self.describe_all()[skip:][: limit or None]
        return Answer({"users": came, "total": self.count + self.hidden, "skip": skip, "limit": len(came)})


class ReqRes(Shape):
    """reqres.in: pages from 1, and a key in a header."""

    path = "/api/users"
    size = 6
    auth = "header:x-api-key:REQRES_KEY"
    environment: ClassVar[dict[str, str]] = {"REQRES_KEY": "reqres-test-key"}

    def describe(self, number: int) -> Record:
        return {
            "id": number + 1,
            "email": email(number),
            "first_name": first(number),
            "last_name": last(number),
            "avatar": f"https://reqres.in/img/faces/{number + 1}-image.jpg",
        }

    def list_page(self, request: Request) -> Answer:
        page, size = max(int(request.query.get("page", 1)), 1), self.find_size(request.query.get("per_page"))
        came = self.describe_all()[(page - 1) * size : page * size]
        total = self.count + self.hidden
        counts = {"page": page, "per_page": size, "total": total, "total_pages": -(-total // size)}
        return Answer({**counts, "data": came, "support": {"url": "https://reqres.in", "text": "Tired of writing?"}})


class RandomUser(Shape):
    """randomuser.me: endless pages of the requested size; a size above the limit gives one user."""

    path = "/api/"
    key = "login.uuid"
    size = 1
    largest = 5000

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        super().__init__(server, count, **traits)
        self.url += f"?results={count}&seed=abc"

    def describe(self, number: int) -> Record:
        return {
            "gender": "female",
            "name": {"title": "Ms", "first": first(number), "last": last(number)},
            "location": {"city": "Oslo", "postcode": 10000 + number, "coordinates": {"latitude": "-69.8246"}},
            "email": email(number),
            "login": {"uuid": make_uuid("randomuser", number), "username": username(number)},
            "registered": {"date": iso(self.moments(number)), "age": 0},
            "id": {"name": "FN", "value": None},
        }

    def refuse(self) -> Answer:
        return Answer({"error": "Uh oh, something has gone wrong. Please tweet us @randomapi about the issue."})

    def list_page(self, request: Request) -> Answer:
        page, asked = int(request.query.get("page", 1)), int(request.query.get("results", self.size))
        results, page = asked if asked <= self.largest else 1, page if page <= 10_000 else 1
        info = {"seed": request.query.get("seed", uuid.uuid4().hex), "results": results, "page": page, "version": "1.4"}
        came = [self.describe(number) for number in range((page - 1) * results, page * results)]
        return Answer({"results": came, "info": info})


class GitHub(Shape):
    """GitHub's list of users: continues after an id, with the next page in Link. A rate limit may be a 403."""

    size = 30
    auth = "bearer:GITHUB_TOKEN"
    environment: ClassVar[dict[str, str]] = {"GITHUB_TOKEN": "ghp_0123456789"}

    def describe(self, number: int) -> Record:
        return {
            "login": username(number),
            "id": 3 * number + 1,
            "node_id": base64.b64encode(f"04:User{number}".encode()).decode(),
            "gravatar_id": "",
            "url": f"https://api.github.com/users/{username(number)}",
            "type": "User",
            "site_admin": False,
        }

    def refuse(self) -> Answer:
        headers = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Used": "5000"}
        headers["X-RateLimit-Reset"] = str(int(time.time()) + 2)
        return Answer({"message": "API rate limit exceeded for user ID 1."}, 403, headers)

    def list_page(self, request: Request) -> Answer:
        since, size = int(request.query.get("since", 0)), self.find_size(request.query.get("per_page"))
        came = self.describe_all(lambda number: 3 * number + 1 > since)[:size]
        links = {"next": {"since": came[-1]["id"]}} if len(came) == size else {}
        link = make_link(self.url, request.query, links)
        # The link of the first page is a template with braces, which are invalid in a URL.
        headers = {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
        return Answer(came, headers=headers | {"Link": f'{link}{", " * bool(link)}<{self.url}{{?since}}>; rel="first"'})


class GitLab(Shape):
    """GitLab's users: by page or, with pagination=keyset, by cursor, both in Link. Large lists have no totals."""

    path = "/api/v4/users"
    auth = "header:PRIVATE-TOKEN:GITLAB_TOKEN"
    environment: ClassVar[dict[str, str]] = {"GITLAB_TOKEN": "glpat-0123456789"}
    counted = 10_000
    """The largest list with totals."""
    reach = 50_000
    """The last record that page numbers reach."""

    def describe(self, number: int) -> Record:
        return {
            "id": number + 1,
            "username": username(number),
            "name": name(number),
            "email": email(number),
            "state": "active",
            "created_at": iso(self.moments(number)),
            "location": None,
            "identities": [],
        }

    def refuse(self) -> Answer:
        headers = {"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(time.time()) + 1), "Retry-After": "1"}
        return Answer("Retry later\n", 429, headers)

    def list_page(self, request: Request) -> Answer:
        query = request.query
        after, before = query.get("created_after", ""), query.get("created_before", "~")
        users = self.describe_all(lambda number: after < iso(self.moments(number)) < before)
        if query.get("sort", "desc") == "desc":
            users.reverse()
        size = self.find_size(query.get("per_page"))
        if query.get("pagination") == "keyset":
            start = int(base64.b64decode(query.get("cursor", "MA==")))
            cursor = base64.b64encode(str(start + size).encode()).decode()
            links: dict[str, Record] = {"next": {"cursor": cursor}} if start + size < len(users) else {}
            return Answer(users[start : start + size], headers={"Link": make_link(self.url, query, links)})
        page, pages = int(query.get("page", 1)), max(1, -(-len(users) // size))
        if page * size > self.reach:
            return Answer({"error": f"Offset pagination has a maximum allowed offset of {self.reach}"}, 405)
        links = {"next": {"page": page + 1}} if page < pages else {}
        headers = {"X-Page": str(page), "X-Per-Page": str(size), "X-Next-Page": str(page + 1) if links else ""}
        if len(users) <= self.counted:
            links["last"] = {"page": pages}
            headers |= {"X-Total": str(len(users) + self.hidden), "X-Total-Pages": str(pages)}
        headers["Link"] = make_link(self.url, query, {"first": {"page": 1}} | links)
        return Answer(users[(page - 1) * size : page * size], headers=headers)


class Scim(Shape):
    """SCIM 2.0 (RFC 7644): an offset `startIndex` that starts at 1."""

    path = "/scim/v2/Users"
    auth = "bearer:SCIM_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SCIM_TOKEN": "scim-0123456789"}
    filters = True
    """Whether the server applies the filter; some ignore it."""
    omits = False
    """Whether a response omits an empty list, as the RFC allows."""

    def describe(self, number: int) -> Record:
        moment = iso(self.moments(number))
        return {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": make_uuid("scim", number),
            "userName": username(number),
            "name": {"formatted": name(number), "givenName": first(number), "familyName": last(number)},
            "emails": [{"value": email(number), "type": "work", "primary": True}],
            "active": True,
            "meta": {"resourceType": "User", "created": moment, "lastModified": moment, "version": f'W/"{number}"'},
        }

    def list_page(self, request: Request) -> Answer:
        if "application/scim+json" not in request.headers.get("Accept", ""):
            return Answer(status=406)  # a server may support no other kinds
        start, size = max(1, int(request.query.get("startIndex", 1))), self.find_size(request.query.get("count"))
        found = self.describe_all(lambda number: self._keeps(request.query.get("filter", ""), number))
        came = found[start - 1 : start - 1 + size]
        body = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": len(found) + self.hidden,
            "startIndex": start,
            "itemsPerPage": len(came),
            "Resources": came,
        }
        if self.omits and not came:
            del body["Resources"]
        return Answer(body, headers={"Content-Type": "application/scim+json"})

    def _keeps(self, text: str, number: int) -> bool:
        compared = {"gt": "__gt__", "ge": "__ge__", "lt": "__lt__", "le": "__le__"}
        return not self.filters or all(
            getattr(iso(self.moments(number)), compared[operator])(bound)
            for operator, bound in re.findall(r'meta\.lastModified (gt|ge|lt|le) "([^"]+)"', text)
        )


class Keycloak(OAuth2Shape):
    """Keycloak's admin API: offset `first`, size `max` (default 100), without a total."""

    path = "/admin/realms/acme/users"
    token_path = "/realms/acme/protocol/openid-connect/token"
    size = 100
    largest = 10**9

    def describe(self, number: int) -> Record:
        return {
            "id": make_uuid("keycloak", number),
            "username": username(number),
            "firstName": first(number),
            "lastName": last(number),
            "email": email(number),
            "enabled": True,
            "createdTimestamp": int(self.moments(number).timestamp() * 1000),
            "requiredActions": [],
        }

    def list_page(self, request: Request) -> Answer:
        start = int(request.query.get("first", 0))
        return Answer(self.describe_all()[start : start + self.find_size(request.query.get("max"))])


class Zendesk(Shape):
    """Zendesk's incremental export of users: by cursor, even on the last page, and without the last minute."""

    path = "/api/v2/incremental/users/cursor.json"
    size = largest = 1000
    auth = "basic:ZENDESK_USER:ZENDESK_TOKEN"
    environment: ClassVar[dict[str, str]] = {"ZENDESK_USER": "ada@example.com/token", "ZENDESK_TOKEN": "zd0123456789"}
    deleted: Collection[int] = ()
    """The deleted users, who are listed as inactive."""

    def describe(self, number: int) -> Record:
        return {
            "id": 35436 + number,
            "name": name(number),
            "email": email(number),
            "created_at": "2009-07-20T22:55:29Z",
            "updated_at": iso(self.moments(number)),
            "role": "end-user",
            "active": number not in self.deleted,
            "suspended": False,
            "photo": None,
            "user_fields": {"user_decimal": 5.1},
        }

    def list_page(self, request: Request) -> Answer:
        now, query = dt.datetime.now(dt.UTC).timestamp(), request.query
        if "cursor" in query:
            start_time, start = map(int, base64.b64decode(query["cursor"]).split(b"|"))
        else:
            start_time, start = int(query["start_time"]), 0
        if start_time > now - 60:
            return Answer({"error": "StartTimeTooRecent", "description": "Too recent start_time."}, 400)
        found = self.describe_all(lambda number: start_time <= self.moments(number).timestamp() < now - 60)
        stop = min(start + self.find_size(query.get("per_page")), len(found))
        cursor = base64.b64encode(f"{start_time}|{stop}".encode()).decode()
        body = {"users": found[start:stop], "after_cursor": cursor, "before_cursor": None, "before_url": None}
        return Answer(body | {"after_url": f"{self.url}?cursor={cursor}", "end_of_stream": stop == len(found)})


class Stripe(Shape):
    """Stripe's customers, newest first: continues after the last id. A page size above the limit is an error."""

    path = "/v1/customers"
    size = 10
    auth = "bearer:STRIPE_KEY"
    environment: ClassVar[dict[str, str]] = {"STRIPE_KEY": "sk_test_0123456789"}

    def describe(self, number: int) -> Record:
        return {
            "id": f"cus_{make_uuid('stripe', number).replace('-', '')[:14]}",
            "object": "customer",
            "created": int(self.moments(number).timestamp()),
            "name": name(number),
            "email": email(number),
            "address": None,
            "metadata": {},
        }

    def refuse(self) -> Answer:
        return Answer({"error": {"type": "invalid_request_error", "code": "rate_limit"}}, 429)

    def list_page(self, request: Request) -> Answer:
        query, size = request.query, int(request.query.get("limit", self.size))
        if not 1 <= size <= self.largest:
            return Answer({"error": {"param": "limit", "type": "invalid_request_error"}}, 400)
        since = int(query.get("created[gte]", 0))
        found = self.describe_all(lambda number: self.moments(number).timestamp() >= since)[::-1]
        ids = [user["id"] for user in found]
        start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        came = found[start : start + size]
        return Answer({"object": "list", "url": self.path, "has_more": start + size < len(found), "data": came})


class HubSpot(Shape):
    """HubSpot's search for contacts, a POST that fails at 10,000, and its list of contacts."""

    path = "/crm/v3/objects/contacts/search"
    size = 10
    largest = 200
    auth = "bearer:HUBSPOT_TOKEN"
    environment: ClassVar[dict[str, str]] = {"HUBSPOT_TOKEN": "pat-na1-0123456789"}
    reach = 10_000

    def __init__(self, server: Server, count: int, **traits: Any) -> None:
        super().__init__(server, count, **traits)
        self.list_url = server.on(self.path.removesuffix("/search"), self._respond)

    def describe(self, number: int) -> Record:
        moment = iso(self.moments(number))
        properties = {
            "firstname": first(number),
            "lastname": last(number),
            "email": email(number),
            "hs_object_id": str(number + 1),
            "createdate": "2019-10-30T03:30:17.883Z",
            "lastmodifieddate": moment,
        }
        times = {"createdAt": "2019-10-30T03:30:17.883Z", "updatedAt": moment}
        return {"id": str(number + 1), "properties": properties, **times, "archived": False}

    def refuse(self) -> Answer:
        return Answer({"status": "error", "errorType": "RATE_LIMIT", "policyName": "SECONDLY"}, 429)

    def list_page(self, request: Request) -> Answer:
        searches = request.path == self.path
        if request.method != ("POST" if searches else "GET"):
            return Answer({"status": "error", "message": "Method Not Allowed"}, 405)
        asked: Record = json.loads(request.body) if searches else dict(request.query)
        size, after = int(asked.get("limit", self.size)), int(asked.get("after", 0))
        if not 1 <= size <= (self.largest if searches else 100) or (searches and after + size > self.reach):
            return Answer({"status": "error", "category": "VALIDATION_ERROR", "message": "limit or after"}, 400)
        groups = asked.get("filterGroups", [])
        found = self.describe_all(lambda number: not groups or any(self._keeps(group, number) for group in groups))
        answer: Record = {"total": len(found) + self.hidden} if searches else {}
        answer["results"] = found[after : after + size]
        if after + size < len(found):
            answer["paging"] = {"next": {"after": str(after + size), "link": "?after=..."}}
        return Answer(answer)

    def _keeps(self, group: Record, number: int) -> bool:
        moment, compared = int(self.moments(number).timestamp() * 1000), {"GTE": "__ge__", "LT": "__lt__"}
        return all(
            each["propertyName"] == "lastmodifieddate"
            and getattr(moment, compared[each["operator"]])(int(each["value"]))
            for each in group["filters"]
        )


class Graph(OAuth2Shape):
    """Microsoft Graph's delta of users: absolute links, possibly empty pages, and deleted users among the others."""

    path = "/v1.0/users/delta"
    token_path = "/acme/oauth2/v2.0/token"
    scope = "https://graph.microsoft.com/.default"
    holes: Collection[int] = ()
    """The empty pages, from 1."""
    removed: Collection[int] = ()
    """The deleted users."""

    def describe(self, number: int) -> Record:
        if number in self.removed:
            return {"id": make_uuid("graph", number), "@removed": {"reason": "changed"}}
        return {
            "id": make_uuid("graph", number),
            "displayName": name(number),
            "userPrincipalName": email(number),
            "mail": None,
            "businessPhones": [],
        }

    def refuse(self) -> Answer:
        error = {"code": "TooManyRequests", "message": "Please retry again later."}
        return Answer({"error": error}, 429, {"Retry-After": "1"})

    def list_page(self, request: Request) -> Answer:
        start, page = map(int, request.query.get("$skiptoken", "0-1").split("-"))
        stop = start if page in self.holes else min(start + self.largest, self.count)
        token = f"{self.url}?$skiptoken={stop}-{page + 1}"
        ended = stop == self.count and page >= max(self.holes, default=0)
        link = {"@odata.deltaLink": f"{self.url}?$deltatoken=x"} if ended else {"@odata.nextLink": token}
        context = "https://graph.microsoft.com/v1.0/$metadata#users"
        return Answer({"@odata.context": context, **link, "value": self.describe_all()[start:stop]})


# The shapes by the names of their presets.
SHAPES: dict[str, type[Shape]] = {
    each.__name__.lower(): each
    for each in (*Shape.__subclasses__(), *OAuth2Shape.__subclasses__())
    if each.__module__ == __name__
}
