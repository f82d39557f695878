"""Store random records of random classes: databases and files hold the values sent, or the record is a reject."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.support.cluster import Cluster
from tests.support.record_classes import Sent, Shape, flatten, list_children, records, shapes
from tests.support.server import Answer, Server
from tests.support.stored import read_database, read_parquet, select
from tests.support.things import TODAY
from tests.support.values import REJECT
from wholeday.commands.rebuild import rebuild
from wholeday.schema.dataset import Dataset
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

CLASSES = int(os.environ.get("PIPELINE_CLASSES", "10"))
SECONDS = 5  # for a class, on a slow machine
FIRST = [Phase.explicit, Phase.generate]  # a failure is short without shrinking


@st.composite
def days(draw: st.DrawFn) -> tuple[Shape, bool, list[Sent]]:
    """Draw a record class, whether it is lenient, and the records of a day."""
    shape, lenient = draw(shapes()), draw(st.booleans())
    return shape, lenient, [draw(records(shape, lenient, number)) for number in range(draw(st.integers(1, 4)))]


@pytest.mark.sweep
@pytest.mark.timeout(120 + SECONDS * CLASSES)
@pytest.mark.usefixtures("memory")
def test_stored_records_are_those_that_were_sent(
    server: Server, configure: Callable[..., None], cluster: Cluster
) -> None:
    numbers = itertools.count()

    @settings(max_examples=CLASSES, deadline=None, suppress_health_check=list(HealthCheck), phases=FIRST, database=None)
    @given(days())
    def hold(day: tuple[Shape, bool, list[Sent]]) -> None:
        shape, lenient, sent = day
        note("\n".join(record.text for record in sent))
        folder = Path(f"data-{next(numbers)}").absolute()
        dataset = Dataset("things", shape.make_class())
        body = f"[{','.join(record.text for record in sent)}]".encode()
        url = server.on(f"/{folder.name}", Answer(body))
        configure("things", url=url, mode="snapshot", paginator="single", max_reject_ratio=1, lenient=lenient)
        for database in (f"sqlite:///{folder}.db", cluster.make_url()):
            configure("pipeline", database=database, data_dir=folder)
            load(dataset)
            compare(shape, sent, database)
            rebuild(read_workspace(dataset))
            compare(shape, sent, database)
        rows = [flatten(record.row, shape) for record in sent if record.row is not REJECT]
        for reader, found in read_parquet(folder / "clean"):
            assert select(found, shape.types) == select(rows, shape.types), reader

    hold()


def load(dataset: Dataset) -> None:
    """Load today, from the source at the first time, later from the files."""
    workspace = read_workspace(dataset)
    if not workspace.folder("raw", TODAY).exists():
        stages.extract(workspace, TODAY)
        stages.transform(workspace, TODAY)
    stages.load(workspace, TODAY)


def compare(shape: Shape, sent: Sequence[Sent], database: str) -> None:
    """Compare the tables of a database with the records."""
    rejects: list[dict[str, Any]] = read_database(database, "rejects")
    expected = [(number, record.text) for number, record in enumerate(sent, 1) if record.row is REJECT]
    assert sorted((reject["line"], reject["record"]) for reject in rejects) == expected, rejects
    assert all(reject["reason"] for reject in rejects)
    rows = [record.row for record in sent if record.row is not REJECT]
    found = select(read_database(database, "things"), shape.types)
    assert found == select([flatten(row, shape) for row in rows], shape.types)
    for table, types, children in list_children(shape, rows):
        assert select(read_database(database, table), types) == select(children, types), table
