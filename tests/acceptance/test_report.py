"""Render the page of `report` in a real browser and check its content, layout and network access."""

import datetime as dt
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.users import USERS
from tests.support.browser import Browser, Page
from tests.support.days import edit_warehouse, make_days, write_failures
from tests.support.orders import ORDERS
from tests.support.project import query, run, run_here
from wholeday import clock
from wholeday.commands.report import accumulate, build_charts, build_months, list_remedies, summarize, write_report
from wholeday.commands.status import read_status
from wholeday.guides import WRONG_SOURCE
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.tombstones import Tombstone, Tombstones
from wholeday.tasks.failures import Failure
from wholeday.tasks.stages import read_workspace

pytestmark = pytest.mark.slow

NOW = dt.datetime(2026, 11, 25, 3, 30, tzinfo=dt.UTC)
LAST = dt.date(2026, 11, 24)
ATTACK = "<script>window.pwned = 1</script><img src=http://127.0.0.1:9/x onerror='pwned = 1'>\"'&amp;"

# Lists texts whose contrast with the background is below WCAG level AA.
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
    """Make 60 days: one pruned, two outdated, one missing, one failed, and one loaded after a failure."""
    make_days(LAST - dt.timedelta(days=59), 60)
    shutil.rmtree(read_workspace(USERS).folder("raw", dt.date(2026, 10, 2)).path)
    edit_warehouse("update loads set pruned_at = loaded_at where date = '2026-10-02'")
    edit_warehouse("update loads set transform_version = 'x' where date between '2026-11-03' and '2026-11-04'")
    edit_warehouse("delete from loads where date in ('2026-11-12', ?)", str(LAST))
    for date in (dt.date(2026, 11, 12), LAST):
        shutil.rmtree(read_workspace(USERS).folder("raw", date).path)
    write_failures(
        Failure(
            NOW - dt.timedelta(days=10, hours=3, minutes=15), dt.date(2026, 11, 14), "extract", "503 for five tries"
        ),
        Failure(NOW, LAST, "transform", f"too many {ATTACK}"),
    )


def open_page(browser: Browser, path: str = "data/report.html") -> Page:
    """Open the page on a dark phone and on a light desktop. Return the latter."""
    for width, dark in [(390, True), (1280, False)]:
        page = browser.open(Path(path), width=width, height=844, dark=dark)
        look(page, width, dark)
    return page


def look(page: Page, width: int, dark: bool) -> None:
    """Check errors, requests, layout, contrast and accessible names."""
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
    assert all(scale * 11 > 9.5 for scale in page.evaluate(sizes))  # height of a letter in pixels


def test_yearly_report_starts_with_all_is_well(browser):
    """The page has twelve months, five charts with descriptions, and the newest loads."""
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


def test_problems_come_first_with_their_commands(browser):
    """The gravest comes first. The calendar uses words, not only colors. Recovered failures come last."""
    make_trouble()
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    for width, dark in [(390, False), (1280, True)]:
        look(browser.open(Path("data/report.html"), width=width, height=844, dark=dark), width, dark)
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


def test_report_without_loads_says_what_to_do(browser):
    """It also shows the failure of the first day."""
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    assert "Nothing is loaded yet\n\nLoad the first days with wholeday backfill START STOP" in page.text()
    write_failures(Failure(NOW, LAST, "extract", "no route to host"))
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    text = open_page(browser).text()
    assert "1 day failed" in text
    assert "no route to host" in text
    assert "November 2026" in text


def test_data_is_escaped(browser):
    """Failures, reject reasons, outdated days and the database name may contain HTML."""
    make_trouble()
    edit_warehouse("update rejects set reason = ?, field = null", ATTACK)
    read_workspace(USERS).folder("raw", dt.date(2026, 11, 20)).path.joinpath("manifest.json").write_text("x")
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    assert page.text().count(ATTACK) == 2
    assert page.evaluate("[document.scripts.length, document.images.length, typeof pwned]") == [0, 0, "undefined"]


def test_content_security_policy_blocks_scripts_and_requests(browser, server):
    """It is the second defense after escaping."""
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    attack = f"<script>window.pwned = 1</script><img src={server.url}/x><link rel=stylesheet href={server.url}/y>"
    page = Path("data/report.html").read_text()
    Path("attacked.html").write_text(page.replace("</main>", f"{attack}</main>"))
    attacked = browser.open(Path("attacked.html"))
    assert attacked.evaluate("[document.scripts.length, document.images.length, typeof pwned]") == [1, 1, "undefined"]
    assert len(attacked.errors()) == 3
    assert all("Content Security Policy" in error for error in attacked.errors())
    assert server.requests == []


def test_each_dataset_has_its_own_section(browser, configure):
    """Each section has its own verdict."""
    configure("orders", url="demo://users")
    make_days(LAST - dt.timedelta(days=4), 5)
    write_report([read_workspace(USERS), read_workspace(ORDERS)], Path("both.html"), 90)
    page = open_page(browser, path="both.html")
    assert page.evaluate("[...document.querySelectorAll('section h1')].map(title => title.innerText)") == [
        "All is well", "Nothing is loaded yet",
    ]  # fmt: skip
    assert page.evaluate("document.title") == "users, orders: All is well; Nothing is loaded yet"


def test_report_prints_path_and_replaces_file_atomically(capsys):
    """After an error the previous file stays, without leftover files."""
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


def test_report_path_that_is_a_folder_fails(capsys):
    """The error shows the given path, and no file is left behind."""
    Path("pages/a").mkdir(parents=True)
    out, err, code = run_here(capsys, "report", "pages/a")
    assert (out, code) == ("", 1)
    assert err.startswith("ERROR: pages/a: Is a directory: ")
    assert [path.name for path in Path("pages").iterdir()] == ["a"]


def test_report_works_without_a_home_folder():
    """Services often have none. Standard error stays empty."""
    result = run("python", "-m", "wholeday", "report", HOME="/proc/nobody")
    assert (result.stdout, result.stderr, result.returncode) == ("data/report.html: open it in a browser\n", "", 0)


def test_report_is_reproducible_to_the_byte():
    """In version control the file changes only with the data."""
    make_days(LAST - dt.timedelta(days=4), 5)
    for name in ("a.html", "b.html"):
        write_report([read_workspace(USERS)], Path(name), 90)
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_total_follows_the_history():
    """It counts new and deleted users at the end of each day, including days before the chart."""
    assert open_warehouse(read_workspace(USERS)).compute_growth() == {}
    make_days(LAST - dt.timedelta(days=9), 10)
    growth = open_warehouse(read_workspace(USERS)).compute_growth()
    counted = "select count(*) from users_history where valid_from < ?1 and (valid_to is null or valid_to >= ?1)"
    days = [LAST - dt.timedelta(days=number) for number in range(9, -1, -1)]
    assert accumulate(growth, days[0], LAST) == [query(counted, str(day + dt.timedelta(days=1)))[0][0] for day in days]
    assert accumulate(growth, days[4], LAST) == accumulate(growth, days[0], LAST)[4:]
    assert accumulate(growth, days[0], days[4]) == accumulate(growth, days[0], LAST)


def test_chart_counts_vanished_users_as_deleted():
    make_days(LAST - dt.timedelta(days=9), 10)
    edit_warehouse("update loads set deleted = 2, vanished = 3")
    status = read_status(read_workspace(USERS))
    chart = build_charts(status, [marker.date for marker in status.loads])[1]
    assert chart.caption.endswith(" updated, 5 deleted")


@pytest.mark.parametrize(
    ("few", "many", "told"), [(0, 1, "0.5"), (12, 13, "12"), (99, 100, "100"), (1204, 1205, "1,204")]
)
def test_chart_medians_are_readable(few: int, many: int, told: str) -> None:
    """An even count may give a half. Rounding must not produce powers of ten."""
    make_days(LAST - dt.timedelta(days=1), 2)
    edit_warehouse(f"update loads set deleted = case date when '{LAST}' then {many} else {few} end")
    status = read_status(read_workspace(USERS))
    chart = build_charts(status, [marker.date for marker in status.loads])[1]
    assert chart.caption.endswith(f" updated, {told} deleted")


def test_calendar_omits_unknown_days():
    """Such days lie between an early failure and the first loaded day."""
    make_days(LAST - dt.timedelta(days=1), 2)
    write_failures(Failure(NOW, dt.date(2026, 9, 30), "extract", "down"))
    status = read_status(read_workspace(USERS))
    cells = [cell for month in build_months(status, status.get_states()) for week in month.weeks for cell in week]
    assert [(str(cell.date), cell.state) for cell in cells if cell] == [
        ("2026-09-30", "failed"),
        ("2026-11-23", "loaded"),
        ("2026-11-24", "loaded"),
        *((f"2026-11-{day}", "open") for day in range(25, 31)),
    ]


def tell_remedies() -> tuple[str, list[tuple[str, str]]]:
    """Return the verdict, and the state and days of each remedy."""
    status = read_status(read_workspace(USERS))
    remedies = list_remedies(status)
    return summarize(status, remedies)[1], [(remedy.state, remedy.days) for remedy in remedies]


def test_past_snapshot_stays_missing(configure):
    """Only today's snapshot can still be extracted. The headline counts the missing day."""
    make_days(LAST - dt.timedelta(days=4), 5)
    edit_warehouse("delete from loads where date = '2026-11-22'")
    shutil.rmtree(read_workspace(USERS).folder("raw", dt.date(2026, 11, 22)).path)
    assert tell_remedies() == ("1 day missing", [("missing", "2026-11-22")])
    edit_warehouse("update loads set mode = 'snapshot'")
    configure("users", mode="snapshot", settle="4 hours")
    today = str(NOW.date())
    assert tell_remedies() == ("2 days missing", [("missing", today), ("missing", "2026-11-22")])
    make_days(NOW.date(), 1)
    edit_warehouse("update loads set mode = 'snapshot'")
    assert tell_remedies() == ("1 day missing", [("missing", "2026-11-22")])
    assert [remedy.command for remedy in list_remedies(read_status(read_workspace(USERS)))] == [""]


def test_headline_reports_mass_deletion(browser):
    """A day that lost many rows or values is listed above the charts."""
    make_days(LAST - dt.timedelta(days=9), 10)
    before, total = accumulate(
        open_warehouse(read_workspace(USERS)).compute_growth(), LAST - dt.timedelta(days=9), LAST
    )[-2:]
    at, date = f"{LAST}T12:00:00.000000Z", str(LAST)
    edit_warehouse(
        "insert into _users_past (user_id, updated_at, valid_from, valid_to) "
        "select user_id, updated_at, valid_from, ? from users order by user_id limit ?",
        *(at, total - 20),
    )
    edit_warehouse("delete from users where user_id in (select user_id from _users_past where valid_to = ?)", at)
    details = f'{{"nulled": {{"email": {total - 20}, "city": 4}}, "absent": {{"email": 100}}}}'
    edit_warehouse("update loads set vanished = ?, details = ? where date = ?", total - 20, details, date)
    write_report([read_workspace(USERS)], Path("data/report.html"), 90)
    page = open_page(browser)
    lost = f"users fell from {before} to 20 rows", f"{total - 20} values of email became null"
    assert page.evaluate("document.querySelector('h1').innerText") == ", ".join(f"{loss} on {LAST}" for loss in lost)
    remedies = page.evaluate("[...document.querySelectorAll('.remedies li')].map(item => item.innerText)")
    pointer = WRONG_SOURCE
    assert [re.sub(r"\s+", " ", remedy) for remedy in remedies] == [f"lost {LAST} {loss} {pointer}" for loss in lost]
    row = page.evaluate("[...document.querySelector('.loads tbody tr').cells].map(cell => cell.innerText)")
    heads = page.evaluate("[...document.querySelectorAll('.loads thead th')].map(cell => cell.innerText)")
    shown = dict(zip(heads, row, strict=True))
    assert shown["vanished"] == str(total - 20)
    removed = page.evaluate("[...document.querySelectorAll('.removed')].map(line => line.innerText)")
    assert removed == [f"{LAST} nulled: email {total - 20}, city 4; absent: email 100"]


def test_unloaded_day_with_raw_files_is_missing_only():
    """Only a loaded day can be outdated."""
    make_days(LAST - dt.timedelta(days=4), 5)
    edit_warehouse("delete from loads where date in ('2026-11-22', '2026-11-23')")
    write_failures(Failure(NOW, dt.date(2026, 11, 23), "transform", "too many rejects"))
    assert tell_remedies() == (
        "1 day failed, 1 day missing", [("failed", "2026-11-23"), ("missing", "2026-11-22")],
    )  # fmt: skip


def test_incomplete_erasure_is_a_problem():
    """Every day is loaded, but one key is not fully erased."""
    make_days(LAST - dt.timedelta(days=4), 5)
    Tombstones("data", "users").add([Tombstone((42,), NOW)])
    assert tell_remedies() == ("1 key not fully erased", [("outdated", "every day")])


def test_long_outage_is_summarized():
    """The newest failures have their own lines. The last line summarizes the others."""
    make_days(LAST - dt.timedelta(days=99), 100)
    dates = [LAST - dt.timedelta(days=number) for number in range(0, 90, 2)]
    for date in dates:
        edit_warehouse("delete from loads where date = ?", str(date))
    write_failures(
        *(Failure(NOW - dt.timedelta(hours=number), date, "extract", "down") for number, date in enumerate(dates))
    )
    failed = [remedy for remedy in list_remedies(read_status(read_workspace(USERS))) if remedy.state == "failed"]
    assert len(failed) == 15
    assert [remedy.days for remedy in failed[:2]] == ["2026-11-24", "2026-11-22"]
    assert re.fullmatch(r"19 other ranges before, 2026-10-05, .*, 2026-10-27", failed[-1].days)
    assert failed[-1].command == "wholeday backfill 2026-08-28 2026-10-28"
