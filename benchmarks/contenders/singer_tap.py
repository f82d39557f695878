"""A tap, as Meltano's SDK for Singer has it: a REST stream that follows the Link header."""

import sys
from collections.abc import Iterable
from urllib.parse import urlsplit

import requests
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BaseHATEOASPaginator

URL = sys.argv.pop(1)


class Following(BaseHATEOASPaginator):
    def get_next_url(self, response: requests.Response) -> str | None:
        return response.links.get("next", {}).get("url")


class Users(RESTStream):
    name, path, primary_keys, url_base = (
        "users",
        urlsplit(URL).path,
        ("id",),
        "{0.scheme}://{0.netloc}".format(urlsplit(URL)),
    )
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType),
        *(th.Property(name, th.StringType) for name in ("name", "username", "email", "phone", "website", "updated_at")),
        th.Property("address", th.ObjectType(additional_properties=True)),
        th.Property("company", th.ObjectType(additional_properties=True)),
    ).to_dict()

    def get_new_paginator(self) -> Following:
        return Following()

    def get_url_params(self, context: object, next_page_token: object) -> str:
        return next_page_token.query if next_page_token else urlsplit(URL).query

    def parse_response(self, response: requests.Response) -> Iterable[dict]:
        yield from response.json()


class TapUsers(Tap):
    name = "tap-users"

    def discover_streams(self) -> list[Users]:
        return [Users(self)]


TapUsers.cli()
