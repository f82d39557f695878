"""A secret from the environment goes to the source and nowhere else."""

import base64
import contextlib
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.support.project import ask_scheduler, query, start, start_alone, start_scheduler
from tests.support.reading import make_user
from tests.support.server import Answer, Request, Server

pytestmark = pytest.mark.slow

SECRET, PASSWORD, REFRESH = "s3cr3t/+tok&n=", "p4ss/w0rd+é", "r3fr3sh/+tok&n="
CODE = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
CLIENT = base64.b64encode(f"us:{quote_plus(SECRET)}".encode()).decode()

LOGGING = """
[loggers]
keys = root, luigi, urllib3
[handlers]
keys = file
[formatters]
keys =
[logger_root]
level = DEBUG
handlers = file
[logger_luigi]
level = DEBUG
handlers =
qualname = luigi-interface
[logger_urllib3]
level = DEBUG
handlers =
qualname = urllib3
[handler_file]
class = FileHandler
args = ("debug.log",)
"""


def find_carried(request: Request) -> str:
    """Return the secret in a request."""
    code = (request.headers["Authorization"] or "").rpartition(" ")[2]
    return str(request.query.get("api_key") or request.headers["X-Token"] or code)


def respond(request: Request) -> Answer:
    """Repeat the secret wherever possible. Each day except the first fails in its own way."""
    carried, date = find_carried(request), request.query["date"]
    echo = f"{quote(carried)}&access_token={quote(carried, safe='')}&api_key={quote(carried)}"
    said = f"{carried} {request.target} {dict(request.headers)}"
    page = int(request.query.get("page", 1))
    match date, page:
        case (("2026-11-01" | "2026-11-03"), (1 | 2)):
            link = f'</users?date={date}&page={page + 1}&again={echo}>; rel="next"'
            users = [make_user(10 * page + number, f"{date}T10:00:00Z") for number in (1, 2)]
            return Answer(users, headers={"Link": link, "X-Echo": carried, "Set-Cookie": f"session={quote(carried)}"})
        case "2026-11-01", _:
            return Answer([make_user(31, f"{date}T10:00:00Z")])
        case "2026-11-02", _:
            return Answer({"error": said, "access_token": carried}, status=401)
        case "2026-11-03", _:
            return Answer(f"<html>{said}", status=500)
        case "2026-11-04", _:
            link = f'<http://{quote(carried, safe="")}@other.invalid/{quote(carried)}?x={echo}>; rel="next"'
            return Answer([make_user(1)], headers={"Link": link})
        case "2026-11-05", 1:
            return Answer(status=302, headers={"Location": f"/users?date={date}&page=2&again={echo}"})
        case "2026-11-05", _:
            return Answer({"errors": [said]}, status=404)
        case _:
            return Answer(status=307, headers={"Location": f"//other.invalid/{quote(carried)}?x={echo}"})


@contextlib.contextmanager
def run_scheduler() -> Iterator[dict[str, str]]:
    """Run luigid with a state file and DEBUG logs. Return the environment for commands."""
    Path("logging.conf").write_text(LOGGING)
    text = Path("central.cfg").read_text().replace("keep_alive = true", "keep_alive = false")
    text = text.replace("[core]", "[core]\nlogging_conf_file = logging.conf")
    text = text.replace("retry_delay = 5", "retry_delay = 600")  # keep failed tasks until the test reads them
    Path("central.cfg").write_text(text)
    with start_scheduler() as environment:
        yield environment


def ask_everything() -> str:
    """Return all answers of luigid about its tasks: lists, graph and errors."""
    failed = ask_scheduler("task_list", status="FAILED", upstream_status="")
    told = [failed, ask_scheduler("task_list", status="", upstream_status="")]
    told += [ask_scheduler("worker_list"), ask_scheduler("graph")]
    told += [ask_scheduler("fetch_error", task_id=task_id) for task_id in failed]
    assert len(told) == 4 + 5, "one error for each day that failed"
    return json.dumps(told, ensure_ascii=False)


def read_everything() -> Iterator[tuple[str, bytes]]:
    """Return name and decompressed content of every file in the current folder."""
    for path in Path().rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            yield str(path), gzip.decompress(content) if path.suffix == ".gz" else content


def read_arguments() -> Iterator[str]:
    """Return the arguments of every process, as `ps` shows them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def spell(secret: str) -> set[bytes]:
    """Return the possible encodings of a secret."""
    raw = secret.encode()
    texts = [
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        ascii(secret)[1:-1],
    ]
    return {text.encode() for text in texts} | {
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
    }


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ("bearer:A_TOKEN", [SECRET]),
        ("basic:A_USER:A_PASSWORD", [PASSWORD, CODE]),
        ("header:X-Token:A_TOKEN", [SECRET]),
        ("query:api_key:A_TOKEN", [SECRET]),
        ("oauth2:{url}/token?scope=all:A_CLIENT:A_TOKEN", [SECRET, CLIENT, "t0k3n/"]),
        ("oauth2_refresh:{url}/token:A_CLIENT:A_TOKEN:A_REFRESH", [SECRET, CLIENT, "t0k3n/", REFRESH]),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_secrets_are_not_left_behind(auth: str, secrets: list[str]) -> None:
    """Covers DEBUG logs, files, the warehouse, luigid and (once) `ps`, for loaded and failed days."""
    count = itertools.count(1)
    is_alone = auth.startswith("bearer")  # a process whose arguments `ps` shows
    with Server() as server, run_scheduler() as environment:
        arguments: set[str] = set()

        def watch(request: Request) -> Answer:
            arguments.update(read_arguments())
            return respond(request)

        url = server.on("/users", watch)
        server.on("/token", lambda _: Answer({"access_token": f"t0k3n/+{next(count)}=", "token_type": "bearer"}))
        process = (start_alone if is_alone else start)(
            *(
                "luigi",
                "--module",
                "pipeline",
                "BackfillUsers",
                "--start",
                "2026-11-01",
                "--stop",
                "2026-11-07",
                "--log-level",
                "DEBUG",
            ),
            *("--users-url", f"{url}?date={{date}}", "--users-auth", auth.format(url=server.url)),
            *("--users-paginator", "link_header", "--users-retries", "1", "--users-max-wait", "0"),
            *("--pipeline-part-records", "1"),
            **environment,
            A_TOKEN=SECRET,
            A_USER="ann",
            A_PASSWORD=PASSWORD,
            A_CLIENT="us",
            A_REFRESH=REFRESH,
        )
        out, err = process.communicate(timeout=100)
        told = ask_everything()
        carried = {find_carried(request) for request in server.requests if request.path == "/users"}
    Path("told.txt").write_text("\n".join([told, out, err, *arguments]))
    assert not is_alone or any("BackfillUsers" in each for each in arguments)
    assert process.returncode == 30
    assert query("select date, extracted from loads") == [("2026-11-01", 5)]
    assert all(any(secret in each for secret in secrets) for each in carried), "the source did get it"
    assert "GET /users?date=2026-11-03&page=3&again=***&access_token=***" in Path("debug.log").read_text()
    for name, content in read_everything():
        for secret in secrets:
            for form in spell(secret):
                assert form not in content, name
