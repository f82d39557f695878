"""Define the contenders: their environment, their commands, and the work that they leave out."""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
FIRST, UPSERT, SKIP, BACKFILL, POSTGRES, SLOW, WINDOWS = (
    *("first", "upsert", "skip", "backfill", "postgres"),
    *("slow", "windows"),
)


class Contender(NamedTuple):
    """A program that loads the users of URLs into a table of a SQLite file.

    `requirements` define its environment; without any it runs in ours. `programs` must be installed on the machine.
    `commands` are named after the ability. Their placeholders are `{bin}` (the programs of its environment),
    `{folder}`, `{database}`, `{url}`, `{windows}` (the URL of the source with a cursor), `{date}` and `{yesterday}`;
    for a backfill `{urls}`, `{root}`, `{start}` and `{stop}`; for PostgreSQL `{server}` (the URL of a database, without
    a scheme) and `{schema}`. `leaves_out` names the part of our work that it does not do. `largest` is the largest
    number of users to measure.
    """

    name: str
    commands: dict[str, tuple[str, ...]]
    leaves_out: str
    requirements: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    largest: int = 1_000_000
    table: str = "users"


def run_python(name: str) -> tuple[str, ...]:
    return "{bin}/python", str(HERE / name), "{database}", "{url}"


def run_bash(name: str) -> tuple[str, ...]:
    return "bash", str(HERE / name), "{bin}", "{database}", "{url}"


def give(command: tuple[str, ...], *abilities: str) -> dict[str, tuple[str, ...]]:
    """Map each ability to the same command."""
    return dict.fromkeys(abilities, command)


LUIGI = ("{bin}/luigi", "--module", "pipeline")
BACK = ("{bin}/python", "-m", "wholeday", "backfill")
SETTINGS = ("--pipeline-data-dir", "{folder}/data", "--local-scheduler", "--log-level", "WARNING")
SQLITE = ("--pipeline-database", "sqlite:///{database}")
SERVER = ("--pipeline-database", "postgresql+psycopg://{server}?options=-csearch_path={schema}")
SNAPSHOT = ("--users-url", "{url}", "--users-mode", "snapshot", "--users-paginator", "link_header")
DAYS = ("--users-url", "{root}/days/{{date}}", "--users-paginator", "single")
MANY = ("--users-concurrency", "16")
CURSOR = ("--users-paginator", "cursor", "--users-cursor-path", "X-Next-Cursor", "--users-cursor-param", "cursor")
CHANGES = ("--date", "{yesterday}", "--users-url", "{windows}", "--users-mode", "incremental", *CURSOR, *MANY)

OURS = Contender(
    "this pipeline",
    {
        **give((*LUIGI, "LoadUsers", "--date", "{date}", *SNAPSHOT, *SETTINGS, *SQLITE), FIRST, UPSERT, SKIP),
        **give((*LUIGI, "LoadUsers", "--date", "{date}", *SNAPSHOT, *SETTINGS, *SERVER), POSTGRES),
        SLOW: (*LUIGI, "LoadUsers", "--date", "{date}", *SNAPSHOT, *MANY, *SETTINGS, *SQLITE),
        WINDOWS: (*LUIGI, "LoadUsers", *CHANGES, "--users-split", "24", *SETTINGS, *SQLITE),
        BACKFILL: (*BACK, "{start}", "{stop}", *DAYS, *SETTINGS, *SQLITE),
    },
    "nothing",
    largest=5_000_000,
)
ONE_WINDOW = Contender(
    "this pipeline, one window", {WINDOWS: (*LUIGI, "LoadUsers", *CHANGES, *SETTINGS, *SQLITE)}, "nothing"
)
IN_SQLITE = Contender("this pipeline, into SQLite", {POSTGRES: OURS.commands[FIRST]}, "nothing", largest=5_000_000)
FLOOR = Contender(
    "the floor",
    {
        **give(run_python("floor.py"), FIRST, UPSERT, SLOW),
        BACKFILL: ("{bin}/python", str(HERE / "floor.py"), "{database}", "{urls}"),
    },
    "raw, checks, cleaning, rejects, history, counts, marker",
    largest=5_000_000,
)
HELP = Contender("luigi --help", {SKIP: ("{bin}/luigi", "--help")}, "everything", table="")
CONTENDERS = (
    OURS,
    ONE_WINDOW,
    IN_SQLITE,
    FLOOR,
    HELP,
    Contender(
        "the plain script",
        {
            **give(run_python("script.py"), FIRST, UPSERT, SLOW),
            BACKFILL: ("{bin}/python", str(HERE / "script.py"), "{database}", "{urls}"),
        },
        "raw, checks, rejects, history, counts, marker",
        largest=5_000_000,
    ),
    Contender(
        "pandas, to_sql",
        give(run_python("pandas_to_sql.py"), FIRST, UPSERT, SLOW),
        "raw, checks, rejects, history, counts, marker",
    ),
    Contender(
        "Luigi's CopyToTable",
        give(run_python("luigi_copy.py"), FIRST, SKIP),
        "updates (it appends), checks, rejects, history, counts",
        ("luigi", "requests", "SQLAlchemy<2"),
    ),
    Contender(
        "dlt, REST source",
        {
            **give(run_python("dlt_rest.py"), FIRST, UPSERT, SLOW),
            POSTGRES: (*run_python("dlt_rest.py"), "postgresql://{server}", "{schema}"),
        },
        "unchanged raw, checks, rejects, history, cleaning, rows and marker in one transaction",
        ("dlt[sqlalchemy,postgres]",),
    ),
    Contender(
        "Singer, by Meltano's SDK",
        give(run_bash("singer.sh"), FIRST, UPSERT, SLOW),
        "raw, checks, rejects, history, counts, marker, cleaning",
        ("singer-sdk",),
    ),
    Contender(
        "curl, jq, sqlite-utils upsert",
        give(run_bash("sqlite_utils.sh"), FIRST, UPSERT),
        "raw, checks, rejects, history, counts, marker, cleaning",
        ("sqlite-utils",),
        ("curl", "jq"),
    ),
    Contender(
        "curl, jq, sling",
        give(run_bash("sling.sh"), FIRST, UPSERT),
        "checks, rejects, history, counts, marker, cleaning",
        ("sling-linux-amd64",),
        ("curl", "jq"),
    ),
)
