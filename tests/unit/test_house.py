"""Test the structure of the package and the cost of imports."""

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_import_of_tasks_loads_no_heavy_libraries():
    """A check for a loaded day imports neither pandas, pyarrow and SQLAlchemy nor the extract code."""
    heavy = {
        *["pandas", "pyarrow", "sqlalchemy", "rich", "matplotlib", "jinja2", "oauthlib", "pyspark"],
        "wholeday.extract.day",
    }
    code = "import datetime as dt, sys; from pipeline.users import ExtractUsers, LoadUsers;"
    code += "day = dt.date(2026, 10, 31); ExtractUsers(day).complete(), LoadUsers(day).complete();"
    code += f"print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "\n"


def test_run_methods_have_at_most_ten_lines():
    """A task decides when to run; a plain function does the work."""
    tree = ast.parse((ROOT / "wholeday" / "tasks" / "day_tasks.py").read_text())
    runs = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "run"]
    assert len(runs) == 3
    assert all((node.end_lineno or 0) - node.lineno <= 10 for node in runs)


@pytest.mark.xdist_group("house")
def test_xdist_group_runs_in_one_process(request):
    """A group shares an expensive fixture. pytest-xdist marks its tests with a suffix of the node id."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@house") == grouped
