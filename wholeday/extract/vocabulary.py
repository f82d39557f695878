"""Recognise fields, headers and parameters by the names that APIs give them: more, next, total, size, page, key.

Responsibilities: list the candidates for each meaning, the likeliest first.
Non-goals: decisions. A name is only a hint; `detection` and `doctor` test it against the source.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from wholeday.extract.http.envelope import VALUE
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import EMPTY_CURSORS, is_last_link, is_malformed, parse_next_link
from wholeday.schema.paths import find, load, simplify, to_integer, walk

# Names of headers, fields and parameters after `simplify`: lower-case letters and digits only.
MORE = re.compile(
    r"hasnext(page)?|(has)?more(items|results|records|pages|data|available|itemsincollection)?"
    r"|(is)?truncated|incompleteresults"
)
END = re.compile(r"(is)?(last|lastpage|done|complete|endofstream)")
NEXT = re.compile(
    r"(odata)?next(page|records?|cursor)?(url|uri|link|href|cursor|token|offset|key|number|marker|id|start|skip|range)?"
    r"|after(cursor|url)?|(end)?cursors?|[a-z]*continue|continuation(token)?|scrollid|startingafter|bookmark"
)
NO_NEXT = re.compile(r"(prev|previous|before|first|last|self|current)(page|cursor|url|link)?|rel|relation|type|title")
TOTAL = re.compile(
    r"total((number)?(of)?(count|results|records|items|elements|entries|objects|docs|size|hits|rows|users|found))?"
    r"|(num|nb)(found|hits|results|records|items|rows)|(record|result|item|row)s?total|fullcount"
)
COUNT = re.compile(r"(record|result|item|user)?s?count|records")
PAGES = re.compile(r"(total|num|nb)?pages|(total)?pages?count|lastpage")
SIZE = re.compile(r"(page|max)?(limit|size|results|rows)|(page|max)count|perpage|itemsperpage|max|first|top|take")
PAGE = re.compile(r"(current)?page(number|num|no|index)?|p|number")
# The words before the meaning of a header: X-Pagination-Total-Count, x-ms-continuation, Recurly-Total-Records
PREFIX = re.compile(r"(x-)?((?!rate)\w+-(?=total|next))?((ms|wp|pagination|paging)-)*")
OFFSET = re.compile(r"(result|page)?offset|skip|start(index|at|row)?|first(result)?|from")
KEY = re.compile(r"(^|[._])(id|uuid|guid|key|pk|sid|serial)$|(Id|ID|Uuid|UUID)$|(^|\.)ur[li]$")
# Usual page sizes without trailing zeros
ROUND = {*("1", "12", "125", "15", "2", "24", "25", "3", "36", "4", "48", "5", "6", "75", "8", "96")}
BEST_KEYS = ("id", "uuid", "guid", "_id")
UPDATED = re.compile(r"updat|modif|modstamp|chang|(?<!cr)(?<!exp)edit", re.IGNORECASE)
CREATED = re.compile(r"creat|registered|joined|signed_?up", re.IGNORECASE)
DELETED = ("deleted", "isdeleted", "removed", "isremoved", "deletedat")
PERHAPS_DELETED = ("active", "isactive", "enabled", "suspended", "archived", "status", "state")

CURSOR_PARAMS = (
    *("cursor", "after", "start_cursor", "page_token", "pageToken", "starting_after", "next_token", "page"),
    *("continuation", "continuationToken", "offset", "pagination_token"),
)


class Word(NamedTuple):
    """A field or header of a page, or a parameter of a request, and its value."""

    path: str
    """A dotted path, or the name of a header or parameter."""
    value: Any

    @property
    def name(self) -> str:
        """The last name of the path, simplified. A header loses its prefix; `total.value` is a total."""
        return simplify(strip_prefix(self.path.removesuffix(".value").rpartition(".")[2]))


class Place(NamedTuple):
    """A field, header or parameter with the position of the first page, and the keys that ask for this position."""

    path: str
    paginator: str
    param: str
    start: int


def strip_prefix(name: str) -> str:
    """Return the name of a header in lower case and without its prefix; any other name unchanged."""
    return PREFIX.sub("", name.lower(), count=1) if "-" in name else name


def list_headers(page: Page) -> list[Word]:
    """List the headers of a page."""
    return [Word(name, text.strip()) for name, text in page.headers.items()]


def find_fields(page: Page) -> list[Word]:
    """List the fields of a page that a dotted path reaches; fields within a list are out of reach."""
    words = [Word(".".join(path), value) for path, value in walk(page.fields)]
    return [word for word in words if find(page.fields, word.path) == word.value]


def find_flags(page: Page) -> list[Word]:
    """List the flags for a further page, named as `more_path` names them. True: another page follows."""
    flags = [word for word in find_fields(page) if isinstance(word.value, bool)]
    texts = {"true": True, "false": False}
    flags += [Word(name, texts[text.lower()]) for name, text in list_headers(page) if text.lower() in texts]
    ends = [Word("!" + word.path, not word.value) for word in flags if END.fullmatch(word.name)]
    return [word for word in flags if MORE.fullmatch(word.name)] + ends


def find_nexts(page: Page) -> list[Word]:
    """List fields and headers that may lead to the next page, the Link header first. An empty one may mean the end."""
    header = page.headers.get("Link", "")
    link = parse_next_link(header) or (header if is_malformed(header) else None)
    found = [] if link is None else [Word("Link", link)]
    found += [word for word in list_headers(page) if NEXT.fullmatch(word.name)]
    for path, value in walk(page.fields):
        names = [simplify(name) for name in path[-2:]]
        leads = any(map(NEXT.fullmatch, names)) and not NO_NEXT.fullmatch(names[-1]) and not isinstance(value, bool)
        # An offset that is not a number is a cursor.
        leads |= names[-1] == "offset" and isinstance(value, str) and to_integer(value) is None
        if leads or (names[-1] in ("rel", "relation") and value == "next"):
            found.append(Word(".".join(path), value))
    return found


def find_leads(page: Page) -> list[Word]:
    """List fields and headers that lead to a next page."""
    return [word for word in find_nexts(page) if word.value not in EMPTY_CURSORS]


def find_ends(page: Page) -> list[str]:
    """List the fields and headers whose missing or empty link to a next page means the end."""
    found = [word.path for word in find_nexts(page) if word.value in EMPTY_CURSORS and "next" in simplify(word.path)]
    header = page.headers.get("Link", "")
    if re.search(r"\brel=\"?(first|prev|last)\b", header) or is_last_link(header):
        found.append("Link")
    # OData always names the next page, unless the request limited the records with $top.
    is_limited = "top" in (simplify(name) for name, _ in parse_qsl(urlsplit(page.url).query))
    return found + [path for path in ("@odata.deltaLink", "@odata.context") if path in page.fields and not is_limited]


def find_totals(page: Page) -> list[Word]:
    """List fields and headers that may hold the number of all records, or of all pages (`pages:`), likeliest first."""
    words = [*find_fields(page), *list_headers(page)]
    numbers = [Word(word.path, number) for word in words if (number := to_integer(word.value)) is not None]
    found = [word for pattern in (TOTAL, COUNT) for word in numbers if pattern.fullmatch(word.name)]
    found += [Word("pages:" + word.path, word.value) for word in numbers if PAGES.fullmatch(word.name)]
    ranged = to_integer(page.headers.get("Content-Range", "").rpartition("/")[2])
    return found if ranged is None else [*found, Word("Content-Range", ranged)]


def find_sizes(request: Request, page: Page) -> list[Word]:
    """List parameters, fields and headers that may hold the page size."""
    # A parameter `count` is a page size; in an answer it is a number of records, on the page or in all.
    sent = [word for word in list_params(request) if SIZE.fullmatch(word.name) or word.name == "count"]
    words = [*find_fields(page), *list_headers(page)]
    sizes = sent + [word for word in words if SIZE.fullmatch(word.name)]
    return [Word(word.path, number) for word in sizes if (number := to_integer(word.value))]


def find_places(request: Request, page: Page) -> Iterator[Place]:
    """Yield parameters, fields and headers that may hold the position of the first page."""
    sent = list_params(request)
    words = [(word, word.path) for word in sent]
    words += [(word, word.path.rpartition(".")[2]) for word in find_fields(page)]
    words += [(word, strip_prefix(word.path)) for word in list_headers(page)]
    for word, param in words:
        number, name = to_integer(word.value), simplify(param.rpartition(".")[2])
        bracketed = [] if word in sent else add_brackets(word.path)
        if number in (0, 1) and PAGE.fullmatch(name):
            params = [param] if word in sent else ["page", *bracketed, param, "pageNumber"]
            yield from (Place(word.path, "page", each, number) for each in dict.fromkeys(params))
        elif number in (0, 1) and OFFSET.fullmatch(name):
            yield from (Place(word.path, "offset", each, number) for each in (param, *bracketed))


def add_brackets(path: str) -> list[str]:
    """Return the parameter that a field such as `meta.pagination.page` may mean: `pagination[page]`."""
    *_, parent, leaf = ["", *path.split(".")]
    return [f"{parent}[{leaf}]"] if parent and "-" not in parent else []


def list_params(request: Request) -> list[Word]:
    """List the parameters of a request: in its URL, its params and its body."""
    sent = [Word(name, text) for name, text in parse_qsl(urlsplit(request.url).query)]
    sent += [Word(name, value) for name, value in request.params.items()]
    return sent + [Word(".".join(path), value) for path, value in walk(request.body)]


def list_variables(body: Any) -> list[str]:
    """List the text variables that a GraphQL query in a body declares: one of them takes the cursor."""
    query = body.get("query") if isinstance(body, Mapping) else None
    return re.findall(r"\$(\w+)\s*:\s*(?:String|ID)\b", query) if isinstance(query, str) else []


def guess_params(path: str) -> list[str]:
    """Guess the names of the parameter that takes the cursor at `path`, likeliest first."""
    leaf = strip_prefix(path.rpartition(".")[2]).replace("-", "_")
    own = re.sub(r"^next_?", "", leaf, flags=re.IGNORECASE)
    words = [word for word in reversed(leaf.lower().split("_")) if word in CURSOR_PARAMS]
    return [name for name in dict.fromkeys((own[:1].lower() + own[1:], *words, leaf, *CURSOR_PARAMS)) if name]


def find_keys(records: Sequence[Any]) -> list[str]:
    """List the dotted paths of fields that look like a key by name and are unique in `records`, likeliest first."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for path, value in walk(record):
            values.setdefault(".".join(path), []).append(value)
    unique = [
        path
        for path, each in values.items()
        if (KEY.search(path) or [*values] == [VALUE])  # a list of scalars has no other field
        and len(each) == len(records) == len({str(value) for value in each if value not in (None, "")})
        and all(find(record, path) == value for record, value in zip(records, each, strict=True))
    ]
    rank = {name: number for number, name in enumerate(BEST_KEYS)}

    def order(path: str) -> tuple[int, bool, int, bool]:
        """Rank a URL last: it is the key of a record without any other. Among equals, the first field is likeliest."""
        return rank.get(path, len(rank)), path.endswith(("url", "uri")), path.count("."), "uuid" not in path

    return sorted(unique, key=order)


def find_times(records: Sequence[Any]) -> dict[str, str]:
    """Map the dotted path of each field that is a time in at least half of the records to its placeholder format.

    The format is empty for RFC 3339, else `:epoch`, `:epoch_ms`, `:date` or directives of strftime.
    """
    seen: dict[str, Counter[str]] = {}
    for record in records:
        for path, value in walk(record):
            if (form := _read_time_format(value)) is not None:
                seen.setdefault(".".join(path), Counter())[form] += 1
    return {path: forms.most_common(1)[0][0] for path, forms in seen.items() if 2 * forms.total() >= len(records)}


def find_values(records: Sequence[Any], names: Sequence[str]) -> dict[str, set[str]]:
    """Map each top-level field with one of these names to its values as JSON."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.items() if isinstance(record, dict) else ():
            if simplify(name) in names:
                found.setdefault(name, set()).add(json.dumps(value))
    return found


def load_records(page: Page) -> list[Any]:
    """Decode the records of a page."""
    return [load(record) for record in page.records]


def is_url(value: Any) -> bool:
    """Return whether a value looks like a URL, absolute or relative."""
    return isinstance(value, str) and bool(re.match(r"https?://|[/?]|\.\.?/|[\w./-]+\?[\w.$%\[\]-]+=", value))


def is_round(count: int) -> bool:
    """Return whether this number of records may be an unnamed page size."""
    digits = str(count).rstrip("0")
    return count >= 10 and (digits in ROUND or count & (count - 1) == 0)


def _read_time_format(value: Any) -> str | None:
    if isinstance(value, str):
        found = re.match(r"\d{4}-\d\d-\d\d(?:$|( \d\d:\d\d:\d\d$)?)", value)
        if found is None:
            return None
        return ":%Y-%m-%d %H:%M:%S" if found[1] else ":date" if len(value) == 10 else ""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10**9:
        return ":epoch" if value < 10**11 else ":epoch_ms"
    return None
