"""Order datasets by their needs: a dataset is loaded after the one whose rows its source is asked for."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from wholeday.errors import ConfigError
from wholeday.schema.dataset import Dataset


def list_needed(dataset: Dataset) -> list[Dataset]:
    """List the datasets that must be loaded before this one, the nearest first.

    Raises ConfigError if a section cannot be used, or if a dataset needs itself.
    """
    return list(_climb(dataset))


def _climb(dataset: Dataset) -> Iterator[Dataset]:
    chain = [dataset]
    while parent := chain[-1].find_parent(chain[-1].config()):
        if parent in chain:
            raise ConfigError(_describe_circle(chain[chain.index(parent) :]))
        chain.append(parent)
        yield parent


def sort_by_needs(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Sort datasets: each stands behind the one that it needs, and equals by their names.

    A dataset whose section cannot be used is taken for one without needs: its run reports the mistake.
    """

    def trace(dataset: Dataset) -> list[str]:
        names = [dataset.name]
        with contextlib.suppress(ConfigError):
            for needed in _climb(dataset):
                names.insert(0, needed.name)
        return names

    return sorted(datasets, key=trace)


def _describe_circle(circle: Sequence[Dataset]) -> str:
    """Describe datasets that need each other, in the same words for each of them."""
    names = [dataset.name for dataset in circle]
    first = names.index(min(names))
    names = [*names[first:], *names[:first]]
    rows = ", which asks for each row of ".join([*names[1:], names[0]])
    return f"[{names[0]}] asks for each row of {rows}: none of them can be loaded first. Remove one of the placeholders"
