"""What an adopter does: another dataset, another column; and what makes a day outdated."""

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.project import dump_tree, luigi_run, query, run
from tests.support.server import Answer, Server
from wholeday.config.pipeline import Pipeline
from wholeday.errors import FolderError
from wholeday.schema import dataset
from wholeday.tasks import failures, registry, stages
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker
from wholeday.transform import day as transform_stage

DAY = "2026-11-20"
ORDERS = [
    {"number": "A-1", "line": 1, "amount": 10.5, "paid": True, "changed": f"{DAY}T08:00:00Z"},
    {"number": "A-1", "line": 2, "amount": None, "changed": f"{DAY}T08:00:00Z"},
    {"number": "A-2", "line": 1, "amount": -1, "changed": f"{DAY}T08:00:00Z"},
]


def test_a_second_dataset_is_one_file_and_one_section():
    """Orders, with a key of two columns, go through the three steps beside users, in a warehouse of both."""
    luigi_run("LoadUsers", "--date", DAY)
    with Server() as server:
        url = server.on("/orders", Answer({"orders": ORDERS}))
        section = f"\n[orders]\nurl = {url}\nmode = incremental\nmax_reject_ratio = 0.5\n"
        Path("luigi.cfg").write_text(Path("luigi.cfg").read_text() + section)
        command = ("luigi", "--module", "orders", "LoadOrders", "--date", DAY)
        path = str(ROOT / "tests" / "support")
        result = run(*command, PYTHONPATH=path)
        assert result.returncode == 0, result.stderr
        again = run(*command, PYTHONPATH=path)
        assert "nothing to do" in again.stdout
    assert query("select number, line, amount, paid from orders order by 1, 2") == [
        ("A-1", 1, 10.5, 1),
        ("A-1", 2, None, None),
    ]
    assert query("select dataset, inserted, rejected from loads order by 1")[0] == ("orders", 2, 1)
    assert query("select dataset, reason, key from rejects where dataset = 'orders'") == [
        ("orders", "is negative", '["A-2", 1]')
    ]
    for words in (("--module", "orders", "status"), ("status", "--module", "orders"), ("status", "--module=orders")):
        status = run("python", "-m", "wholeday", *words, PYTHONPATH=path)
        assert "orders in sqlite:///data/warehouse.db: 1 day, " in status.stdout
        assert "users" not in status.stdout
    assert "users in sqlite:///data/warehouse.db: 1 day, " in run("python", "-m", "wholeday", "status").stdout


def test_commands_and_pages_name_the_dataset_they_are_for(server):
    """A printed command loads the days of its own dataset, and each module has a page of its own."""
    url = server.on("/orders", Answer({"orders": ORDERS}))
    section = f"\n[orders]\nurl = {url}\nmode = incremental\nmax_reject_ratio = 0.5\n"
    Path("luigi.cfg").write_text(Path("luigi.cfg").read_text() + section)
    luigi_run("LoadUsers", "--date", DAY)
    path = {"PYTHONPATH": str(ROOT / "tests" / "support")}

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        return run("python", "-m", "wholeday", *words, "--module", "orders", **path)

    assert ask("load", "2026-11-18").returncode == 0
    late = ask("status", "--max-age", "1 minute")
    (hint,) = (line.partition("./run.sh ")[2] for line in late.stdout.splitlines() if line.startswith("missing"))
    assert hint.endswith(" --module orders")
    assert late.stderr.splitlines()[-1].endswith(f"./run.sh {hint}")
    assert run("python", "-m", "wholeday", *hint.split(), **path).returncode == 0
    assert not [line for line in ask("status").stdout.splitlines() if line.startswith("missing")]
    assert query("select count(*) from loads where dataset = 'users'") == [(1,)]

    assert run("python", "-m", "wholeday", "report").returncode == 0
    page = Path("data/report.html").read_bytes()
    assert ask("report").stdout == "data/report-orders.html: open it in a browser\n"
    assert Path("data/report.html").read_bytes() == page
    failures.erase_causes("data", "users")  # every page may quote a person
    assert not list(Path("data").glob("report*"))


def test_a_command_names_the_module_where_it_must(monkeypatch):
    """The default module needs no name while it holds one dataset."""
    days = ("backfill", "2026-11-18", "2026-11-20")
    words = "./run.sh backfill 2026-11-18 2026-11-20"
    monkeypatch.setattr(registry, "MODULES", {"users": "pipeline.users", "orders": "orders"})
    assert registry.spell_command("users", *days) == words
    assert registry.spell_command("orders", *days) == f"{words} --module orders"
    monkeypatch.setattr(registry, "MODULES", {"users": "pipeline.users", "todos": "pipeline.todos"})
    assert registry.spell_command("users", *days) == f"{words} --module pipeline.users"
    assert registry.spell_command("todos", *days) == f"{words} --module pipeline.todos"


def edit_users(old: str, new: str) -> dict[str, str]:
    """A copy of the package with an edited users.py; the environment in which commands find it."""
    shutil.copytree(ROOT / "pipeline", "own/pipeline", dirs_exist_ok=True)
    path = Path("own/pipeline/users.py")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return {"PYTHONPATH": "own"}


def test_a_column_is_added_in_users_alone(server):
    """Record class, cleaning and table gain a line each; the day is reprocessed from raw; the table grows."""
    url = server.on("/users", Answer([{"id": 1, "phone": " 1-2 ", "updated_at": "2026-11-19T10:00:00Z"}]))
    luigi_run("LoadUsers", "--date", DAY, "--users-url", url)
    edit_users(
        "    updated_at: dt.datetime | None = None",
        "    phone: str | None = None\n    updated_at: dt.datetime | None = None",
    )
    text = Path("own/pipeline/users.py").read_text()
    text = text.replace('    rows["city"] =', '    rows["phone"] = users["phone"].str.strip()\n    rows["city"] =')
    text = text.replace(
        '        sa.Column("city", sa.Text),',
        '        sa.Column("city", sa.Text),\n        sa.Column("phone", sa.Text),',
    )
    Path("own/pipeline/users.py").write_text(text)
    result = luigi_run("LoadUsers", "--date", "2026-11-19", "--users-url", url, PYTHONPATH="own")
    assert result.returncode == 0, result.stderr
    assert query("select phone from users where user_id = 1") == [("1-2",)]


def test_a_mended_transform_makes_the_clean_day_again_without_the_api():
    """Raw is enough: a day that is not loaded yet is cleaned by the code of today."""
    luigi_run("TransformUsers", "--date", DAY)
    raw, clean = dump_tree("data/raw"), dump_tree("data/clean")
    changed = edit_users(".str.lower()", ".str.upper()")
    result = luigi_run("LoadUsers", "--date", DAY, "--users-url", "http://127.0.0.1:9/nobody-listens", **changed)
    assert result.returncode == 0, result.stderr
    assert dump_tree("data/raw") == raw
    assert dump_tree("data/clean") != clean
    assert query("select count(*) from users where email <> upper(email)") == [(0,)]


def test_status_names_the_days_that_other_code_made():
    """They are what a reprocess would redo."""
    luigi_run("LoadUsers", "--date", DAY)
    assert "made by other code" not in run("python", "-m", "wholeday", "status").stdout
    changed = edit_users(".str.lower()", ".str.upper()")
    assert "made by other code" in run("python", "-m", "wholeday", "status", **changed).stdout


def test_the_version_changes_with_the_code_and_not_with_its_comments(monkeypatch):
    """Comments, docstrings, formatting, tasks and sections say nothing of how a row is made; everything else does."""
    source = (ROOT / "pipeline" / "users.py").read_text()

    def version_of(text: str) -> str:
        monkeypatch.setattr(dataset.inspect, "getsource", lambda _: text)
        changed = dataset.Dataset(USERS.config, USERS.record_class, USERS.clean, USERS.table, USERS.key)
        return read_workspace(changed).version

    same = [
        source.replace("MAX_INTEGER = 2**63 - 1", "MAX_INTEGER = (\n    2**63 - 1  # the largest\n)"),
        source.replace('"""A record as the API sends it.', '"""Something else.'),
        source.replace('"""The raw files of a day."""', '"""Files."""'),
        source.replace('"""Section `[users]` of luigi.cfg."""', '"""Another section."""'),
    ]
    other = [
        source.replace(".str.lower()", ""),
        source.replace("ge=1", "ge=0"),
        source.replace('"has no @"', '"no @"'),
        source.replace("sa.BigInteger", "sa.Integer"),
    ]
    assert source not in same
    assert source not in other
    assert {version_of(text) for text in same} == {version_of(source)}
    assert len({version_of(text) for text in [source, *other]}) == 5


def test_a_clean_day_of_another_raw_day_is_made_again():
    """Raw read anew, clean as it was: the clean day is not what it says it is, so it is redone."""
    day = dt.date.fromisoformat(DAY)
    luigi_run("TransformUsers", "--date", DAY)
    assert transform_stage.is_current(read_workspace(USERS), day)
    shutil.rmtree("data/raw")
    assert not transform_stage.is_current(read_workspace(USERS), day)
    luigi_run("ExtractUsers", "--date", DAY, "--users-url", "demo://users?updated_before={day_start}&per_day=7")
    assert not transform_stage.is_current(read_workspace(USERS), day)
    with pytest.raises(FolderError, match=r"clean/users/date=2026-11-20 was not made of data/raw"):
        stages.load(read_workspace(USERS), day)
    assert not LoadMarker(Pipeline().database, USERS.name, day).exists()
    assert luigi_run("LoadUsers", "--date", DAY).returncode == 0
    assert transform_stage.is_current(read_workspace(USERS), day)
    manifest = read_workspace(USERS).folder("clean", day).path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("transform_version", "version_of_old"))
    assert not transform_stage.is_current(read_workspace(USERS), day)


BROKEN = {
    "names.py": (
        "import wholeday.tasks.day_tasks\n\nmising\n",
        "names.py, line 3: NameError: name 'mising' is not defined",
    ),
    "syntax.py": ("def f(:\n", "syntax.py, line 1: SyntaxError: invalid syntax"),
    "needs.py": (
        "import wholeday.tasks.day_tasks\nimport nothere\n",
        "needs.py, line 2: ModuleNotFoundError: No module named",
    ),
    "inside.py": (
        "import luigi\nfrom wholeday.tasks.day_tasks import Load\n\n\nclass L(Load):\n    date = luigi.Paramter()\n",
        "inside.py, line 6: AttributeError: module 'luigi' has no attribute 'Paramter'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_fails_on_import_is_one_line(home, name):
    """The line names the file, its line and the error. Luigi's own command says the same once pipeline is imported."""
    code, line = BROKEN[name]
    (home / name).write_text(code)
    module = name.removesuffix(".py")
    results = [run("python", "-m", "wholeday", "status", "--module", module)]
    if module != "syntax":
        results.append(run("luigi", "--module", module, "LoadX", PYTHONPATH=f"{home}:{ROOT}"))
    for result in results:
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"ERROR: cannot import a module: {line}")
        assert len(result.stderr.splitlines()) == 1


def test_a_broken_users_py_is_one_line():
    """It is imported before any command runs."""
    changed = edit_users("MAX_INTEGER = 2**63 - 1", "MAX_INTEGER = 2**63 - one")
    for command in (("python", "-m", "wholeday", "status"), ("luigi", "--module", "pipeline", "LoadUsers")):
        result = run(*command, **changed)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("ERROR: cannot import a module: users.py, line 22: NameError: name 'one' is not defined")
