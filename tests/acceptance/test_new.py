"""Test `wholeday new NAME URL`: what it writes loads every record, without an edit."""

import ast
import configparser
import datetime as dt
import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import dump_tree, execute, query, run
from tests.support.server import Answer, Request, Server
from tests.support.shapes import SHAPES
from tests.support.written import compare, make_project, read_module, run_new

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def project() -> None:
    make_project()


def orders(number: int = 29) -> list[dict[str, Any]]:
    """Invent orders whose traits show only over several records."""
    return [
        {
            "id": each,
            "totalPrice": f"{each}.50",
            "created": 1_795_168_800 + each,
            "note": None if each % 3 else "gift",
            "customer": {"id": each % 7, "e-mail": f"person{each}@example.org", "metadata": {f"k{each}": "v"}},
            "lines": {"data": [{"id": each * 10 + line, "sku": "007", "qty": line} for line in range(each % 3)]},
            "tags": ["a"] * (each % 2),
            "class": "x",
            "date": "2026-11-20",
            "isPaid": "true",
            "nothing": None,
            "deleted": each == 3,
            "updatedAt": "2026-11-20T10:00:00Z",
        }
        for each in range(1, number + 1)
    ]


CLASSES = '''
class Line(Record):
    id: int = Field(primary_key=True)
    sku: str
    qty: int


class Order(Record):
    """An order of 127.0.0.1."""

    id: int = Field(primary_key=True)
    total_price: Decimal = Field("totalPrice", max_digits=12, decimal_places=2)
    created: Epoch
    note: str | None
    customer_id: int = Field("customer.id")
    customer_e_mail: str = Field("customer.e-mail")
    customer_metadata: Json = Field("customer.metadata")
    lines: list[Line] = Field("lines.data")
    tags: list[str]
    class_: str = Field("class")
    order_date: date = Field("date")
    is_paid: bool = Field("isPaid")
    is_deleted: bool = Field("deleted")
    updated_at: datetime = Field("updatedAt")
'''


def test_written_class_is_what_a_person_would_write(server: Server) -> None:
    ran = run_new("orders", server.on("/orders", Answer(orders())))
    assert ran.returncode == 0, ran.stderr
    assert CLASSES in Path("pipeline/orders.py").read_text()
    compare(read_module("orders"), orders(), "orders")


def test_output_names_evidence_doubts_and_next_command(server: Server) -> None:
    text = run_new("orders", server.on("/orders", Answer(orders()))).stdout
    today = dt.datetime.now(dt.UTC).date()
    assert re.search(r"^key +id +distinct and present in 29 records *$", text, re.M)
    assert re.search(r"^left out +1 +without a value: nothing *$", text, re.M)
    assert re.search(r"^personal data +1 +customer_e_mail *$", text, re.M)
    assert "unsure: 'deleted' marks deletions, to judge by its name alone" in text
    assert f"loaded {today}: 29 records, 0 rejects, table orders" in text
    assert text.endswith(f"\ntomorrow: wholeday load {today + dt.timedelta(days=1)} --dataset orders\n")


def test_section_keeps_comments_and_suggests_deletions(server: Server) -> None:
    before = Path("luigi.cfg").read_text()
    run_new("orders", server.on("/orders", Answer(orders())), "--timezone", "Europe/Berlin")
    after = Path("luigi.cfg").read_text()
    assert after.startswith(before.rstrip())
    parser = configparser.ConfigParser()
    parser.read_string(after)
    assert (parser["orders"]["lenient"], parser["orders"]["timezone"]) == ("true", "Europe/Berlin")
    assert "deleted_when" not in parser["orders"]
    assert "\n# deleted: true in 1 of 29 records, to judge by its name a deletion." in after
    assert "\n# deleted_when = deleted\n" in after


def test_written_test_passes_and_formatters_agree(server: Server) -> None:
    run_new("orders", server.on("/orders", Answer(orders())))
    ran = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests")
    assert ran.returncode == 0, ran.stdout
    assert '"id": 2,' in Path("tests/test_orders.py").read_text()
    for command in (["format", "--check"], ["check", "--select", "E,F,I,UP,RUF"]):
        ruff = str(Path(sys.executable).with_name("ruff"))
        files = ("--line-length", "120", "pipeline/orders.py", "tests/test_orders.py")
        checked = subprocess.run([ruff, *command, *files], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_value_and_no_secret_is_written(server: Server) -> None:
    """The test has invented values; the section names the variable of the secret."""
    url = server.on("/orders", Answer([{"id": "key-7", "name": "Ada Berg", "mail": "ada@x.org", "at": "2026-11-20"}]))
    ran = run_new("orders", url, "--auth", "bearer:TOKEN", TOKEN="s3cr3t-value")
    assert ran.returncode == 0, ran.stderr
    for path in ("pipeline/orders.py", "tests/test_orders.py", "luigi.cfg"):
        text = Path(path).read_text()
        assert not re.search(r"key-7|Ada|Berg|x\.org|s3cr3t", text), path


def test_secret_in_url_is_refused(server: Server) -> None:
    ran = run_new("orders", server.on("/orders", Answer(orders())) + "?api_key=s3cr3t-value")
    assert ran.returncode == 1
    assert "url holds a secret" in ran.stderr
    assert "s3cr3t" not in ran.stdout + ran.stderr


def test_records_after_the_sample_widen_the_class(server: Server) -> None:
    """`new` reads a sample of 2,000 records, and the class holds the day that it loads."""
    records: list[dict[str, Any]] = [{"id": each, "size": 1, "at": "2026-11-20", "name": "a"} for each in range(2_600)]
    records[2_500] |= {"size": 1.5, "at": "soon", "name": None, "extra": 7}

    def respond(request: Request) -> Answer:
        start = int(request.query.get("offset", 0))
        page = records[start : start + min(int(request.query.get("limit", 100)), 500)]
        return Answer({"data": page, "total": len(records), "offset": start})

    ran = run_new("things", server.on("/things", respond))
    assert ran.returncode == 0, ran.stderr
    columns = {column.name: (column.type, column.is_nullable) for column in read_module("things")}
    assert columns["size"] == (float, False)
    assert columns["thing_at"] == (str, False)
    assert columns["name"] == (str, True)
    assert columns["extra"] == (int, True)
    compare(read_module("things"), records, "things")


@pytest.mark.parametrize(
    ("arguments", "answer", "said"),
    [
        (["users"], Answer([{"id": 1}]), "pipeline/users.py exists already"),
        (["Orders"], Answer([{"id": 1}]), "use lower-case letters"),
        (["core"], Answer([{"id": 1}]), "the name core is taken"),
        (["loads"], Answer([{"id": 1}]), "the name loads is taken"),
        (["orders"], Answer({"message": "no"}, status=404), "404"),
        (["orders"], Answer([{"name": "a", "size": 1}, {"name": "a", "size": 2}]), "identify a record"),
        (["orders"], Answer([]), "the source has no records"),
        (["orders", "--mode", "often"], Answer([{"id": 1}]), "[orders] mode = 'often' cannot be used"),
        (["orders", "--page-size", "-1"], Answer([{"id": 1}]), "page_size"),
        (["orders", "--pag-size", "1"], Answer([{"id": 1}]), "did you mean --page-size?"),
    ],
)
def test_failed_new_is_one_line_and_leaves_nothing(
    server: Server, arguments: list[str], answer: Answer, said: str
) -> None:
    before = dump_tree(".")
    name, *flags = arguments
    ran = run_new(name, server.on("/orders", answer), *flags)
    assert ran.returncode
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    after = {path: data for path, data in dump_tree(".").items() if "__pycache__" not in path}
    assert after == before


def test_folder_without_configuration_is_refused() -> None:
    Path("luigi.cfg").unlink()
    ran = run_new("orders", "https://api.example.com/orders")
    assert ran.returncode == 1
    last = "ERROR: there is no luigi.cfg in this folder: make the folder a project with wholeday init"
    assert ran.stderr.splitlines()[-1] == last


def test_failed_load_leaves_nothing(server: Server) -> None:
    """The load is the last step: it refuses the table of another program."""
    Path("data").mkdir()
    execute("create table orders (note text)")
    before = list_paths(), Path("luigi.cfg").read_bytes()
    ran = run_new("orders", server.on("/orders", Answer(orders())))
    assert ran.returncode == 1
    assert "orders" in ran.stderr.splitlines()[-1]
    assert (list_paths(), Path("luigi.cfg").read_bytes()) == before
    assert query("select count(*) from orders") == [(0,)]


def test_day_that_fails_at_a_gate_leaves_nothing(server: Server) -> None:
    """No class holds a NUL character, so all records are rejects: the files are written by then."""
    Path("data").mkdir()
    before = list_paths(), Path("luigi.cfg").read_bytes()
    ran = run_new("orders", server.on("/orders", Answer([{"id": each, "name": "a\0"} for each in range(7)])))
    assert ran.returncode == 1
    assert "7 of 7 records are rejected" in ran.stderr
    assert (list_paths(), Path("luigi.cfg").read_bytes()) == before


def list_paths() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in str(path))


def test_other_times_of_change_are_read_by_clean(server: Server) -> None:
    records = [{"sid": f"SM{each}", "date_updated": "Fri, 20 Nov 2026 10:00:00 +0000"} for each in range(3)]
    ran = run_new("messages", server.on("/messages", Answer(records)))
    assert ran.returncode == 0, ran.stderr
    assert query("select distinct updated_at from messages") == [("2026-11-20T10:00:00.000000Z",)]


def test_written_module_is_short(server: Server) -> None:
    """A record with forty fields has the important ones as columns, and the rest in one column."""
    records = [{"id": each} | {f"field_{number}": number for number in range(40)} for each in range(3)]
    ran = run_new("things", server.on("/things", Answer(records)))
    assert ran.returncode == 0, ran.stderr
    text = Path("pipeline/things.py").read_text()
    (node,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "Thing")
    assert (node.end_lineno or 0) - node.lineno < 30
    (others,) = query("select others from things where id = 1")
    assert json.loads(others[0])["field_39"] == 39


def gain_fields(each: dict[str, Any]) -> dict[str, Any]:
    """Return an order with two more fields and a further list, one of the fields within the lines."""
    lines = [line | {"isGift": False} for line in each["lines"]["data"]]
    return each | {"channel": "web", "refunds": [{"id": each["id"], "amount": "1.00"}], "lines": {"data": lines}}


def test_update_adds_new_fields_and_reprocess_fills_old_days(server: Server) -> None:
    """The source gains two fields and a list between two days; the day with the new records is loaded without them."""
    today = dt.datetime.now(dt.UTC).date()
    days = (str(today - dt.timedelta(days=1)), str(today + dt.timedelta(days=1)))
    url = server.on("/orders", Answer(orders()))
    assert run_new("orders", url).returncode == 0
    server.on("/orders", Answer([gain_fields(order) for order in orders()]))
    assert run("python", "-m", "wholeday", "load", days[0], "--dataset", "orders").returncode == 0
    before = Path("pipeline/orders.py").read_text()

    shown = run_new("orders", "--update")
    assert shown.returncode == 0, shown.stderr
    assert Path("pipeline/orders.py").read_text() == before
    assert "nothing is written: add 3 columns with --yes" in shown.stdout
    written = run_new("orders", "--update", "--yes")
    added = [line[1:] for line in written.stdout.splitlines() if re.match(r"\+(?!\+)", line)]
    assert added == [
        '    is_gift: bool | None = Field("isGift")',
        *["", "", "class Refund(Record):", "    id: int = Field(primary_key=True)"],
        "    amount: Decimal = Field(max_digits=12, decimal_places=2)",
        "    channel: str | None",
        "    refunds: list[Refund] | None",
    ]
    command = re.search(r"wholeday (reprocess .*)", written.stdout)
    assert command
    assert run("python", "-m", "wholeday", *command[1].split()).returncode == 0
    assert query("select distinct channel from orders") == [("web",)]
    assert query("select count(*), sum(amount) from orders_refunds") == [(29, 29.0)]
    assert query("select distinct is_gift from orders_lines") == [(0,)]
    assert run("python", "-m", "wholeday", "verify", "--dataset", "orders").returncode == 0
    assert run_new("orders", "--update").stdout == "orders: the class lacks no field of 58 records\n"


def test_update_imports_what_new_lines_need(server: Server) -> None:
    """Of a class with few imports; a field that the column with rest=True holds is not proposed."""
    url = server.on("/things", Answer([{"id": 1, "name": "a"}]))
    assert run_new("things", url).returncode == 0
    server.on(
        "/things", Answer([{"id": 1, "name": "a", "guid": str(uuid.UUID(int=1)), "price": 1.25, "extra": {"1": 2}}])
    )
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert run("python", "-m", "wholeday", "load", str(day), "--dataset", "things").returncode == 0
    shutil.rmtree(next(Path("data/raw/things").glob(f"*{day + dt.timedelta(days=1)}")))  # without the new fields
    assert run_new("things", "--update", "--yes").returncode == 0
    columns = {column.name: (column.kind, column.is_nullable) for column in read_module("things")}
    new = {"guid": ("uuid", True), "price": ("decimal(12,2)", True), "extra": ("json", True)}
    assert columns | new == columns


def test_update_without_raw_files_is_one_line() -> None:
    ran = run_new("users", "--update")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "ERROR: dataset users has no raw records to look at: load a day first\n"


def describe_orders(**properties: Any) -> str:
    """Write an OpenAPI document of the endpoint /v1/orders, with its list at `data`; return its file."""
    item = {"type": "object", "required": ["id", "size", "note"], "properties": properties}
    answer = {
        "type": "object",
        "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}},
    }
    operation = {"responses": {"200": {"content": {"application/json": {"schema": answer}}}}}
    document = {
        "openapi": "3.1.0",
        "paths": {"/orders": {"get": operation}, "/{other}": {"get": {}}},
        "components": {"schemas": {"Item": {"allOf": [item]}}},
    }
    Path("openapi.json").write_text(json.dumps(document))
    return "openapi.json"


def test_openapi_sharpens_types_and_nulls(server: Server) -> None:
    """The records have the last word: `text` is declared as a number, and `note` as never null."""
    records = [{"id": 1, "size": 1, "zone": "12", "text": "many", "gone": None, "note": None, "plan": "a"}]
    file = describe_orders(
        id={"type": "integer"},
        size={"type": "number"},
        zone={"type": "string"},
        text={"type": "integer"},
        gone={"type": ["string", "null"], "format": "date-time"},
        note={"type": "string"},
        plan={"type": "string"},
    )
    url = server.on("/v1/orders", Answer({"data": [{**records[0], "id": number, "note": None} for number in range(3)]}))
    ran = run_new("orders", url, "--openapi", file)
    assert ran.returncode == 0, ran.stderr
    columns = {column.name: (column.kind, column.is_nullable) for column in read_module("orders")}
    assert columns == {
        "id": ("integer", False),
        "size": ("float", False),
        "zone": ("text", True),
        "text": ("text", True),
        "gone": ("timestamp", True),
        "note": ("text", True),
        "plan": ("text", True),
        "updated_at": ("timestamp", True),
    }
    assert "unsure: the document declares text as int, and other values came: str" in ran.stdout


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("openapi: 3.1.0", "no OpenAPI document in JSON"),
        ('{"paths": {"/users": {"get": {}}}}', "no path /v1/orders"),
        ('{"paths": {"/v1/orders": {"get": {"responses": {}}}}}', "no field data"),
    ],
)
def test_unusable_openapi_is_one_line(server: Server, document: str, said: str) -> None:
    Path("openapi.txt").write_text(document)
    ran = run_new("orders", server.on("/v1/orders", Answer({"data": [{"id": 1}]})), "--openapi", "openapi.txt")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert not Path("pipeline/orders.py").exists()


def test_list_of_urls_writes_a_dataset_each(server: Server) -> None:
    """One that fails is one line; the others are written."""
    records = [{"id": number, "name": "a"} for number in range(3)]
    urls = {name: server.on(f"/v1/{name}", Answer(records)) for name in ("customers", "invoices")}
    missing = server.on("/v1/missing", Answer(status=404))
    lines = ["# of one source", urls["customers"], missing, f"bills {urls['invoices']}", ""]
    Path("urls.txt").write_text("\n".join(lines))
    ran = run_new("--from-list", "urls.txt", "--timezone", "Europe/Berlin")
    assert ran.returncode == 1
    assert re.findall(r"^ERROR: (\w+): .*404", ran.stderr, re.M) == ["missing"]
    assert sorted(path.name for path in Path("pipeline").glob("*.py")) == [
        "__init__.py",
        "bills.py",
        "customers.py",
        "users.py",
    ]
    assert query("select (select count(*) from bills) + (select count(*) from customers)") == [(6,)]
    assert Path("luigi.cfg").read_text().count("timezone = Europe/Berlin") == 2
    Path("urls.txt").write_text("https://api.example.com/\n")
    assert "urls.txt, line 1: write NAME URL" in run_new("--from-list", "urls.txt").stderr


def test_output_names_the_backfill_of_a_filtered_source(server: Server) -> None:
    """A day has only its changes. The printed backfill loads all records."""
    shape = SHAPES["scim"](server, 45, path="/people")
    flags = ["--auth", shape.auth, "--headers", '{"Accept": "application/scim+json"}']
    ran = run_new("people", shape.url, *flags, **shape.environment)
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"^all records: wholeday (backfill 2026-10-31 .+)$", ran.stdout, re.M)
    assert found
    loaded = run("python", "-m", "wholeday", *found[1].split(), **shape.environment)
    assert loaded.returncode == 0, loaded.stderr
    compare(read_module("people"), shape.describe_all(), "people")


def test_name_of_a_child_table_is_refused(server: Server) -> None:
    """Every later command would refuse two tables of one name."""
    assert run_new("orders", server.on("/orders", Answer(orders()))).returncode == 0
    ran = run_new("orders_lines", server.on("/lines", Answer([{"id": 1}])))
    assert ran.returncode == 1
    assert "orders_lines is the name of a table of the dataset orders" in ran.stderr
    assert not Path("pipeline/orders_lines.py").exists()


def test_doctor_needs_no_dataset(server: Server) -> None:
    """In a new project, and with the keys of a section as flags."""
    Path("pipeline/users.py").unlink()
    url = server.on("/orders", Answer([{"id": 1}]))
    ran = run("python", "-m", "wholeday", "doctor", url, "--timezone", "Europe/Berlin")
    assert ran.returncode == 0, ran.stderr
    assert "wholeday new NAME URL writes this section" in ran.stdout
    assert ran.stdout.endswith(f"\n[records]\nurl = {url}\ntimezone = Europe/Berlin\nmode = snapshot\n")


def test_few_dirty_keys_and_times_do_not_widen_the_class(server: Server) -> None:
    """They are rejects, and `new` says so. A key as text is accepted by lenient."""
    records: list[dict[str, Any]] = [{"id": each, "updated_at": "2026-11-20T10:00:00Z"} for each in range(201)]
    records[7]["id"], records[9]["updated_at"] = "7", "soon"
    ran = run_new("things", server.on("/things", Answer(records)))
    assert ran.returncode == 0, ran.stderr
    columns = {column.name: column.kind for column in read_module("things")}
    assert columns == {"id": "integer", "updated_at": "timestamp"}
    assert re.search(r"^unsure: 1 record would be rejected: updated_at", ran.stdout, re.M)
    assert "201 records, 1 reject, table things" in ran.stdout


def test_key_of_two_fields_is_the_only_doubt_about_the_key(server: Server) -> None:
    records = [{"user_id": each // 3, "team_id": each % 3} for each in range(9)]
    ran = run_new("members", server.on("/members", Answer(records)))
    doubts = [line for line in ran.stdout.splitlines() if line.startswith("unsure: ") and "identifies" in line]
    assert doubts == [
        "unsure: no field identifies a record alone; user_id, team_id together are distinct in 9 records: check the key"
    ]
