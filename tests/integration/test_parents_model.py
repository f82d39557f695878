"""Random lives of repositories and issues, loaded on days in any order, end in the tables of a model."""

import datetime as dt
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.forge import ISSUES, REPOS, START, TOKEN, Forge, show, write_sections
from tests.support.histories import EXAMPLES
from tests.support.project import query, run_stages
from tests.support.reading import DAY
from tests.support.server import Server
from wholeday import clock
from wholeday.errors import QualityError, SourceError
from wholeday.extract.http.client import Client
from wholeday.load.markers import find_loaded
from wholeday.tasks.stages import read_workspace

Configure = Callable[..., None]
DAYS = range(6)
HOUR = dt.timedelta(hours=1)


@dataclass
class Model:
    """The content of the tables by the rules: who is asked on a day, and how the source answers."""

    alive: dict[int, tuple[dt.datetime, dt.datetime | None, str, str]] = field(default_factory=dict)
    """Of each repository: since when and until when it was there, its owner and its name."""
    asked: dict[int, set[tuple[str, str]]] = field(default_factory=dict)
    """By loaded day: the repositories that were asked."""
    facts: dict[int, list[tuple[int, str, str, str]]] = field(default_factory=dict)
    """By loaded day, in the order of loading: issue, time of change, repository, title."""

    def see(self, repos: list[dict[str, Any]], moment: dt.datetime) -> None:
        """Load a snapshot of the repositories."""
        listed = {repo["id"]: (repo["owner"]["login"], repo["name"]) for repo in repos}
        for key, (since, until, *names) in self.alive.items():
            if key not in listed and until is None:
                self.alive[key] = since, moment, names[0], names[1]
        for key, names in listed.items():
            before = self.alive.get(key)
            since = moment if before is None or before[1] else before[0]
            self.alive[key] = since, None, *names

    def list_asked(self, number: int) -> set[tuple[str, str]]:
        """List the repositories that are asked on a day, by owner and name."""
        start = START + dt.timedelta(days=number)
        return {(owner, name) for _, until, owner, name in self.alive.values() if until is None or until > start}

    def read(self, number: int, forge: Forge) -> Iterator[tuple[int, str, str, str]]:
        """Yield the records of a day of issues."""
        start = START + dt.timedelta(days=number)
        earlier = [asked for day, asked in self.asked.items() if day < number]
        asked = self.list_asked(number)
        for owner, name in asked:
            is_late = bool(earlier) and not any((owner, name) in each for each in earlier)
            since = "" if is_late else show(start - dt.timedelta(seconds=1))
            if any((repo["owner"]["login"], repo["name"]) == (owner, name) for repo in forge.repos):
                for issue in forge.issues[name]:
                    if issue["updated_at"] >= since:
                        yield issue["id"], issue["updated_at"], name, issue["title"]
        self.asked[number] = asked

    @property
    def rows(self) -> set[tuple[int, str, str]]:
        """The present: of each issue, the row of the latest change; of equal changes, the one extracted last."""
        found: dict[int, tuple[str, str, str]] = {}
        for facts in self.facts.values():
            for issue, changed, repo, title in facts:
                if issue not in found or changed >= found[issue][0]:
                    found[issue] = changed, repo, title
        return {(issue, repo, title) for issue, (_, repo, title) in found.items()}


class Life:
    """Changes a forge at random, as time goes by."""

    def __init__(self, forge: Forge, dice: random.Random) -> None:
        self.forge, self._dice, self._next = forge, dice, 1000

    def change(self, moment: dt.datetime) -> None:
        forge, dice = self.forge, self._dice
        match dice.randrange(9):
            case 0:
                forge.add_repo(moment)
            case 1 if len(forge.repos) > 2:
                gone = forge.repos.pop(dice.randrange(len(forge.repos)))
                forge.issues[gone["name"]].clear()
            case 2 | 3:
                self._next += 1
                repo = dice.choice(forge.repos)["name"]
                old = dt.timedelta(days=dice.choice([0, 0, 50]))
                forge.issues[repo].append(forge.make_issue(self._next, moment - old))
            case 4 | 5 if issue := self._pick():
                issue |= {"title": f"title {dice.random()}", "updated_at": show(moment)}
            case 6 if issue := self._pick():  # to another repository
                for issues in forge.issues.values():
                    issues[:] = [each for each in issues if each is not issue]
                forge.issues[dice.choice(forge.repos)["name"]].append(issue | {"updated_at": show(moment)})
            case 7 if issue := self._pick():
                for issues in forge.issues.values():
                    issues[:] = [each for each in issues if each is not issue]

            case 8:
                repo = dice.choice(forge.repos)
                self._next += 1
                issues = forge.issues.pop(repo["name"])
                repo |= {"name": f"renamed {self._next}", "updated_at": show(moment)}
                forge.issues[repo["name"]] = issues

    def _pick(self) -> dict[str, Any] | None:
        issues = [issue for some in self.forge.issues.values() for issue in some]
        return self._dice.choice(issues) if issues else None


@pytest.mark.sweep
def test_tables_equal_the_model(server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day that fails leaves neither a marker nor a row."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    monkeypatch.setattr(Client, "_check_clock", lambda *_: None)
    gates = {"max_drop_ratio": 1, "max_delete_ratio": 1, "min_records": 0}
    counts = {"loaded": 0, "failed": 0, "late": 0, "missing": 0}
    for seed in range(EXAMPLES):
        dice = random.Random(f"{EXAMPLES} {seed}")
        forge, model = Forge(server, repos=4, issues=10, per_page=2), Model()
        url = f"{forge.url}/repos/{{repos.owner}}/{{repos.name}}/issues?since={{day_start}}"
        write_sections(configure, forge, mode="incremental", url=url, retries=0, **gates)
        configure("repos", **gates)
        configure("pipeline", data_dir=f"data-{seed}", database=f"sqlite:///data-{seed}/warehouse.db", part_records=3)
        life = Life(forge, dice)
        now = START + dt.timedelta(days=DAYS.stop, hours=1)
        todo = dice.sample(DAYS, len(DAYS))
        snapshots, is_interrupted = 0, False
        while todo:
            now += HOUR
            for _ in range(0 if is_interrupted else dice.randrange(6)):
                life.change(now - dt.timedelta(minutes=dice.randrange(30, 50)))
            moment = now
            monkeypatch.setattr(clock, "utc_now", lambda moment=moment: moment)
            if not snapshots or (dice.random() < 0.4 and not is_interrupted):
                snapshots += 1
                run_stages(REPOS, DAY + dt.timedelta(days=snapshots - 100))
                model.see(forge.repos, now - dt.timedelta(minutes=15))
                continue
            number = todo[-1]
            configure("issues", concurrency=dice.choice([1, 3, 8]))
            forge.asked.clear()
            if dice.random() < 0.3:
                forge.broken_at = dice.randrange(4)
            facts = list(Model(dict(model.alive), dict(model.asked)).read(number, forge))
            before = query("select * from issues") if model.facts else []
            names = {(repo["owner"]["login"], repo["name"]) for repo in forge.repos}
            try:
                run_stages(ISSUES, DAY + dt.timedelta(days=number))
            except QualityError:  # all parents that are known have vanished or have other names
                assert not names & Model(dict(model.alive)).list_asked(number)
                counts["missing"] += 1
                snapshots += 1
                run_stages(REPOS, DAY + dt.timedelta(days=snapshots - 100))
                model.see(forge.repos, now - dt.timedelta(minutes=15))
                forge.broken_at = None
                continue
            except SourceError:
                assert forge.broken_at is not None
                counts["failed"] += 1
                forge.broken_at = None
                day = DAY + dt.timedelta(days=number)
                assert not find_loaded(read_workspace(ISSUES).pipeline.database, "issues", [day])
                assert not model.facts or query("select * from issues") == before
                is_interrupted = True  # nothing changes until it has resumed
                continue
            was_interrupted, forge.broken_at, is_interrupted = is_interrupted, None, False
            todo.pop()
            counts["loaded"] += 1
            counts["late"] += any("since=1970" in path for path in forge.asked)
            model.facts[number] = list(model.read(number, forge))
            assert model.facts[number] == facts
            assert set(query("select id, repo, title from issues")) == model.rows, (seed, number)
            paths = {tuple(unquote(part) for part in path.split("/")[2:4]) for path in forge.asked}
            assert paths == model.asked[number] or (was_interrupted and paths < model.asked[number])
    assert all(counts[each] for each in ("loaded", "failed", "late")), counts
