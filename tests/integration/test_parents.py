"""A source that is asked for each row of another dataset: who is asked, and that nothing of the answers is lost."""

import datetime as dt
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.support.forge import ISSUES, LABELS, REPOS, START, TOKEN, Forge, show, write_sections
from tests.support.project import dump_tree, execute, query, run_stages
from tests.support.reading import DAY
from tests.support.server import Server
from wholeday import clock
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import OK
from wholeday.commands.doctor.examination import Examination
from wholeday.errors import ConfigError, DatasetError, OutageError, QualityError, SourceError
from wholeday.extract.http.client import Client
from wholeday.extract.reader import AHEAD
from wholeday.schema.dataset import Dataset
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import RawManifest
from wholeday.storage.parents import Parent, split_runs, unpack_parents
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]
KILLS = int(os.environ.get("PIPELINE_KILLS", "4"))
REPOSITORIES = int(os.environ.get("PIPELINE_REPOSITORIES", "30"))
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    """Set the token, and let a part hold less than many parents."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    configure("pipeline", part_records=7)


def stop_clock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make it an hour after the end of a day."""
    now = dt.datetime.combine(DAY + dt.timedelta(days=number + 1), dt.time(1), dt.UTC)
    monkeypatch.setattr(clock, "utc_now", lambda: now)
    monkeypatch.setattr(Client, "_check_clock", lambda *_: None)


@pytest.fixture
def forge(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Forge:
    stop_clock(monkeypatch, 0)
    forge = Forge(server, repos=12, issues=60, per_page=4)
    write_sections(configure, forge)
    run_stages(REPOS, DAY)
    forge.asked.clear()
    return forge


def read_raw() -> tuple[list[Parent], set[tuple[int, str, str]], int]:
    """Return the parents of the raw day, its issues with their repositories, and the number of its records."""
    folder = read_workspace(ISSUES).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    assert manifest.parents
    parents = unpack_parents(folder.read(manifest.parents))
    lines = [json.loads(line) for part in manifest.parts for line in unpack(folder.read(part))]
    owners = [
        run.values["name"] for runs in split_runs(parents, manifest.parts) for run in runs for _ in range(run.records)
    ]
    rows = {(line["id"], owner, line["title"]) for line, owner in zip(lines, owners, strict=True)}
    return parents, rows, manifest.records


def extract(dataset: Dataset = ISSUES, day: dt.date = DAY) -> None:
    stages.extract(read_workspace(dataset), day)


def test_records_of_all_parents_are_stored(forge: Forge) -> None:
    forge.gone = {forge.repos[3]["name"]}
    extract()
    parents, rows, records = read_raw()
    assert rows == forge.rows
    assert records == len(rows) == sum(parent.records for parent in parents)
    assert [parent.values["name"] for parent in parents] == [repo["name"] for repo in forge.repos]
    assert [parent.keys for parent in parents] == [[[repo["id"]]] for repo in forge.repos]
    assert [parent.outcome for parent in parents] == ["missing" if n == 3 else "read" for n in range(12)]


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_rows_name_their_parent(forge: Forge) -> None:
    run_stages(ISSUES, DAY)
    assert set(query("select id, repo, title from issues")) == forge.rows


def test_missing_parent_fails_the_day_by_default(forge: Forge, configure: Configure) -> None:
    forge.gone = {forge.repos[3]["name"]}
    configure("issues", missing_parent="fail")
    with pytest.raises(
        SourceError, match=r"repo%203/issues.* 404 .*if a row of repos may be gone.*missing_parent = skip"
    ):
        extract()
    assert not read_workspace(ISSUES).folder("raw", DAY).exists()


def test_missing_parents_are_named(forge: Forge, caplog: pytest.LogCaptureFixture) -> None:
    forge.gone = {repo["name"] for repo in forge.repos[:5]}
    extract()
    assert "does not have 5 of 12 parents: org/0, repo 0; org/1, repo 1; org/2, repo 2 and 2 more" in caplog.text


def test_source_without_any_parent_fails_the_day(forge: Forge) -> None:
    forge.gone = {*forge.issues}
    with pytest.raises(QualityError, match=r"none of 12 parents in repos exists at the source, such as http.*-accept"):
        extract()


def test_parent_that_fails_later_fails_the_day(forge: Forge, configure: Configure) -> None:
    """A 404 after the first page does not mean that the parent is missing: it has sent records."""
    configure("issues", retries=0)
    name = max(forge.issues, key=lambda name: len(forge.issues[name]))
    forge.gone_behind = name
    with pytest.raises(OutageError, match="404"):
        extract()


def test_key_of_two_parents_fails_the_day(forge: Forge) -> None:
    forge.issues["repo 1"].append(forge.issues["repo 0"][0])
    with pytest.raises(SourceError, match=r"1 key came for two rows of repos: .*Field.parent=…, primary_key=True"):
        extract()


@pytest.mark.slow
def test_column_of_the_parent_may_be_part_of_the_key(
    forge: Forge, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a key may come for two parents. A second snapshot is compared by the whole key."""
    forge.issues["repo 1"].append(forge.issues["repo 0"][0])
    write_sections(configure, forge, section="labels")
    run_stages(LABELS, DAY)
    rows = {(repo, f"org/{int(repo.split()[1]) % 3}", number, title) for number, repo, title in forge.rows}
    assert set(query("select repo, owner, id, title from labels")) == rows
    forge.issues["repo 1"].pop()
    stop_clock(monkeypatch, 1)
    run_stages(LABELS, DAY + dt.timedelta(days=1))
    assert query("select count(*) from labels") == [(len(rows) - 1,)]
    found = query("select vanished, unchanged from loads where dataset = 'labels' order by date")
    assert found[1] == (1, len(rows) - 1)


def test_values_that_cannot_be_sent_fail_the_day(forge: Forge) -> None:
    for value in ("", ".", "..", "a\tb", "a\x7fb"):
        execute(f"update repos set name = '{value}' where id = 5")
        with pytest.raises(QualityError, match=r"name of repos \[5\] is '.*', which cannot stand in a request"):
            extract()
    assert not forge.asked


def test_rows_with_one_request_share_it(forge: Forge) -> None:
    """Two rows with the same values are one series of requests."""
    execute("update repos set name = 'repo 1', owner = 'org/1' where id = 2")
    extract()
    parents, _, _ = read_raw()
    assert [parent.keys for parent in parents][1:3] == [[[1], [2]], [[3]]]
    assert not any("repo%202" in path for path in forge.asked)


def test_rows_with_one_request_must_not_differ(forge: Forge, configure: Configure) -> None:
    """Else the column that a record takes from its parent would have two values."""
    configure("issues", url=f"{forge.url}/repos/{{repos.owner}}/issues")
    with pytest.raises(QualityError, match=r"two rows of repos, \[0\] and \[3\], have the same request and differ"):
        extract()
    assert not forge.asked


def test_frozen_list_outlives_the_table(forge: Forge, configure: Configure) -> None:
    """A resumed day asks the parents that were frozen when it began."""
    configure("issues", retries=0)
    forge.broken_at = 9
    with pytest.raises(OutageError):
        extract()
    forge.broken_at = None
    execute("delete from repos where id > 2", "delete from _repos_past")
    extract()
    assert read_raw()[1] == forge.rows


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"split": 4}, "split cannot be used for each parent"),
        ({"paginator": "auto"}, "needs paginator, as its requests are made for each parent"),
        ({"parents": "changed"}, "parents = changed cannot be used in mode snapshot"),
        ({"url": "http://localhost/{repos.nam}"}, "repos has no such column; it has id, owner, name, updated_at"),
        (
            {"url": "http://localhost/{repos.updated_at}"},
            "holds timestamp, and integer or text or uuid or date is needed",
        ),
        ({"url": "http://localhost/issues"}, "column repo is taken from a parent"),
        ({"url": "http://{repos.name}/issues"}, "a column of repos cannot stand in the host"),
        ({"url": "http://localhost/{rpos.name}"}, "there is no dataset rpos"),
        ({"url": "http://localhost/{issues.id}"}, "asks for each of its own rows"),
    ],
)
@pytest.mark.usefixtures("forge")
def test_unusable_sections_are_refused(configure: Configure, keys: dict[str, Any], line: str) -> None:
    configure("issues", **keys)
    with pytest.raises((ConfigError, DatasetError), match=re.escape(line)):
        extract()


def test_parents_need_a_loaded_day(server: Server, configure: Configure) -> None:
    write_sections(configure, Forge(server, repos=1, issues=1))
    with pytest.raises(QualityError, match="issues: no day of repos is loaded: load one first"):
        extract()


def test_day_without_parents_is_empty(forge: Forge, configure: Configure) -> None:
    configure("issues", min_records=0)
    execute("delete from repos", "delete from _repos_past")
    run_stages(ISSUES, DAY)
    assert read_raw() == ([], set(), 0)
    assert not forge.asked


@pytest.mark.slow
def test_check_reads_one_parent(forge: Forge) -> None:
    """It reads the parent that brought the most records last."""
    run_stages(ISSUES, DAY)
    forge.asked.clear()
    findings = check_source(read_workspace(ISSUES), DAY)
    assert {name: found.evidence for name, found in findings.items() if found.verdict != OK} == {
        "quality gates": "one parent cannot be compared with the days of all"
    }
    name = max(forge.issues, key=lambda name: len(forge.issues[name]))
    assert findings["paging"].evidence.startswith(f"repos {name.split()[1]}, one of the parents: ")
    assert {unquote(path.split("/")[3]) for path in forge.asked} == {name}


@pytest.mark.usefixtures("forge")
def test_doctor_asks_for_the_url_of_one_parent() -> None:
    with pytest.raises(
        ConfigError, match=r"{repos.owner} stands for a column of repos: give the URL of one of its rows"
    ):
        Examination(ISSUES.config())


class Days:
    """Incremental days of issues, each an hour after its end."""

    def __init__(self, forge: Forge, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forge, self._patch = forge, monkeypatch
        url = f"{forge.url}/repos/{{repos.owner}}/{{repos.name}}/issues?since={{day_start}}"
        configure("issues", mode="incremental", url=url, max_drop_ratio=1)
        configure("repos", max_drop_ratio=1, max_delete_ratio=1)

    def load(self, number: int, *datasets: Dataset) -> list[str]:
        """Load the datasets on a day, and return the requests for issues."""
        stop_clock(self._patch, number)
        self.forge.asked.clear()
        for dataset in datasets:
            run_stages(dataset, DAY + dt.timedelta(days=number))
        return [path for path in self.forge.asked if "/issues" in path]


@pytest.fixture
def days(forge: Forge, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(forge, configure, monkeypatch)


@pytest.mark.slow
def test_late_parent_is_read_from_its_beginning(days: Days) -> None:
    """A repository that no loaded day has asked may have issues that are older than the day."""
    days.load(0, REPOS, ISSUES)
    repo = days.forge.add_repo(START + dt.timedelta(hours=30))
    days.forge.issues[repo].append(days.forge.make_issue(900, START - dt.timedelta(days=90)))
    asked = days.load(1, REPOS, ISSUES)
    late = [path for path in asked if "since=1970-01-01" in path]
    assert [quote(repo) in path for path in late] == [True]
    assert query("select id, repo from issues where id = 900") == [(900, repo)]
    assert not [path for path in days.load(2, ISSUES) if "since=1970-01-01" in path]


def test_first_day_has_no_late_parents(days: Days) -> None:
    assert not [path for path in days.load(1, REPOS, ISSUES) if "since=1970" in path]


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_parent_that_vanished_is_asked_on_the_days_before(days: Days) -> None:
    days.load(1, REPOS)
    gone = days.forge.repos.pop(4)["name"]
    days.load(2, REPOS)
    assert any(quote(gone) in path for path in days.load(1, ISSUES))
    assert any(quote(gone) in path for path in days.load(2, ISSUES))  # it was there in the morning
    assert not any(quote(gone) in path for path in days.load(4, ISSUES))


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_changed_parents_are_asked(days: Days, configure: Configure) -> None:
    """No page is requested of a parent that did not change."""
    days.load(0, REPOS, ISSUES)
    configure("issues", parents="changed")
    moment = START + dt.timedelta(days=1, hours=2)
    for repo in days.forge.repos[2:5]:
        repo["updated_at"] = show(moment)
        days.forge.issues[repo["name"]].append(days.forge.make_issue(1000 + repo["id"], moment))
    asked = days.load(1, REPOS, ISSUES)
    assert {unquote(path.split("/")[3]) for path in asked} == {"repo 2", "repo 3", "repo 4"}
    assert len(asked) == 3
    assert set(query("select id, repo, title from issues")) == days.forge.rows


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_watermark_is_kept_for_each_parent(days: Days, configure: Configure) -> None:
    url = f"{days.forge.url}/repos/{{repos.owner}}/{{repos.name}}/issues?since={{watermark}}"
    configure("issues", url=url)
    with pytest.raises(ConfigError, match=r"the record class needs its column: add owner = Field\(parent='owner'\)"):
        days.load(0, REPOS, ISSUES)
    configure("issues", url=url.replace("{repos.owner}", "*"))
    days.forge.any_owner = True
    days.load(0, ISSUES)
    newest = {
        name: max((issue["updated_at"] for issue in issues), default="") for name, issues in days.forge.issues.items()
    }
    bounds = {unquote(path.split("/")[3]): unquote(path.split("since=")[1])[:20] for path in days.load(1, ISSUES)}
    assert bounds == {
        name: show(dt.datetime.fromisoformat(time) - dt.timedelta(seconds=1)) if time else "1970-01-01T00:00:00Z"
        for name, time in newest.items()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("forge")
def test_files_do_not_depend_on_the_concurrency(configure: Configure) -> None:
    dumps = []
    for concurrency in (1, 2, 16):
        configure("issues", concurrency=concurrency)
        extract()
        dumps.append(read_files())
        shutil.rmtree("data/raw/issues")
    assert dumps[0] == dumps[1] == dumps[2]


@pytest.mark.slow
def test_interrupted_day_resumes_at_its_parent(forge: Forge, configure: Configure) -> None:
    """Only the parents in flight are asked again, wherever the source failed, and with any concurrency."""
    extract()
    whole, needed = read_files(), len(forge.asked)
    dice = random.Random(3)
    for broken_at in range(1, needed, 3):
        shutil.rmtree("data/raw/issues")
        forge.asked.clear()
        forge.broken_at = broken_at
        configure("issues", retries=0, concurrency=(before := dice.choice((1, 2, 8))))
        with pytest.raises(OutageError):
            extract()
        forge.broken_at = None
        configure("issues", concurrency=dice.choice((1, 4)))
        extract()
        assert read_files() == whole
        assert len(find_asked_again(forge)) <= AHEAD * before, broken_at


def test_position_of_a_parent_is_kept(forge: Forge, configure: Configure) -> None:
    """A parent of many pages resumes behind its last stored page."""
    configure("issues", concurrency=1, retries=0)
    name = max(forge.issues, key=lambda name: len(forge.issues[name]))
    extract()
    first = next(at for at, path in enumerate(forge.asked) if quote(name) in path)
    shutil.rmtree("data/raw/issues")
    forge.asked.clear()
    forge.broken_at = first + 3
    with pytest.raises(OutageError):
        extract()
    forge.broken_at = None
    extract()
    assert [path for path, times in Counter(forge.asked).items() if times > 1] == [forge.asked[first + 2]]


@pytest.mark.slow
def test_kills_do_not_change_the_files(server: Server, configure: Configure) -> None:
    """Killed at random requests and resumed with another concurrency: the same bytes, and few requests more."""
    forge = Forge(server, repos=REPOSITORIES, issues=REPOSITORIES * 60, per_page=50)
    write_sections(configure, forge)
    configure("pipeline", part_records=1000)
    run_stages(REPOS, DAY)
    forge.gone = {repo["name"] for repo in forge.repos[::17]}
    forge.every = 29
    extract()
    assert read_raw()[1] == forge.rows
    whole, dice, killed = read_files(), random.Random(KILLS), 0
    while killed < KILLS:
        shutil.rmtree("data/raw/issues")
        forge.asked.clear()
        ahead = 0
        while True:
            configure("issues", concurrency=(concurrency := dice.choice([1, 2, 4, 8, 16])))
            child = FORK.Process(target=extract)
            child.start()
            forge.doom(child.pid or 0, len(forge.asked) + dice.randrange(2 * REPOSITORIES))
            child.join()
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            killed, ahead = killed + 1, ahead + AHEAD * concurrency
        assert read_files() == whole
        assert len(find_asked_again(forge)) <= ahead
    print(f"killed {killed} times")


def find_asked_again(forge: Forge) -> set[str]:
    """Return the repositories with a page that was requested twice."""
    return {path.split("?")[0] for path, times in Counter(forge.asked).items() if times > 1}


def read_files() -> dict[str, bytes]:
    return {path: data for path, data in dump_tree("data/raw/issues").items() if path.endswith(".gz")}
