"""Run commands on three machines that share luigid, a bucket and PostgreSQL. One machine dies."""

import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.users import USERS
from tests.support.bucket import ENVIRONMENT, open_bucket
from tests.support.cluster import Cluster
from tests.support.machines import Rack
from tests.support.project import dump_warehouse, find_scheduler, has_table, query, run, start_scheduler
from wholeday.commands.verify import verify
from wholeday.storage.names import strip_run
from wholeday.tasks.stages import read_workspace

pytestmark = [pytest.mark.slow, pytest.mark.sweep]

NUMBER = int(os.environ.get("PIPELINE_MACHINES", "4"))
FIRST = dt.date(2026, 11, 20) - dt.timedelta(days=NUMBER)
SPAN = str(FIRST), "2026-11-20"
SOURCE = ("--users-url", "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=60")
SETTINGS = ("--pipeline-part-records", "25", "--pipeline-engine-workers", "1")


@pytest.mark.timeout(120 + 10 * NUMBER)
def test_three_machines_give_the_result_of_one(
    cluster: Cluster, configure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and parts are the same. The other machines load the days of the dead one."""
    assert run("python", "-m", "wholeday", "backfill", *SPAN, *SOURCE, *SETTINGS).returncode == 0
    rows = dump_warehouse()
    parts = {str(path.relative_to("data")): path.read_bytes() for path in Path("data").glob("*/users/*/part-*")}
    assert len(rows["loads"]) == NUMBER
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    text = Path("central.cfg").read_text()
    Path("central.cfg").write_text(f"[resources]\nusers_api = 2\n\n{text}worker_disconnect_delay = 3\n")
    with start_scheduler() as environment, open_bucket() as bucket, tempfile.TemporaryDirectory() as folder:
        port = urlsplit(find_scheduler()).port
        place, database = bucket.make_place(), cluster.make_url(cluster.port)
        configure("pipeline", data_dir=place, database=database)
        ports = (port, bucket.door.server_port, cluster.port)
        shared = ("--pipeline-data-dir", place, "--pipeline-database", database)
        with Rack.open(Path(folder), *ports) as rack:
            machines = []
            for name in "abc":
                shutil.copytree(".", tmp_path / name, ignore=shutil.ignore_patterns("data", "?"))
                command = ("python", "-m", "wholeday", "backfill", *SPAN, *SOURCE, *SETTINGS, *shared)
                machines.append(rack.start(tmp_path / name, *command, **environment))
            wait_for_loads(1)
            rack.kill(machines[0])
            results = [machine.communicate(timeout=60 + 10 * NUMBER) for machine in machines]
        assert [machine.returncode for machine in machines[1:]] == [0, 0], results
        assert any("loaded, " in out for out, _ in results[1:]), results
        assert dump_warehouse() == rows
        assert list(verify(read_workspace(USERS))) == []
        there = bucket.dump(place)
        assert {strip_run(key): content for key, content in there.items() if "/part-" in key} == parts


def wait_for_loads(number: int) -> None:
    """Wait until the warehouse has this many days."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if has_table("loads") and len(query("select date from loads")) >= number:
            return
        time.sleep(0.05)
    raise TimeoutError("no day was loaded")
