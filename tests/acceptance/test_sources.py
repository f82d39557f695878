"""Commands work with datasets that take their keys from a section `[source.NAME]`."""

import configparser
from pathlib import Path

import pytest

from tests.support.project import query, run
from tests.support.server import Answer, Request, Server
from tests.support.written import make_project, run_new

pytestmark = pytest.mark.slow

TOKEN = "forge-token-5f3a"


def respond(request: Request) -> Answer:
    """Send two pages of repositories for a request with the token and the version."""
    if (request.headers["Authorization"], request.headers["X-Version"]) != (f"Bearer {TOKEN}", "3"):
        return Answer({"message": f"no access with {request.headers['Authorization']}"}, status=403)
    page = int(request.query.get("page", "1"))
    repos = [{"id": number, "name": f"repo {number}"} for number in range(20 * page, 20 * page + (20, 5)[page - 1])]
    return Answer(repos, headers={"Link": f'<{request.path}?page=2>; rel="next"'} if page == 1 else {})


@pytest.fixture(autouse=True)
def project(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make a project with a source, and no dataset that uses it."""
    make_project()
    server.on("/v3/repos", respond)
    with Path("luigi.cfg").open("a") as file:
        file.write(
            f'\n[source.forge]\nurl = {server.url}/v3\nauth = bearer:FORGE_TOKEN\nheaders = {{"X-Version": "3"}}\n'
            "paginator = link_header\nrequests_per_second = 1000\n"
        )
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read_section() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read("luigi.cfg")
    return dict(parser["repos"])


def test_new_writes_only_what_the_source_lacks() -> None:
    ran = run_new("repos", "/repos", "--source", "forge")
    assert ran.returncode == 0, ran.stderr
    assert read_section() == {"url": "/repos", "source": "forge", "mode": "snapshot"}
    assert query("select count(*) from repos") == [(25,)]


def test_doctor_examines_a_path_of_a_source() -> None:
    ran = run("python", "-m", "wholeday", "doctor", "/repos", "--source", "forge", "--dataset", "users")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("\n[users]\nurl = /repos\nsource = forge\nmode = snapshot\n")


def test_check_and_status_show_a_dataset_of_a_source(server: Server) -> None:
    assert run_new("repos", "/repos", "--source", "forge").returncode == 0
    ran = run("python", "-m", "wholeday", "check", "--dataset", "repos")
    assert "without the secret the source answers 403" in ran.stdout, ran.stdout + ran.stderr
    ran = run("python", "-m", "wholeday", "status", "--dataset", "repos")
    assert ran.returncode == 0, ran.stderr
    assert query("select distinct source from loads where dataset = 'repos'") == [(f"{server.url}/v3/repos",)]


def test_errors_hide_secrets_of_a_source() -> None:
    """Even if the source repeats them."""
    text = Path("luigi.cfg").read_text()
    Path("luigi.cfg").write_text(text.replace('"X-Version": "3"', '"X-Version": "4", "X-Api-Key": "hunter2hunter2"'))
    ran = run_new("repos", "/repos", "--source", "forge")
    assert ran.returncode == 1
    assert "403" in ran.stderr
    assert TOKEN not in ran.stderr + ran.stdout
    assert "hunter2" not in ran.stderr + ran.stdout


def test_mistake_in_a_source_is_one_line(server: Server) -> None:
    ran = run_new("repos", "/repos", "--source", "forg")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "[repos] source = forg: luigi.cfg has no section [source.forg]; it has [source.forge]" in ran.stderr
    assert not server.requests
