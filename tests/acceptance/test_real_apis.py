"""Record classes for endpoints of real APIs, loaded from a source of their shape."""

import ast
import inspect
import json
import typing
from collections.abc import Callable

import pytest

from tests.support.apis import Api, commerce, people, work
from tests.support.project import query
from tests.support.server import Answer, Server
from tests.support.things import TODAY
from wholeday import Dataset, Record
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

MOST_LINES = 25  # of the record classes of an endpoint
APIS = {
    name.lower(): value
    for module in (commerce, work, people)
    for name, value in vars(module).items()
    if isinstance(value, Api)
}


def load(api: Api, server: Server, configure: Callable[..., None]) -> None:
    """Load a snapshot of today."""
    keys = {"data_selector": api.selector} if api.selector else {}
    url = server.on("/things", Answer(json.dumps(api.page)))
    configure("things", url=url, mode="snapshot", paginator="single", max_reject_ratio=1.0, **keys, **api.keys)
    workspace = read_workspace(Dataset("things", api.record_class, api.clean))
    stages.extract(workspace, TODAY)
    stages.transform(workspace, TODAY)
    stages.load(workspace, TODAY)


def list_classes(record_class: type[Record]) -> list[type[Record]]:
    """List a record class and the classes of its lists."""
    items = [
        item
        for type_ in typing.get_type_hints(record_class).values()
        for list_ in (type_, *typing.get_args(type_))
        for item in typing.get_args(list_)
        if isinstance(item, type) and issubclass(item, Record)
    ]
    return [record_class, *(found for item in items for found in list_classes(item))]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", APIS)
def test_endpoint_becomes_rows_children_and_rejects(server: Server, configure: Callable[..., None], name: str) -> None:
    api = APIS[name]
    load(api, server, configure)
    for sql, rows in api.tables.items():
        assert query(sql) == rows, sql
    assert query("select field, reason from rejects order by line") == api.rejects


@pytest.mark.parametrize("name", APIS)
def test_endpoint_needs_few_lines(name: str) -> None:
    """Without blank lines and comments, with the classes of its lists and its `clean`."""
    parts = [*list_classes(APIS[name].record_class), *filter(None, [APIS[name].clean])]
    sources = [ast.unparse(ast.parse(inspect.getsource(part))) for part in parts]
    lines = sum(line != "" for source in sources for line in source.splitlines())
    assert lines <= MOST_LINES
