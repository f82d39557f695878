"""Test G10 with random histories: a marker counts every user who leaves `users` and every value that becomes null."""

import datetime as dt
import io
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from luigi.cmdline_parser import CmdlineParser
from rich.console import Console

from pipeline.users import USERS
from tests.support.histories import EXAMPLES, limit_examples, run_step, steps
from tests.support.project import execute, has_table, query, run_stages
from tests.support.reading import serve
from tests.support.server import Server
from tests.support.store import Store
from wholeday.commands import status as status_command
from wholeday.config.pipeline import Pipeline
from wholeday.errors import PipelineError
from wholeday.load import day as load_stage
from wholeday.load.warehouse import open_warehouse
from wholeday.schema.marker import Marker
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker

COLUMNS = "name", "email", "city", "updated_at"
DAY = dt.date(2026, 11, 10)

Rows = dict[Any, tuple[Any, ...]]


def check(before: Rows, after: Rows, columns: Iterable[str], marker: Marker, line: str) -> None:
    """Compare the changes of a load in `users` with its marker, its log line and the table of `status`."""
    left = len(before.keys() - after.keys())
    nulled = Counter(
        column
        for key in before.keys() & after.keys()
        for column, old, new in zip(columns, before[key], after[key], strict=False)
        if old is not None and new is None
    )
    counts = {name: getattr(marker, name) for name in ("deleted", "vanished", "reverted")}
    assert counts["deleted"] + counts["vanished"] <= left <= sum(counts.values())
    assert marker.details.get("nulled", {}) == nulled
    console = Console(file=io.StringIO(), width=200)
    status_command._show_loads(console, [marker])
    head, row, *rest = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert {name: int(value) for name, value in zip(head.split(), row.split(), strict=True) if name in counts} == counts
    for name, number in counts.items():
        assert bool(re.search(rf"\b{number} {name}\b", line)) == bool(number)
    for column, number in nulled.items():
        for text in (line, *rest[:1]):
            assert re.search(rf"nulled: .*\b{column} {number}\b", text)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["users", "orders"])
@pytest.mark.timeout(120 + EXAMPLES)
def test_marker_counts_every_removal_of_a_load(name: str, new_database: Callable[[], str]) -> None:
    """Days of both modes load in any order, some of them twice, with rejects, deletions and erased users."""

    @given(st.lists(steps, min_size=4, max_size=10))
    @limit_examples(new_database)
    def hold(steps: list[Any]) -> None:
        store, days, forgotten = Store(new_database(), name), {}, set()
        before: Rows = {}
        for step in steps:
            run_step(step, store, days, forgotten)
            after = store.present() if days else {}
            if step[0] != "forget":
                marker = store.warehouse.read_marker(dt.date(2026, 11, step[1]))
                assert marker
                check(before, after, ("name", "updated_at"), marker, load_stage.describe_load(marker))
            before = after

    hold()


records = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.sampled_from(["Ada", None]),
        st.sampled_from(["a@example.com", "a@example.com", None, "none"]),
        st.sampled_from(["Oslo", None]),
        st.sampled_from([None, 1, 5, 9, 400]),  # days after DAY
        st.sampled_from([False] * 5 + [True]),
    ),
    max_size=12,
)
readings = st.tuples(
    st.integers(0, 3), st.sampled_from(["incremental", "snapshot"]), records, st.booleans(), st.sampled_from([0.3, 1])
)


@contextmanager
def accepting(accept: bool) -> Iterator[None]:
    with CmdlineParser.global_instance(["LoadUsers", *["--users-accept"] * accept], allow_override=True):
        yield


def write_record(drawn: Any) -> dict[str, Any]:
    number, name, email, city, days, gone = drawn
    time = None if days is None else f"{DAY + dt.timedelta(days=days)}T12:00:00Z"
    return {"id": number, "name": name, "email": email, "address": {"city": city}, "updated_at": time, "gone": gone}


def read_users() -> Rows:
    rows = query(f"select user_id, {', '.join(COLUMNS)} from users") if has_table("users") else []
    return {key: values for key, *values in rows}


@pytest.mark.sweep
@pytest.mark.timeout(300 + 10 * EXAMPLES)
def test_marker_counts_every_removal_of_a_day(
    server: Server, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Random sources pass through every quality gate, with and without `accept`. A failed day changes nothing."""
    caplog.set_level(logging.INFO)

    @given(st.lists(readings, min_size=2, max_size=6))
    @settings(max_examples=max(1, EXAMPLES // 8), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def hold(readings: list[Any]) -> None:
        shutil.rmtree("data", ignore_errors=True)
        for number, mode, drawn, accept, ratio in readings:
            date, before = DAY + dt.timedelta(days=number), read_users()
            if LoadMarker(Pipeline().database, USERS.name, date).exists():
                execute(f"delete from loads where date = '{date}'")
            for stage in ("raw", "clean"):
                shutil.rmtree(read_workspace(USERS).folder(stage, date).path, ignore_errors=True)
            body = json.dumps(list(map(write_record, drawn))).encode()
            ratios = dict.fromkeys(("max_delete_ratio", "max_drop_ratio", "max_reject_ratio"), ratio)
            serve(server, configure, body, mode=mode, paginator="single", deleted_when="gone", **ratios)
            caplog.clear()
            try:
                with accepting(accept):
                    run_stages(USERS, date)
            except PipelineError:
                assert read_users() == before
                continue
            marker = open_warehouse(read_workspace(USERS)).read_marker(date)
            assert marker
            check(before, read_users(), COLUMNS, marker, caplog.records[-1].getMessage())

    hold()
