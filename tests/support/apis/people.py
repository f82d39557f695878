"""Contacts, accounts, members and what they send: HubSpot, Salesforce, Slack, Mailchimp, Typeform, Twilio, Airtable."""

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.support.apis import Api
from wholeday import Epoch, EpochMillis, Field, Json, Record

if TYPE_CHECKING:
    import pandas as pd

AT = "2026-11-20T10:00:00.000Z"
STORED_AT = "2026-11-20T10:00:00.000000Z"


class HubSpotContact(Record):
    id: str = Field(primary_key=True)
    email: str | None = Field("properties.email", to_lower=True, pattern="@")
    first_name: str | None = Field("properties.firstname", strip_whitespace=True)
    visits: int | None = Field("properties.hs_analytics_num_visits")
    revenue: Decimal | None = Field("properties.total_revenue", max_digits=14, decimal_places=2)
    archived: bool
    updated_at: datetime | None = Field("updatedAt")


HUBSPOT_CONTACTS = Api(
    HubSpotContact,
    {
        "results": [
            {
                "id": "51",
                "properties": {"email": "Ada@x.org", "hs_analytics_num_visits": "3", "total_revenue": "99.5"},
                "archived": False,
                "updatedAt": AT,
            },
            {
                "id": "52",
                "properties": {"firstname": "", "hs_analytics_num_visits": "", "total_revenue": None},
                "archived": False,
                "updatedAt": AT,
            },
            {"id": "53", "properties": {"hs_analytics_num_visits": "many"}, "archived": False, "updatedAt": AT},
        ]
    },
    {
        "select id, email, first_name, visits, revenue from things order by id": [
            ("51", "ada@x.org", None, 3, 99.5),
            ("52", None, None, None, None),
        ]
    },
    [("properties.hs_analytics_num_visits", "Expected `int | null`, got `str`")],
    "results",
    {"lenient": True},
)


class SalesforceAccount(Record):
    id: str = Field("Id", primary_key=True)
    name: str = Field("Name", strip_whitespace=True, min_length=1)
    revenue: Decimal | None = Field("AnnualRevenue", max_digits=15, decimal_places=2)
    employees: int | None = Field("NumberOfEmployees")
    city: str | None = Field("BillingAddress.city")
    owner: str | None = Field("Owner.Name")
    is_deleted: bool = Field("IsDeleted")
    updated_at: datetime | None = Field("SystemModstamp")


SALESFORCE = {"attributes": {"type": "Account"}, "IsDeleted": False, "SystemModstamp": "2026-11-20T10:00:00.000+0000"}
SALESFORCE_ACCOUNTS = Api(
    SalesforceAccount,
    {
        "totalSize": 3,
        "done": True,
        "records": [
            SALESFORCE
            | {"Id": "001A", "Name": "Acme ", "AnnualRevenue": 3.5e8, "NumberOfEmployees": 1200}
            | {"BillingAddress": {"city": "Oslo"}, "Owner": {"attributes": {}, "Name": "Bo"}},
            SALESFORCE | {"Id": "001B", "Name": "Void", "AnnualRevenue": None, "BillingAddress": None},
            SALESFORCE | {"Id": "001C", "Name": " "},
        ],
    },
    {
        "select id, name, revenue, employees, city, owner, updated_at from things order by id": [
            ("001A", "Acme", 3.5e8, 1200, "Oslo", "Bo", STORED_AT),
            ("001B", "Void", None, None, None, None, STORED_AT),
        ]
    },
    [("Name", "has fewer than 1 characters")],
    "records",
)


class SlackUser(Record):
    id: str = Field(primary_key=True)
    team_id: str
    name: str
    email: str | None = Field("profile.email")
    zone: str | None = Field("tz")
    offset_seconds: int | None = Field("tz_offset")
    is_admin: bool | None
    updated_at: Epoch = Field("updated")


SLACK = {"team_id": "T1", "deleted": False, "updated": 1795168800}
SLACK_USERS = Api(
    SlackUser,
    {
        "ok": True,
        "members": [
            SLACK
            | {"id": "U1", "name": "ada", "profile": {"email": "ada@x.org"}, "tz": "Europe/Oslo", "tz_offset": 3600}
            | {"is_admin": True},
            {"id": "U2", "team_id": "T1", "deleted": True, "updated": 1795168800},
            SLACK | {"id": "U3", "name": None},
        ],
        "response_metadata": {"next_cursor": ""},
    },
    {
        "select id, email, zone, offset_seconds, is_admin, updated_at from things": [
            ("U1", "ada@x.org", "Europe/Oslo", 3600, 1, STORED_AT)
        ]
    },
    [("name", "Expected `str`, got `null`")],
    "members",
    {"deleted_when": "deleted"},
)


class MemberTag(Record):
    id: int = Field(primary_key=True)
    name: str


class MailchimpMember(Record):
    id: str = Field(primary_key=True, min_length=32, max_length=32)
    email: str = Field("email_address", to_lower=True)
    open_rate: float | None = Field("stats.avg_open_rate", ge=0, le=1)
    latitude: float | None = Field("location.latitude")
    merge_fields: Json | None
    tags: list[MemberTag]
    updated_at: datetime = Field("last_changed")


MEMBER = {"email_address": "Bo@x.org", "location": {"latitude": 59.9}, "tags": [], "last_changed": AT}
MAILCHIMP_MEMBERS = Api(
    MailchimpMember,
    {
        "list_id": "a1",
        "total_items": 2,
        "members": [
            MEMBER
            | {"id": "0" * 32, "stats": {"avg_open_rate": 0.25}, "merge_fields": {"LNAME": "Berg", "FNAME": "Bo"}}
            | {"tags_count": 1, "tags": [{"id": 4, "name": "news"}]},
            MEMBER | {"id": "1" * 32, "stats": {"avg_open_rate": 1.25}},
        ],
    },
    {
        "select email, open_rate, latitude, merge_fields from things": [
            ("bo@x.org", 0.25, 59.9, '{"FNAME":"Bo","LNAME":"Berg"}')
        ],
        "select id, name from things_tags": [(4, "news")],
    },
    [("stats.avg_open_rate", "Expected `float` <= 1.0")],
    "members",
)


class Answer(Record):
    field_id: str = Field("field.id", primary_key=True)
    type: str
    text: str | None
    number: Decimal | None = Field(max_digits=12, decimal_places=2)
    is_yes: bool | None = Field("boolean")
    choice: str | None = Field("choice.label")
    choices: list[str] | None = Field("choices.labels")


class TypeformResponse(Record):
    response_id: str = Field(primary_key=True)
    score: int | None = Field("calculated.score")
    hidden: Json | None
    answers: list[Answer] | None
    submitted_at: datetime
    updated_at: datetime | None = Field("submitted_at")


TYPEFORM_RESPONSES = Api(
    TypeformResponse,
    {
        "total_items": 2,
        "page_count": 1,
        "items": [
            {
                "response_id": "r1",
                "submitted_at": "2026-11-20T10:00:00Z",
                "hidden": {"plan": "pro"},
                "calculated": {"score": 3},
                "answers": [
                    {"field": {"id": "f2", "type": "number"}, "type": "number", "number": 7},
                    {"field": {"id": "f1"}, "type": "choices", "choices": {"labels": ["red", "blue"]}},
                    {"field": {"id": "f3"}, "type": "boolean", "boolean": False},
                ],
            },
            {"response_id": "r2", "submitted_at": "2026-11-20T10:00:00Z", "answers": [{"field": {}, "type": "text"}]},
        ],
    },
    {
        "select response_id, score, hidden, updated_at from things": [("r1", 3, '{"plan":"pro"}', STORED_AT)],
        "select field_id, type, number, is_yes, choices from things_answers order by 1": [
            ("f1", "choices", None, None, '["red","blue"]'),
            ("f2", "number", 7.0, None, None),
            ("f3", "boolean", None, 0, None),
        ],
    },
    [("answers.field.id", "Object missing required field `id`")],
    "items",
)


class TwilioMessage(Record):
    sid: str = Field(primary_key=True)
    status: str
    segments: int | None = Field("num_segments")
    price: Decimal | None = Field(max_digits=9, decimal_places=5)
    error_code: int | None
    date_updated: str | None
    updated_at: datetime | None


def read_dates(messages: "pd.DataFrame") -> "pd.DataFrame":
    """Read the dates of RFC 2822, which JSON APIs rarely send."""
    import pandas as pd

    dates = pd.to_datetime(messages["date_updated"], format="%a, %d %b %Y %H:%M:%S %z", utc=True)
    return messages.assign(updated_at=dates)


TWILIO_MESSAGES = Api(
    TwilioMessage,
    {
        "page": 0,
        "messages": [
            {
                "sid": "SM1",
                "status": "delivered",
                "num_segments": "2",
                "price": "-0.00750",
                "error_code": None,
                "date_updated": "Fri, 20 Nov 2026 10:00:00 +0000",
            },
            {"sid": "SM2", "status": "queued", "num_segments": "0", "price": None, "date_updated": None},
            {"sid": "SM3", "status": "failed", "num_segments": "1", "price": "free"},
        ],
        "next_page_uri": None,
    },
    {
        "select sid, segments, price, updated_at from things order by sid": [
            ("SM1", 2, -0.0075, STORED_AT),
            ("SM2", 0, None, None),
        ]
    },
    [("price", 'is not a number: "free"')],
    "messages",
    {"lenient": True},
    read_dates,
)


class Attachment(Record):
    id: str = Field(primary_key=True)
    filename: str
    size: int | None


class AirtableRecord(Record):
    id: str = Field(primary_key=True)
    name: str | None = Field("fields.Name")
    due: date | None = Field("fields.Due date")
    is_done: bool | None = Field("fields.Done?")
    version: str | None = Field(r"fields.App v1\.0")
    files: list[Attachment] | None = Field("fields.Attachments")
    other: Json | None = Field(rest=True)
    updated_at: datetime | None = Field("createdTime")


AIRTABLE_RECORDS = Api(
    AirtableRecord,
    {
        "records": [
            {
                "id": "rec1",
                "createdTime": AT,
                "fields": {
                    "Name": "Launch",
                    "Due date": "2026-12-01",
                    "Done?": True,
                    "App v1.0": "yes",
                    "Attachments": [{"id": "att1", "filename": "a.png", "size": 12, "url": "https://x.org/a"}],
                    "Owner": {"id": "usr1"},
                },
            },
            {"id": "rec2", "createdTime": AT, "fields": {}},
            {"id": "rec3", "createdTime": AT, "fields": {"Due date": "soon"}},
        ]
    },
    {
        "select id, name, due, is_done, version, other from things order by id": [
            ("rec1", "Launch", "2026-12-01", 1, "yes", '{"fields":{"Owner":{"id":"usr1"}}}'),
            ("rec2", None, None, None, None, "{}"),
        ],
        "select things_id, id, filename, size from things_files": [("rec1", "att1", "a.png", 12)],
    },
    [("fields.Due date", "Invalid RFC3339 encoded date")],
    "records",
)


class Earthquake(Record):
    id: str = Field(primary_key=True)
    magnitude: float | None = Field("properties.mag")
    place: str | None = Field("properties.place")
    at_time: EpochMillis = Field("properties.time")
    longitude: float = Field("geometry.coordinates.0", ge=-180, le=180)
    latitude: float = Field("geometry.coordinates.1", ge=-90, le=90)
    updated_at: EpochMillis = Field("properties.updated")


QUAKE = {"mag": 4.5, "place": "Off the coast", "time": 1795168800123, "updated": 1795168800000}
USGS_EVENTS = Api(
    Earthquake,
    {
        "type": "FeatureCollection",
        "features": [
            {"id": "us1", "properties": QUAKE, "geometry": {"type": "Point", "coordinates": [-70.5, 19.25, 10]}},
            {"id": "us2", "properties": QUAKE, "geometry": {"type": "Point", "coordinates": [-70.5]}},
        ],
    },
    {
        "select id, magnitude, at_time, longitude, latitude, updated_at from things": [
            ("us1", 4.5, "2026-11-20T10:00:00.123000Z", -70.5, 19.25, STORED_AT)
        ]
    },
    [("geometry.coordinates.1", "is null or missing")],
    "features",
)
