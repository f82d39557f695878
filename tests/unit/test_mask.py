"""Secrets are removed from texts in every form."""

import base64
import html
import json
import logging
import re
import sys
import threading
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import People
from wholeday.redaction import SHORTEST, Mask


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a/b c, a%2Fb%20c, a%2fb+c.", "***, ***, ***."),
        ("next=%2Fusers%3Fkey%3Da%252Fb%2520c", "next=%2Fusers%3Fkey%3D***"),
        (r"a\/b c and a\u002Fb\u0020c", "*** and ***"),
        ("a&#47;b&#32;c and a&#x2F;b c", "*** and ***"),
        ("abcdef abcd", "*** ***"),
        ("GET http://ann:pw@h/?id_token=x1&q=2: no", "GET http://***@h/?id_token=***&q=2: no"),
        ("/?q=2&X-Amz-Signature=x1 and ?sig=x1", "/?q=2&X-Amz-Signature=*** and ?sig=***"),
        ("/?design=x1&code=x1&zipcode=x1", "/?design=x1&code=***&zipcode=x1"),
        (
            "/?$skiptoken=x1&pageToken=x2&start_key=x3&my_page_token=x4",
            "/?$skiptoken=x1&pageToken=x2&start_key=x3&my_page_token=***",
        ),
    ],
)
def test_secrets_are_masked_in_any_form(said: str, shown: str) -> None:
    """Known secrets in any encoding, secrets in URLs by their position, and no pointers to a page."""
    assert Mask(["a/b c", "abcd", "abcdef"])(said) == shown


SECRETS = st.text(st.sampled_from("aé\\&<>\"'/+% *") | st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=4)


@pytest.mark.slow
@settings(deadline=None)
@given(secret=SECRETS.filter(lambda text: text == text.strip(" \\+") and len(re.sub(r"[ \\]", "", text)) >= SHORTEST))
def test_every_encoding_of_a_secret_is_masked(secret: str) -> None:
    """Plain, URL-encoded once and twice, and escaped as in JSON and HTML."""
    forms = [secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(quote(secret, safe=""), safe="")]
    forms += [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)]
    mask = Mask([secret])
    assert [mask(form) for form in forms] == ["***"] * len(forms)


@pytest.mark.parametrize("secret", ["a", "ab", "1", " ", "\\", "é"])
def test_short_secret_is_not_masked(secret: str) -> None:
    """A password of one letter would garble every line."""
    line = "users 2026-11-20: GET http://h/abé: 500 a b é \\: check auth"
    assert Mask([secret])(line) == line


def test_part_of_eight_characters_is_masked() -> None:
    """Shorter parts reveal too little, and occur in other words."""
    assert Mask(["s3cr3t-t0k3n"])("s3cr3t-t and cr3t-t0k3 and s3cr3t-") == "*** and *** and s3cr3t-"


def test_text_escaped_too_deep_is_hidden() -> None:
    text = "s3cr3t-t0k3n"
    for _ in range(20):
        text = quote(f"%{text}", safe="")
    assert Mask(["s3cr3t-t0k3n"])(text) == "***"


def test_mask_is_thread_safe() -> None:
    """A secret is masked from the moment it is added, and no earlier one is lost."""
    mask = Mask(["first!"])
    names = [f"token-{number}-" for number in range(200)]

    def learn(mine: list[str]) -> None:
        for name in mine:
            mask.add(name)
            assert mask(f"{name} first!") == "*** ***"

    threads = [threading.Thread(target=learn, args=(names[at::4],)) for at in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or they would take turns where it is harmless
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert mask(" ".join(names)).split() == ["***"] * 200


def test_hostile_text_is_masked_quickly() -> None:
    """However often it repeats a part of a secret."""
    secret = base64.b64encode(bytes(range(256)) * 4).decode() + r"\\\\"
    start = time.process_time()
    Mask([secret])((secret[:-1] + "\\" * 100 + "?token" * 20) * 20)
    assert time.process_time() - start < 2


def test_values_under_secret_names_are_secrets() -> None:
    """In url, params, body and headers, at any depth. Short texts and other names do not count."""
    people = People(
        url="http://h/users?api_key=of+url&page=first#?token=fragment",
        params={"filter": [{"token": "of params"}], "q": "search", "sig": "abc", "page_token": "pointer"},
        body={"auth": {"any": ["of body", 7]}, "query": "text"},
        headers={"Cookie": "session=1", "X-Trace": "trace"},
    )
    assert set(people.secrets) == {"of url", "of params", "of body", "session=1"}


def test_cover_masks_log_records(caplog: pytest.LogCaptureFixture) -> None:
    """With their arguments, and until the end of the last of several blocks."""
    logger = logging.getLogger("urllib3.connectionpool")
    mask = Mask(["s3cr3t"])
    with mask.cover():
        with mask.cover():
            logger.warning("GET %s", "/?q=s3cr3t")
            mask.add("learnt")
        logger.warning("GET %s", "/?q=learnt")
    logger.warning("GET %s", "/?q=learnt")
    assert caplog.messages == ["GET /?q=***", "GET /?q=***", "GET /?q=learnt"]
    assert not logger.filters
