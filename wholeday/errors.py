"""The errors a user can meet: one tree, one line each.

Owns the classes, and nothing else. A message names the thing, the value and the next step; whoever
prints it prints no traceback. Any other exception is a bug of ours and keeps its traceback.
"""

from wholeday.text import clean_line


class PipelineError(Exception):
    """An expected failure. Its text is one line without control characters, whatever a source put into it."""

    def __init__(self, message: str) -> None:
        super().__init__(clean_line(message))


class ConfigError(PipelineError):
    """A key of luigi.cfg, a flag or an environment variable that cannot be used as it is."""


class DayNotClosedError(PipelineError):
    """A day that has not ended yet, or whose changes the source may still be showing late."""


class PastDayError(PipelineError):
    """Days of a range that a snapshot cannot show any more."""


class SourceError(PipelineError):
    """The API failed, refused, or said something that cannot be true: the day is not extracted."""


class OutageError(SourceError):
    """No answer came, or one that may be another time: what came before it is as good as ever."""

    is_refusal = False
    """Whether the source answered, and refused this request: what an expired cursor gets."""


class UnreachableError(OutageError):
    """No connection to the source, or no answer in time, after all retries: other days would fare no better."""


class NotRunError(PipelineError):
    """A day that was not tried, as the source cannot be reached."""


class QualityError(PipelineError):
    """The data arrived but a gate of luigi.cfg does not let it through."""


class FolderError(PipelineError):
    """The data folder cannot be read or written, or a day in it is not what its manifest says."""


class DatasetError(PipelineError):
    """A dataset's record class, cleaning and table do not fit together."""


class EngineError(PipelineError):
    """What maps over the parts of a day broke down."""


class WarehouseError(PipelineError):
    """The warehouse cannot be reached or is not as the table's definition says; nothing was changed."""


class BrokenOffError(WarehouseError):
    """A transaction broke off for a reason that passes, such as a lost connection: the same once more may succeed."""
