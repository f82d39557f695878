"""Decide which parents a day asks: the rows of another dataset, such as repositories, whose children it reads.

Responsibilities: the frozen list; which parents are late; values that must not stand in a request.
Non-goals: reading their children (`series`), and the table of the parents, which the caller reads.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from wholeday.config.days import SNAPSHOT, Window
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.errors import ConfigError, QualityError
from wholeday.storage.parents import Parent

UNSENDABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]|^\.{0,2}$")


class Asking(Protocol):
    """The parents of a dataset, as the warehouse knows them."""

    @property
    def name(self) -> str:
        """The dataset of the parents."""

    @property
    def placeholders(self) -> Sequence[str]:
        """The columns that fill placeholders."""

    def list_parents(
        self, window: Window, changed_since: dt.datetime | None
    ) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """Yield key and values of each parent that may have children in a window, by key.

        With `changed_since`, only those that changed since then. Raises QualityError, WarehouseError.
        """

    def list_asked(self, date: dt.date) -> Iterator[Sequence[Parent]]:
        """Yield the parents that each loaded day before `date` asked, the latest day first.

        A day whose files are gone yields none.
        """

    def read_watermarks(self, date: dt.date) -> dict[tuple[Any, ...], dt.datetime]:
        """Return the highest `watermark` of the loaded days before `date`, by the values of the placeholders."""


def check_parents(config: Source) -> None:
    """Raise ConfigError if the source cannot be read for each parent."""
    where = f"[{config.section}]"
    if config.split > 1:
        raise ConfigError(
            f"{where} split cannot be used for each parent, as parents are read side by side: leave it out"
        )
    if config.paginator == "auto":
        raise ConfigError(f"{where} needs paginator, as its requests are made for each parent: set it")
    if config.mode == SNAPSHOT and config.parents == "changed":
        raise ConfigError(
            f"{where} parents = changed cannot be used in mode snapshot: children of parents that are not asked would "
            "look deleted. Leave it out, or set mode = incremental"
        )


def freeze(config: Source, date: dt.date, asking: Asking) -> list[Parent]:
    """List the parents that a day asks. Parents with the same values share one series of requests.

    A parent that no loaded day asked is late, and read from its beginning. Raises QualityError for a value that cannot
    be sent.
    """
    window = config.window(date)
    since = window.start - config.lookback if config.parents == "changed" else None
    groups: dict[tuple[Any, ...], Parent] = {}
    for key, values in asking.list_parents(window, since):
        asked = _check_values(config, date, asking, key, values)
        if (known := groups.get(asked)) is None:
            groups[asked] = Parent(keys=[key], values=values)
        elif known.values != values:
            raise QualityError(
                f"{config.section} {date}: two rows of {asking.name}, {known.keys[0]} and {key}, have the same "
                "request and differ in a column that the record class takes from them: add a column that differs to "
                "the placeholders"
            )
        else:
            known.keys.append(key)
    late = _find_late(date, asking, set(groups))
    watermarks = asking.read_watermarks(date) if "watermark" in find_placeholders(config) else {}
    return [
        msgspec.structs.replace(parent, is_late=asked in late, watermark=watermarks.get(asked))
        for asked, parent in groups.items()
    ]


def _check_values(
    config: Source, date: dt.date, asking: Asking, key: list[Any], values: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return the values for the placeholders. Raises QualityError for one that would ask for something else."""
    asked = tuple(values[name] for name in asking.placeholders)
    for name, value in zip(asking.placeholders, asked, strict=True):
        if value is None or UNSENDABLE.search(str(value)):
            raise QualityError(
                f"{config.section} {date}: {name} of {asking.name} {key} is {value!r}, which cannot stand in a "
                f"request: correct the row at its source, or choose another column for {{{asking.name}.{name}}}"
            )
    return asked


def _find_late(date: dt.date, asking: Asking, wanted: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Return the `wanted` values that no loaded day asked; none if no day before is loaded."""
    is_first = True
    for parents in asking.list_asked(date):
        is_first = False
        wanted -= {tuple(parent.values.get(name) for name in asking.placeholders) for parent in parents}
        if not wanted:
            break
    return set() if is_first else wanted
