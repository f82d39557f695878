"""Simulate small sources of users: any paging, changes during an extraction, and scripted failures.

Responsibilities: the response to each request; `keys` is the matching section. A user is
`{"id": …, "version": …}`; the version grows with each change.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.server import Answer, Request

Row = tuple[int, int]  # version and id of a user

ORDERS: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: row[1],
    "oldest": lambda row: row,
    "newest": lambda row: (-row[0], -row[1]),
}
POINTERS = ("link_header", "next_url", "query", "body", "header")
POSITIONS = ("page0", "page1", "offset0", "offset1")
PASSING = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "cut": {"body": [{"id": 1}] * 99, "cut": 5},
    "reset": {"reset": True},
}
DEFAULTS = {
    "method": "GET",
    "body": "{}",
    "requests_per_second": 0,
    "page_start": "",
    "page_size": 0,
    **dict.fromkeys(["cursor_path", "cursor_param", "more_path", "total_path"], ""),
    "cursor_in": "query",
}
FATAL = {"html": {"body": "<html>"}, "error": {"body": {"ok": False, "data": []}}}


@dataclass(frozen=True)
class Step:
    """A change of the list after `after` responses: create a user, or change or delete the n-th one."""

    after: int
    what: str
    who: int


@dataclass
class Listing:
    """A list of users, served in pages of `size` rows."""

    kind: str
    count: int
    size: int
    order: str = "id"
    keyset: bool = True
    """Whether a cursor holds the last row shown, or else the number of shown rows."""
    total: str = ""
    """The place of the declared number of users: a `field`, a `header`, or none."""
    more: bool = False
    """Whether a page has a flag `has_more`."""
    hidden: frozenset[int] = frozenset()
    """Users that count in the list but are not shown, so pages are short or empty."""
    volatile: bool = False
    """Whether a field of every record changes with each response."""
    drift: Sequence[Step] = ()
    faults: Mapping[int, str] = field(default_factory=dict)
    """Faults by the number of the request, from 0."""

    def __post_init__(self) -> None:
        self.users = {number: number for number in range(1, self.count + 1)}  # version by id
        self.ever, self.steady = set(self.users) - self.hidden, set(self.users) - self.hidden
        self.asked = self.shown = 0
        self._lock = threading.Lock()  # a client may request pages concurrently
        self._last: Answer | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """Return the keys of the section."""
        keys: dict[str, Any] = {"data_selector": "data"}
        if self.kind in POINTERS[2:]:
            param = {"query": "after", "body": "page.after", "header": "X-After"}[self.kind]
            keys |= {"paginator": "cursor", "cursor_path": "next", "cursor_param": param, "cursor_in": self.kind}
            keys |= {"method": "POST", "body": {"sort": "id"}} if self.kind == "body" else {}
        elif self.kind in POSITIONS:
            keys |= {"paginator": self.kind[:-1], "page_start": int(self.kind[-1]), "page_size": self.size}
        else:
            keys |= {"paginator": self.kind, "cursor_path": "next" if self.kind == "next_url" else ""}
            keys |= {"cursor_param": "since"} if self.kind == "last_id" else {}
        keys |= {"total_path": "meta.total"} if self.total == "field" else {}
        return keys | ({"more_path": "has_more"} if self.more else {})

    @property
    def section(self) -> dict[str, Any]:
        """Return the keys as written in luigi.cfg, with defaults for the keys of other listings."""
        texts = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in self.keys.items()}
        return DEFAULTS | texts

    def respond(self, request: Request) -> Answer:
        """Respond to a request for a page."""
        with self._lock:
            return self._respond(request)

    def _respond(self, request: Request) -> Answer:
        fault = self.faults.get(self.asked, "")
        self.asked += 1
        if fault in PASSING | FATAL:
            return Answer(**(PASSING | FATAL)[fault])
        if fault != "repeat" or self._last is None:
            for step in self.drift:
                if step.after == self.shown:
                    self._move(step)
            self._last = self._show(request, fault)
        self.shown += 1
        return self._last

    def _move(self, step: Step) -> None:
        newest = max([*self.users.values(), 0]) + 1
        if step.what == "create":
            self.users[newest + 1000] = newest
            self.ever.add(newest + 1000)
        elif self.users:
            who = sorted(self.users)[step.who % len(self.users)]
            if step.what == "change":
                self.users[who] = newest
            else:
                del self.users[who]
                self.steady.discard(who)

    def _show(self, request: Request, fault: str) -> Answer:
        rows = sorted(((version, user) for user, version in self.users.items()), key=ORDERS[self.order])
        start = 0 if "ignore" in self.faults.values() else self._find_start(request, rows)
        start += self.size if fault == "skip" else 0
        stop = start + (len(rows) if self.kind == "single" else self.size)
        shown = [(version, user) for version, user in rows[start:stop] if user not in self.hidden]
        beside = {"seen": self.asked} if self.volatile else {}
        body: dict[str, Any] = {"data": [{"id": user, "version": version, **beside} for version, user in shown]}
        headers = {}
        visible = len(set(self.users) - self.hidden)
        if self.total == "field":
            body["meta"] = {"total": visible}
        elif self.total == "header":
            headers["X-Total-Count"] = str(visible)
        ends = stop >= len(rows)
        if self.more:
            body["has_more"] = not ends
        if not ends and fault != "forget" and self.kind in POINTERS:
            cursor = json.dumps([self.asked, [*rows[stop - 1]] if self.keyset else stop], separators=(",", ":"))
            if self.kind == "link_header":
                headers["Link"] = f'<?after={cursor.replace(",", "%2C")}>; rel="next"'
            else:
                body["next"] = f"?after={cursor}" if self.kind == "next_url" else cursor
        return Answer(body, headers=headers)

    def _find_start(self, request: Request, rows: Sequence[Row]) -> int:
        """Return the number of rows before the requested page."""
        query = request.query
        match self.kind:
            case "page0" | "page1":
                return (int(query.get("page", self.kind[-1])) - int(self.kind[-1])) * self.size
            case "offset0" | "offset1":
                return int(query.get("offset", self.kind[-1])) - int(self.kind[-1])
            case "last_id":
                return sum(user <= int(query.get("since", 0)) for _, user in rows)
            case "body":
                cursor = json.loads(request.body).get("page", {}).get("after")
            case _:
                cursor = request.headers.get("X-After") if self.kind == "header" else query.get("after")
        if cursor is None:
            return 0
        place = json.loads(cursor)[1]
        rank = ORDERS[self.order]
        return place if isinstance(place, int) else sum(rank(row) <= rank((place[0], place[1])) for row in rows)
