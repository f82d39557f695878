"""Load the records of JSON HTTP APIs into a SQL warehouse, one day at a time.

    ExtractUsers(date)  ->  TransformUsers(date)  ->  LoadUsers(date)
    raw files of a day      clean files of a day      rows and a marker, in one transaction

Each stage reads what the stage before it wrote to `storage`. Imports run from the top of this list to its end:

    commands    the command line: one file per command, and how each prints
    tasks       Luigi: the tasks of a day, ranges, the backfill driver, luigid, alerts, progress
    extract     source -> raw files: reader, paging, detection, checkpoints, quality gates
      http      requests and answers: client, authentication, deadlines, bodies, the demo source
    transform   raw files -> clean files: decode, clean, local processes or Spark
    load        clean files -> tables: staging, merge, SQLite, PostgreSQL, audit
    storage     day folders, manifests and parts, on a local disk or in an object store
    schema      what a record is: fields, keys, tables
    config      sections of luigi.cfg, presets, placeholders
    log, errors, redaction, text, clock

"""
