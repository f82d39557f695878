"""Test the pipeline with files in a bucket: rows and bytes are the same as in a folder, also after faults.

The bucket is a moto S3 server on loopback. tests/support/bucket.py injects the faults.
"""

import contextlib
import datetime as dt
import logging
import os
import pickle
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.users import USERS, ExtractUsers, LoadUsers, TransformUsers
from tests.support import points
from tests.support.bucket import ENVIRONMENT, VICTIM, Bucket
from tests.support.forge import ISSUES, REPOS, TOKEN, Forge, write_sections
from tests.support.points import Points
from tests.support.project import dump_warehouse, luigi_run, query, run, run_stages
from tests.support.server import Answer, Request, Server
from wholeday import clock
from wholeday.commands.forget import files, forget
from wholeday.commands.forget.search import DayFiles, Search
from wholeday.commands.prune import prune
from wholeday.commands.rebuild import rebuild
from wholeday.commands.reprocess import reprocess
from wholeday.commands.status import read_status
from wholeday.commands.verify import verify
from wholeday.config.pipeline import Pipeline
from wholeday.errors import ConfigError, FolderError, PipelineError, SourceError
from wholeday.storage.bucket import open_bucket
from wholeday.storage.day_folder import CHECKPOINTS, MANIFEST, DayFolder, list_days
from wholeday.storage.lines import pack
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.storage.names import strip_run
from wholeday.storage.tombstones import Tombstones
from wholeday.tasks import failures, stages
from wholeday.tasks.failures import read_failures
from wholeday.tasks.stages import read_workspace

ALL = os.environ.get("PIPELINE_FAULTS") == "all"
ROUNDS = int(os.environ.get("PIPELINE_KILLS", "5")) // 2
DAYS = [dt.date(2026, 10, 30), dt.date(2026, 10, 31)]
BEFORE, DAY = DAYS
URL = "demo://users?updated_since={day_start}&updated_before={day_stop}&per_day=150"

Configure = Callable[..., None]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bucket")]  # one server for all of them


@pytest.fixture
def bucket(running: Bucket, configure: Configure) -> Bucket:
    """Configure an empty prefix in the bucket, and small days from the demo source."""
    running.door.open()
    configure("users", url=URL)
    configure("pipeline", data_dir=running.make_place(), part_records=100, engine_workers=1)
    return running


def work(*days: dt.date) -> None:
    """Run the incomplete tasks of each day, as Luigi does."""
    for day in days or [DAY]:
        for task in (ExtractUsers(date=day), TransformUsers(date=day), LoadUsers(date=day)):
            if not task.complete():
                task.run()


def dump_parts(leftovers: bool = False) -> dict[str, bytes]:
    """Read the parts of all days that manifests name, without run IDs. Only killed runs may leave other parts."""
    parts = {}
    for stage, kind in (("raw", RawManifest), ("clean", CleanManifest)):
        for day in DAYS:
            folder = read_workspace(USERS).folder(stage, day)
            if folder.exists():
                manifest = folder.read_manifest(kind)
                named = [*manifest.parts, *getattr(manifest, "rejects", [])]
                assert leftovers or folder.list_parts() == {part.name for part in named}
                parts |= {f"{stage} {day} {strip_run(part.name)}": folder.read(part) for part in named}
    return parts


def dump_rows() -> dict[str, Any]:
    """Read the warehouse, with the hashes of the loaded files of each day."""
    if not Path("data/warehouse.db").exists() or not query("select 1 from sqlite_master where name = 'loads'"):
        return {}
    return dump_warehouse() | {"hashes": query("select date, raw_sha256, clean_sha256 from loads order by date")}


@contextlib.contextmanager
def elsewhere(folder: str, configure: Configure, data_dir: str = "data") -> Iterator[None]:
    """Change to another working directory with its own data_dir."""
    before = Pipeline().data_dir
    Path(folder).mkdir(exist_ok=True)
    configure("pipeline", data_dir=data_dir)
    with contextlib.chdir(folder):
        yield
    configure("pipeline", data_dir=before)


def live() -> Iterator[Any]:
    """Run every command that changes days, each as a new run. Yield the results after each step."""
    work(DAY, BEFORE)
    yield dump_rows(), dump_parts()
    key = str(query("select user_id from users where load_date = ? order by 1 limit 1", str(DAY))[0][0])
    open_bucket.cache_clear()
    forgotten = forget(read_workspace(USERS), [key])
    yield forgotten, dump_rows(), dump_parts(), Tombstones(Pipeline().data_dir, "users").count_pending()
    open_bucket.cache_clear()
    yield list(reprocess(read_workspace(USERS), BEFORE, DAY, everything=True)), dump_rows(), dump_parts()
    Path("data/warehouse.db").unlink()
    open_bucket.cache_clear()
    yield rebuild(read_workspace(USERS)), dump_rows(), list(verify(read_workspace(USERS)))
    open_bucket.cache_clear()
    pruned = list(prune(read_workspace(USERS), older_than=1, keep=1, dry_run=False))
    left = [list(list_days(Pipeline().data_dir, stage, "users")) for stage in ("raw", "clean")]
    yield pruned, left, dump_rows(), dump_parts(), list(verify(read_workspace(USERS)))


@pytest.mark.usefixtures("bucket")
def test_bucket_gives_the_same_results_as_a_folder(configure):
    """Rows, hashes and bytes match after load, forget, reprocess, rebuild and prune."""
    with elsewhere("local", configure):
        local = list(live())
    for number, (here, there) in enumerate(zip(live(), local, strict=True)):
        assert here == there, number
    assert [each.what for each in local[-1][0]] == ["pruned"]
    assert local[-1][-1] == local[-2][-1] == []
    assert not list(Path("data").glob("raw*"))


@pytest.mark.timeout(180)
def test_commands_work_on_a_bucket(bucket, configure):
    """Luigi forks two workers while the connection is open. A second run has nothing to do."""
    place = bucket.make_place()
    flags = f"--users-url={URL}", f"--pipeline-data-dir={place}"
    days = ("BackfillUsers", "--start", str(BEFORE), "--stop", "2026-11-01", *flags)
    made = luigi_run(*days, "--workers", "2")
    assert made.returncode == 0, made.stderr
    assert query("select date from loads order by 1") == [(str(day),) for day in DAYS]
    assert "nothing to do" in luigi_run(*days).stdout
    configure("pipeline", data_dir=place)
    assert [key for key in bucket.dump(place) if "/date=" not in key] == []
    status = run("python", "-m", "wholeday", "status", *flags)
    assert (status.returncode, "outdated" in status.stdout.partition("seconds")[2]) == (0, False), status.stdout
    report = run("python", "-m", "wholeday", "report", *flags)
    assert "/report.html: open it in a browser" in report.stdout, report.stderr
    assert b"</html>" in bucket.dump(place)["report.html"]
    assert [path for path in Path.cwd().iterdir() if path.name.startswith("s3")] == []


def test_interrupted_extraction_resumes_from_the_bucket(bucket, server, configure, caplog):
    """The bucket also holds the checkpoint file, until the day is complete."""
    caplog.set_level(logging.INFO, "luigi-interface")
    down = True

    def respond(request: Request) -> Answer:
        page = int(request.query.get("page", "1"))
        if down and page == 4:
            return Answer(status=503)
        link = f'<{server.url}/users?page={page + 1}>; rel="next"'
        return Answer([{"id": page * 10 + n} for n in range(3)], headers={"Link": link} if page < 6 else {})

    configure("users", url=server.on("/users", respond), retries=0)
    configure("pipeline", part_records=4)
    with pytest.raises(SourceError, match="503"):
        stages.extract(read_workspace(USERS), DAY)
    assert [key.rpartition("/")[2] for key in bucket.dump(Pipeline().data_dir) if key.endswith(CHECKPOINTS)]
    down = False
    server.requests.clear()
    open_bucket.cache_clear()  # another run
    stages.extract(read_workspace(USERS), DAY)
    assert "resuming the interrupted extraction after 8 records" in caplog.text
    assert [request.query.get("page") for request in server.requests] == ["3", "4", "5", "6"]
    assert sorted(map(strip_run, bucket.dump(str(read_workspace(USERS).folder("raw", DAY)) + "?"))) == [
        MANIFEST,
        *(f"part-{number:05d}.jsonl.gz" for number in range(5)),
    ]
    assert read_workspace(USERS).folder("raw", DAY).read_manifest(RawManifest).records == 18


def test_failures_of_all_machines_are_shared(bucket):
    """Every machine reads all failures. A day stops being failed once it is loaded."""
    for stage in ("extract", "load"):
        open_bucket.cache_clear()  # another run
        failures.record_failure(USERS, DAY, stage, f"{stage} went wrong")
    found = read_failures(Pipeline().data_dir, "users")
    assert [(failure.date, failure.line) for failure in found] == [
        (DAY, "extract went wrong"),
        (DAY, "load went wrong"),
    ]
    assert read_status(read_workspace(USERS)).failed == [DAY]
    work()
    assert read_status(read_workspace(USERS)).failed == []
    assert [key for key in bucket.dump(Pipeline().data_dir) if key.startswith("failures/")] == ["failures/users.jsonl"]


# Faults


@pytest.fixture
def whole(bucket: Bucket, configure: Configure) -> list[Any]:
    """Load the day once without faults. Return its rows, its parts and the names of its requests."""
    if not bucket.known:
        with elsewhere("whole", configure, bucket.make_place()):
            work()
            names = bucket.door.names[:]
            bucket.known += dump_rows(), dump_parts(), names
    return bucket.known


def work_watched() -> None:
    Path(VICTIM).write_text(str(os.getpid()))
    work()


@pytest.mark.sweep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["refuse", "lose", "cut", "kill", "kill after"])
def test_next_run_recovers_from_any_failed_request(bucket, configure, whole, how):
    """The storage refuses, the connection breaks, or the process dies, before or after the request takes effect."""
    rows, parts, names = whole
    problems = []
    numbers = [at for at, name in enumerate(names, 1) if name.startswith("PUT" if how == "cut" else "")]
    for at in numbers if ALL else random.Random(how).sample(numbers, min(2, len(numbers))):
        shutil.rmtree("data", ignore_errors=True)
        configure("pipeline", data_dir=bucket.make_place())
        bucket.door.shut(at, how)
        code, said = points.run(work_watched, Points())
        name = bucket.door.names[at - 1]
        bucket.door.open()
        marked, seen = dump_rows(), dump_parts(leftovers=True)
        work()
        checks = {
            "told in one line": code == -9 or (code, len(said)) == (1, 1),
            "the warehouse is empty or whole": marked in ({}, rows),
            "a day is not there or whole": seen.items() <= parts.items(),
            "the next run gives the same rows": dump_rows() == rows,
            "the next run gives the same parts, and no others": dump_parts() == parts,
        }
        problems += [f"{how} at {at}, {name}: not so: {rule} ({code}: {said})" for rule, ok in checks.items() if not ok]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere/x", r"^s3://nowhere/x/raw/users/.*NO_SUCH_BUCKET"),
        ("bucket/denied", r"^s3://bucket/denied/raw/users/.*ACCESS_DENIED"),
        ("bucket/nobody", r"^s3://bucket/nobody/raw/users/.*ACCESS_DENIED"),
    ],
)
def test_refused_request_fails_with_one_line(bucket, configure, monkeypatch, place, words):
    """The line has the object, the reason and what to check: a missing bucket, no permission, or no credentials."""
    configure("pipeline", data_dir=bucket.locate(place))
    if place == "bucket/denied":
        bucket.door.shut(1, "refuse")
    if place == "bucket/nobody":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    with pytest.raises(FolderError, match=f"{words}.*check the bucket, its endpoint, the credentials") as caught:
        work()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("bucket")
def test_unreachable_endpoint_fails_with_one_line():
    """The command exits with this line, and shows no secret even at log level DEBUG."""
    flags = ("--log-level", "DEBUG", "--pipeline-data-dir", "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:1")
    result = luigi_run("ExtractUsers", "--date", str(DAY), "--users-url", URL, *flags)
    assert result.returncode in (20, 25, 30, 35)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert "s3://bucket/x/raw/users/date=2026-10-31/manifest.json: " in line
    assert "Could not connect to server" in line
    assert "Traceback" not in result.stderr
    assert not [word for word in ENVIRONMENT.values() if len(word) > 8 and word in result.stdout + result.stderr]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:s3cr3t@bucket/x", "a secret does not belong there: .* AWS_ACCESS_KEY_ID"),
        ("s3://key:s3cr/3t@bucket/x", "a secret does not belong there"),
        ("abfss://c:s3cr3t@account.dfs.core.windows.net/x", "a secret does not belong there"),
        ("abfss://c@a.dfs.core.windows.net/x?client_secret=s3cr3t", "a secret does not belong there"),
        ("s3://bucket/x?secret_key=s3cr3t", "a secret does not belong there"),
        ("s3://bucket/x?endpoint=s3cr3t", "s3://bucket/x: cannot be opened: Unexpected query parameter.*'endpoint'"),
        ("s3:///x", "Missing bucket name"),
        ("file:///tmp/x", "give a folder, or s3://bucket/prefix, gs://"),
        ("S3://bucket/x", "give a folder, or s3://bucket/prefix, gs://"),
    ],
)
def test_invalid_uri_fails_without_showing_secrets(uri, words):
    """The check comes before any request, and creates no local folder named `s3:`."""
    with pytest.raises(ConfigError, match=words) as caught:
        DayFolder(uri, "raw", "users", DAY).exists()
    assert "s3cr" not in str(caught.value)
    assert not [path for path in Path.cwd().iterdir() if path.is_dir()]


@pytest.mark.usefixtures("bucket")
def test_credentials_are_not_pickled_for_worker_processes():
    """Workers read the credentials from the environment. Their parts have the same run ID."""
    folder = read_workspace(USERS).folder("raw", DAY)
    folder.exists()
    message = pickle.dumps(folder)
    assert not [word for word in ENVIRONMENT.values() if word.encode() in message]
    assert pickle.loads(message).write("part-00000.x", []).name == folder.write("part-00000.x", []).name


# Concurrency


def test_forked_process_opens_its_own_connection(bucket):
    """Processes that share a connection would read each other's answers."""
    folder = read_workspace(USERS).folder("raw", DAY)
    folder.exists()
    ours = set(bucket.door.clients)
    os.waitpid(fork(lambda: folder.exists() and None, Path("said")), 0)
    theirs = set(bucket.door.clients[len(bucket.door.clients) // 2 :])
    folder.exists()
    assert theirs
    assert not ours & theirs
    assert bucket.door.clients[-1] in ours


def open_day(stage: Any = "raw") -> DayFolder:
    """Open the folder of the day as a new run."""
    open_bucket.cache_clear()
    return read_workspace(USERS).folder(stage, DAY)


def write(folder: DayFolder, content: bytes) -> CleanManifest:
    """Write a part and return a manifest that names it."""
    parts = [folder.write("part-00000.x", [(1, content)])]
    rest = {"raw_sha256": [], "transform_version": "1", "reasons": {}, "accepted": [], "rejects": []}
    return CleanManifest(dataset="users", date=DAY, rows=1, rejected=0, parts=parts, **rest)


@pytest.mark.usefixtures("bucket")
def test_first_of_two_published_manifests_wins():
    """Runs do not overwrite each other's parts. In the end only the parts of the first run are left."""
    write(open_day(), b"of a killed run")
    first, second = open_day(), open_day()
    first.clear()
    one, two = write(first, b"one"), write(second, b"two")
    assert len(first.list_parts()) == 3
    first.publish(one)
    assert first.list_parts() == {one.parts[0].name, two.parts[0].name}
    second.publish(two)
    assert second.read_manifest(CleanManifest) == one
    assert second.read(one.parts[0]) == b"one"
    assert second.list_parts() == {one.parts[0].name}


@pytest.mark.usefixtures("bucket")
def test_clear_keeps_recent_parts_of_other_runs(monkeypatch):
    """The run deletes its own and old parts. It also deletes the manifest, so the day is incomplete."""
    first, second = open_day(), open_day()
    manifest = write(first, b"one")
    write(second, b"two")
    first.publish(manifest)
    write(second, b"two")
    second.clear()
    assert not first.exists()
    assert first.list_parts() == {manifest.parts[0].name}
    later = clock.utc_now() + dt.timedelta(days=2)
    monkeypatch.setattr(clock, "utc_now", lambda: later)
    second.clear()
    assert first.list_parts() == set()


@pytest.mark.usefixtures("bucket")
def test_concurrent_publish_leaves_no_day_without_parts(monkeypatch):
    """If one run deletes the parts of the other, one of the two fails and the day is incomplete."""
    first, second = open_day(), open_day()
    two = write(second, b"two")
    first.clear()
    one, remove = write(first, b"one"), first._storage.remove

    def come_between(paths: Any) -> None:
        second.replace_manifest(two)
        remove(paths)

    monkeypatch.setattr(first._storage, "remove", come_between)
    with pytest.raises(FolderError, match=r"another run wrote this day at the same time\. Run the day again"):
        first.publish(one)
    assert not second.exists()

    two = write(second, b"two")
    open_day().remove_unnamed(named=())
    with pytest.raises(FolderError, match="at the same time"):
        second.publish(two)
    assert not second.exists()


def fork(job: Callable[[], None], said: Path) -> int:
    """Run a job in a forked process. It exits with 0, with 1 after a known error (written to `said`), or with 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the other threads belong to the proxy
        process = os.fork()
    if process == 0:
        code = 2
        try:
            job()
            code = 0
        except PipelineError as error:
            said.write_text(str(error))
            code = 1
        finally:
            os._exit(code)
    return process


def work_as_another_run() -> None:
    open_bucket.cache_clear()
    work()


@pytest.mark.sweep
@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_concurrent_processes_do_not_corrupt_a_day(bucket, configure, whole):
    """Each process succeeds or fails with one line. Complete days are valid, and the next run finishes the rest."""
    failed = 0
    for number in range(ROUNDS):
        shutil.rmtree("data", ignore_errors=True)
        configure("pipeline", data_dir=bucket.make_place())
        processes = [fork(work_as_another_run, Path(f"said-{number}-{n}")) for n in range(3)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        assert set(codes) <= {0, 1}, codes
        failed += sum(codes)
        assert dump_parts(leftovers=True).items() <= whole[1].items()
        assert dump_rows() in ({}, whole[0])
        work_as_another_run()
        assert [dump_rows(), dump_parts(leftovers=True)] == whole[:2]
    print(f"{failed} of {3 * ROUNDS} failed:", *{path.read_text() for path in Path.cwd().glob("said-*")}, sep="\n")


def test_forget_erases_leftovers_of_killed_runs(bucket):
    """Leftovers may be in complete and in incomplete days. A run that is still writing cannot publish afterwards."""
    work()
    key = str(query("select min(user_id) from users")[0][0])
    lost = [b"of somebody"]
    at_work = read_workspace(USERS).folder("raw", BEFORE)
    open_bucket.cache_clear()
    for folder in (read_workspace(USERS).folder("raw", BEFORE), open_day(), open_day("clean")):
        folder.write("part-00007.jsonl.gz", pack([lost]))
        folder.add_checkpoints(lost)
    manifest = write(at_work, b"of somebody")
    assert forget(read_workspace(USERS), [key]).problems == []
    assert not [key for key, content in bucket.dump(Pipeline().data_dir).items() if lost[0] in content]
    dump_parts()
    with pytest.raises(FolderError, match="at the same time"):
        at_work.publish(manifest)


def test_forget_retries_a_day_changed_by_another_run(bucket, monkeypatch):
    """Otherwise `forget` would write back lines that the other run has removed."""
    work()
    key = str(query("select min(user_id) from users")[0][0])
    write_parts = files.write_parts

    def come_between(search: Search, day: DayFiles) -> Any:
        day.raw.replace_manifest(msgspec.structs.replace(day.raw_manifest, pages=99))
        return write_parts(search, day)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_parts", come_between)
        (problem,) = forget(read_workspace(USERS), [key]).problems
    assert "another run changed " in problem
    assert Tombstones(Pipeline().data_dir, "users").count_pending() == 1
    assert forget(read_workspace(USERS), []).problems == []
    assert Tombstones(Pipeline().data_dir, "users").count_pending() == 0
    assert bucket.door.names


@pytest.mark.usefixtures("bucket")
def test_interrupted_day_of_parents_resumes(
    server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resumes after its last finished part, and ends with the same lines and without another file."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)
    forge = Forge(server, repos=9, issues=60, per_page=4)
    write_sections(configure, forge, retries=0, concurrency=2)
    configure("pipeline", part_records=7)
    run_stages(REPOS, DAY)
    forge.asked.clear()
    forge.broken_at = 20
    with pytest.raises(SourceError):
        stages.extract(read_workspace(ISSUES), DAY)
    forge.broken_at = None
    before = set(forge.asked)
    run_stages(ISSUES, DAY)
    assert set(query("select id, repo, title from issues")) == forge.rows
    again = [path for path in forge.asked[20:] if path in before]
    assert len(again) < len(before)
    folder = read_workspace(ISSUES).folder("raw", DAY)
    manifest = folder.read_manifest(RawManifest)
    assert folder.list_parts() == {part.name for part in manifest.files}
    assert folder.read_checkpoints() == []
