"""Join pages that overlap, so that a list that moves loses no record unseen.

An offset points to other records once the list has moved. So each page begins with the last record of the page before.
"""

from dataclasses import replace

from wholeday.errors import OutageError
from wholeday.extract.http.client import Client
from wholeday.extract.http.page import Page, Request
from wholeday.schema.census import Census


def join(
    client: Client, census: Census, retries: int, before: tuple[Request, Page], following: tuple[Request, Page]
) -> tuple[Request, Page]:
    """Return the page that continues the page `before`, and its request. A record that both hold comes once.

    If the last record of the page before does not come again, records have moved up unseen. The page before is then
    requested again. If it still holds a record that is known, all records behind it follow, and this page goes on.
    Raises OutageError if the list moves too fast for that.
    """
    (asked, known), (request, page) = before, following
    if not known.records:
        return request, page
    for _ in range(retries + 1):
        if page.records and page.records[0] == known.records[-1]:  # the usual case, without a look at the keys
            return request, replace(page, records=page.records[1:], overlap=1)
        keys = census.identify(known.records)
        if keys[-1] in census.identify(page.records):
            return request, page
        again = client.fetch(asked)
        if again.content != known.content and not set(keys).isdisjoint(census.identify(again.records)):
            return asked, again
        page = client.fetch(request)
    raise client.fail(
        f"{request}: the page does not begin where the page before ended: the list changes faster than it can be read; "
        "run it again later, or ask for an order that stays",
        OutageError,
    )
