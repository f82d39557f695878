"""Issues, tickets and conversations: GitHub, GitLab, Jira, Zendesk, Intercom."""

from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from tests.support.apis import Api
from wholeday import Epoch, Field, Json, Record

AT = "2026-11-20T10:00:00Z"
STORED_AT = "2026-11-20T10:00:00.000000Z"


class Label(Record):
    id: int = Field(primary_key=True)
    name: str
    color: str | None


class GitHubIssue(Record):
    id: int = Field(primary_key=True)
    number: int
    title: str
    state: Literal["open", "closed"]
    author: str | None = Field("user.login")
    milestone: str | None = Field("milestone.title")
    is_pull_request: Json | None = Field("pull_request")
    thumbs_up: int | None = Field(r"reactions.+1")
    labels: list[Label]
    closed_at: datetime | None
    updated_at: datetime


GITHUB = {"title": "Crash", "state": "open", "user": {"login": "ada", "id": 1}, "closed_at": None, "updated_at": AT}
GITHUB_ISSUES = Api(
    GitHubIssue,
    [
        GITHUB
        | {"id": 101, "number": 1, "milestone": {"title": "1.0"}, "reactions": {"total_count": 2, "+1": 2, "-1": 0}}
        | {"labels": [{"id": 9, "name": "bug", "color": "d73a4a"}, {"id": 8, "name": "p1", "color": None}]},
        GITHUB | {"id": 102, "number": 2, "user": None, "labels": [], "pull_request": {"merged_at": None}},
        GITHUB | {"id": 103, "number": 3, "labels": ["bug"]},
    ],
    {
        "select id, author, milestone, is_pull_request, thumbs_up from things order by id": [
            (101, "ada", "1.0", None, 2),
            (102, None, None, '{"merged_at":null}', None),
        ],
        "select things_id, id, name, color from things_labels order by id": [
            (101, 8, "p1", None),
            (101, 9, "bug", "d73a4a"),
        ],
    },
    [("labels", "Expected `object`, got `str`")],
)


class Assignee(Record):
    id: int = Field(primary_key=True)
    username: str


class GitLabIssue(Record):
    id: int = Field(primary_key=True)
    project_id: int
    iid: int
    labels: list[str]
    assignees: list[Assignee]
    due_date: date | None
    spent_seconds: int | None = Field("time_stats.total_time_spent")
    updated_at: datetime


GITLAB = {"project_id": 4, "time_stats": {"total_time_spent": 60}, "updated_at": "2026-11-20T10:00:00.000Z"}
GITLAB_ISSUES = Api(
    GitLabIssue,
    [
        GITLAB
        | {"id": 41, "iid": 1, "labels": ["bug", "ux"], "due_date": "2026-12-24"}
        | {"assignees": [{"id": 1, "username": "root", "state": "active"}]},
        GITLAB | {"id": 42, "iid": 2, "labels": [], "due_date": "24.12.2026", "assignees": []},
    ],
    {
        "select id, labels, due_date, spent_seconds from things": [(41, '["bug","ux"]', "2026-12-24", 60)],
        "select things_id, id, username from things_assignees": [(41, 1, "root")],
    },
    [("due_date", "Invalid RFC3339 encoded date")],
)


class Component(Record):
    id: str = Field(primary_key=True)
    name: str


class JiraIssue(Record):
    id: str = Field(primary_key=True)
    key: str
    summary: str = Field("fields.summary")
    status: str = Field("fields.status.name")
    assignee: str | None = Field("fields.assignee.accountId")
    points: Decimal | None = Field("fields.customfield_10016", max_digits=6, decimal_places=2)
    labels: list[str] | None = Field("fields.labels")
    components: list[Component] | None = Field("fields.components")
    due: date | None = Field("fields.duedate")
    custom: Json | None = Field(rest=True)
    updated_at: datetime = Field("fields.updated")


JIRA_FIELDS = {
    "summary": "Slow",
    "status": {"name": "To Do", "id": "1"},
    "labels": [],
    "updated": "2026-11-20T11:00:00.000+0100",
}
JIRA_ISSUES = Api(
    JiraIssue,
    {
        "startAt": 0,
        "maxResults": 50,
        "total": 2,
        "issues": [
            {"id": "10001", "key": "WD-1", "fields": JIRA_FIELDS | {"customfield_10016": 3.0, "customfield_10020": [7]}}
            | {"expand": "names"},
            {"id": "10002", "key": "WD-2", "fields": JIRA_FIELDS | {"components": [{"id": "5", "name": "load"}]}},
            {"id": "10003", "key": "WD-3", "fields": {"summary": "No status", "updated": AT}},
        ],
    },
    {
        "select key, status, assignee, points, updated_at from things order by key": [
            ("WD-1", "To Do", None, 3.0, STORED_AT),
            ("WD-2", "To Do", None, None, STORED_AT),
        ],
        "select custom from things where key = 'WD-1'": [
            ('{"expand":"names","fields":{"customfield_10020":[7],"status":{"id":"1"}}}',)
        ],
        "select things_id, id, name from things_components": [("10002", "5", "load")],
    },
    [("fields.status", "Object missing required field `status`")],
    "issues",
)


class CustomField(Record):
    id: int = Field(primary_key=True)
    value: Json | None


class ZendeskTicket(Record):
    id: int = Field(primary_key=True)
    subject: str | None
    status: Literal["new", "open", "pending", "hold", "solved", "closed", "deleted"]
    channel: str | None = Field("via.channel")
    requester_id: int
    tags: list[str]
    custom_fields: list[CustomField]
    score: str | None = Field("satisfaction_rating.score")
    updated_at: datetime


ZENDESK = {"requester_id": 7, "status": "open", "via": {"channel": "email"}, "tags": ["vip"], "updated_at": AT}
ZENDESK_TICKETS = Api(
    ZendeskTicket,
    {
        "tickets": [
            ZENDESK
            | {"id": 35436, "subject": "Help", "satisfaction_rating": {"score": "good"}}
            | {"custom_fields": [{"id": 2, "value": ["a", "b"]}, {"id": 1, "value": None}, {"id": 3, "value": "745"}]},
            ZENDESK | {"id": 35437, "custom_fields": [{"id": 2, "value": "x"}, {"id": 2, "value": "y"}]},
        ],
        "end_of_stream": True,
    },
    {
        "select id, subject, channel, tags, score from things": [(35436, "Help", "email", '["vip"]', "good")],
        "select id, value from things_custom_fields order by id": [(1, None), (2, '["a","b"]'), (3, '"745"')],
    },
    [("custom_fields", "has two items with the same id")],
    "tickets",
)


class Tag(Record):
    id: str = Field(primary_key=True)
    name: str


class IntercomConversation(Record):
    id: str = Field(primary_key=True)
    state: Literal["open", "closed", "snoozed"]
    read: bool
    author_email: str | None = Field("source.author.email", to_lower=True)
    attributes: Json | None = Field("custom_attributes")
    tags: list[Tag] | None = Field("tags.tags")
    waiting_since: Epoch | None
    updated_at: Epoch


INTERCOM = {"state": "open", "read": True, "updated_at": 1795168800, "waiting_since": None}
INTERCOM_CONVERSATIONS = Api(
    IntercomConversation,
    {
        "type": "conversation.list",
        "total_count": 2,
        "conversations": [
            INTERCOM
            | {"id": "191", "source": {"author": {"type": "lead", "id": "5b", "email": "Ada@Example.com"}}}
            | {"custom_attributes": {"priority": "High", "level": 1.50}}
            | {"tags": {"type": "tag.list", "tags": [{"type": "tag", "id": "12", "name": "billing"}]}},
            INTERCOM | {"id": "192", "read": 1},
        ],
    },
    {
        "select id, read, author_email, attributes, updated_at from things": [
            ("191", 1, "ada@example.com", '{"level":1.5,"priority":"High"}', STORED_AT)
        ],
        "select things_id, id, name from things_tags": [("191", "12", "billing")],
    },
    [("read", "Expected `bool`, got `int`")],
    "conversations",
)
