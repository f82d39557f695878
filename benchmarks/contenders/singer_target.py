"""A target, as Meltano's SDK for Singer has it: an SQL sink that inserts or, where the key is there, updates."""

import json
import sys
from collections.abc import Iterable

import sqlalchemy as sa
from singer_sdk import SQLConnector, SQLTarget
from singer_sdk import typing as th
from singer_sdk.sinks import SQLSink
from sqlalchemy.dialects.sqlite import insert

DATABASE = sys.argv.pop(1)


class Connector(SQLConnector):
    allow_temp_tables, allow_column_alter = False, False

    def get_sqlalchemy_url(self, config: object) -> str:
        return f"sqlite:///{DATABASE}"


class Sink(SQLSink):
    connector_class = Connector
    max_size = 10_000

    def bulk_insert_records(self, full_table_name: str, schema: dict, records: Iterable[dict]) -> int:
        columns = list(self.conform_schema(schema)["properties"])
        rows = [
            {name: json.dumps(value) if isinstance(value := record.get(name), dict) else value for name in columns}
            for record in map(self.conform_record, records)
        ]
        table = sa.Table(full_table_name, sa.MetaData(), *(sa.Column(name) for name in columns))
        upsert = insert(table)
        upsert = upsert.on_conflict_do_update(
            index_elements=["id"], set_={name: upsert.excluded[name] for name in columns}
        )
        with self.connector._connect() as connection, connection.begin():
            connection.execute(upsert, rows)
        return len(rows)


class TargetSQLite(SQLTarget):
    name, default_sink_class, config_jsonschema = "target-sqlite", Sink, th.PropertiesList().to_dict()


TargetSQLite.cli()
