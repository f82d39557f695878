"""The users of a JSON HTTP API into a SQL warehouse, a day a run, under Airflow 3.

Owns the schedule, the order of the stages and how a stage is called. What a stage does, and whether it is done, is the
pipeline's, which runs in an environment of its own: nothing of it is imported here. `docs/airflow.md` says how to
install this and what to expect of it.
"""

import datetime as dt
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException, AirflowRescheduleException
from airflow.sdk import DAG, BaseOperator
from airflow.timetables.interval import CronDataIntervalTimetable

# How long after midnight (UTC) the day before is over and settled, by `timezone` and `settle` of luigi.cfg.
SETTLED = dt.timedelta(minutes=20)

# How long a task that waits stays away: one that comes back sooner than the scheduler sees it go is taken for lost.
AWAY = dt.timedelta(seconds=20)

# A day that is loaded is done, whatever became of its files since. Luigi knows where it is asked for the last stage;
# asked for an earlier one alone, it would do that again.
RUN_STAGE = """
import sys
from luigi.cmdline import luigi_run
from pipeline.users import LoadUsers
stage, day = sys.argv[1:]
if LoadUsers(LoadUsers.date.parse(day)).complete():
    print(f"users {day}: loaded, nothing to do")
else:
    luigi_run(["--module", "pipeline", stage, "--date", day])
"""


def find_day(context: Any) -> str:
    """The day of a run: its logical date; of one that was triggered without, the last that was settled by then.

    Raises AirflowRescheduleException where the day is not settled yet: Airflow waits, and no slot or try is used up.
    """
    if "logical_date" not in context:
        return str((context["dag_run"].run_after - SETTLED).date() - dt.timedelta(days=1))
    ready = context["data_interval_end"] + SETTLED
    if (now := dt.datetime.now(dt.UTC)) < ready:
        raise AirflowRescheduleException(max(ready, now + AWAY))
    return str(context["ds"])


class StageOperator(BaseOperator):  # type: ignore[misc]  # Airflow's types are in another environment
    """Runs a stage of the day of a run; where it fails, its one line is the exception."""

    template_fields: Sequence[str] = ("folder",)

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.folder = "{{ var.value.get('wholeday', '/opt/wholeday') }}"
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Run the stage to its end."""
        day, error = find_day(context), ""
        self.process = self.start_stage(day)
        for line in self.process.stdout or ():
            self.log.info("%s", line.rstrip())
            if line.startswith("ERROR: "):
                error = line.removeprefix("ERROR: ").rstrip()
        if code := self.process.wait():
            raise AirflowException(error or f"{self.stage} of {day} ended with exit code {code}")

    def start_stage(self, day: str) -> "subprocess.Popen[str]":
        """A process of the pipeline's environment."""
        python = Path(self.folder, ".venv", "bin", "python")
        if not python.exists():
            raise AirflowException(
                f"{python} is not there: run ./run.sh status once in the folder of the pipeline, "
                "and name that folder in the Airflow Variable wholeday"
            )
        return subprocess.Popen(  # noqa: S603 - the pipeline's own program
            [str(python), "-c", RUN_STAGE, self.stage, day],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def on_kill(self) -> None:
        """Airflow ends the task (it was cleared, it took too long): its stage ends too."""
        if self.process:
            self.process.terminate()


with DAG(
    "users_etl",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=dt.datetime(2016, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    default_args={"retries": 3},
    tags=["users", "luigi"],
    doc_md=__doc__,
):
    extract = StageOperator(task_id="extract", stage="ExtractUsers")
    transform = StageOperator(task_id="transform", stage="TransformUsers")
    load = StageOperator(task_id="load", stage="LoadUsers")
    extract >> transform >> load
