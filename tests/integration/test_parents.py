"""A source that is asked for each row of another dataset: who is asked, and that nothing of the answers is lost."""

import datetime as dt
import json
import multiprocessing
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.support.forge import ISSUES, REPOS, TOKEN, Forge, write_sections
from tests.support.project import dump_tree, query, run_stages
from tests.support.reading import DAY
from tests.support.server import Server
from wholeday.errors import OutageError
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


@pytest.fixture
def forge(server: Server, configure: Configure) -> Forge:
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


def test_rows_name_their_parent(forge: Forge) -> None:
    run_stages(ISSUES, DAY)
    assert set(query("select id, repo, title from issues")) == forge.rows


@pytest.mark.usefixtures("forge")
def test_files_do_not_depend_on_the_concurrency(configure: Configure) -> None:
    dumps = []
    for concurrency in (1, 2, 16):
        configure("issues", concurrency=concurrency)
        extract()
        dumps.append(read_files())
        shutil.rmtree("data/raw/issues")
    assert dumps[0] == dumps[1] == dumps[2]


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
    """Return the repositories of which a page was asked twice."""
    return {path.split("?")[0] for path, times in Counter(forge.asked).items() if times > 1}


def read_files() -> dict[str, bytes]:
    return {path: data for path, data in dump_tree("data/raw/issues").items() if path.endswith(".gz")}
