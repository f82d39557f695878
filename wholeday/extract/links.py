"""Foresee the request that a link will lead to, from the two before it.

A request foreseen is used only if the source's own link is the same. A wrong guess costs a request and loses nothing.
"""

from dataclasses import replace

from wholeday.extract.http.page import Request, join_query, parse_param_name, split_query


def foresee_link(before: Request, request: Request) -> Request | None:
    """Return the request after `request` if one number in its query grew since `before`; else None."""
    old, new = split_query(before.target), split_query(request.target)
    same = old == new or before.method != request.method or before.headers != request.headers
    if same or before.url.partition("?")[0] != request.url.partition("?")[0] or len(old) != len(new):
        return None
    changed = [at for at, pair in enumerate(new) if pair != old[at]]
    if len(changed) != 1 or parse_param_name(old[changed[0]]) != parse_param_name(new[changed[0]]):
        return None
    name, _, number = new[changed[0]].partition("=")
    earlier = old[changed[0]].partition("=")[2]
    if not (number.isdecimal() and earlier.isdecimal()) or int(number) <= int(earlier):
        return None
    new[changed[0]] = f"{name}={2 * int(number) - int(earlier)}"
    return replace(request, url=join_query(request.target, new), params={})
