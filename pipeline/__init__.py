"""The users of a JSON HTTP API into a SQL warehouse, one day at a time.

    ExtractUsers(date)  ->  TransformUsers(date)  ->  LoadUsers(date)
    raw files of a day      clean files of a day      rows + a marker row, one transaction

The map, from the outside in; imports run this way only:

    users                             what is particular to users: contract, cleaning, table, tasks
    cli, screens, ranges, parser      `python -m pipeline`: its commands; what they print; how words are parsed
      backfill, block                   days of any number, in portions; a portion under Luigi
      plan                              what a backfill would do, and at what cost
      report                            a page of it, with charts
      status                            how each day stands, how old the newest is
      doctor, check                     what a URL is as a source; whether a source keeps its section's word
        sections                          a section of luigi.cfg as text
      reprocess, verify                 days made again from raw; what differs in files and warehouse
      prune                             the files of old days given up
      lookup                            what is known of a key
        forget                            a user erased everywhere, for good
    scheduler                         luigid
    tasks                             Luigi: a stage of a day, ranges of days
    extraction                        the first stage: a day's pages into its raw folder, or an error
      journal                           where a reading that was broken off goes on
      gates                             whether a day may be believed, by the days before it
      progress                          how far a reading is: on a terminal, in the visualiser
    stages                            the second and the third: clean rows, loaded rows
    alerts                            who is told that a day failed
      failures                          what failed, when and why
    dataset                           what is particular to the records of an API, in one value
      tombstones                        the keys that are forgotten
    source                            every record of an API for a day, page by page, or an error
      client                            over HTTP: patience, redirects, clocks
        session, waits                    what is sent of us; what headers say about time
          deadline                          connections that end a request in time
        auth, oauth2, refresh, mask       secrets into a request, and out of every text
      paginators                        how pages follow each other
      evidence, signs                   what a first page shows of that, and a few questions prove
      records                           keys, deletions and unknown fields of raw records
      bodies, pages                     the bytes of a body to records
        body_errors                       whether a body with a good status says that the request failed
      placeholders                      times in a request
      demo                              the embedded source demo://users
    transform                         raw lines to rows and rejects: pure
      cleaning                          the clean of a dataset, called and checked
      contract                          the fields of a record, and the types that they may have
      times                             fractions of seconds cut, local times placed in their zone
      kinds                             columns of rows compared with the table: names, kinds of values
    engine                            a function mapped over the parts of a day
      spark                             the same on Spark
    warehouse                         a day's rows, rejects and marker: one transaction
      audit                             the tables compared with what they should hold
      staging                           rows and rejects into temporary tables
      merge                             what is staged into the tables; the order of facts; counts
      schema                            the tables
      database                          what every database can do, and which one a URL names
        sqlite; postgres, packing         the two that there are
    targets, lines, parquet           Luigi: a day's folder, a day's marker; the lines and rows of a part
      storage                           where the folder lies: on this machine, or in a bucket
    stop, days                        how a long run is asked to stop; days from one to another
    logs, config, presets             one line an event; the keys of luigi.cfg; those of known APIs
    outage                            that a source cannot be reached, for the next days of a run
    fields, ahead, errors             places in a JSON object; one thing ahead; what can go wrong
    files                             files and folders of this machine, and who may read them
    sanitize                          text of others, fit for a terminal, a log line or a chat
    depth, scan                       how deep JSON may be nested; what msgspec refuses, read all the same

`luigi --module pipeline LoadUsers --date 2026-11-21` finds its tasks here.
"""

from pipeline.tasks import RangeDaily
from pipeline.users import BackfillUsers, ExtractUsers, LoadUsers, TransformUsers

__all__ = ["BackfillUsers", "ExtractUsers", "LoadUsers", "RangeDaily", "TransformUsers"]
