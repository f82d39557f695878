"""dlt's REST source, merged by key into SQLite through its SQLAlchemy destination, or into PostgreSQL by its own."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import dlt
from dlt.sources.rest_api import rest_api_source

database, url, server = Path(sys.argv[1]), urlsplit(sys.argv[2]), sys.argv[3:]
source = rest_api_source(
    {
        "client": {"base_url": f"{url.scheme}://{url.netloc}", "paginator": "header_link"},
        "resources": [
            {
                "name": "users",
                "primary_key": "id",
                "write_disposition": "merge",
                "endpoint": {"path": f"{url.path}?{url.query}" if url.query else url.path},
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "users",
    pipelines_dir=str(database.parent / "dlt"),
    destination=dlt.destinations.postgres(server[0])
    if server
    else dlt.destinations.sqlalchemy(f"sqlite:///{database}"),
    dataset_name=server[1] if server else "main",
)
pipeline.run(source)
