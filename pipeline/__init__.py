"""The users of a JSON HTTP API into a SQL warehouse, one day at a time.

    ExtractUsers(date)  ->  TransformUsers(date)  ->  LoadUsers(date)
    raw files of a day      clean files of a day      rows + a marker row, one transaction

The map, from the outside in; imports run this way only:

    users                             what is particular to users: contract, cleaning, table, tasks
    cli                               `python -m pipeline`
    tasks                             Luigi: a stage of a day, ranges of days
    stages                            what a dataset is; the stages as plain functions
    source, paginators, demo          every record of an API for a day, or an error
    transform                         raw lines to rows and rejects: pure
    engine                            a function mapped over the parts of a day
    warehouse                         stage, merge, rejects, marker: one transaction
    targets                           Luigi: a day's folder, a day's marker
    logs, config, errors              one line an event; the keys of luigi.cfg; what can go wrong

`luigi --module pipeline LoadUsers --date 2026-11-21` finds its tasks here.
"""

from pipeline.tasks import RangeDaily
from pipeline.users import BackfillUsers, ExtractUsers, LoadUsers, TransformUsers

__all__ = ["BackfillUsers", "ExtractUsers", "LoadUsers", "RangeDaily", "TransformUsers"]
