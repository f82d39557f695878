"""Serve the embedded source `demo://users` as a requests transport adapter, so that wholeday runs on its own.

Responsibilities: an invented population and the API over it. Mount it with `session.mount("demo://", DemoAdapter())`.
Non-goals: a server, the network, randomness and state. The URL and the clock alone determine an answer.

The API answers GET with a JSON list, ordered by `updated_at`. It sends the headers `X-Total-Count` and `Date`, and
`Link: <demo://users?...&page=2>; rel="next"` on all pages but the last. All query parameters are optional:

    updated_since    users changed after this time, exclusive; without it: all users
    updated_before   users as they were before this time, exclusive
    as_of            users as they were at this time, inclusive
    page, per_page   page number from 1; records per page, at most 10,000 (default 1,000)
    per_day          scale: users created or changed per day (default 100)

A time is ISO 8601, in UTC unless it has an offset. An invalid parameter is answered by 400, another list by 404.

An answer is the state of the population at the earliest of `updated_before`, `as_of` and now. It contains each user
once, as of then, if the last change is after `updated_since`. So a past window never changes, and a day that is
extracted late still shows its own changes and no later ones. If now is the end of an answer, the `next` links carry it
as `as_of`, so that all pages show the same instant.

The population is empty before 2016-01-01 (UTC). From then on, `per_day` *slots* are spread evenly over each day, with
jitter. One slot in five creates a user with the next id; the other four change an email or a city. A user changes four
times, at intervals of two days to ten months, so never twice in a day. A slot is empty if its user would be older than
the population: the first day fills a fifth of its slots, and every day since June 2017 all of them. At 100 a day there
are 73,060 users after ten years. Times have milliseconds, before 04:00 whole seconds only. No time is a whole quarter
of an hour, so that exclusive bounds lose no record at midnight in any time zone. One record in 203 has an error, as in
real data, and every second of these must be rejected.
"""

import datetime as dt
import json
import re
import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from wholeday import clock

START = dt.datetime(2016, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
DAY_MS = 86_400_000
QUARTER_MS = 900_000
BATCH_MS = 4 * 3_600_000

TIMES = ("updated_since", "updated_before", "as_of")
LIMITS = {"page": (1, 10**12), "per_page": (1, 10_000), "per_day": (1, 10_000_000)}
DEFAULTS = {"page": "1", "per_page": "1000", "per_day": "100"}

# A life has five stages, creation and four changes, with one slot each. Users take sixteen kinds of lives in turn. They
# differ in the hours between stages: base + step * (life * factor % 16), with one such triple per change. Each interval
# is rounded up to whole cycles plus one slot, so that slot % CYCLE determines the life and the stage.
STAGES = 5
LIVES = 16
CYCLE = STAGES * LIVES
HOURS = ((48, 29, 1), (200, 97, 3), (700, 211, 5), (1500, 389, 7))

# Errors of records: one record in 203 has the next of these. Errors at even positions (0, 2, …) require a reject. 203
# and STAGES have no common factor, so each error has a fixed stage: an id as text is always a user's last change, and
# no correct record of that user follows. At any scale, no day of 50 records or more has over 2 % of errors.
WRONG_EVERY = 203
WRONG_FIRST = 99
WRONGS = (
    *("id as text", "name null", "updated_at not a time", "unknown field", "email without @", "address null"),
    *("email without @", "email missing", "updated_at not a time", "unknown field"),
)

WORDS = """
Aïcha, Ana, Andrés, Anouk, Béla, Björk, Carmen, Chidi, Chloé, Dafydd, Dimitra, Elif, Emeka, Eszter, Fatou,
Fionn, Giulia, Håkan, Hanna, Inês, Ivana, Jiří, João, Kaito, Katarína, Léa, Lwazi, Maëlle, Mehmet, Mirela, Noé,
Ngozi, Olena, Priya, Renée, Rūta, Şirin, Tomás, Ximena, Zoë

Abebe, Andersson, Bakker, Balogun, Čermák, Costa, Demir, Dlamini, Eriksen, Fernández, Fischer, García, Groß,
Haddad, Horváth, Ibrahim, Jansen, Kaya, Kovač, Łukasik, Laurent, Mäkinen, Moreau, Müller, Nakamura, Nguyễn,
Núñez, O'Brien, Okafor, Øvergård, Papadaki, Petrescu, Rossi, Şahin, Šimić, Silva, Sørensen, Tremblay, Virtanen,
Wójcik

Accra, Århus, Αθήνα, Belém, Београд, Bogotá, Brașov, Cape Town, Córdoba, Daegu, Dakar, Gdańsk, Genève,
Göteborg, Győr, Hanoi, İzmir, Jyväskylä, Київ, Kraków, Kuala Lumpur, Lagos, Liège, Łódź, Málaga, Montréal,
München, Nairobi, 대전, Olomouc, Pune, Quito, Reykjavík, São Paulo, 仙台, Тбилиси, Tromsø, Valparaíso, Zürich,
Žilina

Acacia Road, Baker Lane, Calle Mayor, Canal Walk, Drottninggatan, Elm Close, Gartenweg, Harbour Street, Hlavní,
Kirkegade, Lindenallee, Market Square, Mill Lane, Rua da Praia, Rue des Écoles, Station Road, Ulica Długa,
Via Roma, Vineyard Way, Zahradní

Alder & Finch, Baltic Freight, Bluestone Labs, Cortado Coffee, Delta Weaving, Ember Foods, Fjord Systems,
Granit AG, Hällmark AB, Iberia Óptica, Juniper Books, Kite & Sons, Lumen Energy, Mosaic Travel, Nordlicht GmbH,
Orchard Bank, Pelican Tools, Quartz Media, Riverside Clinic, Tundra Outdoor

example.com, Example.org, mail.example.net, post.example, EXAMPLE.net, office.example.com, Uni.Example.org,
home.example
"""
FIRST_NAMES, LAST_NAMES, CITIES, STREETS, COMPANIES, DOMAINS = (
    re.split(r",\s+", words) for words in WORDS.strip().split("\n\n")
)
LOGINS = [
    (str.lower, str.title, str.lower, str.upper)[n % 4](
        unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    )
    for n, name in enumerate(FIRST_NAMES)
]

# Pieces of a record in JSON. No word above needs escaping. Some names begin or end with spaces.
PEOPLE = [
    f'"name":"{" " * (n == 23)}{name} {family}{"  " * (n == 7)}","email":"{login}.'.encode()
    for n, family in enumerate(LAST_NAMES)
    for name, login in zip(FIRST_NAMES, LOGINS, strict=True)
]
MAILBOXES = [f'@{domain}"'.encode() for domain in DOMAINS]
PLACES = [f' {street}","city":"{city}","zipcode":"'.encode() for street in STREETS for city in CITIES]
WORKPLACES = [f'"}},"company":{{"name":"{company}"}},"updated_at":"'.encode() for company in COMPANIES]
MINUTES = [f"T{minute // 60:02}:{minute % 60:02}:".encode() for minute in range(1440)]
SECONDS = [f"{second:02}".encode() for second in range(60)]
FRACTIONS = [b"Z", *(f".{ms:03}Z".encode() for ms in range(1, 1000))]


class DemoAdapter(HTTPAdapter):
    """Answers the `demo://` requests of a session. An invalid request is answered by a status and a JSON error."""

    def send(self, request: PreparedRequest, *_args: Any, **_options: Any) -> Response:
        """Return the response, with a stream as from a network. Ignores the options of a transport."""
        now = clock.utc_now()
        headers = {"Content-Type": "application/json", "Date": format_datetime(now, usegmt=True)}
        try:
            status, body = HTTPStatus.OK, _answer(request, _to_microseconds(now), headers)
        except _RefusedError as error:
            status, body = error.status, _dump({"error": str(error)})
        headers["Content-Length"] = str(len(body))
        raw = HTTPResponse(BytesIO(body), headers, status.value, reason=status.phrase, preload_content=False)
        return self.build_response(request, raw)


class _RefusedError(Exception):
    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def _answer(request: PreparedRequest, now: int, headers: dict[str, str]) -> bytes:
    """Return the body of a page, and add its headers to `headers`."""
    url = urlsplit(request.url or "")
    if url.netloc != "users" or url.path not in ("", "/"):
        place = f"demo://{url.netloc}{url.path}"
        raise _RefusedError(f"{place} does not exist: use demo://users", HTTPStatus.NOT_FOUND)
    if request.method != "GET":
        raise _RefusedError(f"{request.method} is not supported: use GET", HTTPStatus.METHOD_NOT_ALLOWED)
    query = _parse_query(url.query)
    page, size, per_day = (_parse_number(name, query.get(name, default)) for name, default in DEFAULTS.items())
    times = {name: _parse_time(name, query[name]) for name in TIMES if name in query}

    as_of = min(times.get("as_of", now), now)
    start = times["updated_since"] + 1 if "updated_since" in times else 0
    stop = min(times.get("updated_before", as_of + 1), as_of + 1)
    population = _population(per_day)
    states = States(population, population.count_slots(start), population.count_slots(stop))

    total = states.count(states.stop)
    headers["X-Total-Count"] = str(total)
    if page * size < total:
        if stop > as_of:
            query["as_of"] = (START + as_of * MICROSECOND).isoformat().replace("+00:00", "Z")
        following = urlencode(query | {"page": str(page + 1)}, safe=":")
        headers["Link"] = f'<demo://users?{following}>; rel="next"'
    return b"[%b]" % b",".join(map(population.record, states.page(page, size)))


def _parse_query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in TIMES and name not in LIMITS:
            raise _RefusedError(f"unknown parameter {name!r}: use {', '.join((*TIMES, *LIMITS))}")
        if name in query:
            raise _RefusedError(f"{name} is given twice: give it once")
        query[name] = value
    return query


def _parse_time(name: str, value: str) -> int:
    try:
        time = dt.datetime.fromisoformat(value)
    except ValueError as error:
        raise _RefusedError(f"{name}={value!r} is not a time: write it as 2026-11-21T00:00:00Z") from error
    return _to_microseconds(time if time.tzinfo else time.replace(tzinfo=dt.UTC))


def _parse_number(name: str, value: str) -> int:
    low, high = LIMITS[name]
    if not re.fullmatch("[0-9]{1,15}", value) or not low <= int(value) <= high:
        raise _RefusedError(f"{name}={value!r} is not a number from {low} to {high}")
    return int(value)


def _to_microseconds(time: dt.datetime) -> int:
    return (time - START) // MICROSECOND


class Population:
    """The slots since 2016, numbered from 0, and the record of each slot."""

    def __init__(self, per_day: int) -> None:
        self.per_day = per_day
        # By slot % CYCLE: slots since the user was created, and until its next change, which is maxsize after the last.
        self.ages = [0] * CYCLE
        self.rests = [sys.maxsize] * CYCLE
        for life in range(LIVES):
            for stage, (base, step, factor) in enumerate(HOURS):
                hours = base + step * (life * factor % LIVES)
                cycles = -(-hours * per_day // (24 * CYCLE))
                place = life * STAGES + stage
                self.rests[place] = cycles * CYCLE + 1
                self.ages[place + 1] = self.ages[place] + self.rests[place]

    def count_slots(self, stop: int) -> int:
        """Return the number of slots before `stop`, in microseconds since 2016, which is also the first later slot."""
        day, rest = divmod(stop, DAY_MS * 1000)
        if day < 0:
            return 0
        slots = range(day * self.per_day, (day + 1) * self.per_day)
        return slots.start + bisect_left(slots, rest, key=lambda slot: self.time_of_day(slot) * 1000)

    def time_of_day(self, slot: int) -> int:
        """Return the time of a slot in milliseconds since midnight. Within a day, times never decrease."""
        time = (slot % self.per_day * DAY_MS + _hash(slot) % DAY_MS) // self.per_day
        unit = 1000 if time < BATCH_MS else 1
        time -= time % unit
        return time if time % QUARTER_MS else time + unit

    def record(self, slot: int) -> bytes:
        """Return the JSON of a slot's user, as of this slot until the user's next slot."""
        life, stage = divmod(slot % CYCLE, STAGES)
        user = (slot - self.ages[slot % CYCLE]) // STAGES + 1
        mix = _hash(user)
        # A change takes the next word of a list: cities and mailboxes alternate; in one life, family names change too.
        moves = (stage + 1) // 2
        mailboxes = stage // 2
        marriages = life == 6 and stage > 2
        seconds, ms = divmod(self.time_of_day(slot), 1000)
        record = b'{"id":%d,%b%d%b%b,"address":{"street":"%d%b%05d%b%b%b%b%b"}' % (
            user,
            PEOPLE[(mix + marriages * len(FIRST_NAMES)) % len(PEOPLE)],
            user,
            MAILBOXES[(mix // 1600 + mailboxes) % len(MAILBOXES)],
            b',"phone":"+%d %d"' % (mix % 90 + 10, mix % 8_999_993 + 1_000_000) if mix % 7 > 1 else b"",
            mix % 199 + 1,
            PLACES[(mix // 12_800 + moves * (len(CITIES) + 1)) % len(PLACES)],
            (mix + moves) % 99_991,
            WORKPLACES[mix // 10_240_000 % len(WORKPLACES)],
            _date(slot // self.per_day),
            MINUTES[seconds // 60],
            SECONDS[seconds % 60],
            FRACTIONS[ms],
        )
        if slot % WRONG_EVERY == WRONG_FIRST:
            return _add_error(record, WRONGS[slot // WRONG_EVERY % len(WRONGS)])
        return record


class States:
    """The slots from `start` on whose users do not change again before slot `stop`."""

    def __init__(self, population: Population, start: int, stop: int) -> None:
        self.stop = stop
        # By slot % CYCLE: the first such slot. All later slots of the same remainder belong here too.
        self.firsts = [
            first + (place - first) % CYCLE
            for place, (age, rest) in enumerate(zip(population.ages, population.rests, strict=True))
            for first in [max(start, age, stop - rest)]
        ]

    def count(self, stop: int) -> int:
        """Return the number of these slots before slot `stop`."""
        return sum((stop - first + CYCLE - 1) // CYCLE for first in self.firsts if first < stop)

    def page(self, number: int, size: int) -> Iterator[int]:
        """Yield the slots of a page, numbered from 1, without walking through the pages before."""
        start = bisect_left(range(self.stop), (number - 1) * size + 1, key=lambda slot: self.count(slot + 1))
        return islice((slot for slot in range(start, self.stop) if slot >= self.firsts[slot % CYCLE]), size)


@lru_cache(maxsize=16)
def _population(per_day: int) -> Population:
    return Population(per_day)


@lru_cache
def _date(day: int) -> bytes:
    return (START + dt.timedelta(days=day)).date().isoformat().encode()


def _hash(number: int) -> int:
    """Return 32 pseudo-random bits: the middle of a product with an odd constant, then of its square."""
    middle = number * 0x9E3779B97F4A7C15 >> 27 & 0xFFFFFFFF
    return middle * middle >> 16 & 0xFFFFFFFF


def _add_error(text: bytes, wrong: str) -> bytes:
    record = json.loads(text)
    if wrong == "email missing":
        del record["email"]
        return _dump(record)
    changes = {
        "id as text": {"id": str(record["id"])},
        "email without @": {"email": record["email"].replace("@", " at ")},
        "name null": {"name": None},
        "address null": {"address": None},
        "updated_at not a time": {"updated_at": "0000-00-00 00:00:00"},
        "unknown field": {"newsletter": True},
    }
    return _dump(record | changes[wrong])


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
