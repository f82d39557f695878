"""The users of a JSON HTTP API into a SQL warehouse, one day at a time.

    ExtractUsers(date)  ->  TransformUsers(date)  ->  LoadUsers(date)
    raw files of a day      clean files of a day      rows + a marker row, one transaction

The map, from the outside in; imports run this way only:

    users                             what is particular to users: contract, cleaning, table, tasks
    cli                               `python -m pipeline`
    tasks                             Luigi: a stage of a day, ranges of days
    stages                            what a dataset is; the stages as plain functions
    source                            every record of an API for a day, page by page, or an error
      client                            over HTTP: patience, redirects, clocks
      paginators                        how a page says that there is more
      pages                             the bytes of a body to records
      placeholders, auth                times and secrets in a request
      demo                              the embedded source demo://users
    transform                         raw lines to rows and rejects: pure
    engine                            a function mapped over the parts of a day
    warehouse                         a day's rows, rejects and marker: one transaction
      staging                           rows and rejects into temporary tables
      merge                             what is staged into the tables; the order of facts; counts
      schema, sqlite                    the tables; the database
    targets                           Luigi: a day's folder, a day's marker
    logs, config, errors              one line an event; the keys of luigi.cfg; what can go wrong

`luigi --module pipeline LoadUsers --date 2026-11-21` finds its tasks here.
"""

from pipeline.tasks import RangeDaily
from pipeline.users import BackfillUsers, ExtractUsers, LoadUsers, TransformUsers

__all__ = ["BackfillUsers", "ExtractUsers", "LoadUsers", "RangeDaily", "TransformUsers"]
