"""Load a dataset of wholeday under Airflow 3, one day per run. For another dataset, copy the file and set DATASET.

*Responsibilities*: the schedule, the order of the stages, and the call of a stage.
*Non-goals*: the work of a stage and its completeness. wholeday does both in an environment of its own; this file
imports nothing from it. `docs/how-to/airflow.md` describes the installation and the behaviour.
"""

import datetime as dt
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException, AirflowRescheduleException
from airflow.sdk import DAG, BaseOperator
from airflow.timetables.interval import CronDataIntervalTimetable

DATASET = "users"  # pipeline/users.py
TASKS = DATASET.title().replace("_", "")  # the end of the names of its tasks, as in LoadUsers

# The time after midnight (UTC) at which the day before is over and its grace period has passed. It depends on
# `timezone` and `settle` in luigi.cfg.
SETTLED = dt.timedelta(minutes=20)

# The shortest wait of a rescheduled task. Airflow loses a task that returns before the scheduler has seen it leave.
AWAY = dt.timedelta(seconds=20)

# A loaded day is complete, even if its files were deleted since. Luigi knows that only from the last stage: it would
# repeat an earlier stage on its own.
RUN_STAGE = """
import importlib, sys
from luigi.cmdline import luigi_run
dataset, load, stage, day = sys.argv[1:]
load = getattr(importlib.import_module(f"pipeline.{dataset}"), load)
if load(load.date.parse(day)).complete():
    print(f"{dataset} {day}: loaded, nothing to do")
else:
    luigi_run(["--module", "pipeline", stage, "--date", day])
"""


def find_day(context: Any) -> str:
    """Return the day of a run: its logical date, or without one the last day whose grace period had passed.

    Raises AirflowRescheduleException during the grace period. Airflow then waits without using a slot or an attempt.
    """
    if "logical_date" not in context:
        return str((context["dag_run"].run_after - SETTLED).date() - dt.timedelta(days=1))
    ready = context["data_interval_end"] + SETTLED
    if (now := dt.datetime.now(dt.UTC)) < ready:
        raise AirflowRescheduleException(max(ready, now + AWAY))
    return str(context["ds"])


class StageOperator(BaseOperator):  # type: ignore[misc]  # Airflow's types are in another environment
    """Run one stage for the day of a run. If the stage fails, its error line becomes the exception."""

    template_fields: Sequence[str] = ("folder",)

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.folder = "{{ var.value.get('wholeday', '/opt/wholeday') }}"
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Run the stage until it ends. Raises AirflowException if it fails."""
        day, error = find_day(context), ""
        self.process = self.start_stage(day)
        for line in self.process.stdout or ():
            self.log.info("%s", line.rstrip())
            if line.startswith("ERROR: "):
                error = line.removeprefix("ERROR: ").rstrip()
        if code := self.process.wait():
            raise AirflowException(error or f"{self.stage} of {day} ended with exit code {code}")

    def start_stage(self, day: str) -> "subprocess.Popen[str]":
        """Start the stage as a process in the environment of wholeday."""
        python = Path(self.folder, ".venv", "bin", "python")
        if not python.exists():
            raise AirflowException(
                f"{python} does not exist: make this environment in the folder of the project (in a clone: "
                "./run.sh status), and set the Airflow Variable wholeday to this folder"
            )
        return subprocess.Popen(  # noqa: S603 - a program of this project
            [str(python), "-c", RUN_STAGE, DATASET, f"Load{TASKS}", self.stage, day],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def on_kill(self) -> None:
        """Stop the stage when Airflow stops the task."""
        if self.process:
            self.process.terminate()


with DAG(
    f"{DATASET}_etl",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=dt.datetime(2016, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    default_args={"retries": 3},
    tags=[DATASET, "luigi"],
    doc_md=__doc__,
):
    extract = StageOperator(task_id="extract", stage=f"Extract{TASKS}")
    transform = StageOperator(task_id="transform", stage=f"Transform{TASKS}")
    load = StageOperator(task_id="load", stage=f"Load{TASKS}")
    extract >> transform >> load
