"""Parse the values of keys: numbers with bounds, durations, names of environment variables, lists of words."""

import datetime as dt
import operator
import re
from typing import Any, TypeVar

import luigi

VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")

Number = TypeVar("Number", int, float)


def bounded(kind: type[Number], low: Any, high: Any, *, default: Number, description: str) -> luigi.Parameter[Number]:
    """Return a parameter for a number from `low` to `high`, inclusive."""
    return luigi.NumericalParameter(
        var_type=kind, min_value=low, max_value=high, right_op=operator.le, default=default, description=description
    )


class Duration(luigi.TimeDeltaParameter):
    """A length of time, such as `15 minutes`. Must match as a whole: Luigi alone reads `1 month` as a minute."""

    def parse(self, text: str) -> dt.timedelta:
        try:
            return super().parse(text)
        except luigi.parameter.ParameterException:
            raise ValueError("write it as 15 minutes, 2 hours or 1 day") from None

    def _apply_regex(self, regex: str, text: str) -> dt.timedelta | None:
        return super()._apply_regex(rf"(?:{regex})\Z", text)


class Variable(luigi.Parameter):
    """The name of an environment variable. Refuses any other text, which may be the secret itself."""

    def parse(self, text: str) -> str:
        if text and not VARIABLE_NAME.fullmatch(text):
            raise ValueError("write the name of an environment variable that holds it, such as ALERT_URL")
        return text


def split_words(text: str) -> list[str]:
    """Return the words of a comma-separated list."""
    return [word for word in (part.strip() for part in text.split(",")) if word]
