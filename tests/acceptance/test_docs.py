"""Run the commands of the README and of docs/ as written, and compare their output."""

import ast
import configparser
import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from docs import commands
from pipeline.users import USERS
from tests.support import ROOT, databases, find_port
from tests.support.clones import fork_commands, make_clone
from tests.support.command_line import parse
from tests.support.forge import TOKEN, Forge
from tests.support.mailserver import MailServer
from tests.support.pages import Block, Reader, read_blocks, read_queries
from tests.support.project import add_dataset, execute, luigi_run, query, run
from tests.support.reading import DAY, make_user
from tests.support.server import Answer, Request, Server
from tests.support.store import DATASETS, Store, incremental, make_dataset, user
from tests.support.terminal import run_on_terminal
from wholeday import guides
from wholeday.commands import cli
from wholeday.config.pipeline import Pipeline
from wholeday.schema import lenient
from wholeday.schema.kinds import TYPES
from wholeday.schema.record import FieldOptions
from wholeday.schema.reject import Reject
from wholeday.schema.tables import LOADS
from wholeday.storage.manifest import CleanManifest, RawManifest
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "reference" / "configuration.md").read_text()
RECORD_CLASSES = (ROOT / "docs" / "reference" / "record-classes.md").read_text()
TUTORIAL = [
    "docs/tutorial/index.md",
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs" / "tutorial").glob("[0-9]*"))),
]
OPERATING = [
    f"docs/how-to/{name}.md"
    for name in ("schedule", "alerts", "failed-day", "backfill", "change-a-column", "erase-a-person", "prune")
]
SOURCES = [
    *(f"docs/how-to/{name}.md" for name in ("query-files", "line-items", "cursor-api")),
    "docs/reference/record-classes.md",
]
GROWTH = [f"docs/how-to/{name}.md" for name in ("postgresql", "object-storage", "spark", "many-machines")]
ORDERS = [
    {
        "id": f"6f9619ff-8b86-d011-b42d-00cf4fc964f{number}",
        "customer": {"id": number},
        "status": status,
        "total_price": total,
        "created": 1763632800,
        "metadata": {"source": "web"},
        "lines": {"data": lines, "has_more": False},
        "updated_at": "2026-11-20T10:00:00Z",
    }
    for number, status, total, lines in (
        (
            *(1, "paid", "31.50"),
            [
                {"id": 1, "variant": {"sku": "tea-1"}, "price": "10.50", "quantity": 2},
                {"id": 2, "variant": {"sku": "cup-7"}, "price": 10.5, "quantity": 1},
            ],
        ),
        (2, "open", 0.1, [{"id": 3, "variant": {"sku": "tea-1"}, "price": "0.10", "quantity": 1}]),
    )
]
SITE = "wholeday.github.io/wholeday/"
FILES = "https://github.com/wholeday/wholeday/blob/main/"
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


@pytest.mark.timeout(300)
def test_readme_examples_match_their_output(checkout, server):
    """A local server replaces the public API. The commands run in the environment of `./run.sh`."""
    server.on("/v1/orders", Answer(ORDERS))
    with Reader({"https://api.example.com": server.url}, PATH=find_programs(checkout)) as reader:
        reader.follow("README.md")


def test_tutorial_query_finds_deleted_users():
    """The example deletes no user. Here a snapshot lists none of the earlier users."""
    assert luigi_run("LoadUsers", "--date", "2026-11-20").returncode == 0
    users = query("select user_id from users order by user_id")
    url = "demo://users?as_of=2016-01-02T00:00:00Z"  # its first twenty users
    snapshot = luigi_run(
        "LoadUsers", "--date", "2026-11-21", "--users-url", url, "--users-mode", "snapshot", "--users-accept"
    )
    assert snapshot.returncode == 0, snapshot.stderr
    ((as_of,),) = query("select as_of from loads where mode = 'snapshot'")
    (block,) = (block for block in read_blocks("docs/tutorial/3-incremental.md") if "who was deleted" in block.text)
    assert query(read_queries(block.text)[-1].code) == [(user_id, as_of) for (user_id,) in users]


@pytest.mark.timeout(300)
def test_tutorial_examples_match_their_output(checkout):
    """One reader follows all pages. Luigi's scheduler gets a free port."""
    port = str(find_port())
    central = checkout / "central.cfg"
    central.write_text(central.read_text().replace("8082", port))
    with Reader({"wholeday luigid ": f"wholeday luigid --port {port} "}) as reader:
        for page in TUTORIAL:
            reader.follow(page)


@pytest.mark.timeout(300)
def test_guide_of_an_own_api_matches_its_output(checkout, server):
    server.on("/v1/orders", Answer(ORDERS))
    with Reader({"https://api.example.com": server.url}, PATH=find_programs(checkout)) as reader:
        reader.follow("docs/how-to/your-own-api.md")
    secrets = [request.headers.get("Authorization") for request in server.requests]
    assert secrets.count(None) == 1  # `check` finds out whether the secret is needed
    assert set(secrets) == {None, "Bearer 0123456789abcdef"}


@pytest.mark.timeout(300)
def test_guides_of_sources_match_their_output(checkout, server):
    """One reader follows them. The server has a list of orders, and users on two pages with a cursor."""
    server.on("/v1/orders", Answer(ORDERS))

    def show_page(request: Request) -> Answer:
        users = [make_user(number, "2026-11-20T10:00:00Z") for number in ((1, 2), (3,))["cursor" in request.query]]
        return Answer({"data": users, "meta": {"next_cursor": None if "cursor" in request.query else "c2"}})

    server.on("/v1/users", show_page)
    with Reader({"https://api.example.com": server.url}, PATH=find_programs(checkout)) as reader:
        for page in SOURCES:
            reader.follow(page)


@pytest.mark.timeout(300)
def test_operating_guides_match_their_output(checkout, server, tmp_path_factory):
    """One reader follows the guides. Cron uses its own clone and loads three days. Webhook and mail go to loopback."""
    hook = server.on("/services", Answer("ok"))
    place = make_clone(tmp_path_factory.mktemp("opt"))
    fork_commands(place)
    start = USERS.config().last_closed_day(dt.datetime.now(dt.UTC)) - dt.timedelta(days=2)
    with MailServer() as mails:
        replace = {
            "/opt/wholeday": str(place),
            "--start 2026-11-01": f"--start {start}",
            "https://hooks.example.com/services/T0/B0/secret": hook,
            "host = smtp.example.com": f"host = 127.0.0.1\nport = {mails.port}",
        }
        with Reader(replace, PATH=find_programs(checkout)) as reader:
            for page in OPERATING:
                reader.follow(page)
    assert [json.loads(request.body)["stage"] for request in server.requests] == ["trial", "late", "extract"]
    (mail,) = mails.received
    assert "To: data@example.com" in mail
    assert "ExtractUsers" in mail
    assert len(databases.query(f"sqlite:///{place}/data/warehouse.db", "select date from loads")) == 3


@pytest.mark.timeout(300)
def test_guides_of_growth_match_their_output(checkout, cluster, running, spark):
    """PostgreSQL, the bucket and luigid are real. Spark does not start, because a day has one part."""
    del spark
    port = str(find_port())
    (checkout / "central.cfg").write_text((ROOT / "central.cfg").read_text().replace("8082", port))
    replace = {
        "loader@db.example.com/warehouse": f"page@/page?host={cluster.folder}&port={cluster.port}",
        "?options=": "&options=",
        "createuser loader": "createuser page",
        "createdb --owner loader warehouse": "createdb --owner page page",
        "s3://bucket/prefix": running.locate("bucket/page"),
        "spark://host:7077": "local[2]",
        "wholeday luigid ": f"wholeday luigid --port {port} ",
        "scheduler_port = 8082": f"scheduler_port = {port}",
    }
    server = {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGUSER": "postgres"}
    with Reader(replace, PATH=find_programs(checkout), **server) as reader:
        for page in GROWTH:
            reader.follow(page)
    url = f"postgresql+psycopg://page@/page?host={cluster.folder}&port={cluster.port}&options=-csearch_path=users"
    assert len(databases.query(url, "select date from loads")) == 8
    assert "raw/users/date=2026-11-18/manifest.json" in running.dump(running.locate("bucket/page"))


def test_history_queries_match_their_output(new_database, monkeypatch):
    """Loads the days of the page into each database."""
    state = {"updated_at": dt.datetime}
    customers = make_dataset("customers", {"customer_id": int, "plan": str, **state}, "customer_id")
    orders = make_dataset(
        "orders", {"order_id": str, "customer_id": int, "status": str, **state}, "order_id", "customer_id"
    )
    url, a, b = new_database(), ("A", 1), ("B", 2)
    for dataset, days in (
        (customers, {20: [(1, "free", 9), (2, "free", 10)], 21: [(1, "pro", 12)], 22: [(2, None, 8), (3, "free", 15)]}),
        (orders, {20: [(a, "open", 11)], 21: [(a, "paid", 9), (b, "open", 16)], 22: [(b, "paid", 7)]}),
    ):
        monkeypatch.setitem(DATASETS, dataset.name, dataset)
        store = Store(url, dataset.name)
        for date, records in days.items():
            said = [user(key, row, 24 * (date - 1) + hour, deleted=row is None) for key, row, hour in records]
            store.load(incremental(date, *said))
    examples = [
        example for block in read_blocks("docs/how-to/query-history.md") for example in read_queries(block.text)
    ]
    assert len(examples) == 9
    for sql, shown in examples:
        rows = databases.query(url, sql)
        assert [" | ".join(map(str, row)) for row in rows] == shown, sql


def test_every_page_with_examples_is_tested():
    """In this file or in test_airflow.py."""
    tests = "".join(Path(__file__).with_name(name).read_text() for name in ("test_docs.py", "test_airflow.py"))
    for page in PAGES:
        assert (
            page in (*TUTORIAL, *OPERATING, *SOURCES, *GROWTH)
            or all(block.language == "text" for block in read_blocks(page))
            or re.search(rf'(follow|read_blocks)\("{page}"\)', tests)
        ), page


def test_site_is_built_without_warnings(tmp_path):
    """Links and anchors between the pages are checked, and the navigation names each page."""
    build = "-m mkdocs build --strict --config-file"
    command = [sys.executable, *build.split(), ROOT / "mkdocs.yml", "--site-dir", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert (built.returncode, "WARNING" in built.stderr) == (0, False), built.stderr
    assert "A day is loaded wholly" in (tmp_path / "index.html").read_text()
    for page in tmp_path.rglob("*.html"):
        assert not re.search(rf'<(?:script|link|img)[^>]+(?:src|href)="https?://(?!{SITE})', page.read_text()), page


def test_reference_of_commands_is_that_of_the_program():
    """`python -m docs.commands` writes the page."""
    assert commands.PAGE.read_text() == commands.build_page()


def test_messages_name_existing_guides():
    """Each address is a page of the site and a heading on it."""
    addresses = [text for text in vars(guides).values() if isinstance(text, str) and text.startswith(f"https://{SITE}")]
    addresses += guides.OF_STAGES.values()
    assert len(addresses) > 3
    for address in addresses:
        page, _, anchor = address.removeprefix(f"https://{SITE}").partition("#")
        path = ROOT / "docs" / page.replace(".html", ".md")
        assert not anchor or anchor in list_anchors(path), address


def find_programs(checkout: Path) -> str:
    return f"{checkout}/.venv/bin:{os.environ['PATH']}"


def list_anchors(page: Path) -> list[str]:
    """List the anchors of the headings of a page: in lower case, with dashes for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_inline_commands_of_pages_are_valid():
    """A single word must be a command. Longer texts are parsed with their arguments and flags."""
    stand_ins = {
        "COMMAND": "status",
        "DATE": "2026-11-20",
        "START": "2026-11-20",
        "STOP": "2026-11-22",
        "URL": "demo://users",
    }
    own = ("help", "test", "test-fast", "bench")
    seen = 0
    for page in PAGES:
        for text in re.findall(r"`(?:\./run\.sh|wholeday) ([^`…]+)`", (ROOT / page).read_text()):
            words = [stand_ins.get(word, word) for word in shlex.split(text)]
            if words[0] in own or words[0].startswith("-"):
                continue
            assert words[0] in [entry.name for entry in cli.COMMANDS], text
            if len(words) > 1:
                parse(words)
                seen += 1
    assert seen > 5


def test_each_threat_model_row_names_a_test():
    """The README links to the page."""
    assert "(docs/explanation/promises.md)" in README
    text = (ROOT / "docs" / "explanation" / "promises.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|(---| an? .* can \|)", line)
    ]
    assert len(rows) > 40
    for row in rows:
        found = re.search(r"\| `(test_\w+\.py)::(test_\w+)` \|$", row)
        assert found, row
        (path,) = (ROOT / "tests").rglob(found[1])
        assert re.search(rf"^def {found[2]}\(", path.read_text(), re.MULTILINE), row


def test_every_key_is_in_the_reference():
    """Covers the sections [users] and [pipeline]."""
    for section in (USERS.config, Pipeline):
        for name, _ in section.get_params():
            assert f"`{name}`" in CONFIGURATION, name


def test_guide_shows_the_classes_of_the_example():
    """The example adds a docstring, and the tasks."""
    example = (ROOT / "examples" / "orders.py").read_text()
    (block,) = (block for block in read_blocks("docs/how-to/line-items.md") if "class Order(Record)" in block.text)
    assert block.text in example


def test_reference_names_each_argument_of_field():
    """Each row of the table names its arguments."""
    rows = "".join(re.findall(r"^\| `.*", RECORD_CLASSES.partition("| argument of `Field`")[2], re.MULTILINE))
    for name in FieldOptions.__dataclass_fields__.keys() - {"source"}:
        assert f"`{name}`" in rows, name


def test_reference_names_each_type_of_a_column():
    rows = "".join(re.findall(r"^\| `.*", RECORD_CLASSES.partition("| type | stored")[2], re.MULTILINE))
    for type_ in TYPES:
        assert f"`{type_.__name__}`" in rows, type_


def test_reference_names_each_lenient_conversion():
    """The module's own table, without the note for its readers."""
    rows = re.findall(r"^\| .*", lenient.__doc__, re.MULTILINE)
    assert len(rows) > 5
    for row in rows:
        assert row.replace(" (in `values`, which reads these)", "") in RECORD_CLASSES, row


@pytest.mark.parametrize(("path", "most"), [("pipeline/users.py", 30), ("examples/orders.py", 25)])
def test_dataset_is_a_short_file(path, most):
    """Imports, docstrings and blank lines do not count."""
    tree = ast.parse((ROOT / path).read_text())
    lines = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.Assign | ast.AnnAssign | ast.FunctionDef):
            lines.add(node.lineno)
    assert len(lines) <= most


def test_every_column_and_field_is_in_the_dictionary():
    """Covers stored tables, the view, both manifests and rejects."""
    declared = USERS.declared
    page = (ROOT / "docs" / "reference" / "data.md").read_text()
    sections = dict(re.findall(r"^###? (.+)\n((?:(?!##).*\n)+)", page, re.MULTILINE))
    for table in (*declared.stored, LOADS):
        for column in table.columns:
            assert f"`{column}`" in sections[table.name], f"{table.name}.{column}"
    for column in ("user_id", *declared.row, "valid_from", "valid_to"):
        assert f"`{column}`" in sections["users_history"]
    for name, kind in (("The raw manifest", RawManifest), ("The clean manifest", CleanManifest)):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in sections[name], f"{name}: {field.name}"
    for field in Reject.__struct_fields__:
        assert f"`{field}`" in sections["A reject"]


def test_section_of_windows_reads_a_day(server, configure):
    """Each window asks for its own bounds, and all records come."""

    def respond(request: Request) -> Answer:
        return Answer({"data": [{"id": int(re.sub(r"\D", "", request.query["from"]))}], "next": None})

    (block,) = read_blocks("docs/explanation/completeness.md")
    section = configparser.RawConfigParser()
    section.read_string(block.text)
    configure("users", **{**section["users"], "url": server.on("/users", respond)})
    stages.extract(read_workspace(USERS), dt.date(2026, 10, 31))
    raw = read_workspace(USERS).folder("raw", dt.date(2026, 10, 31)).read_manifest(RawManifest)
    assert (raw.keys, len(raw.parts), len({request.target for request in server.requests})) == (24, 24, 24)


def test_links_lead_to_existing_files_and_headings():
    """The site links to other files by URL."""
    for page in map(ROOT.__truediv__, PAGES):
        for target, anchor in re.findall(rf"\]\((?!https?:(?!{FILES[6:]}))([^)#]*)(?:#([^)]+))?\)", page.read_text()):
            if target.startswith(FILES):
                path = ROOT / target.removeprefix(FILES)
            else:
                path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in list_anchors(path), f"{page.name}: {target}#{anchor}"


def write_documented(page: Sequence[Block], url: str) -> dict[str, str]:
    """Write the datasets of docs/how-to/parents.md, and the sections of a page for a source. Return the environment."""
    repos, issues, _ = (block.text for block in read_blocks("docs/how-to/parents.md"))
    with Path("luigi.cfg").open("a") as file:
        file.write(page[-1].text.replace("https://api.example.com", url))
    return add_dataset("repos", repos) | add_dataset("issues", issues) | {"API_TOKEN": TOKEN}


def test_children_of_parents_load_as_documented(server: Server) -> None:
    forge = Forge(server, repos=4, issues=9, per_page=2)
    environment = write_documented(read_blocks("docs/how-to/parents.md"), forge.url)
    result = run("python", "-m", "wholeday", "load", str(DAY), "--dataset", "issues", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(query("select id, repo, title from issues")) == forge.rows
    _, issues, section = (block.text for block in read_blocks("docs/how-to/parents.md"))
    lines = [line for line in (issues + section.partition("[issues]")[2]).splitlines() if line.strip()]
    assert len(lines) <= 30


def test_parent_is_erased_as_documented(server: Server) -> None:
    """The commands name the datasets of the children."""
    forge = Forge(server, repos=4, issues=9, per_page=2)
    environment = write_documented(read_blocks("docs/how-to/parents.md"), forge.url)

    def call(*arguments: str) -> str:
        result = run("python", "-m", "wholeday", *arguments, **environment)
        assert (result.returncode, result.stderr) == (0, ""), arguments
        return result.stdout

    call("load", str(DAY), "--dataset", "issues")
    repo, own = max(forge.issues.items(), key=lambda item: len(item[1]))
    (number,) = (each["id"] for each in forge.repos if each["name"] == repo)
    shown = call("explain", "issues", str(own[0]["id"]))
    assert f"line 1, of the parent with owner org/{number % 3}, name {repo}:" in shown
    assert "orphans" not in call("status")
    execute(f"delete from repos where id = {number}")
    first = min(issue["id"] for issue in own)
    assert f"orphans: {len(own)} rows without a row in repos, such as {first}" in call("status")
    command = ("python", "-m", "wholeday", "forget", "repos", str(number))
    code, written = run_on_terminal(*command, columns=160, says="n\n")
    assert code == 1
    assert "from every file and table of repos, with all children in issues, for good? [y/N]" in written
    shown = call("forget", "repos", str(number), "--yes")
    assert f"issues: erased {len(own)} lines of the files and " in shown
    assert set(query("select id, repo, title from issues")) == {row for row in forge.rows if row[1] != repo}
    assert "issues: nothing differs" in call("verify")


def test_datasets_of_one_source_load_as_documented(server: Server) -> None:
    """With the classes of the page on parents."""
    forge = Forge(server, repos=4, issues=9, per_page=2)
    environment = write_documented(read_blocks("docs/how-to/several-datasets.md"), f"{forge.url}/")
    environment["XDG_CACHE_HOME"] = str(Path("cache").absolute())
    result = run("python", "-m", "wholeday", "load", str(DAY), "--dataset", "issues", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(query("select id, repo, title from issues")) == forge.rows
    urls = [f"{forge.url}/repos/{{repos.owner}}/{{repos.name}}/issues", f"{forge.url}/repos"]
    assert query("select dataset, source from loads order by 1") == list(zip(("issues", "repos"), urls, strict=True))
