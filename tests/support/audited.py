"""A store that can compare its tables with all days that it has loaded."""

import datetime as dt

from tests.support.store import Store
from wholeday.load.audit import Audit, Finding
from wholeday.load.clean_day import CleanDay
from wholeday.schema.marker import Marker


class AuditedStore(Store):
    """A store that keeps the rows and rejects of each load."""

    def __init__(self, url: str, name: str = "users") -> None:
        super().__init__(url, name)
        self.loads: dict[dt.date, CleanDay] = {}
        load = self.warehouse.load

        def keep(day: CleanDay) -> Marker:
            clean = self.loads[day.draft.date] = CleanDay(day.draft, list(day.rows), list(day.rejects))
            return load(clean)

        self.warehouse.load = keep  # type: ignore[method-assign]

    def audit(self) -> list[Finding]:
        with self.warehouse.database.connect(readonly=True) as db:
            audit = Audit.open(db, self.warehouse.dataset.declared)
            assert audit
            findings = [*audit.check_tables(), *audit.check_days(), *audit.check_changes(), *audit.check_present()]
            findings += [*audit.check_children(), *audit.check_history()]
            for date, marker in audit.markers.items():
                findings += [*audit.check_marker(marker), *audit.check_rows(marker, self.loads[date])]
            return findings
