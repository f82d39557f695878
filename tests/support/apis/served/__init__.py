"""Simulate endpoints of real APIs as documented by their vendors: paging, limits, secrets, and the shape of records.

Responsibilities: the responses. Records are invented: some fields are null or missing in some of them, and a type may
show only in a later one. An endpoint runs on a Server:

    endpoint = ENDPOINTS["shopify"](server, 120)
    endpoint.url, endpoint.auth, endpoint.needs    # what a person takes from the documentation
    endpoint.environment                           # the variables of auth
    endpoint.records, endpoint.key                 # what must arrive
"""

from tests.support.apis.served import business, open_data, people, work
from tests.support.apis.served.endpoint import Endpoint

ENDPOINTS: dict[str, type[Endpoint]] = {
    cls.__name__.lower(): cls
    for module in (business, work, people, open_data)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Endpoint) and cls.__module__ == module.__name__
}
