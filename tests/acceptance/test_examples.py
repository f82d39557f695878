"""Use the files in examples/: run the crontab line with sh, and verify the systemd units."""

import configparser
import contextlib
import datetime as dt
import json
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.clones import fork_commands
from tests.support.command_line import parse
from tests.support.project import need, query, run, run_here
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

PLACE = "/opt/wholeday"
YESTERDAY = USERS.config().last_closed_day(dt.datetime.now(dt.UTC))
DAYS = [str(YESTERDAY - dt.timedelta(days=n)) for n in (2, 1, 0)]


def adapt(name: str, checkout: Path) -> str:
    """Return an example with the paths of this checkout and the last three closed days."""
    text = (ROOT / "examples" / name).read_text()
    assert "--start 2026-11-01" in text or name.endswith(".timer")
    return text.replace(PLACE, str(checkout)).replace("--start 2026-11-01", f"--start {DAYS[0]}")


def point_at(url: str) -> None:
    """Set the URL in luigi.cfg, with a placeholder for the day."""
    text = Path("luigi.cfg").read_text()
    Path("luigi.cfg").write_text(re.sub(r"^url = .*$", f"url = {url}?on={{date}}", text, flags=re.MULTILINE))


def run_as_cron(line: str) -> "subprocess.Popen[str]":
    """Start a crontab command in cron's environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "SHELL": "/bin/sh", "LOGNAME": "root"}
    return subprocess.Popen(
        ["/bin/sh", "-c", line], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_crontab_line_loads_missing_days_silently(checkout):
    """A second run exits at once. Only a failure produces output, which cron mails."""
    need("flock")
    fork_commands(checkout)
    (line,) = re.findall(r"^20 0 \* \* \*  (.*)$", adapt("crontab", checkout), re.MULTILINE)
    page = (ROOT / "docs" / "how-to" / "schedule.md").read_text()
    assert line.replace(str(checkout), PLACE).replace(DAYS[0], "2026-11-01") in page
    (ask,) = re.findall(r"^0 8 \* \* \*  (.*)$", adapt("crontab", checkout), re.MULTILINE)
    asked = run_as_cron(ask)
    out, err = asked.communicate(timeout=60)
    assert (out, asked.returncode) == ("", 1)
    assert err.startswith("ERROR: users: no day is loaded, and --max-age allows 1 day 6 hours: ")
    failing: set[str] = {DAYS[1]}

    def respond(request: Request) -> Answer:
        day = request.query["on"]
        wait = 2 * (day == DAYS[0])
        return Answer(status=401) if day in failing else Answer([make_user(1, f"{day}T10:00:00Z")], wait=wait)

    with Server() as server:
        point_at(server.on("/users", respond))
        first = run_as_cron(line)
        deadline = time.monotonic() + 60
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        second = run_as_cron(line)
        assert (*second.communicate(timeout=60), second.returncode) == ("", "", 1)
        out, err = first.communicate(timeout=120)
        assert (out, first.returncode) == ("", 30), err
        (problem,) = err.splitlines()
        assert problem.startswith(f"ERROR: ExtractUsers(date={DAYS[1]}) failed: ")
        assert query("select date from loads order by 1") == [(DAYS[0],), (DAYS[2],)]
        failing.clear()
        third = run_as_cron(line)
        assert (*third.communicate(timeout=120), third.returncode) == ("", "", 0)
    assert query("select date from loads order by 1") == [(day,) for day in DAYS]
    asked = run_as_cron(ask)
    assert (*asked.communicate(timeout=60), asked.returncode) == ("", "", 0)
    log = Path("cron.log").read_text()
    assert [len(re.findall(f"^INFO: users {day}: ", log, re.MULTILINE)) for day in DAYS] == [3, 3, 3]


def test_systemd_units_are_valid_and_load_missing_days(checkout, tmp_path):
    """systemd-analyze verifies the units; the test runs ExecStart itself."""
    units = tmp_path / "units"
    units.mkdir()
    for name in ("wholeday.service", "wholeday.timer"):
        (units / name).write_text(adapt(name, checkout))
    verified = subprocess.run(
        [need("systemd-analyze"), "verify", *map(str, units.iterdir())], capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(units / "wholeday.service")
    service = unit["Service"]
    assert service["Type"] == "oneshot"  # systemd does not start a second run while one is active
    result = subprocess.run(
        shlex.split(service["ExecStart"]),
        cwd=service["WorkingDirectory"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert query("select date from loads order by 1") == [(day,) for day in DAYS]


def test_timer_waits_for_the_grace_period():
    """It starts after the end of the day plus the default `settle`."""
    (time_of_day,) = re.findall(
        r"^OnCalendar=\*-\*-\* ([0-9:]+) UTC$", (ROOT / "examples/wholeday.timer").read_text(), re.M
    )
    opens = USERS.config().window(YESTERDAY).stop + USERS.config().settle
    assert dt.time.fromisoformat(time_of_day) > opens.timetz().replace(tzinfo=None)


def test_image_holds_a_project_and_runs_a_command(capsys):
    """Each COPY finds its file in a project of `init`, and the default command runs there. No container is started."""
    run_here(capsys, "init", "project")
    shutil.copy(ROOT / "pipeline" / "users.py", "project/pipeline")
    with Path("project", "luigi.cfg").open("a") as file:
        file.write("[users]\nurl = demo://users\n")
    instructions = re.findall(r"^([A-Z]+) (.*)$", (ROOT / "examples" / "docker" / "Dockerfile").read_text(), re.M)
    image = Path("image")
    image.mkdir()
    for name, words in instructions:
        if name == "COPY":
            source, target = words.split()
            path = Path("project", source)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, image / target / ("" if path.is_file() else "."))
    text = dict(instructions)
    command = [*json.loads(text["ENTRYPOINT"]), *json.loads(text["CMD"])]
    assert command[0] == "wholeday"
    with contextlib.chdir(image):
        result = run("python", "-m", *command)
    assert (result.returncode, result.stderr) == (0, "")
    assert text["USER"] == "loader"
    assert "useradd" in text["RUN"]
    assert text["VOLUME"] == f"{text['WORKDIR']}/data"


def test_workflow_runs_valid_commands():
    """It loads every missing day, and then fails unless the data is new."""
    workflow = yaml.safe_load((ROOT / "examples" / "github-actions" / "load.yml").read_text())
    (job,) = workflow["jobs"].values()
    lines = [step["run"].replace("$(date -u +%F)", DAYS[-1]) for step in job["steps"] if "run" in step]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("wholeday ")]
    assert [words[0] for words in commands] == ["backfill", "status"]
    for words in commands:
        parse(words)
