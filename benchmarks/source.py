"""Serve the source that every contender reads: pages of users on loopback.

`GET /users/<number>?kind=<kind>&page=1` returns a JSON list of 1,000 users, `X-Total-Count` and a `Link` to the next
page. A kind is `first` (all users) or `changed` (all users; one in a hundred has another city and a later
`updated_at`). `&latency=0.05` delays each response by seconds. `GET /days/<date>` is one page with the hundred users of
the day. `GET /windows/<number>?from=<epoch>&to=<epoch>` is a source with a cursor, in the header X-Next-Cursor: its
users are spread evenly over each day. The kernel sends the pages from a file, so the source takes almost no CPU.
"""

import argparse
import datetime as dt
import json
import math
import socket
import socketserver
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

KINDS = ("first", "changed")
PER_PAGE = 1000
EVERY = 100  # one in this many users changes
CHANGED_FROM = "2025-09-01"  # users with a later updated_at have changed
START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
FIRST_DAY = dt.date(2015, 1, 1)
PER_DAY = 100
DAY = 86_400  # seconds
CITIES = ("Accra", "Århus", "Belém", "Bogotá", "Daegu", "Genève", "Hanoi", "İzmir", "Kraków", "Lagos", "Pune", "Žilina")
FIRST = ("Aïcha", "Ana", "Béla", "Chidi", "Chloé", "Elif", "Fionn", "Hanna", "Inês", "João", "Kaito", "Olena", "Zoë")
LAST = ("Abebe", "Boer", "Costa", "Demir", "Weber", "García", "Jansen", "Kovač", "Müller", "Nguyễn", "Rossi", "Silva")


def make_user(number: int, updated: dt.datetime, moved: bool = False) -> dict[str, object]:
    """Build a record of about 460 bytes."""
    first, last = FIRST[number % len(FIRST)], LAST[number // 13 % len(LAST)]
    return {
        "id": number,
        "name": f"{first} {last}",
        "username": f"user{number:08d}",
        "email": f"User{number:08d}@Example.com",
        "address": {
            "street": f"{number % 900 + 1} Market Square",
            "suite": f"Apt. {number % 50}",
            "city": CITIES[(number // 7 + moved) % len(CITIES)],
            "zipcode": f"{number % 100_000:05d}-{number % 10_000:04d}",
            "geo": {
                "lat": f"{number % 180 - 90}.{number % 9973:04d}",
                "lng": f"{number % 360 - 180}.{number % 9949:04d}",
            },
        },
        "phone": f"1-770-{number % 1000:03d}-{number % 9973:04d} x{number % 100_000}",
        "website": f"user{number:08d}.example.org",
        "company": {
            "name": f"{last}-Group",
            "catchPhrase": "Multi-layered client-server net",
            "bs": "harness real-time",
        },
        "updated_at": updated.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def make_everybody(number: int, kind: str) -> Iterator[list[dict[str, object]]]:
    """Yield the pages of a kind."""
    for start in range(1, number + 1, PER_PAGE):
        page = []
        for user in range(start, min(start + PER_PAGE, number + 1)):
            moved = kind == "changed" and user % EVERY == 0
            since = dt.timedelta(seconds=user * 7 % 20_000_000, milliseconds=user % 1000, days=250 * moved)
            page.append(make_user(user, START + since, moved))
        yield page


def make_day(date: dt.date) -> Iterator[list[dict[str, object]]]:
    """Yield the only page of a day."""
    start = dt.datetime.combine(date, dt.time(), dt.UTC)
    first = (date - FIRST_DAY).days * PER_DAY + 1
    yield [make_user(first + n, start + dt.timedelta(minutes=14 * n)) for n in range(PER_DAY)]


class Pages:
    """The pages at a path, one after the other in a file. `ends` holds the offset of each end."""

    def __init__(self, path: Path, pages: Iterable[list[dict[str, object]]]) -> None:
        self.path, self.total, self.ends = path, 0, [0]
        with self.path.open("wb") as file:
            for users in pages:
                self.total += len(users)
                self.ends.append(self.ends[-1] + file.write(json.dumps(users, ensure_ascii=False).encode()))
        self.count = len(self.ends) - 1


class Handler(socketserver.StreamRequestHandler):
    """A persistent connection."""

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        super().setup()

    def handle(self) -> None:
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            method, target, _ = line.decode().split()
            self._answer(method, target)

    def _answer(self, method: str, target: str) -> None:
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        kind = query.get("kind", "")
        pages = self.server.find(f"{url.path}/{kind}" if kind else url.path)
        if pages is None:
            self._send(404, b"{}")
            return
        time.sleep(float(query.get("latency", 0)))
        page = int(query.get("page", 1))
        if "from" in query:
            self._answer_window(pages, query)
            return
        headers = [f"X-Total-Count: {pages.total}"]
        if page > pages.count:
            self._send(200, b"[]", headers)
            return
        if page < pages.count:
            host = "http://{}:{}".format(*self.server.server_address)
            latency = f"&latency={query['latency']}" if "latency" in query else ""
            headers.append(f'Link: <{host}{url.path}?kind={kind}&page={page + 1}{latency}>; rel="next"')
        self._send_page(pages, page, headers, method)

    def _answer_window(self, pages: Pages, query: dict[str, str]) -> None:
        """Send a page of the users whose time of day is between two times, and the cursor to the next one."""
        start, stop = int(query["from"]), int(query["to"])
        midnight = (start + stop) // 2 // DAY * DAY
        first, last = (pages.count * (moment - midnight) / DAY for moment in (start, stop))
        page = int(query.get("cursor", max(0, math.floor(first)) + 1))
        more = page < min(pages.count, math.ceil(last))
        self._send_page(pages, page, [f"X-Next-Cursor: {page + 1}"] if more else [])

    def _send_page(self, pages: Pages, page: int, headers: Sequence[str], method: str = "GET") -> None:
        start, end = pages.ends[page - 1], pages.ends[page]
        self._head(200, end - start, headers)
        if method != "HEAD":
            with pages.path.open("rb") as file:
                self.request.sendfile(file, start, end - start)

    def _send(self, status: int, body: bytes, headers: Sequence[str] = ()) -> None:
        self._head(status, len(body), headers)
        self.request.sendall(body)

    def _head(self, status: int, length: int, headers: Sequence[str]) -> None:
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}", "Content-Type: application/json"]
        lines += [f"Content-Length: {length}", *headers, "", ""]
        self.request.sendall("\r\n".join(lines).encode())


class Source(socketserver.ThreadingTCPServer):
    """The server. It builds the pages of users before it listens, and the page of a day at its first request."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, sizes: Iterable[int], port: int = 0) -> None:
        self._folder = folder
        self._pages = {
            f"/users/{size}/{kind}": Pages(folder / f"{size}-{kind}.json", make_everybody(size, kind))
            for size in sizes
            for kind in KINDS
        }
        super().__init__(("127.0.0.1", port), Handler)

    def find(self, path: str) -> Pages | None:
        """Return the pages at a path, if there are any."""
        if path not in self._pages and path.startswith("/days/"):
            date = dt.date.fromisoformat(path.removeprefix("/days/"))
            self._pages[path] = Pages(self._folder / f"{date}.json", make_day(date))
        return self._pages.get(path.replace("/windows/", "/users/") + "/first" * path.startswith("/windows/"))


def main() -> None:
    """Serve until the process ends. Print the port first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="*")
    options = parser.parse_args()
    with Source(options.folder, options.sizes) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
