"""Write datasets that need each other into `pipeline/`, as a user would: teams, members of each team, their badges."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.project import add_dataset
from tests.support.server import Answer, Request, Server

CODE = '''"""Define the dataset `{name}`."""

from datetime import datetime

from wholeday import Dataset, Extract, Field, Load, Record, Transform


class Row(Record):
    id: int = Field(primary_key=True)
    updated_at: datetime | None


DATASET = Dataset("{name}", Row)


class Extract{title}(Extract, dataset=DATASET):
    pass


class Transform{title}(Transform, dataset=DATASET):
    pass


class Load{title}(Load, dataset=DATASET):
    pass
'''

SECTION = "\n[{name}]\nurl = {url}?{query}\npaginator = single\nretries = 0\n{more}\n"
NEEDS = {"members": "teams", "badges": "members"}

Respond = Callable[[str], Answer | None]


def write_datasets(
    server: Server, *names: str, needs: Mapping[str, str] = NEEDS, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Write these datasets, and their sections with `more` lines, instead of users. Return the environment for Luigi.

    Each has one row of the id 1 a day. `needs` names the parent of each dataset that has one.
    """
    environment = {}
    sections = ""
    for name in names:
        environment = add_dataset(name, CODE.format(name=name, title=name.title()))
        parent = f"&of={{{needs[name]}.id}}" if name in needs else ""
        query = f"on={{date}}{parent}"
        sections += SECTION.format(name=name, url=f"{server.url}/{name}", query=query, more=(more or {}).get(name, ""))
        serve(server, name)
    Path("pipeline", "users.py").unlink()
    text = Path("luigi.cfg").read_text()
    Path("luigi.cfg").write_text(re.sub(r"\[users\]\n(.+\n)+", "", text) + sections)
    return environment


def serve(server: Server, name: str, respond: Respond = lambda _: None) -> None:
    """Serve a row of each day, unless `respond` returns another answer for the day."""

    def answer(request: Request) -> Answer:
        day = request.query["on"]
        return respond(day) or Answer([{"id": 1, "updated_at": f"{day}T10:00:00Z"}])

    server.on(f"/{name}", answer)


def list_asked(server: Server) -> list[tuple[Any, ...]]:
    """List the requests: dataset and day."""
    return [(request.path[1:], request.query["on"]) for request in server.requests]
