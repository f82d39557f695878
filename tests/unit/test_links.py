"""The request that a link will lead to is foreseen from the two before it, or not at all."""

import pytest

from wholeday.extract.http.page import Request
from wholeday.extract.links import foresee_link

U = "https://api.example/users"


@pytest.mark.parametrize(
    ("before", "request_url", "foreseen"),
    [
        (f"{U}?page=2", f"{U}?page=3", f"{U}?page=4"),
        (f"{U}?q=a%20b&start=100&n=50", f"{U}?q=a%20b&start=150&n=50", f"{U}?q=a%20b&start=200&n=50"),
        (U, f"{U}?page=2", None),
        (f"{U}?page=2", f"{U}?page=2", None),
        (f"{U}?page=3", f"{U}?page=2", None),
        (f"{U}?after=a1", f"{U}?after=a2", None),
        (f"{U}?page=2&at=17", f"{U}?page=3&at=18", None),
        (f"{U}?page=2", f"{U}?p=3", None),
        (f"{U}?page=2", "https://api.example/others?page=3", None),
    ],
)
def test_one_growing_number_is_foreseen(before: str, request_url: str, foreseen: str | None) -> None:
    expected = None if foreseen is None else Request(foreseen, headers={"A": "1"})
    assert foresee_link(Request(before, headers={"A": "1"}), Request(request_url, headers={"A": "1"})) == expected


def test_configured_request_differs_from_its_links() -> None:
    """Its params are not in its URL, and the links repeat them."""
    first = Request(U, {"page": 1, "size": 9})
    assert foresee_link(first, Request(f"{U}?page=2&size=9")) == Request(f"{U}?page=3&size=9")
