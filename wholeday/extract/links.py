"""Foresee where links lead, by the one number in them that grows from page to page.

A request foreseen is used only if the source's own link is the same. A wrong guess costs a request and loses nothing.
"""

from dataclasses import replace

from wholeday.extract.http.page import Request, join_query, parse_param_name, split_query

FAR = 10**8  # records or pages


def foresee_link(before: Request, request: Request) -> Request | None:
    """Return the request after `request` if one number in its query grew since `before`; else None."""
    if before.method != request.method or before.headers != request.headers:
        return None
    if before.url.partition("?")[0] != request.url.partition("?")[0]:
        return None
    if (grown := _find_grown(before.target, request.target)) is None:
        return None
    pairs, at, earlier, number = grown
    pairs[at] = f"{pairs[at].partition('=')[0]}={2 * number - earlier}"
    return replace(request, url=join_query(request.target, pairs), params={})


def push_link(link: str, following: str) -> str | None:
    """Return a link far behind the last page: the number that grows from `link` to `following` becomes a large one.

    None if no number in the query grows.
    """
    if (grown := _find_grown(link, following)) is None:
        return None
    pairs, at, _, _ = grown
    pairs[at] = f"{pairs[at].partition('=')[0]}={FAR}"
    return join_query(following, pairs)


def _find_grown(link: str, following: str) -> tuple[list[str], int, int, int] | None:
    """Find the one difference between the queries of two links, if it is a number that grows.

    Return the parameters of the second link, the position of this one, and its number in both.
    """
    old, new = split_query(link), split_query(following)
    if len(old) != len(new):
        return None
    changed = [at for at, pair in enumerate(new) if pair != old[at]]
    if len(changed) != 1 or parse_param_name(old[changed[0]]) != parse_param_name(new[changed[0]]):
        return None
    earlier, number = (pairs[changed[0]].partition("=")[2] for pairs in (old, new))
    if not (number.isdecimal() and earlier.isdecimal()) or int(number) <= int(earlier):
        return None
    return new, changed[0], int(earlier), int(number)
