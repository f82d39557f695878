"""Serve issues, tickets, incidents, builds and rows: GitHub, Jira, Sentry, Zendesk, PagerDuty, Notion and others."""

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.support.apis.served.endpoint import Endpoint, epoch, hide, reveal, with_millis
from tests.support.server import Answer, Request
from tests.support.vendor import Record, email, iso, make_link, make_uuid, name, username


class GitHub(Endpoint):
    """Issues: numbered pages in the Link header; `since` is about the last change."""

    path = "/repos/acme/app/issues"
    query = "?state=all"
    size, largest = 30, 100
    auth = "bearer:GITHUB_TOKEN"
    environment: ClassVar[dict[str, str]] = {"GITHUB_TOKEN": "ghp_0123456789"}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        labels = [
            {"id": 208_045_946 + label, "name": f"label {label}", "color": "f29513"} for label in range(number % 3)
        ]
        optional = {"pull_request": {"url": "https://api.github.com/x", "merged_at": None}} if number % 4 == 1 else {}
        return {
            "id": 1_000_000 + number,
            "node_id": hide(number, "issue"),
            "url": f"https://api.github.com/repos/acme/app/issues/{number + 1}",
            "number": number + 1,
            "title": f"Issue {number}",
            "user": {"login": username(number), "id": number, "type": "User", "site_admin": False},
            "labels": labels,
            "state": "closed" if number % 3 == 0 else "open",
            "locked": False,
            "assignee": {"login": username(1), "id": 1} if number % 5 == 2 else None,
            "milestone": None,
            "comments": number % 4,
            "created_at": iso(self.created(number)),
            "updated_at": iso(self.moments(number)),
            "closed_at": iso(self.moments(number)) if number % 3 == 0 else None,
            **optional,
            "body": None if number % 6 == 5 else "It fails.",
            "reactions": {"total_count": 0, "+1": number % 2, "-1": 0},
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        size, page = self.find_size(query.get("per_page")), int(query.get("page", 1))
        found = self.keep(query, "since")
        came, following = self.cut(found, (page - 1) * size, size)
        links = {"next": {"page": page + 1}, "last": {"page": -(-len(found) // size)}} if following else {}
        return Answer(came, headers={"Link": make_link(self.url.partition("?")[0], query, links)} if links else {})


class Jira(Endpoint):
    """Issues by JQL: `startAt`, `maxResults` and `total`; nearly everything is under `fields`."""

    path = "/rest/api/2/search"
    query = "?jql=order+by+created"
    size, largest = 50, 100
    auth = "basic:JIRA_USER:JIRA_TOKEN"
    environment: ClassVar[dict[str, str]] = {"JIRA_USER": "ada@example.com", "JIRA_TOKEN": "ATATT0123456789"}
    updated = "fields.updated"

    def describe(self, number: int) -> Record:
        person = {"accountId": f"5b10{number % 3}", "displayName": name(number % 3), "emailAddress": email(number % 3)}
        fields = {
            "summary": f"Issue {number}",
            "issuetype": {"id": "10001", "name": "Task", "subtask": False},
            "status": {"id": "3", "name": "Done", "statusCategory": {"id": 3, "key": "done", "colorName": "green"}},
            "assignee": person if number % 2 else None,
            "created": with_millis(self.created(number), "+0000"),
            "updated": with_millis(self.moments(number), "+0000"),
            "duedate": f"{self.moments(number):%Y-%m-%d}" if number % 3 == 0 else None,
            "labels": ["ui", "bug"][: number % 3],
            "components": [{"id": str(10000 + each), "name": f"part {each}"} for each in range(number % 2)],
            "customfield_10016": None if number % 4 else 5.0,
            "timespent": 3600 * number if number % 5 == 0 else None,
        }
        own = {"id": str(10_000 + number), "key": f"APP-{number + 1}", "self": f"{self.url}/issue/{10_000 + number}"}
        return {"expand": "operations,changelog", **own, "fields": fields}

    def list_page(self, request: Request) -> Answer:
        start, size = int(request.query.get("startAt", 0)), self.find_size(request.query.get("maxResults"))
        came, _ = self.cut(self.records, start, size)
        counts = {"startAt": start, "maxResults": size, "total": self.count}
        return Answer({"expand": "schema,names", **counts, "issues": came})


class Sentry(Endpoint):
    """Issues: a Link header that says with `results` whether it leads to anything; numbers are texts."""

    path = "/api/0/projects/acme/app/issues/"
    size = largest = 100
    auth = "bearer:SENTRY_TOKEN"
    environment: ClassVar[dict[str, str]] = {"SENTRY_TOKEN": "sntrys_0123456789"}

    def describe(self, number: int) -> Record:
        return {
            "id": str(4_000_000 + number),
            "shortId": f"APP-{number}",
            "title": "ValueError: bad",
            "culprit": "app.views in index",
            "level": "error",
            "status": "unresolved",
            "count": str(3 * number + 1),
            "userCount": number % 7,
            "firstSeen": iso(self.created(number)),
            "lastSeen": iso(self.moments(number)),
            "isSubscribed": number % 2 == 0,
            "hasSeen": False,
            "annotations": [],
            "assignedTo": None if number % 3 else {"type": "user", "id": "1", "email": email(number)},
            "project": {"id": "2", "name": "app", "slug": "app", "platform": "python"},
            "metadata": {"type": "ValueError", "value": "bad", "filename": "app/views.py"},
            "stats": {"24h": [[epoch(self.moments(0)), number], [epoch(self.moments(0)) + 3600, 0]]},
        }

    def list_page(self, request: Request) -> Answer:
        text = request.query.get("cursor", "0:0:0")
        if text.count(":") != 2:
            return Answer({"detail": "Invalid cursor parameter."}, 400)
        size, start = self.find_size(request.query.get("limit")), int(text.split(":")[1])
        came, following = self.cut(self.records, start, size)
        turns = (("previous", max(0, start - size), 1, start > 0), ("next", start + size, 0, following is not None))
        links = [
            f'<{self.url}?cursor=0%3A{to}%3A{back}>; rel="{rel}"; results="{str(has).lower()}"; cursor="0:{to}:{back}"'
            for rel, to, back, has in turns
        ]
        return Answer(came, headers={"Link": ", ".join(links), "X-Hits": str(self.count)})


class Zendesk(Endpoint):
    """Tickets by cursor: `meta.has_more` and `links.next`, and `page[size]` in the URL."""

    path = "/api/v2/tickets.json"
    query = "?page[size]=20"
    largest = 100
    auth = "basic:ZENDESK_USER:ZENDESK_TOKEN"
    environment: ClassVar[dict[str, str]] = {"ZENDESK_USER": "ada@example.com/token", "ZENDESK_TOKEN": "zd0123456789"}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        custom = [{"id": 27642, "value": "745"}, {"id": 27648, "value": number % 2 == 0 or None}]
        return {
            "id": 35436 + number,
            "url": f"https://acme.zendesk.com/api/v2/tickets/{35436 + number}.json",
            "external_id": None,
            "via": {"channel": "web", "source": {"from": {}, "to": {}, "rel": None}},
            "created_at": iso(self.created(number)),
            "updated_at": iso(self.moments(number)),
            "type": "incident" if number % 2 else None,
            "subject": "Help",
            "priority": ("high", "low", None)[number % 3],
            "status": "open",
            "requester_id": 20978392 + number,
            "assignee_id": 235323 if number % 4 else None,
            "organization_id": None,
            "collaborator_ids": [35334, 234][: number % 3],
            "has_incidents": False,
            "due_at": None,
            "tags": ["enterprise", "other_tag"][: number % 3],
            "custom_fields": custom,
            "satisfaction_rating": {"id": 1234 + number, "score": "good"} if number % 5 == 0 else None,
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        if "page[size]" not in query:
            page, size = int(query.get("page", 1)), self.find_size(query.get("per_page", self.largest))
            came, following = self.cut(self.records, (page - 1) * size, size)
            link = f"{self.url.partition('?')[0]}?{urlencode({**query, 'page': page + 1})}" if following else None
            return Answer({"tickets": came, "next_page": link, "previous_page": None, "count": self.count})
        start = reveal(query.get("page[after]"))
        if start is None:
            return Answer({"errors": [{"code": "InvalidPaginationParameter", "title": "Invalid page[after]"}]}, 400)
        came, following = self.cut(self.records, start, self.find_size(query["page[size]"]))
        after, base = hide(start + len(came)), self.url.partition("?")[0]
        link = f"{base}?{urlencode({**query, 'page[after]': after})}"
        meta = {"has_more": following is not None, "after_cursor": after, "before_cursor": hide(start, "before")}
        return Answer({"tickets": came, "meta": meta, "links": {"prev": None, "next": link if following else None}})


class PagerDuty(Endpoint):
    """Incidents: `offset` and `limit`, `more` says whether there are more, and `total` is null."""

    path = "/incidents"
    size, largest = 25, 100
    auth = "header:Authorization:PAGERDUTY_KEY"
    environment: ClassVar[dict[str, str]] = {"PAGERDUTY_KEY": "Token token=y_NbAkKc66ryYTWUXYEu"}
    updated = "updated_at"

    def describe(self, number: int) -> Record:
        at = iso(self.moments(number))
        user = {"id": "PXPGF42", "type": "user_reference", "summary": name(1), "self": None}
        return {
            "id": f"PT4KH{number:03}",
            "type": "incident",
            "incident_number": 1234 + number,
            "title": "The server is on fire.",
            "created_at": iso(self.created(number)),
            "updated_at": at,
            "status": ("resolved", "triggered")[number % 2],
            "incident_key": make_uuid("pagerduty", number).replace("-", ""),
            "service": {"id": "PIJ90N7", "type": "service_reference", "summary": "Mail", "self": None},
            "assignments": [{"at": at, "assignee": user}] if number % 2 else [],
            "last_status_change_at": at,
            "resolved_at": None if number % 2 else at,
            "alert_counts": {"all": 2, "triggered": 2, "resolved": 0},
            "urgency": "high",
            "priority": None,
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        offset, size = int(query.get("offset", 0)), self.find_size(query.get("limit"))
        if offset + size > 10_000:
            error = {"code": 2001, "message": "Invalid Input Provided", "errors": ["Offset must be less than 10000."]}
            return Answer({"error": error}, 400)
        came, following = self.cut(self.records, offset, size)
        counts = {"limit": size, "offset": offset, "total": None, "more": following is not None}
        return Answer({"incidents": came, **counts})


class AzureDevOps(Endpoint):
    """Builds: the cursor is in a header, and `count` is the number of builds on the page."""

    path = "/acme/app/_apis/build/builds"
    query = "?api-version=7.1"
    size, largest = 40, 1000
    auth = "basic:AZURE_NONE:AZURE_PAT"
    environment: ClassVar[dict[str, str]] = {"AZURE_NONE": "", "AZURE_PAT": "azpat0123456789"}

    def describe(self, number: int) -> Record:
        at = f"{self.moments(number):%Y-%m-%dT%H:%M:%S}.3333333Z"
        return {
            "_links": {"self": {"href": f"https://dev.azure.com/acme/app/_apis/build/Builds/{number}"}},
            "properties": {},
            "tags": [],
            "validationResults": [],
            "id": number + 1,
            "buildNumber": f"20261031.{number}",
            "status": "completed",
            "result": "succeeded" if number % 4 else "failed",
            "queueTime": at,
            "startTime": at,
            "finishTime": at if number % 5 else None,
            "definition": {"drafts": [], "id": 7, "name": "ci", "revision": 3},
            "sourceBranch": "refs/heads/main",
            "requestedFor": {
                "displayName": name(number),
                "id": make_uuid("azure", number % 3),
                "uniqueName": email(number),
            },
            "lastChangedDate": at,
            "logs": {"id": 0, "type": "Container"},
            "retainedByRelease": False,
        }

    def list_page(self, request: Request) -> Answer:
        query = request.query
        start = reveal(query.get("continuationToken"))
        if start is None:
            return Answer({"message": "The continuation token is invalid.", "typeKey": "ArgumentException"}, 400)
        came, following = self.cut(self.records, start, self.find_size(query.get("$top")))
        headers = {} if following is None else {"x-ms-continuationtoken": str(hide(following))}
        return Answer({"count": len(came), "value": came}, headers=headers)


class Notion(Endpoint):
    """Rows of a database by POST: a cursor in the body, and properties under names that people chose."""

    path = "/v1/databases/897e5a76ae524b489fdfe71f5945d1af/query"
    size = largest = 100
    auth = "bearer:NOTION_TOKEN"
    environment: ClassVar[dict[str, str]] = {"NOTION_TOKEN": "ntn_0123456789"}
    needs: ClassVar[dict[str, Any]] = {"method": "POST", "headers": {"Notion-Version": "2022-06-28"}}
    updated = "last_edited_time"

    def describe(self, number: int) -> Record:
        title = [{"type": "text", "text": {"content": f"Row {number}", "link": None}, "plain_text": f"Row {number}"}]
        return {
            "object": "page",
            "id": make_uuid("notion", number),
            "created_time": with_millis(self.created(number)),
            "last_edited_time": with_millis(self.moments(number)),
            "created_by": {"object": "user", "id": make_uuid("notion user", 1)},
            "parent": {"type": "database_id", "database_id": "897e5a76-ae52-4b48-9fdf-e71f5945d1af"},
            "archived": False,
            "in_trash": False,
            "properties": {
                "Name": {"id": "title", "type": "title", "title": title},
                "Price": {"id": "BJXS", "type": "number", "number": 2.5 if number % 2 else None},
                "In stock?": {"id": "%3AUPp", "type": "checkbox", "checkbox": number % 3 == 0},
            },
            "url": f"https://www.notion.so/Row-{number}",
            "public_url": None,
        }

    def list_page(self, request: Request) -> Answer:
        body = json.loads(request.body or b"{}")
        if request.headers.get("Notion-Version") is None or request.method != "POST":
            return Answer({"object": "error", "status": 400, "code": "missing_version"}, 400)
        start = reveal(body.get("start_cursor"))
        if start is None or body.keys() - {"start_cursor", "page_size", "filter", "sorts"}:
            return Answer({"object": "error", "status": 400, "code": "validation_error"}, 400)
        came, following = self.cut(self.records, start, self.find_size(body.get("page_size")))
        end = {"next_cursor": hide(following), "has_more": following is not None}
        return Answer({"object": "list", "results": came, **end, "type": "page_or_database", "page_or_database": {}})


class Airtable(Endpoint):
    """Rows of a table: `offset` is an opaque text; empty cells are missing."""

    path = "/v0/appExampleBase/Projects"
    size = largest = 100
    auth = "bearer:AIRTABLE_TOKEN"
    environment: ClassVar[dict[str, str]] = {"AIRTABLE_TOKEN": "pat0123456789"}

    def describe(self, number: int) -> Record:
        cells = {
            "Name": f"Project {number}",
            "Budget (EUR)": 1000 + number if number < 50 else 1000.5,
            "Due Date": f"{self.moments(number):%Y-%m-%d}",
            "Done": True,
            "Tags": ["red", "blue"],
            "Owner": {"id": "usr1", "email": email(number), "name": name(number)},
            "Files": [{"id": f"att{number}", "filename": "a.pdf", "size": 100, "type": "application/pdf"}],
        }
        kept = {title: cell for place, (title, cell) in enumerate(cells.items()) if place == 0 or (number + place) % 3}
        return {"id": f"rec{number:014}", "createdTime": with_millis(self.created(number)), "fields": kept}

    def list_page(self, request: Request) -> Answer:
        text = request.query.get("offset", "itr0/rec0")
        if not text.startswith("itr"):
            return Answer({"error": {"type": "LIST_RECORDS_ITERATOR_NOT_AVAILABLE"}}, 422)
        start, size = int(text[3:].partition("/")[0]), self.find_size(request.query.get("pageSize"))
        came, following = self.cut(self.records, start, size)
        return Answer({"records": came} | ({} if following is None else {"offset": f"itr{following}/rec{following}"}))
