"""Suggest the right name for a misspelt one."""

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, or an empty text."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else ""


def list_names(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, or all names if none is near."""
    names = list(known)
    return suggest(word, names) or f"give one of {', '.join(names)}"
