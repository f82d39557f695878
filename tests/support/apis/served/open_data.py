"""Serve public data and usual frameworks: SWAPI, Stack Exchange, CoinGecko, Strapi, Heroku, Elasticsearch, ASP.NET."""

import json
import re
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.support.apis.served.endpoint import Endpoint, epoch, with_millis
from tests.support.server import Answer, Request
from tests.support.vendor import Record, iso, make_uuid, name


class Swapi(Endpoint):
    """People of Django REST framework: `next` is a URL, ten a page, and the URL of a record is its key."""

    path = "/api/people/"
    key = "url"
    size = largest = 10
    updated = "edited"

    def describe(self, number: int) -> Record:
        return {
            "name": f"{name(number)} {number}",
            "height": "unknown" if number == 23 else str(150 + number),
            "mass": "1,358" if number == 15 else str(70 + number),
            "hair_color": "blond",
            "birth_year": f"{number}BBY",
            "gender": "n/a" if number % 4 else "female",
            "homeworld": f"https://swapi.dev/api/planets/{number % 9}/",
            "films": [f"https://swapi.dev/api/films/{film}/" for film in range(number % 3)],
            "species": [],
            "created": f"{self.created(number):%Y-%m-%dT%H:%M:%S}.644000Z",
            "edited": f"{self.moments(number):%Y-%m-%dT%H:%M:%S}.885000Z",
            "url": f"https://swapi.dev/api/people/{number + 1}/",
        }

    def list_page(self, request: Request) -> Answer:
        page = int(request.query.get("page", 1))
        came, following = self.cut(self.records, (page - 1) * self.size, self.size)
        if not came and page > 1:
            return Answer({"detail": "Not found"}, 404)
        links = {"next": f"{self.url}?page={page + 1}" if following else None}
        links["previous"] = f"{self.url}?page={page - 1}" if page > 1 else None
        return Answer({"count": self.count, **links, "results": came})


class StackExchange(Endpoint):
    """Questions: `has_more` beside a quota; the key goes into the query, and bodies are compressed."""

    path = "/2.3/questions"
    query = "?site=stackoverflow&sort=creation&order=asc"
    key = "question_id"
    size, largest = 30, 100
    auth = "query:key:STACK_KEY"
    environment: ClassVar[dict[str, str]] = {"STACK_KEY": "U4DMV8KU0123456789"}

    def describe(self, number: int) -> Record:
        optional = {"accepted_answer_id": 70_000 + number} if number % 3 == 0 else {}
        optional |= (
            {"closed_date": epoch(self.moments(number)), "closed_reason": "Duplicate"} if number % 7 == 6 else {}
        )
        owner = {"account_id": number, "reputation": 11, "user_id": 5_000 + number, "display_name": name(number)}
        return {
            "tags": ["python", "luigi"][: 1 + number % 2],
            "owner": {"user_type": "does_not_exist"} if number % 9 == 8 else {**owner, "user_type": "registered"},
            "is_answered": number % 3 == 0,
            "view_count": 3 * number,
            "answer_count": number % 4,
            "score": number - 5,
            "last_activity_date": epoch(self.moments(number)),
            "creation_date": epoch(self.created(number)),
            "question_id": 60_000 + number,
            **optional,
            "link": f"https://stackoverflow.com/questions/{60_000 + number}",
            "title": "Why?",
        }

    def knows(self, request: Request) -> bool:
        return request.query.get("key") == self.environment["STACK_KEY"]

    def list_page(self, request: Request) -> Answer:
        page, size = int(request.query.get("page", 1)), int(request.query.get("pagesize", self.size))
        if size > self.largest or page < 1:
            return Answer({"error_id": 400, "error_message": "pagesize", "error_name": "bad_parameter"}, 400)
        came, following = self.cut(self.records, (page - 1) * size, size)
        body = {"items": came, "has_more": following is not None, "quota_max": 10000, "quota_remaining": 9990}
        return Answer(body)

    def _respond(self, request: Request) -> Answer:
        answer = super()._respond(request)
        return Answer(answer.body, answer.status, answer.headers, compress=answer.status == 200)


class CoinGecko(Endpoint):
    """Coins: numbered pages of a bare list, and nothing says how many there are."""

    path = "/api/v3/coins/markets"
    query = "?vs_currency=usd"
    size, largest = 100, 250
    auth = "header:x-cg-demo-api-key:COINGECKO_KEY"
    environment: ClassVar[dict[str, str]] = {"COINGECKO_KEY": "CG-0123456789"}
    updated = "last_updated"

    def describe(self, number: int) -> Record:
        return {
            "id": f"coin-{number}",
            "symbol": f"c{number}",
            "name": f"Coin {number}",
            "image": f"https://assets.coingecko.com/coins/images/{number}/large.png",
            "current_price": 70187 if number == 0 else round(70187 / (number + 3), 6),
            "market_cap": 1381651251183 // (number + 1),
            "market_cap_rank": number + 1 if number % 11 else None,
            "total_supply": 21000000.0 if number % 3 else None,
            "max_supply": None,
            "price_change_percentage_24h": 3.12502 if number % 2 else -0.5,
            "ath_date": with_millis(self.created(number)),
            "roi": {"times": 47.3, "currency": "btc", "percentage": 4733.5} if number % 5 == 1 else None,
            "last_updated": f"{self.moments(number):%Y-%m-%dT%H:%M:%S}.208Z",
        }

    def list_page(self, request: Request) -> Answer:
        if "vs_currency" not in request.query:
            return Answer({"error": "Missing parameter vs_currency"}, 422)
        page, size = max(1, int(request.query.get("page", 1))), self.find_size(request.query.get("per_page"))
        return Answer(self.records[(page - 1) * size : page * size])


class Strapi(Endpoint):
    """Articles: `pagination[page]` in brackets, and the fields of a record under `attributes`."""

    path = "/api/articles"
    size, largest = 25, 100
    updated = "attributes.updatedAt"

    def describe(self, number: int) -> Record:
        attributes = {
            "title": f"Article {number}",
            "slug": f"article-{number}",
            "content": "…",
            "rating": 4 if number < 10 else 4.5,
            "createdAt": with_millis(self.created(number)),
            "updatedAt": with_millis(self.moments(number)),
            "publishedAt": with_millis(self.moments(number)) if number % 4 else None,
            "locale": "en",
        }
        return {"id": number + 1, "attributes": attributes}

    def list_page(self, request: Request) -> Answer:
        query = request.query
        page, size = int(query.get("pagination[page]", 1)), self.find_size(query.get("pagination[pageSize]"))
        low = query.get("filters[updatedAt][$gte]", "")
        high = query.get("filters[updatedAt][$lt]", "~")
        found = self.describe_all(lambda number: low <= iso(self.moments(number)) < high)
        came, _ = self.cut(found, (page - 1) * size, size)
        counts = {"page": page, "pageSize": size, "pageCount": -(-len(found) // size), "total": len(found)}
        return Answer({"data": came, "meta": {"pagination": counts}})


class Heroku(Endpoint):
    """Apps: the header `Next-Range` of a 206 answer goes into the header `Range`."""

    path = "/apps"
    size, largest = 50, 1000  # the real default is 200
    auth = "bearer:HEROKU_TOKEN"
    environment: ClassVar[dict[str, str]] = {"HEROKU_TOKEN": "HRKU-0123456789"}
    needs: ClassVar[dict[str, Any]] = {"headers": {"Accept": "application/vnd.heroku+json; version=3"}}
    updated = "updated_at"

    @property
    def keys(self) -> list[Any]:
        return [record["id"] for record in self.records]

    @property
    def records(self) -> list[Record]:
        return sorted(self.describe_all(), key=lambda record: str(record["id"]))

    def describe(self, number: int) -> Record:
        return {
            "acm": False,
            "archived_at": None,
            "buildpack_provided_description": "Python" if number % 2 else None,
            "build_stack": {"id": make_uuid("stack", 1), "name": "heroku-24"},
            "created_at": iso(self.created(number)),
            "id": make_uuid("heroku", number),
            "maintenance": False,
            "name": f"app-{number}",
            "owner": {"email": "owner@example.com", "id": make_uuid("owner", number % 3)},
            "released_at": iso(self.moments(number)) if number % 3 else None,
            "repo_size": 1000 * number if number % 4 else None,
            "team": None,
            "updated_at": iso(self.moments(number)),
            "web_url": f"https://app-{number}.herokuapp.com/",
        }

    def list_page(self, request: Request) -> Answer:
        if "vnd.heroku+json" not in request.headers.get("Accept", ""):
            return Answer({"id": "bad_request", "message": "Version 3 is required"}, 400)
        text = request.headers.get("Range", "id ..")
        asked = re.fullmatch(r"id (?:\]([\w-]+))?\.\.(?:; ?max=(\d+))?(?:; ?order=asc)?", text)
        if asked is None:
            return Answer({"id": "bad_request", "message": "Invalid range"}, 416)
        size = min(int(asked[2] or self.size), self.largest)
        left = [record for record in self.records if str(record["id"]) > (asked[1] or "")]
        came, following = self.cut(left, 0, size)
        headers = {"Accept-Ranges": "id, name, updated_at"}
        if came:
            headers["Content-Range"] = f"id {came[0]['id']}..{came[-1]['id']}; max={size}"
        if following is None:
            return Answer(came, headers=headers)
        return Answer(came, 206, {**headers, "Next-Range": f"id ]{came[-1]['id']}..; max={size}"})


class Elasticsearch(Endpoint):
    """Documents: hits within hits, a total that is an object, and no page behind 10,000."""

    path = "/logs/_search"
    key = "_id"
    size, largest = 10, 10_000

    def describe(self, number: int) -> Record:
        source = {
            "@timestamp": with_millis(self.moments(number)),
            "message": "GET / 200",
            "http": {"request": {"method": "GET", "bytes": 100 + number}, "response": {"status_code": 200}},
            "tags": ["web"],
            "geo": {"lat": 59, "lon": 10} if number == 0 else {"lat": 59.9, "lon": 10.7},
        }
        return {"_index": "logs", "_id": f"doc-{number}", "_score": 1.0, "_source": source}

    def list_page(self, request: Request) -> Answer:
        known = {"from", "size", "q", "sort", "track_total_hits"}
        if unknown := sorted(request.query.keys() - known):
            error = {"type": "illegal_argument_exception", "reason": f"unrecognized parameter: [{unknown[0]}]"}
            return Answer({"error": error, "status": 400}, 400)
        start, size = int(request.query.get("from", 0)), int(request.query.get("size", self.size))
        if start + size > 10_000:
            return Answer({"error": {"type": "illegal_argument_exception"}, "status": 400}, 400)
        came, _ = self.cut(self.records, start, size)
        hits = {"total": {"value": self.count, "relation": "eq"}, "max_score": 1.0, "hits": came}
        return Answer({"took": 3, "timed_out": False, "_shards": {"total": 1, "failed": 0}, "hits": hits})


class AspNet(Endpoint):
    """Customers of a usual service in ASP.NET: paging as JSON in the header X-Pagination."""

    path = "/api/customers"
    key = "customerId"
    size, largest = 10, 50
    updated = "modifiedOn"

    def describe(self, number: int) -> Record:
        return {
            "customerId": make_uuid("asp", number),
            "companyName": f"Company {number}",
            "vatNumber": f"NO{number:09}",
            "isActive": number % 6 != 5,
            "creditLimit": 1000 if number < 20 else 1000.5,
            "createdOn": f"{self.created(number):%Y-%m-%dT%H:%M:%S}.1234567Z",
            "modifiedOn": f"{self.moments(number):%Y-%m-%dT%H:%M:%S}Z",
            "contact": {"fullName": name(number), "phone": None if number % 2 else "+47 55 50 00 00"},
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        page, size = int(query.get("pageNumber", 1)), self.find_size(query.get("pageSize"))
        found = self.keep(query, "modifiedSince")
        came, following = self.cut(found, (page - 1) * size, size)
        pages = -(-len(found) // size)
        counts = {"TotalCount": len(found), "PageSize": size, "CurrentPage": page, "TotalPages": pages}
        return Answer(came, headers={"X-Pagination": json.dumps({**counts, "HasNext": following is not None})})


class NextPage(Endpoint):
    """Stations of a service that names the next page in a header, and the total in another."""

    path = "/v3/stations"
    key = "station_id"
    size, largest = 15, 100
    updated = "last_modified"

    def describe(self, number: int) -> Record:
        return {
            "station_id": f"NO-{number:04}",
            "name": f"Station {number}",
            "position": {"lat": 59.9 + number / 100, "lon": 10.7},
            "elevation_m": 12 if number % 3 else None,
            "in_service": "yes" if number % 2 else "no",
            "capacity": str(10 + number),
            "opened": f"{self.created(number):%d/%m/%Y}",
            "last_modified": f"{self.moments(number):%Y-%m-%d %H:%M:%S}",
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        page, size = int(query.get("page", 1)), self.find_size(query.get("per_page"))
        low, high = query.get("gt_last_modified", ""), query.get("lt_last_modified", "~")
        found = [record for record in self.records if low < record["last_modified"] < high]
        came, following = self.cut(found, (page - 1) * size, size)
        headers = {"Total-Records": str(len(found)), "Per-Page": str(size)}
        return Answer(came, headers=headers | ({"Next-Page": str(page + 1)} if following else {}))


class Worldwide(Endpoint):
    """Indicators of a service that answers with a list of two: what it says of the page, and the records."""

    path = "/v2/country/all/indicator/SP.POP.TOTL"
    query = "?format=json"
    key = "id"
    size, largest = 50, 1000

    def describe(self, number: int) -> Record:
        return {
            "id": number + 1,
            "indicator": {"id": "SP.POP.TOTL", "value": "Population, total"},
            "countryiso3code": f"C{number:02}",
            "date": "2025",
            "value": None if number % 4 == 0 else 1000 * number,
            "decimal": 0,
        }

    def list_page(self, request: Request) -> Answer:
        page, size = int(request.query.get("page", 1)), self.find_size(request.query.get("per_page"))
        came, _ = self.cut(self.records, (page - 1) * size, size)
        counts = {"page": page, "pages": -(-self.count // size), "per_page": size, "total": self.count}
        return Answer([counts, came])


class Spring(Endpoint):
    """Meters of Spring Data REST: HAL with an embedded list, links, and pages from 0."""

    path = "/api/meters"
    key = "serial"
    size, largest = 20, 1000
    updated = "lastReading.at"

    def describe(self, number: int) -> Record:
        reading = {"at": with_millis(self.moments(number)), "kwh": 100 + number if number < 30 else 100.25}
        return {
            "serial": f"M{number:06}",
            "model": "E-350",
            "installedOn": f"{self.created(number):%Y-%m-%d}",
            "lastReading": reading,
            "active": number % 8 != 7,
            "_links": {"self": {"href": f"{self.url}/{number}"}, "readings": {"href": f"{self.url}/{number}/readings"}},
        }

    def list_page(self, request: Request) -> Answer:
        page, size = int(request.query.get("page", 0)), self.find_size(request.query.get("size"))
        came, following = self.cut(self.records, page * size, size)
        links = {"self": {"href": self.url}, "profile": {"href": "/api/profile/meters"}}
        if following is not None:
            links["next"] = {"href": f"{self.url}?page={page + 1}&size={size}"}
        counts = {"size": size, "totalElements": self.count, "totalPages": -(-self.count // size), "number": page}
        return Answer({"_embedded": {"meters": came}, "_links": links, "page": counts})


class Ckan(Endpoint):
    """Rows of the data store of CKAN: every page has a link to the next one, also behind the last row."""

    path = "/api/3/action/datastore_search"
    query = "?resource_id=5b3cf3a8"
    key = "_id"
    size, largest = 100, 32_000

    def describe(self, number: int) -> Record:
        return {
            "_id": number + 1,
            "Station": f"S{number}",
            "Date": f"{self.created(number):%Y-%m-%dT%H:%M:%S}",
            "PM10": None if number % 6 == 0 else f"{number}.5",
            "Valid": "t" if number % 2 else "f",
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        if "resource_id" not in query:
            return Answer({"success": False, "error": {"resource_id": ["Missing value"]}}, 409)
        start, size = int(query.get("offset", 0)), self.find_size(query.get("limit"))
        came, _ = self.cut(self.records, start, size)

        def link(offset: int) -> str:
            return f"{self.path}?{urlencode({**query, 'offset': offset})}"

        fields = [{"type": "int", "id": "_id"}, {"type": "text", "id": "Station"}]
        links = {"start": link(0), "next": link(start + size)}
        own = {"include_total": True, "resource_id": "5b3cf3a8", "fields": fields, "records": came}
        return Answer({"help": "…", "success": True, "result": {**own, "_links": links, "total": self.count}})
