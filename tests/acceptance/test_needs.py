"""Load datasets that are asked for each row of another one, and all datasets at once, as a user does."""

import datetime as dt
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ask_scheduler, execute, luigi_run, query, run, start_scheduler
from tests.support.server import Answer, Server
from tests.support.teams import list_asked, serve, write_datasets

pytestmark = pytest.mark.slow

DAY = "2026-11-20"


def list_loads() -> list[tuple[str, str]]:
    """List the markers: dataset and day."""
    return query("select dataset, date from loads order by 1, 2")


def test_day_loads_what_it_needs_first(server: Server):
    """A day with raw files needs nothing any more."""
    environment = write_datasets(server, "teams", "members", "badges")
    result = luigi_run("LoadBadges", "--date", DAY, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert list_asked(server) == [("teams", DAY), ("members", DAY), ("badges", DAY)]
    assert list_loads() == [("badges", DAY), ("members", DAY), ("teams", DAY)]
    execute("delete from loads")
    shutil.rmtree("data/clean")
    again = luigi_run("LoadBadges", "--date", DAY, **environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert len(list_asked(server)) == 3
    assert list_loads() == [("badges", DAY)]


def wholeday(*words: str) -> "subprocess.CompletedProcess[str]":
    return run("python", "-m", "wholeday", *words)


def read_table(stdout: str, dataset: str) -> list[str]:
    """Return the rows of the final table of a dataset, without padding."""
    lines = stdout.splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith(f"{dataset}: "))
    start = max(number for number, line in enumerate(lines[:end]) if re.match("what +days", line))
    return [" ".join(line.split()) for line in lines[start + 1 : end]]


@pytest.mark.parametrize("words", [("load", DAY), ("backfill", DAY, "2026-11-21")], ids=lambda words: words[0])
def test_command_without_name_loads_every_dataset(server: Server, words):
    """The names of the datasets do not decide the order: badges need members, who need teams."""
    write_datasets(server, "teams", "members", "badges", "zones")
    result = wholeday(*words)
    assert (result.returncode, result.stderr) == (0, "")
    order = [name for name, _ in list_asked(server)]
    assert sorted(order) == ["badges", "members", "teams", "zones"]
    assert [name for name in order if name != "zones"] == ["teams", "members", "badges"]
    again = wholeday(*words)
    assert (again.returncode, again.stderr, len(server.requests)) == (0, "", 4)


def test_load_all_is_a_task_of_luigi(server: Server):
    """Its second run has nothing to do. Without a date, each dataset has its last closed day."""
    environment = write_datasets(server, "teams", "members", "zones", more={"zones": "mode = snapshot"})
    result = luigi_run("LoadAll", "--date", DAY, **environment)
    assert result.returncode == 30
    assert list_loads() == [("members", DAY), ("teams", DAY)]
    (line,) = result.stderr.splitlines()
    today = dt.datetime.now(dt.UTC).date()
    assert line.startswith(f"ERROR: zones {DAY}: a snapshot shows all records as of now")
    result = luigi_run("LoadAll", **environment)
    assert result.returncode == 0, result.stderr
    newest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1, minutes=15)).date()
    assert list_loads()[-1] == ("zones", str(today))
    assert ("members", str(newest)) in list_loads()
    again = luigi_run("LoadAll", **environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "INFO: nothing to do: all requested tasks are complete\n"


def test_failed_dataset_stops_only_those_that_need_it(server: Server):
    """The others are loaded. Each dataset that was not run has a line, and the exit code is not 0."""
    environment = write_datasets(server, "teams", "members", "badges", "zones")
    serve(server, "teams", lambda _: Answer(status=410))
    result = luigi_run("LoadAll", "--date", DAY, **environment)
    assert result.returncode == 30
    assert list_loads() == [("zones", DAY)]
    first, second = result.stderr.splitlines()
    assert first.startswith(f"ERROR: ExtractTeams(date={DAY}) failed: teams {DAY}: GET ")
    assert (
        second == f"WARNING: not run, as what they need failed: ExtractBadges(date={DAY}), ExtractMembers(date={DAY})"
    )
    serve(server, "teams")
    assert luigi_run("LoadAll", "--date", DAY, **environment).returncode == 0
    assert len(list_loads()) == 4


def test_backfill_names_days_that_were_not_run(server: Server):
    """A failed day of the parents costs that day only, and is not tried again for each dataset that needs it."""
    write_datasets(server, "teams", "members", "badges", "zones")
    bad = "2026-11-21"
    serve(server, "teams", lambda day: Answer(status=410) if day == bad else None)
    result = wholeday("backfill", DAY, "2026-11-23")
    assert result.returncode == 1
    assert read_table(result.stdout, "teams")[1].startswith(f"failed 1 {bad} teams {bad}: GET ")
    for name, needed in (("members", "teams"), ("badges", "members")):
        done, not_run = read_table(result.stdout, name)
        assert done.startswith(f"done 2 {DAY}, 2026-11-22 loaded")
        assert not_run == f"not run 1 {bad} needs the same days of {needed}, not loaded"
    assert list_asked(server).count(("teams", bad)) == 2
    assert len([each for each in list_loads() if each[1] == bad]) == 1
    assert "zones: 3 of 3 days are loaded" in result.stdout
    serve(server, "teams")
    assert wholeday("backfill", DAY, "2026-11-23").returncode == 0


def test_backfill_of_one_dataset_loads_the_days_it_needs(server: Server):
    """Days of the parents do not count as days of the dataset. Their failure is the reason for not running its days."""
    write_datasets(server, "teams", "members", "badges", "zones")
    bad = "2026-11-21"
    serve(server, "teams", lambda day: Answer(status=410) if day == bad else None)
    result = wholeday("backfill", DAY, "2026-11-23", "--dataset", "badges", "--workers", "2")
    assert result.returncode == 1
    done, not_run, *more = read_table(result.stdout, "badges")
    assert done.startswith(f"done 2 {DAY}, 2026-11-22 loaded, ")
    assert not_run.startswith(f"not run 1 {bad} needs teams {bad}: GET ")
    assert "410 Gone" in " ".join([not_run, *more])
    assert "members:" not in result.stdout.partition("what ")[2]
    assert [each for each in list_loads() if each[1] == bad] == []
    assert len(list_loads()) == 6
    server.requests.clear()
    again = wholeday("backfill", DAY, "2026-11-23", "--dataset", "badges")
    assert again.returncode == 1
    assert set(list_asked(server)) == {("teams", bad)}


def test_unreachable_parents_cost_one_day(server: Server):
    """The outage of the source of the parents ends the run of the datasets that need it, and of no other dataset."""
    write_datasets(server, "teams", "members", "zones", more={"teams": "timeout = 0.2"})
    serve(server, "teams", lambda _: Answer(wait=5))
    result = wholeday("backfill", "2026-11-01", "2026-11-20", "--dataset", "members")
    assert result.returncode == 1
    assert list_asked(server) == [("teams", "2026-11-01")]
    (row,) = [row for row in read_table(result.stdout, "members") if row.startswith("not run 18 ")]
    assert "source unreachable: " in row
    result = wholeday("backfill", "2026-11-01", "2026-11-20")
    assert result.returncode == 1
    assert "zones: 19 of 19 days are loaded" in result.stdout
    assert [name for name, _ in list_asked(server)].count("teams") == 2


def test_broken_dataset_stops_only_those_that_need_it(server: Server):
    """Each has a line: a file that cannot be imported, a wrong key, a circle."""
    environment = write_datasets(
        server, "teams", "members", "zones", "east", "west", needs={"members": "teams", "east": "west", "west": "east"}
    )
    Path("pipeline", "broken.py").write_text("mising\n")
    Path("luigi.cfg").write_text(Path("luigi.cfg").read_text().replace("[teams]\nurl", "[teams]\nmethod = PUT\nurl"))
    for command in (
        ("luigi", "--module", "pipeline", "LoadAll", "--date", DAY),
        ("python", "-m", "wholeday", "load", DAY),
        ("python", "-m", "wholeday", "backfill", DAY, "2026-11-21"),
    ):
        result = run(*command, **environment)
        assert result.returncode in (1, 30)
        lines = result.stderr.splitlines()
        for line in (
            "ERROR: cannot import a module: broken.py, line 1: NameError",
            "ERROR: [teams] method = 'PUT' cannot be used: ",
            "ERROR: members: not run, see above",
            "ERROR: [east] asks for each row of west, which asks for each row of east: none of them can be",
            "ERROR: east: not run, see above",
        ):
            assert len([each for each in lines if each.startswith(line)]) == 1, (line, lines)
        more = [line for line in lines if line.startswith(f"ERROR: LoadAll(date={DAY}) failed: not run: broken, ")]
        assert len(lines) == 5 + len(more)
        assert bool(more) == (result.returncode == 30)
        assert list_loads() == [("zones", DAY)]
        execute("delete from loads")


def test_luigid_shows_the_graph_of_all_datasets(server: Server):
    """Each stage of each dataset is a node, and LoadAll needs all of them."""
    environment = write_datasets(server, "teams", "members", "zones")
    serve(server, "teams", lambda _: Answer(status=410))
    text = Path("central.cfg").read_text()
    Path("central.cfg").write_text(text.replace("keep_alive = true", "keep_alive = false"))
    with start_scheduler() as central:
        luigi_run("LoadAll", "--date", DAY, **environment, **central)
        (root,) = ask_scheduler("task_list", status="PENDING", upstream_status="", search="LoadAll")
        graph = ask_scheduler("dep_graph", task_id=root)
    needs = {node["name"]: {graph[each]["name"] for each in node["deps"]} for node in graph.values()}
    assert needs["LoadAll"] == {"LoadTeams", "LoadMembers", "LoadZones"}
    assert needs["ExtractMembers"] == {"LoadTeams"}
    assert needs["ExtractTeams"] == needs["ExtractZones"] == set()
    assert len(needs) == 10


def test_lists_show_every_dataset_behind_the_one_it_needs(server: Server):
    write_datasets(server, "teams", "members", "badges", "zones")
    wholeday("load", DAY)
    found = re.findall(r"^(\w+) in sqlite", wholeday("status").stdout, re.MULTILINE)
    assert found == ["teams", "members", "badges", "zones"]
    assert wholeday("report").returncode == 0
    page = Path("data/report.html").read_text()
    places = [page.index(f">{name}<") for name in found]
    assert places == sorted(places)
    planned = wholeday("plan", DAY, "2026-11-22").stdout
    assert re.findall(r"^(\w+): about", planned, re.MULTILINE) == found


def test_status_names_the_failure_that_a_day_waits_for(server: Server):
    """At every level, also where nothing was loaded before: badges need members, who need teams."""
    write_datasets(server, "teams", "members", "badges", "zones")
    serve(server, "teams", lambda day: Answer(status=410) if day == DAY else None)
    wholeday("backfill", DAY, "2026-11-21")
    why = f"teams {DAY} failed, extract: teams {DAY}: GET "
    for name in ("members", "badges"):
        status = wholeday("status", "--dataset", name).stdout
        assert f"\nwaiting: {DAY}: {why}" in status
    late = wholeday("status", "--max-age", "1 hour").stderr
    assert f"ERROR: badges: no day is loaded, and --max-age allows 1 hour: 1 day missing, {DAY} waits: {why}" in late
    wholeday("backfill", "2026-11-19", "2026-11-20")
    (badges,) = json.loads(wholeday("status", "--json", "--dataset", "badges").stdout)["datasets"]
    assert [(day, line[: len(why)]) for day, line in badges["waiting"].items()] == [(DAY, why)]
    assert wholeday("report", "--dataset", "badges").returncode == 0
    page = html.unescape(Path("data/report-badges.html").read_text())
    assert f"waits: {why}" in page
    assert f"wholeday backfill {DAY} 2026-11-21 --dataset badges" in page
    serve(server, "teams")
    assert wholeday("backfill", DAY, "2026-11-21", "--dataset", "badges").returncode == 0
    assert "waiting" not in wholeday("status").stdout


def test_day_with_raw_files_waits_for_nothing(server: Server):
    environment = write_datasets(server, "teams", "members")
    assert luigi_run("ExtractMembers", "--date", DAY, **environment).returncode == 0
    execute("delete from loads")
    shutil.rmtree("data/raw/teams")
    shutil.rmtree("data/clean")
    serve(server, "teams", lambda _: Answer(status=410))
    assert luigi_run("LoadTeams", "--date", DAY, **environment).returncode == 30
    assert "waiting" not in wholeday("status").stdout
    result = wholeday("backfill", DAY, "2026-11-21")
    assert result.returncode == 1
    assert "members: 1 of 1 day is loaded" in result.stdout


def test_plan_names_the_days_that_are_loaded_first(server: Server):
    write_datasets(server, "teams", "members", "zones", more={"zones": "mode = snapshot"}, needs={"members": "teams"})
    wholeday("load", DAY, "--dataset", "teams")
    plan = [" ".join(line.split()) for line in wholeday("plan", DAY, "2026-11-23").stdout.splitlines()]
    assert f"extract 1 {DAY} missing" in plan
    assert "extract 2 2026-11-21..2026-11-22 missing; loads the same day of teams first" in plan
