"""Define the errors that a user may meet.

A message is one line: what failed, the value, the next step. It is printed without a traceback. Any other exception is
a bug, and keeps its traceback.
"""

from wholeday.text import clean_line


class PipelineError(Exception):
    """An expected failure. Its text is one line without control characters."""

    def __init__(self, message: str) -> None:
        super().__init__(clean_line(message))


class ConfigError(PipelineError):
    """A key of luigi.cfg, a flag or an environment variable has an unusable value."""


class DayNotClosedError(PipelineError):
    """A day is not over, or its grace period is not."""


class PastDayError(PipelineError):
    """A range contains past days, whose snapshots can no longer be fetched."""


class SourceError(PipelineError):
    """The source failed, refused a request, or contradicted itself: the day is not extracted."""

    is_refusal = False
    """Whether the source refused this request, as it does for an expired cursor."""
    status = 0
    """The status of the answer that is the failure; 0 if it is another failure."""


class OutageError(SourceError):
    """The source did not answer, or temporarily failed. The pages before are still valid."""


class UnreachableError(OutageError):
    """No connection to the source, or no answer in time, after all retries. Other days would fail too."""


class NotRunError(PipelineError):
    """A day was not tried, as the source is unreachable."""


class QualityError(PipelineError):
    """A quality gate refused the data."""


class FolderError(PipelineError):
    """The data folder cannot be read or written, or a day in it contradicts its manifest."""


class DatasetError(PipelineError):
    """A dataset's record class, cleaning and table do not fit together."""


class EngineError(PipelineError):
    """The engine that transforms the parts of a day failed."""


class WarehouseError(PipelineError):
    """The warehouse is unreachable, or differs from the definition of the tables. Nothing was changed."""


class InterruptedTransactionError(WarehouseError):
    """A transaction failed for a temporary reason, such as a lost connection. Another attempt may succeed."""
