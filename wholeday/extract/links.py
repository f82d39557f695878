"""Read links to the next page from a Link header (RFC 8288), and resolve them.

Non-goals: the client's own parser. `httpx.Response.links` keeps one link for each relation and reports neither a
malformed header nor the parameter `results` that Sentry sends.
"""

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit, urlunsplit

# One link of a Link header: <target>, then ;name=value pairs whose quoted values may hold , and ;
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)')
_LINK_PARAM = re.compile(r';\s*([^\s=;,"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))')


def parse_next_link(header: str) -> str | None:
    """Return the target of the first link with relation `next`, unresolved.

    Skip a link with `results="false"`: Sentry sends one with the last page, and it leads to an empty page.
    """
    return next((target for target, results in _parse_next_links(header) if results != "false"), None)


def is_last_link(header: str) -> bool:
    """Return whether all links to a next page carry `results="false"`."""
    found = [results for _, results in _parse_next_links(header)]
    return bool(found) and set(found) == {"false"}


def is_malformed(header: str) -> bool:
    """Return whether a Link header mentions `next` outside a valid link."""
    return bool(re.search(r"\bnext\b", _LINK.sub("", header), re.IGNORECASE))


def resolve_link(base: str, link: str, keep_origin: bool) -> str:
    """Return the absolute URL of `link` on the page `base`. `keep_origin` keeps scheme and host of `base`.

    Raises ValueError if the link is not a URL.
    """
    url = urljoin(base, link)
    parts = urlsplit(url)
    if not keep_origin or parts.scheme not in ("http", "https"):  # the client refuses other schemes
        return url
    own = urlsplit(base)
    return urlunsplit(parts._replace(scheme=own.scheme, netloc=own.netloc, path=parts.path or "/"))


def _parse_next_links(header: str) -> Iterator[tuple[str, str]]:
    """Yield target and parameter `results` of each link with relation `next`."""
    for target, text in _LINK.findall(header):
        params: dict[str, str] = {}
        for name, quoted, bare in _LINK_PARAM.findall(text):
            params.setdefault(name.lower(), (quoted or bare.strip("'")).lower())
        if "next" in params.get("rel", "").split():
            yield str(target), params.get("results", "")
