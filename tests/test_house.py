"""How the package is built: who may import whom, and what an import may cost."""

import ast
import subprocess
import sys

import pytest

from conftest import ROOT

# A module may import those of the rows below its own, never one beside it or above.
ROWS = [
    {"__main__"},
    {"cli", "scheduler"},
    {"ranges"},
    {"screens"},
    {"report", "backfill", "plan"},
    {"status", "charts", "block", "lookup"},
    {"doctor", "check", "forget", "prune", "reprocess", "verify", "__init__"},
    {"users"},
    {"tasks"},
    {"extraction", "stages", "progress", "alerts"},
    {"failures"},
    {"journal", "gates"},
    {"dataset", "audit"},
    {"tombstones", "transform"},
    {"times", "source", "engine", "warehouse", "targets"},
    {"client", "merge", "evidence", "records", "storage", "spark"},
    {"staging", "auth", "signs", "cleaning", "bodies"},
    {"database"},
    {"sqlite", "postgres", "oauth2"},
    {"schema", "session", "packing", "refresh"},
    {"pages", "paginators", "deadline", "demo", "logs", "lines", "parquet", "waits", "days"},
    {"mask"},
    {"placeholders", "body_errors"},
    {"config", "sections"},
    {"kinds", "contract", "outage"},
    {"errors", "fields", "files", "presets", "stop", "ahead", "parser"},
    {"sanitize"},
    {"depth"},
    {"scan"},
]
WITH_LUIGI = {
    "__init__",
    "__main__",
    "cli",
    "ranges",
    "scheduler",
    "screens",
    "backfill",
    "block",
    "users",
    "tasks",
    "dataset",
    "targets",
    "logs",
    "config",
    "parser",
    "sections",
}


def imports_of(module: str) -> set[str]:
    """Every module that a file of the package imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "pipeline" / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= (
                {f"pipeline.{alias.name}" for alias in node.names} if node.module == "pipeline" else {node.module or ""}
            )
    return found


def test_every_module_has_its_row():
    """A new file says where it belongs."""
    files = {path.stem for path in (ROOT / "pipeline").glob("*.py")}
    assert files == set().union(*ROWS)


@pytest.mark.parametrize(
    ("level", "module"), [(level, module) for level, row in enumerate(ROWS) for module in sorted(row)]
)
def test_imports_run_one_way(level, module):
    """From the outside in: no module imports one of its own row or of a row above."""
    below = set().union(*ROWS[level + 1 :])
    used = {name.split(".")[1] for name in imports_of(module) if name.startswith("pipeline.")}
    assert used <= below


@pytest.mark.parametrize("module", sorted(set().union(*ROWS) - WITH_LUIGI))
def test_the_work_does_not_know_luigi(module):
    """Reading, transforming and loading are plain functions, whoever calls them."""
    assert not {name for name in imports_of(module) if name.split(".")[0] == "luigi"}


def test_the_tasks_are_found_without_the_libraries_of_the_work():
    """To learn that a day is loaded costs no pandas, pyarrow or SQLAlchemy, and nothing that reads a source."""
    heavy = {"pandas", "pyarrow", "sqlalchemy", "rich", "matplotlib", "jinja2", "oauthlib", "pipeline.extraction"}
    code = "import datetime as dt, sys; from pipeline.users import USERS; day = dt.date(2026, 10, 31);"
    code += "USERS.marker(day).exists(), USERS.folder('raw', day).exists();"
    code += f"print(*sorted({heavy | {'pyspark'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "\n"


def test_no_run_of_a_task_is_longer_than_ten_lines():
    """A task says when; what is done is in a function that anybody can call."""
    tree = ast.parse((ROOT / "pipeline" / "tasks.py").read_text())
    runs = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "run"]
    assert len(runs) == 4
    assert all((node.end_lineno or 0) - node.lineno <= 10 for node in runs)


@pytest.mark.xdist_group("house")
def test_the_tests_of_a_group_run_in_one_process(request):
    """They share what takes its time to bring up; pytest-xdist tells them by the end of their names."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@house") == grouped
