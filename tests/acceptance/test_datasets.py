"""Add datasets and columns as a user does, and detect outdated days."""

import datetime as dt
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support import ROOT
from tests.support.project import add_dataset, dump_tree, luigi_run, query, run, run_here, run_stages
from tests.support.server import Answer, Server
from wholeday.config.pipeline import Pipeline
from wholeday.errors import FolderError
from wholeday.tasks import failures, stages, workflow
from wholeday.tasks.stages import read_workspace
from wholeday.tasks.targets import LoadMarker
from wholeday.transform import day as transform_stage

pytestmark = pytest.mark.slow

DAY = "2026-11-20"
ORDERS = [
    {"number": "A-1", "line": 1, "amount": 10.5, "paid": True, "changed": f"{DAY}T08:00:00Z"},
    {"number": "A-1", "line": 2, "amount": None, "changed": f"{DAY}T08:00:00Z"},
    {"number": "A-2", "line": 1, "amount": -1, "changed": f"{DAY}T08:00:00Z"},
]


def test_second_dataset_needs_one_file_and_one_section():
    """Orders have a key of two columns and share the warehouse with users."""
    run_stages(USERS, dt.date.fromisoformat(DAY))
    with Server() as server:
        url = server.on("/orders", Answer({"orders": ORDERS}))
        section = f"\n[orders]\nurl = {url}\nmode = incremental\nmax_reject_ratio = 0.5\n"
        Path("luigi.cfg").write_text(Path("luigi.cfg").read_text() + section)
        environment = add_dataset("orders")
        result = luigi_run("LoadOrders", "--date", DAY, **environment)
        assert result.returncode == 0, result.stderr
        again = luigi_run("LoadOrders", "--date", DAY, **environment)
        assert "nothing to do" in again.stdout
    assert query("select number, line, amount, paid from orders order by 1, 2") == [
        ("A-1", 1, 10.5, 1),
        ("A-1", 2, None, None),
    ]
    assert query("select dataset, inserted, rejected from loads order by 1")[0] == ("orders", 2, 1)
    assert query("select dataset, reason, key from rejects where dataset = 'orders'") == [
        ("orders", "Expected `float` >= 0.0", '["A-2", 1]')
    ]
    status = run("python", "-m", "wholeday", "--dataset", "orders", "status")
    assert "orders in sqlite:///data/warehouse.db: 1 day, " in status.stdout
    assert "users" not in status.stdout
    both = run("python", "-m", "wholeday", "status").stdout
    assert "orders in sqlite:///data/warehouse.db: 1 day, " in both
    assert "users in sqlite:///data/warehouse.db: 1 day, " in both


def test_commands_and_pages_name_their_dataset(server):
    """A printed command loads days of its own dataset. Each dataset has its own report file."""
    url = server.on("/orders", Answer({"orders": ORDERS}))
    section = f"\n[orders]\nurl = {url}\nmode = incremental\nmax_reject_ratio = 0.5\n"
    Path("luigi.cfg").write_text(Path("luigi.cfg").read_text() + section)
    run_stages(USERS, dt.date.fromisoformat(DAY))
    add_dataset("orders")

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        return run("python", "-m", "wholeday", *words, "--dataset", "orders")

    assert ask("load", "2026-11-18").returncode == 0
    late = ask("status", "--max-age", "1 minute")
    (hint,) = (line.partition(": wholeday ")[2] for line in late.stdout.splitlines() if line.startswith("missing"))
    assert hint.endswith(" --dataset orders")
    assert late.stderr.splitlines()[-1].endswith(f": wholeday {hint}")
    assert run("python", "-m", "wholeday", *hint.split()).returncode == 0
    assert not [line for line in ask("status").stdout.splitlines() if line.startswith("missing")]
    assert query("select count(*) from loads where dataset = 'users'") == [(1,)]

    assert run("python", "-m", "wholeday", "report").returncode == 0
    page = Path("data/report.html").read_bytes()
    assert ask("report").stdout == "data/report-orders.html: open it in a browser\n"
    assert Path("data/report.html").read_bytes() == page
    failures.erase_causes("data", "users")  # every report may quote a person
    assert not list(Path("data").glob("report*"))


def test_printed_commands_name_the_dataset_if_several(monkeypatch):
    """With a single dataset the flag is omitted. `forget` always takes the dataset as an argument."""
    days = ("backfill", "2026-11-18", "2026-11-20")
    line = "wholeday backfill 2026-11-18 2026-11-20"
    monkeypatch.setattr(workflow, "_known", {"users"})
    assert workflow.spell_command("users", *days) == line
    assert workflow.spell_command("users", "forget") == "wholeday forget users"
    workflow.register("things", "tests.support.things")
    assert workflow.spell_command("users", *days) == line
    workflow.register("orders", "pipeline.orders")
    assert workflow.spell_command("users", *days) == f"{line} --dataset users"
    assert workflow.spell_command("orders", *days) == f"{line} --dataset orders"
    assert workflow.spell_command("orders", "forget") == "wholeday forget orders"
    monkeypatch.setattr(workflow, "_known", {"users"})
    monkeypatch.setattr(workflow, "broken", {"pipeline.orders": "a line"})
    assert workflow.spell_command("users", *days) == f"{line} --dataset users"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("status", "--dataset", "user"), "ERROR: unknown dataset user: did you mean users?"),
        (("--dataset=bills", "load", DAY), "ERROR: unknown dataset bills: give one of users"),
        (("forget", "uesrs", "42", "--yes"), "ERROR: unknown dataset uesrs: did you mean users?"),
    ],
)
def test_unknown_dataset_is_one_line(capsys, words, line):
    assert run_here(capsys, *words) == ("", line, 1)
    assert not Path("data").exists()


def test_missing_pipeline_is_one_line(home):
    """The environment has the library but no package `pipeline`. --help needs none."""
    (home / "pipeline.py").write_text("raise ModuleNotFoundError('no', name='pipeline')\n")
    for words in (("status",), ("--users-url", "x", "status")):
        result = run("python", "-m", "wholeday", *words)
        hint = "run the command in the folder of the project, or wholeday init"
        line = f"ERROR: pipeline/ is missing in this folder: {hint}\n"
        assert (result.returncode, result.stdout, result.stderr) == (1, "", line)
    assert run("python", "-m", "wholeday", "--help").returncode == 0


def edit_users(old: str, new: str) -> dict[str, str]:
    """Copy the package with an edited users.py. Return the environment that selects the copy."""
    shutil.copytree(ROOT / "pipeline", "own/pipeline", dirs_exist_ok=True)
    path = Path("own/pipeline/users.py")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return {"PYTHONPATH": "own"}


def test_new_column_is_one_line_of_users_py(server, configure):
    """The table gains the column."""
    url = server.on("/users", Answer([{"id": 1, "phone": " 1-2 ", "updated_at": "2026-11-19T10:00:00Z"}]))
    configure("users", url=url)
    run_stages(USERS, dt.date.fromisoformat(DAY))
    edit_users("    city:", "    phone: str | None = Field(strip_whitespace=True)\n    city:")
    result = luigi_run("LoadUsers", "--date", "2026-11-19", "--users-url", url, PYTHONPATH="own")
    assert result.returncode == 0, result.stderr
    assert query("select phone from users where user_id = 1") == [("1-2",)]


def test_changed_transform_uses_existing_raw_files():
    """An unloaded day is transformed again with the current code, without a request."""
    stages.extract(read_workspace(USERS), dt.date.fromisoformat(DAY))
    stages.transform(read_workspace(USERS), dt.date.fromisoformat(DAY))
    raw, clean = dump_tree("data/raw"), dump_tree("data/clean")
    changed = edit_users("to_lower", "to_upper")
    result = luigi_run("LoadUsers", "--date", DAY, "--users-url", "http://127.0.0.1:9/nobody-listens", **changed)
    assert result.returncode == 0, result.stderr
    assert dump_tree("data/raw") == raw
    assert dump_tree("data/clean") != clean
    assert query("select count(*) from users where email <> upper(email)") == [(0,)]


def test_status_lists_outdated_days(capsys):
    """`reprocess` would transform these days again."""
    run_stages(USERS, dt.date.fromisoformat(DAY))
    assert "transformed by another version" not in run_here(capsys, "status")[0]
    changed = edit_users("to_lower", "to_upper")
    assert "transformed by another version" in run("python", "-m", "wholeday", "status", **changed).stdout


RULES = '''
from wholeday import Dataset
from pipeline.users import User


def drop_tests(users):
    """Drop the users of tests."""
    return users[users["name"] != "test"]


USERS = Dataset("users", User, drop_tests)
'''


@pytest.mark.parametrize(
    ("old", "new", "is_other"),
    [
        ("    return users", "\n    # A comment.\n    return users", False),
        ("Drop the users of tests.", "Drop some users.", False),
        ('!= "test"]', "!= (\n        'test'\n    )]", False),
        ('"test"', '"tests"', True),
        ("from wholeday", "LIMIT = 3\nfrom wholeday", True),  # clean may use it
        ("USERS =", "class Other:\n    pass\n\n\nUSERS =", False),
    ],
)
def test_version_depends_on_code_of_clean_not_comments(tmp_path, monkeypatch, old, new, is_other):
    """Docstrings, formatting and classes do not affect rows."""
    monkeypatch.syspath_prepend(tmp_path)
    versions = []
    for name, text in (("rules_before", RULES), ("rules_after", RULES.replace(old, new))):
        (tmp_path / f"{name}.py").write_text(text)
        versions.append(read_workspace(importlib.import_module(name).USERS).version)
        sys.modules.pop(name)
    assert (versions[0] != versions[1]) == is_other


def test_clean_files_of_replaced_raw_files_are_outdated(configure):
    """The manifest of the clean files names the raw files that they came from."""
    day = dt.date.fromisoformat(DAY)
    stages.extract(read_workspace(USERS), day)
    stages.transform(read_workspace(USERS), day)
    assert transform_stage.is_current(read_workspace(USERS), day)
    shutil.rmtree("data/raw")
    assert not transform_stage.is_current(read_workspace(USERS), day)
    configure("users", url="demo://users?updated_before={day_start}&per_day=7")
    stages.extract(read_workspace(USERS), day)
    assert not transform_stage.is_current(read_workspace(USERS), day)
    with pytest.raises(FolderError, match=r"clean/users/date=2026-11-20 does not match data/raw"):
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


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - {"syntax.py"}))  # it fails before it imports wholeday
def test_broken_module_is_one_line(home, name):
    """Luigi imports any module. After the module has imported wholeday, our handler reports the error."""
    code, line = BROKEN[name]
    (home / name).write_text(code)
    result = run("luigi", "--module", name.removesuffix(".py"), "LoadX", PYTHONPATH=str(home))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"ERROR: cannot import a module: {line}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_broken_dataset_file_is_one_line(name):
    """Only commands for this dataset or for all datasets fail. The line has the file and the line number."""
    code, place = BROKEN[name]
    environment = add_dataset(name.removesuffix(".py"), code)
    failing = (
        ("python", "-m", "wholeday", "status"),
        *([("python", "-m", "wholeday", "status", "--dataset", "names")] if name == "names.py" else []),
        *([("luigi", "--module", "pipeline", "L")] if name == "inside.py" else []),
    )
    for command in failing:
        result = run(*command, **environment)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"ERROR: cannot import a module: {place}")
    status = run("python", "-m", "wholeday", "status", "--dataset", "users")
    assert (status.returncode, len(status.stderr.splitlines())) == (0, 1)
    assert status.stderr.startswith(f"ERROR: cannot import a module: {place}")


def test_broken_file_defines_no_tasks():
    """Tasks above the error must not run without the rest of the file."""
    orders = (ROOT / "tests" / "support" / "orders.py").read_text()
    environment = add_dataset("orders", f"{orders}\nmising\n")
    own = luigi_run("LoadOrders", "--date", DAY, **environment)
    assert (own.returncode, own.stdout, len(own.stderr.splitlines())) == (1, "", 1)
    misspelt = luigi_run("LodUsers", "--date", DAY, **environment)
    assert misspelt.returncode == 1
    first, second = misspelt.stderr.splitlines()
    assert first == own.stderr.strip()
    assert second.startswith("ERROR: No task LodUsers. Did you mean: LoadUsers")
    assert not Path("data").exists()


def test_workers_ignore_another_broken_file():
    """Each process imports the workflow, but the warning appears once."""
    environment = add_dataset("orders", "mising\n")
    loading = luigi_run(
        "RangeDaily", "--of", "LoadUsers", "--start", DAY, "--stop", "2026-11-21", "--workers", "2", **environment
    )
    assert loading.returncode == 0
    assert loading.stderr.count("cannot import a module") == 1
    assert query("select dataset from loads") == [("users",)]


def test_broken_users_py_is_one_line():
    """Every command imports users.py."""
    changed = edit_users('Dataset("users", User)', 'Dataset("users", Usr)')
    for command in (("python", "-m", "wholeday", "status"), ("luigi", "--module", "pipeline", "LoadUsers")):
        result = run(*command, **changed)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("ERROR: cannot import a module: users.py, line 18: NameError: name 'Usr' is not defined")
