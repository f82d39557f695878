"""The page of `report`, in a real browser: what it says, how it looks, and that nothing leaves it."""

import datetime as dt
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support.browser import Browser, Page
from tests.support.days import change, make_days, note
from tests.support.orders import ORDERS
from tests.support.project import query, run, run_here
from wholeday import clock
from wholeday.commands.report import accumulate, build_charts, build_months, list_remedies, summarize, write_report
from wholeday.commands.status import read_status
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.tombstones import Tombstone, Tombstones
from wholeday.tasks.failures import Failure
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

NOW = dt.datetime(2026, 11, 25, 3, 30, tzinfo=dt.UTC)
LAST = dt.date(2026, 11, 24)
ATTACK = "<script>window.pwned = 1</script><img src=http://127.0.0.1:9/x onerror='pwned = 1'>\"'&amp;"

# Every text with the contrast to what is behind it, where that is below what WCAG asks for (AA).
CONTRAST = """
(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [.2126, .7152, .0722][n], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(element).backgroundColor);
      if (alpha) return [r, g, b];
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || element.closest('.hidden')) continue;
    const a = light(parse(element.closest('svg') ? style.fill : style.color)), b = light(behind(element));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push(walker.currentNode.data.trim() + ': ' + ratio.toFixed(2));
  }
  return low;
})()
"""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def make_trouble() -> None:
    """60 days: one is pruned, two are outdated, one is missing, one failed, and one failed before it was loaded."""
    make_days(LAST - dt.timedelta(days=59), 60)
    shutil.rmtree(read_workspace(USERS).folder("raw", dt.date(2026, 10, 2)).path)
    change("update loads set pruned_at = loaded_at where date = '2026-10-02'")
    change("update loads set transform_version = 'x' where date between '2026-11-03' and '2026-11-04'")
    change("delete from loads where date in ('2026-11-12', ?)", str(LAST))
    for date in (dt.date(2026, 11, 12), LAST):
        shutil.rmtree(read_workspace(USERS).folder("raw", date).path)
    note(
        Failure(
            NOW - dt.timedelta(days=10, hours=3, minutes=15), dt.date(2026, 11, 14), "extract", "503 for five tries"
        ),
        Failure(NOW, LAST, "transform", f"too many {ATTACK}"),
    )


def open_page(browser: Browser, path: str = "data/report.html") -> Page:
    """The page on a desk in the light, after it was looked at on a phone and in the dark too."""
    for width, dark in [(390, True), (390, False), (1280, True), (1280, False)]:
        page = browser.open(Path(path), width=width, height=844, dark=dark)
        look(page, width, dark)
    return page


def look(page: Page, width: int, dark: bool) -> None:
    """What must be so everywhere: nothing to complain of, no request; all fits, can be read, and is told in words."""
    assert (page.errors(), page.requests()) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    assert page.evaluate(CONTRAST) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    pictures, told = (
        f"document.querySelectorAll('{which}').length" for which in ("svg", "[role=img][aria-label] > svg")
    )
    assert page.evaluate(pictures) == page.evaluate(told)
    sizes = "[...document.querySelectorAll('svg text')].map(text => text.getScreenCTM().a)"
    assert all(scale * 11 > 9.5 for scale in page.evaluate(sizes))  # pixels that a letter is high


def test_a_year_of_days_is_a_page_that_begins_with_all_is_well(browser):
    """A month a table of the last twelve, five charts with their words, the newest loads."""
    make_days(LAST - dt.timedelta(days=364), 365)
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    text = page.text()
    assert re.match(
        r"users in sqlite:///data/warehouse.db\s+as of 2026-11-25 03:30 UTC\s+All is well\s+"
        r"All changes before 2026-11-25 00:00 UTC are loaded \(3 hours 30 minutes ago\).",
        text,
    )
    assert page.evaluate("document.title") == "users: All is well"
    assert re.findall(r"(?:December 2025|\w+ 2026)(?=\n)", text)[:12] == [
        "December 2025", *[f"{dt.date(2026, month, 1):%B} 2026" for month in range(1, 12)],
    ]  # fmt: skip
    assert Counter(page.evaluate("[...document.querySelectorAll('td[title]')].map(cell => cell.className)")) == {
        "loaded": 359, "open": 6,
    }  # fmt: skip
    words = page.evaluate("[...document.querySelectorAll('[role=img]')].map(chart => chart.ariaLabel)")
    assert [line.split(",")[0].split(":")[0] for line in words] == [
        "Records per day", "Changes per day", "Rejects per day", "Seconds per day", "Total users",
    ]  # fmt: skip
    assert re.fullmatch(
        r"Records per day, 2026-08-27 to 2026-11-24. Medians: records \d+, at most \d+. 0 days not loaded.", words[0]
    )
    (users,) = query("select count(*) from users_history where valid_to is null")[0]
    assert words[-1].endswith(f" to {users:,} since 2025-11-25.")
    newest = query("select extracted, inserted from loads where date = ?", str(LAST))[0]
    row = page.evaluate("[...document.querySelector('.loads tbody tr').cells].map(cell => cell.innerText)")
    assert row[:3] == [str(LAST), *map(str, newest)]


def test_what_is_wrong_comes_first_with_the_command_that_mends_it(browser):
    """The gravest first; each day in the calendar by a word too, not by its colour alone; what is over is told last."""
    make_trouble()
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    assert page.evaluate("document.querySelector('h1').innerText") == "1 day failed, 1 day missing, 2 days outdated"
    remedies = page.evaluate("[...document.querySelectorAll('.remedies li')].map(item => item.innerText)")
    assert [re.sub(r"\s+", " ", remedy) for remedy in remedies] == [
        f"failed 2026-11-24 transform: too many {ATTACK} wholeday backfill 2026-11-24 2026-11-25",
        "missing 2026-11-12 not loaded wholeday backfill 2026-11-12 2026-11-13",
        "outdated 2026-11-03..2026-11-04 transformed by another version wholeday reprocess 2026-11-03 2026-11-05",
    ]
    ill = "document.querySelectorAll('td[title]:not(.loaded, .open)')"
    cells = page.evaluate(f"[...{ill}].map(cell => cell.title + '|' + cell.textContent)")
    assert [re.sub(r", \d+ records?, \d+ rejected", "", cell) for cell in cells] == [
        "2026-10-02: loaded, files pruned|2",
        "2026-11-03: outdated|3, outdated",
        "2026-11-04: outdated|4, outdated",
        "2026-11-12: missing|12, missing",
        "2026-11-24: failed|24, failed",
    ]
    assert "loaded, 55" in page.text()
    assert "2 days not loaded." in page.evaluate("document.querySelector('[role=img]').ariaLabel")
    recovered = (
        r"Failures of days that are loaded now\s+2026-11-14 extract, at 2026-11-15 00:15 UTC\s+503 for five tries"
    )
    assert re.search(recovered, page.text())


def test_where_nothing_is_loaded_the_page_says_what_to_do(browser):
    """And what failed, where the first day did."""
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    assert "Nothing is loaded yet\n\nLoad the first days with wholeday backfill START STOP" in page.text()
    note(Failure(NOW, LAST, "extract", "no route to host"))
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    text = open_page(browser).text()
    assert "1 day failed" in text
    assert "no route to host" in text
    assert "November 2026" in text


def test_no_text_of_the_data_becomes_a_part_of_the_page(browser):
    """A failure's line, a reason for rejects, an outdated day's and the database's name are shown as written."""
    make_trouble()
    change("update rejects set reason = ?, field = null", ATTACK)
    read_workspace(USERS).folder("raw", dt.date(2026, 11, 20)).path.joinpath("manifest.json").write_text("x")
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    assert page.text().count(ATTACK) == 2
    assert page.evaluate("[document.scripts.length, document.images.length, typeof pwned]") == [0, 0, "undefined"]


def test_the_policy_of_the_page_lets_nothing_run_and_nothing_be_asked_for(browser, server):
    """Even if a text did become a part of it."""
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    attack = f"<script>window.pwned = 1</script><img src={server.url}/x><link rel=stylesheet href={server.url}/y>"
    page = Path("data/report.html").read_text()
    Path("attacked.html").write_text(page.replace("</main>", f"{attack}</main>"))
    attacked = browser.open(Path("attacked.html"))
    assert attacked.evaluate("[document.scripts.length, document.images.length, typeof pwned]") == [1, 1, "undefined"]
    assert len(attacked.errors()) == 3
    assert all("Content Security Policy" in error for error in attacked.errors())
    assert server.requests == []


def test_each_dataset_has_its_part_of_the_page(browser, configure):
    """Each with its own verdict; no part takes anything of another's."""
    configure("orders", url="demo://users")
    make_days(LAST - dt.timedelta(days=4), 5)
    write_report([read_workspace(USERS), read_workspace(ORDERS)], Path("both.html"), 90)
    page = open_page(browser, path="both.html")
    assert page.evaluate("[...document.querySelectorAll('section h1')].map(title => title.innerText)") == [
        "All is well", "Nothing is loaded yet",
    ]  # fmt: skip
    assert page.evaluate("document.title") == "users, orders: All is well; Nothing is loaded yet"


def test_the_command_says_where_the_page_is_and_replaces_it_whole(capsys):
    """In data_dir, or where it is asked for; where it cannot be made the one before stays, with nothing beside it."""
    make_days(LAST - dt.timedelta(days=4), 5)
    assert run_here(capsys, "report") == ("data/report.html: open it in a browser\n", "", 0)
    page = Path("data/report.html").read_bytes()
    other = run_here(capsys, "report", "made/of me/page.html", "--days", "3")
    assert other == ("made/of me/page.html: open it in a browser\n", "", 0)
    assert b"Days 2026-11-22 to 2026-11-24" in Path("made/of me/page.html").read_bytes()
    Path("data/failures").mkdir()
    Path("data/failures/users.jsonl").write_text("{}\n")
    out, err, code = run_here(capsys, "report")
    assert (out, code) == ("", 1)
    assert re.fullmatch(r"ERROR: cannot read the failures in data/failures/users.jsonl .*", err)
    assert Path("data/report.html").read_bytes() == page
    assert {path.name for path in Path("data").iterdir()} == {
        "clean", "failures", "raw", "report.html", "warehouse.db",
    }  # fmt: skip


def test_a_folder_in_the_place_of_the_page_is_named_and_nothing_is_left_beside_it(capsys):
    """By the path that was given."""
    Path("pages/a").mkdir(parents=True)
    out, err, code = run_here(capsys, "report", "pages/a")
    assert (out, code) == ("", 1)
    assert err.startswith("ERROR: pages/a: Is a directory: ")
    assert [path.name for path in Path("pages").iterdir()] == ["a"]


def test_a_service_without_a_home_can_make_the_page():
    """In a process of its own, with nothing on stderr."""
    result = run("python", "-m", "wholeday", "report", HOME="/proc/nobody")
    assert (result.stdout, result.stderr, result.returncode) == ("data/report.html: open it in a browser\n", "", 0)


def test_the_same_days_make_the_same_page():
    """To the byte: a page kept under version control changes only where something changed."""
    make_days(LAST - dt.timedelta(days=4), 5)
    for name in ("a.html", "b.html"):
        write_report([read_workspace(USERS)], Path(name), 90)
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_the_total_grows_as_the_history_says():
    """By users who came and went, at the end of each day; what lies before the first day is in its total."""
    assert open_warehouse(read_workspace(USERS)).compute_growth() == {}
    make_days(LAST - dt.timedelta(days=9), 10)
    growth = open_warehouse(read_workspace(USERS)).compute_growth()
    counted = "select count(*) from users_history where valid_from < ?1 and (valid_to is null or valid_to >= ?1)"
    days = [LAST - dt.timedelta(days=number) for number in range(9, -1, -1)]
    assert accumulate(growth, days[0], LAST) == [query(counted, str(day + dt.timedelta(days=1)))[0][0] for day in days]
    assert accumulate(growth, days[4], LAST) == accumulate(growth, days[0], LAST)[4:]
    assert accumulate(growth, days[0], days[4]) == accumulate(growth, days[0], LAST)


def test_whom_a_snapshot_does_not_list_is_deleted():
    """For who looks at the charts it is the same as a record that says so."""
    make_days(LAST - dt.timedelta(days=9), 10)
    change("update loads set deleted = 2, vanished = 3")
    status = read_status(read_workspace(USERS))
    chart = build_charts(status, [marker.date for marker in status.loads])[1]
    assert chart.caption.endswith(" updated, 5 deleted")


@pytest.mark.parametrize(
    ("few", "many", "told"), [(0, 1, "0.5"), (12, 13, "12"), (99, 100, "100"), (1204, 1205, "1,204")]
)
def test_the_median_of_the_charts_is_a_number_to_be_read(few: int, many: int, told: str) -> None:
    """Between two days it has a half, and to round that must not make powers of ten."""
    make_days(LAST - dt.timedelta(days=1), 2)
    change(f"update loads set deleted = case date when '{LAST}' then {many} else {few} end")
    status = read_status(read_workspace(USERS))
    chart = build_charts(status, [marker.date for marker in status.loads])[1]
    assert chart.caption.endswith(f" updated, {told} deleted")


def test_a_day_of_which_nothing_is_known_is_not_in_the_calendar():
    """Between one that failed and the first that is loaded, say."""
    make_days(LAST - dt.timedelta(days=1), 2)
    note(Failure(NOW, dt.date(2026, 9, 30), "extract", "down"))
    status = read_status(read_workspace(USERS))
    cells = [cell for month in build_months(status, status.get_states()) for week in month.weeks for cell in week]
    assert [(str(cell.date), cell.state) for cell in cells if cell] == [
        ("2026-09-30", "failed"),
        ("2026-11-23", "loaded"),
        ("2026-11-24", "loaded"),
        *((f"2026-11-{day}", "open") for day in range(25, 31)),
    ]


def tell_remedies() -> tuple[str, list[tuple[str, str]]]:
    """The verdict, and the days of each remedy."""
    status = read_status(read_workspace(USERS))
    remedies = list_remedies(status)
    return summarize(status, remedies)[1], [(remedy.state, remedy.days) for remedy in remedies]


def test_a_snapshot_that_was_not_taken_is_missing_for_good(configure):
    """Only today's can be made up for; the headline does not say that all is well above a missing day."""
    make_days(LAST - dt.timedelta(days=4), 5)
    change("delete from loads where date = '2026-11-22'")
    shutil.rmtree(read_workspace(USERS).folder("raw", dt.date(2026, 11, 22)).path)
    assert tell_remedies() == ("1 day missing", [("missing", "2026-11-22")])
    change("update loads set mode = 'snapshot'")
    configure("users", mode="snapshot", settle="4 hours")
    today = str(NOW.date())
    assert tell_remedies() == ("2 days missing", [("missing", today), ("missing", "2026-11-22")])
    make_days(NOW.date(), 1)
    change("update loads set mode = 'snapshot'")
    assert tell_remedies() == ("1 day missing", [("missing", "2026-11-22")])
    assert [remedy.command for remedy in list_remedies(read_status(read_workspace(USERS)))] == [""]


def test_all_is_not_well_above_a_collapse(browser):
    """A day on which many rows, or many values of a column, were lost comes before the charts that show it."""
    make_days(LAST - dt.timedelta(days=9), 10)
    before, total = accumulate(
        open_warehouse(read_workspace(USERS)).compute_growth(), LAST - dt.timedelta(days=9), LAST
    )[-2:]
    at, date = f"{LAST}T12:00:00.000000Z", str(LAST)
    change(
        "insert or replace into _users_events (load_date, user_id, at, _state) "
        "select ?, user_id, ?, 1 from users_history where valid_to is null order by user_id limit ?",
        *(date, at, total - 20),
    )
    details = f'{{"nulled": {{"email": {total - 20}, "city": 4}}, "absent": {{"email": 100}}}}'
    change("update loads set vanished = ?, details = ? where date = ?", total - 20, details, date)
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    lost = f"users fell from {before} to 20 rows", f"{total - 20} values of email became null"
    assert page.evaluate("document.querySelector('h1').innerText") == ", ".join(f"{loss} on {LAST}" for loss in lost)
    remedies = page.evaluate("[...document.querySelectorAll('.remedies li')].map(item => item.innerText)")
    pointer = "docs/operating.md, a day was read while the source was wrong"
    assert [re.sub(r"\s+", " ", remedy) for remedy in remedies] == [f"lost {LAST} {loss} {pointer}" for loss in lost]
    row = page.evaluate("[...document.querySelector('.loads tbody tr').cells].map(cell => cell.innerText)")
    heads = page.evaluate("[...document.querySelectorAll('.loads thead th')].map(cell => cell.innerText)")
    shown = dict(zip(heads, row, strict=True))
    assert shown["vanished"] == str(total - 20)
    removed = page.evaluate("[...document.querySelectorAll('.removed')].map(line => line.innerText)")
    assert removed == [f"{LAST} nulled: email {total - 20}, city 4; absent: email 100"]


def test_a_day_with_raw_files_that_is_not_loaded_is_told_once():
    """As missing: its Load task goes on where it is; only a day that is loaded is called outdated."""
    make_days(LAST - dt.timedelta(days=4), 5)
    change("delete from loads where date in ('2026-11-22', '2026-11-23')")
    note(Failure(NOW, dt.date(2026, 11, 23), "transform", "too many rejects"))
    assert tell_remedies() == (
        "1 day failed, 1 day missing", [("failed", "2026-11-23"), ("missing", "2026-11-22")],
    )  # fmt: skip


def test_keys_that_are_not_wholly_forgotten_are_not_well():
    """Though every day is loaded."""
    make_days(LAST - dt.timedelta(days=4), 5)
    Tombstones("data", "users").add([Tombstone((42,), NOW)])
    assert tell_remedies() == ("1 key not fully erased", [("outdated", "every day")])


def test_a_long_outage_is_told_shortly():
    """The newest failures with their lines, the others in one; days in many pieces by the newest pieces."""
    make_days(LAST - dt.timedelta(days=99), 100)
    dates = [LAST - dt.timedelta(days=number) for number in range(0, 90, 2)]
    for date in dates:
        change("delete from loads where date = ?", str(date))
    note(*(Failure(NOW - dt.timedelta(hours=number), date, "extract", "down") for number, date in enumerate(dates)))
    failed = [remedy for remedy in list_remedies(read_status(read_workspace(USERS))) if remedy.state == "failed"]
    assert len(failed) == 15
    assert [remedy.days for remedy in failed[:2]] == ["2026-11-24", "2026-11-22"]
    assert re.fullmatch(r"19 other ranges before, 2026-10-05, .*, 2026-10-27", failed[-1].days)
    assert failed[-1].command == "wholeday backfill 2026-08-28 2026-10-28"
