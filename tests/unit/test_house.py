"""How the package is built, and what an import may cost."""

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT


def test_the_tasks_are_found_without_the_libraries_of_the_work():
    """To learn that a day is loaded costs no pandas, pyarrow or SQLAlchemy, and nothing that reads a source."""
    heavy = {
        "pandas",
        "pyarrow",
        "sqlalchemy",
        "rich",
        "matplotlib",
        "jinja2",
        "oauthlib",
        "wholeday.extract.day",
    }
    code = "import datetime as dt, sys; from pipeline.users import ExtractUsers, LoadUsers;"
    code += "day = dt.date(2026, 10, 31); ExtractUsers(day).complete(), LoadUsers(day).complete();"
    code += f"print(*sorted({heavy | {'pyspark'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "\n"


def test_no_run_of_a_task_is_longer_than_ten_lines():
    """A task says when; what is done is in a function that anybody can call."""
    tree = ast.parse((ROOT / "wholeday" / "tasks" / "day_tasks.py").read_text())
    runs = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "run"]
    assert len(runs) == 3
    assert all((node.end_lineno or 0) - node.lineno <= 10 for node in runs)


@pytest.mark.xdist_group("house")
def test_the_tests_of_a_group_run_in_one_process(request):
    """They share what takes its time to bring up; pytest-xdist tells them by the end of their names."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@house") == grouped
