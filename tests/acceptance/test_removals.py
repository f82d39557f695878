"""Guarantee G10: a day that removes or nulls data fails or is reported, from the source to the warehouse."""

import dataclasses
import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest

from pipeline.users import USERS
from tests.support.project import luigi_run, query, run, run_here
from tests.support.reading import make_user, serve
from tests.support.server import Server
from wholeday.commands.check import check_source
from wholeday.commands.check.questions import FAILED
from wholeday.commands.forget import forget
from wholeday.commands.reprocess import reprocess
from wholeday.commands.verify import verify
from wholeday.errors import QualityError
from wholeday.schema.record import Field, Record
from wholeday.storage.day_folder import DayFolder
from wholeday.storage.manifest import CleanManifest, Presence
from wholeday.tasks import stages
from wholeday.tasks.stages import read_workspace
from wholeday.transform import fields_gate

pytestmark = pytest.mark.slow

DAY = dt.date(2026, 11, 10)


class Source:
    """Serves the API of `users` and runs days. A test sets the answer."""

    def __init__(self, server: Server, configure: Callable[..., None]) -> None:
        self.server, self.configure, self.dataset = server, configure, USERS

    def run(self, number: int, records: Iterable[dict[str, Any]], **keys: Any) -> None:
        """Extract, transform and load the day `number` days after DAY."""
        serve(self.server, self.configure, json.dumps(list(records)).encode(), **keys)
        date = DAY + dt.timedelta(days=number)
        workspace = read_workspace(self.dataset)
        stages.extract(workspace, date)
        stages.transform(workspace, date)
        stages.load(workspace, date)


@pytest.fixture
def source(server: Server, configure: Callable[..., None]) -> Source:
    configure("users", paginator="single", max_drop_ratio=1, max_reject_ratio=1)
    return Source(server, configure)


@pytest.mark.usefixtures("database")
def test_first_snapshot_is_compared_with_incremental_users(source):
    """Too many missing users fail the day. `--users-accept` reports their number."""
    source.run(0, map(make_user, range(1, 6)))
    with pytest.raises(QualityError, match=r"4 of 5 users in the warehouse are missing; .* --users-accept$"):
        source.run(1, [make_user(1)], mode="snapshot")
    assert query("select count(*) from users") == [(5,)]
    result = luigi_run(
        *("LoadUsers", "--date", str(DAY + dt.timedelta(days=1)), "--users-url", f"{source.server.url}/users"),
        *("--users-paginator", "single"),
        *("--users-mode", "snapshot", "--users-accept"),
    )
    assert result.returncode == 0, result.stderr
    assert "loaded, 4 vanished, 1 unchanged" in result.stdout
    assert query("select vanished, accepted from loads where vanished > 0") == [(4, "max_delete_ratio")]


def test_rejected_and_forgotten_users_are_not_missing(source):
    """A snapshot lists a rejected user, who is kept. A forgotten user is not in the warehouse."""
    source.run(0, map(make_user, range(1, 11)))
    forget(read_workspace(USERS), ["9", "10"])
    rejected = [make_user(number, email="none") for number in range(1, 6)]
    source.run(1, [*rejected, make_user(6)], mode="snapshot")  # 7 and 8 are missing: 2 of 8
    assert query("select vanished, rejected from loads where mode = 'snapshot'") == [(2, 5)]
    assert query("select user_id from users order by 1") == [(number,) for number in range(1, 7)]
    with pytest.raises(QualityError, match="3 of 6 users in the warehouse are missing"):
        source.run(2, rejected[:3], mode="snapshot")


class TextUser(Record):
    """A user whose key is a text with spaces around it."""

    user_id: str = Field("id", primary_key=True, strip_whitespace=True)
    updated_at: dt.datetime | None


def test_keys_with_changed_spelling_are_not_missing(source):
    """The gate reads keys as transform does."""
    source.dataset = dataclasses.replace(USERS, record_class=TextUser)
    source.run(0, ({"id": f" {number}"} for number in range(1, 11)))
    source.run(1, ({"id": f"{number} "} for number in range(1, 8)), mode="snapshot")
    assert query("select vanished, unchanged from loads where mode = 'snapshot'") == [(3, 7)]
    with pytest.raises(QualityError, match="3 of 7 users in the warehouse are missing"):
        source.run(2, ({"id": f" {number}"} for number in range(4, 8)))


def make_days(source: Source, days: int, **fields: object) -> None:
    """Load days of fifteen users each, with additional fields."""
    for number in range(days):
        source.run(number, (make_user(user, address={"city": "Oslo"}, **fields) for user in range(1, 16)))


RENAMED = [{"email_address" if name == "email" else name: value for name, value in make_user(user).items()}
           | {"address": {"town": "Oslo"}} for user in range(1, 16)]  # fmt: skip


@pytest.mark.usefixtures("database")
def test_renamed_fields_fail_the_day(source):
    """The error names likely new fields and all options. Raw files stay, and no row changes."""
    make_days(source, 3)
    with pytest.raises(QualityError) as caught:
        source.run(3, RENAMED)
    date = DAY + dt.timedelta(days=3)
    before = "in 45 of 45 records of the 3 days before"
    assert str(caught.value) == (
        f"users {date}: no record has email ({before}), address.city ({before}); new fields: address.town, "
        "email_address (gate fields). If the source renamed them, change the record class and run the day again; if "
        f"its answers were wrong, delete data/raw/users/date={date} and run the day again; or let this run through "
        "with --users-accept"
    )
    assert query("select count(email), count(city) from users") == [(15, 15)]
    assert read_workspace(USERS).folder("raw", date).exists()
    assert not read_workspace(USERS).folder("clean", date).exists()


def test_accepted_day_reports_nulled_columns(source):
    """Log line, marker and `status` show it. A later transform of a loaded day does not fail."""
    make_days(source, 3)
    with pytest.raises(QualityError):
        source.run(3, RENAMED)
    date = str(DAY + dt.timedelta(days=3))
    result = luigi_run("LoadUsers", "--date", date, "--users-url", f"{source.server.url}/users", "--users-accept")
    line = "nulled: email 15, city 15; absent: email 15, address.city 15"
    assert f"loaded, 15 updated; {line}" in result.stdout
    ((accepted, details),) = query("select accepted, details from loads where date = ?", date)
    assert accepted == "fields"
    shown = {"nulled": {"email": 15, "city": 15}, "absent": {"email": 15, "address.city": 15}}
    assert json.loads(details) == shown
    assert f"\n{date} {line}\n" in run("python", "-m", "wholeday", "status").stdout
    status = json.loads(run("python", "-m", "wholeday", "status", "--json").stdout)
    assert status["datasets"][0]["loads"][-1]["details"] == shown
    stages.transform(read_workspace(USERS), DAY + dt.timedelta(days=3))
    shutil.rmtree("data/clean")
    span = DAY, DAY + dt.timedelta(days=4)
    assert [outcome.what for outcome in reprocess(read_workspace(USERS), *span, everything=True)] == ["done"] * 4
    assert query("select accepted, details from loads where date = ?", date) == [("fields", details)]
    assert list(verify(read_workspace(USERS))) == []


def test_changed_class_reads_renamed_field(source):
    """The day is transformed again from its raw files."""
    make_days(source, 3)
    with pytest.raises(QualityError):
        source.run(3, RENAMED)
    fixed = dataclasses.replace(USERS, record_class=RenamedUser)
    stages.transform(read_workspace(fixed), DAY + dt.timedelta(days=3))
    stages.load(read_workspace(fixed), DAY + dt.timedelta(days=3))
    assert query("select count(email), count(city) from users") == [(15, 15)]


class RenamedUser(Record):
    """A user after the source renamed two fields."""

    user_id: int = Field("id", primary_key=True)
    name: str | None
    email: str | None = Field("email_address")
    city: str | None = Field("address.town")
    updated_at: dt.datetime | None


def test_check_finds_missing_field(source):
    """Also for a loaded day, whose transform does not fail."""
    make_days(source, 4)
    serve(source.server, source.configure, json.dumps(RENAMED).encode())
    findings = check_source(read_workspace(USERS), DAY + dt.timedelta(days=3))
    failed = [finding.evidence for finding in findings.values() if finding.verdict == FAILED]
    assert any("no record has email (in 45 of 45 records of the 3 days before)" in evidence for evidence in failed)


def test_missing_field_only_warns_before_three_days(source, caplog, capsys):
    """The marker has the warning, so `status` shows it."""
    before = [make_user(1), *(make_user(user, is_gone=False) for user in range(2, 44))]
    source.run(0, before, deleted_when="is_gone")
    source.run(1, (make_user(user, gone=user < 4, updated_at="2026-11-21T00:00:00Z") for user in range(1, 44)))
    line = "no record has is_gone (in 42 of 43 records of the day before); new fields: gone. With fewer than 3 days"
    assert [line in record.getMessage() for record in caplog.records if "gate" in record.getMessage()] == [True]
    assert "\n2026-11-11 absent: is_gone 43\n" in run_here(capsys, "status")[0]


def test_field_of_all_records_fails_second_day(source):
    """If no record lacked the field, one day is enough."""
    source.run(0, (make_user(user, is_gone=False) for user in range(1, 44)), deleted_when="is_gone")
    with pytest.raises(QualityError, match=r"no record has is_gone \(in 43 of 43 records of the day before\)"):
        source.run(1, (make_user(user, gone=user < 4) for user in range(1, 44)))


def test_missing_deletion_field_fails_the_day(source):
    """Otherwise deletions would go unnoticed."""
    source.configure("users", deleted_when="is_gone")
    make_days(source, 3, is_gone=False)
    with pytest.raises(QualityError, match=r"no record has is_gone \(in 45 of 45 .*; new fields: gone \(gate fields\)"):
        source.run(3, (make_user(user, address={"city": "Oslo"}, gone=True) for user in range(1, 16)))


def test_deletions_need_only_a_key(source):
    """The other fields of a deletion may be absent."""
    source.configure("users", deleted_when="is_gone", max_delete_ratio=1)
    make_days(source, 3, is_gone=False, updated_at="2026-11-01T00:00:00Z")
    gone = [{"id": user, "is_gone": True} for user in range(1, 8)]
    source.run(3, gone)
    assert query("select deleted, details from loads order by date desc limit 1") == [(7, "{}")]
    fields = read_workspace(USERS).folder("clean", DAY + dt.timedelta(days=3)).read_manifest(CleanManifest).fields
    assert (fields["email"], fields["is_gone"]) == (Presence(0, 0), Presence(7, 7))
    with pytest.raises(QualityError, match=r"no record has name .*, email .*, address.city .*, updated_at "):
        source.run(4, [*gone, *({"id": user, "is_gone": False} for user in range(8, 11))])


def name_unknown_city(users: pd.DataFrame) -> pd.DataFrame:
    return users.fillna({"city": "unknown"})


def test_clean_does_not_hide_a_missing_field(source):
    """The gate counts fields in records, not values after `clean`."""
    source.dataset = dataclasses.replace(USERS, clean=name_unknown_city)
    make_days(source, 3)
    with pytest.raises(QualityError, match=r"no record has address\.city \(in 45 of 45 records"):
        source.run(3, (make_user(user, address={"town": "Oslo"}) for user in range(1, 16)))


@pytest.mark.parametrize(
    ("before", "records", "fails"),
    [
        ([(10, 10)] * 3, 2, True),
        ([(10, 10)] * 3, 1, False),  # a single record may lack a field that 30 records had
        ([(1000, 1000)] * 3, 1, True),
        ([(9, 9)] * 3, 100, False),  # fewer than 30 records
        ([(50, 49)] * 2, 100, False),  # fewer than three days
        ([(50, 50)] * 2, 100, True),  # but no record lacked it
        ([(50, 49)] * 2 + [(0, 0)] * 5, 100, False),  # fewer than three days with records
        ([(100, 50)] * 7, 9, False),
        ([(100, 50)] * 7, 10, True),
        ([(100, 1)] * 7, 300, False),
        ([(100, 1)] * 7, 1000, True),
        ([(100, 100)] * 3 + [(100, 0)] * 4, 100, False),  # most days lack the field
        ([(100, 100)] * 4 + [(100, 0)] * 3, 100, True),
        ([(100, 0)] * 7, 10**6, False),
        ([(100, 0)] * 7 + [(100, 100)] * 7, 100, False),  # only the seven days before the day count
    ],
)
def test_missing_field_needs_statistical_evidence(before, records, fails):
    """It depends on how many earlier records had the field, and on how many days."""
    for number, (came, had) in enumerate(before, 1):
        folder = DayFolder("data", "clean", "users", DAY - dt.timedelta(days=number))
        folder.clear()
        known = {"fields": {"email": Presence(came, had)}, "parts": [], "rejects": []}
        folder.publish(CleanManifest(**dict.fromkeys(CleanManifest.__struct_fields__) | known))
    found = fields_gate.find_absent(
        read_workspace(USERS), DAY, {"email": Presence(records, 0), "name": Presence(records, 1)}
    )
    assert [absent.field for absent in found if absent.is_proven] == ["email"] * fails
