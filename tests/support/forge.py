"""Serve repositories and their issues as GitHub does, and define both datasets as a user would."""

import datetime as dt
import json
import os
import random
import signal
import threading
import time
from datetime import datetime
from typing import Any

from tests.support.reading import DAY
from tests.support.server import Answer, Request, Server
from wholeday import Dataset, Field, Record

TOKEN = "forge-token-5f3a"
START = dt.datetime.combine(DAY, dt.time(), dt.UTC)


class Repo(Record):
    id: int = Field(primary_key=True)
    owner: str = Field("owner.login")
    name: str
    updated_at: datetime | None


class Issue(Record):
    id: int = Field(primary_key=True)
    repo: str = Field(parent="name")
    title: str | None
    updated_at: datetime | None


class Label(Record):
    repo: str = Field(parent="name", primary_key=True)
    owner: str = Field(parent="owner")
    id: int = Field(primary_key=True)
    title: str | None
    updated_at: datetime | None


class Org(Record):
    login: str = Field(primary_key=True)
    updated_at: datetime | None


REPOS, ISSUES, LABELS = Dataset("repos", Repo), Dataset("issues", Issue), Dataset("labels", Label)
ORGS = Dataset("orgs", Org)


class Forge:
    """A source of repositories and issues. It sends pages with a Link header, and requires the token.

    `gone` names repositories whose issues are a 404, `gone_behind` one whose later pages are. Of more than `most`
    requests in flight, or of each `every`th, a request is refused.
    """

    def __init__(self, server: Server, repos: int, issues: int, per_page: int = 10) -> None:
        dice = random.Random(repos)
        self.per_page, self.most, self.every, self.wait = per_page, 64, 0, 0.0
        self.repos, self._last = [self._make_repo(number) for number in range(repos)], repos
        self.issues: dict[str, list[dict[str, Any]]] = {repo["name"]: [] for repo in self.repos}
        for number in range(issues):
            repo = self.repos[min(int(dice.expovariate(6) * repos), repos - 1)]["name"] if repos else ""
            self.issues[repo].append(self.make_issue(number))
        self.gone: set[str] = set()
        self.gone_behind, self.any_owner = "", False
        self.broken_at: int | None = None
        """The number of answered requests after which the source is down."""
        self.asked: list[str] = []
        """The paths and queries of answered requests."""
        self._victim = self._doomed_at = 0
        self._in_flight = self._count = 0
        self._lock = threading.Lock()
        self.url = server.url
        server.answer = self.answer  # type: ignore[method-assign]  # the paths are not known beforehand

    def _make_repo(self, number: int) -> dict[str, Any]:
        time_ = START + dt.timedelta(seconds=number)
        return {
            "id": number,
            "name": f"repo {number}",
            "owner": {"login": f"org/{number % 3}"},
            "updated_at": show(time_),
        }

    def add_repo(self, moment: dt.datetime) -> str:
        """Add a repository, and return its name."""
        self._last += 1
        repo = self._make_repo(self._last) | {"updated_at": show(moment)}
        self.repos.append(repo)
        self.issues[repo["name"]] = []
        return str(repo["name"])

    def make_issue(self, number: int, moment: dt.datetime = START + dt.timedelta(hours=1)) -> dict[str, Any]:
        return {
            "id": number,
            "title": f"issue {number}",
            "updated_at": show(moment + dt.timedelta(seconds=number % 3600)),
        }

    def doom(self, process: int, at: int) -> None:
        """Kill a process at a request."""
        self._victim, self._doomed_at = process, at

    @property
    def rows(self) -> set[tuple[int, str, str]]:
        """The issues that can be read, each with its repository."""
        return {
            (issue["id"], repo, issue["title"])
            for repo, issues in self.issues.items()
            for issue in issues
            if repo not in self.gone
        }

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self._in_flight += 1
            self._count += 1
            is_refused = self._in_flight > self.most or (self.every and self._count % self.every == 0)
        try:
            time.sleep(self.wait)
            if request.headers["Authorization"] != f"Bearer {TOKEN}":
                return Answer({"message": "Bad credentials"}, status=401)
            return Answer({"message": "slow down"}, status=429) if is_refused else self._respond(request)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _respond(self, request: Request) -> Answer:
        with self._lock:
            if self.broken_at is not None and len(self.asked) >= self.broken_at:
                return Answer(status=503)
            if self._victim and len(self.asked) >= self._doomed_at:
                os.kill(self._victim, signal.SIGKILL)
                self._victim = 0
            self.asked.append(request.target)
        if request.path == "/repos":
            return self._send_page(request, self.repos)
        if request.path == "/orgs":
            logins = sorted({repo["owner"]["login"] for repo in self.repos})
            return self._send_page(request, [{"login": login, "updated_at": show(START)} for login in logins])
        match request.path.split("/"):
            case ["", "orgs", owner, "repos"]:
                owned = [repo for repo in self.repos if repo["owner"]["login"] == owner.replace("%2F", "/")]
                return self._send_page(request, owned)
            case ["", "repos", owner, name, "issues"]:
                repo, issues = name.replace("%20", " "), self.issues.get(name.replace("%20", " "))
                known = {each["name"]: each["owner"]["login"].replace("/", "%2F") for each in self.repos}
                is_other = not self.any_owner and known.get(repo, owner) != owner
                is_cut = repo == self.gone_behind and "page" in request.query
                if issues is None or repo in self.gone or is_other or is_cut:
                    return Answer({"message": "Not Found"}, status=404)
                since = request.query.get("since", "")
                return self._send_page(request, [issue for issue in issues if issue["updated_at"] >= since])
        return Answer({"message": "Not Found"}, status=404)

    def _send_page(self, request: Request, records: list[dict[str, Any]]) -> Answer:
        page = int(request.query.get("page", 1))
        start = (page - 1) * self.per_page
        others = "".join(f"&{name}={value}" for name, value in request.query.items() if name != "page")
        link = f'<{self.url}{request.path}?page={page + 1}{others}>; rel="next"'
        headers = {"Link": link} if start + self.per_page < len(records) else {}
        return Answer(json.dumps(records[start : start + self.per_page]), headers=headers)


def show(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def write_sections(configure: Any, forge: Forge, section: str = "issues", **issues: Any) -> None:
    """Configure both datasets for a forge."""
    common = {"auth": "bearer:FORGE_TOKEN", "paginator": "link_header", "retries": 3}
    configure("repos", url=f"{forge.url}/repos", mode="snapshot", **common)
    url = f"{forge.url}/repos/{{repos.owner}}/{{repos.name}}/issues"
    configure("orgs", url=f"{forge.url}/orgs", mode="snapshot", **common)
    configure(section, **{"url": url, "mode": "snapshot", "missing_parent": "skip", **common, **issues})
