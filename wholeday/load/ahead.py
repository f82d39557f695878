"""Prepare the next item in a thread while the current one is in use."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item]) -> Generator[Item]:
    """Yield items in order. A thread takes the next one while the caller uses the current one. Close the generator.

    The first two items are taken without a thread: a small day has one item, and a thread costs more than the item.
    An error while an item is taken is raised in place of the item. Two threads never take items at once.
    """
    items, end = iter(items), object()
    yield from islice(items, 1)
    item = next(items, end)
    if item is end:
        return
    with ThreadPoolExecutor(1, "ahead") as pool:
        while item is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # `end` never gets here
            item = following.result()
