"""What a URL is as a source: found out by asking it, with the section of luigi.cfg that reads it.

Owns the questions and what is concluded from the answers; Refuses to call sure what no answer has
shown, and to ask more than MOST_REQUESTS times.
"""

import contextlib
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from rich.table import Table

from wholeday import clock
from wholeday.commands.screen import open_console
from wholeday.commands.session import pick_loads
from wholeday.config import presets
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.config.placeholders import EPOCH, find_placeholders, render
from wholeday.config.source import Source
from wholeday.config.writer import escape_json, write_section, write_value
from wholeday.errors import SourceError
from wholeday.extract.detection import Decision, EndlessError, decide
from wholeday.extract.evidence import UndecidedError, announces_more
from wholeday.extract.http.client import AnswerError, Client
from wholeday.extract.http.page import Page
from wholeday.extract.http.request import Request
from wholeday.extract.paging import TOTAL_HEADERS, Paging, build_request
from wholeday.extract.vocabulary import (
    ADDRESSES,
    CREATED,
    DELETED,
    PERHAPS_DELETED,
    SIZE,
    TELLTALES,
    UPDATED,
    find_fields,
    find_keys,
    find_sizes,
    find_times,
    find_values,
    list_params,
    load_records,
)
from wholeday.log import count
from wholeday.schema.depth import TOO_DEEP, is_deep
from wholeday.schema.paths import find

MOST_REQUESTS = 40
ONE_PAGE = "everything came on one page, so it was not seen how another would follow: ask for a fuller list"
SIZES = (500, 100)  # records in a page that are worth asking for
SIZE_PARAMS = ("limit", "per_page", "page_size", "count", "max", "size", "_limit", "pageSize", "$top", "_per_page")
SHOWN = 60  # characters of values in a line
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
# Parameters that ask for records changed since a time, each with those that ask for records changed before one.
FILTERS = {
    "updated_since": ("updated_before", "updated_until"),
    "updated_after": ("updated_before",),
    "modified_since": ("modified_before", "modified_until"),
    "{name}_gte": ("{name}_lt", "{name}_lte"),
    "{name}[gte]": ("{name}[lt]", "{name}[lte]"),
    "since": ("until", "before"),
    "start_time": ("end_time",),  # in seconds
}
LOWER, UPPER, ONLY = "day_start", "day_stop", "watermark"  # the last one is a lower bound without an upper bound


class Finding(NamedTuple):
    """What was asked, what was found, and what shows it."""

    what: str
    found: str
    evidence: str = ""


@dataclass
class Diagnosis:
    """What is known of a source, what is not, and the keys of its section as luigi.cfg would hold them."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    requests: int = 0

    @property
    def section(self) -> str:
        """The section to paste into luigi.cfg."""
        return write_section(self.name, self.keys)


def diagnose(config: Source, record_class: type[msgspec.Struct]) -> Diagnosis:
    """Ask a source what it is. Raises SourceError where its first page cannot be read."""
    name = _find_by_address(config.url)
    if name and not config.preset and not _find_clash(config, name):
        with contextlib.suppress(AnswerError):
            return _Examination(_copy(config, preset=name), record_class).run()
    return _Examination(config, record_class).run()


class _Examination:
    """The questions to one source, and what they cost."""

    def __init__(self, config: Source, record_class: type[msgspec.Struct]) -> None:
        self._config, self._record_class = config, record_class
        self._client = Client(_copy(config, retries=min(config.retries, 1)), clock.utc_now().date())
        self._paging = Paging.of(config)
        self._request = self._paging.add_size(build_request(config, _list_values(config)))
        in_body = config.method == "POST" and isinstance(config.body, Mapping)
        self._where = "body" if in_body else "query"
        self._cursor_in: dict[str, Any] = {"cursor_in": "body"} if in_body else {}
        self._answers: dict[bytes, Page | None] = {}
        self._result = Diagnosis(config.section)
        self._keys: dict[str, Any] = {}
        """Those of the section that were found out."""
        self._endless, self._small = False, ""
        self._filter: dict[str, str] = {}
        self._asked = find_placeholders(config)

    def run(self) -> Diagnosis:
        with self._client.open():
            self._page = self._client.fetch(self._paging.build().first(self._request))
            self._answers[self._paging.build().first(self._request).identity] = self._page
            self._describe_list()
            self._describe_paging()
            self._describe_size()
            self._describe_records()
            self._describe_changes()
            self._describe_deletions()
            self._describe_fit()
            self._describe_limits()
            self._describe_gate()
            self._describe_preset()
        self._result.keys = self._write_keys()
        self._result.requests = len(self._answers)
        return self._result

    def _ask(self, request: Request) -> Page | None:
        """The page for a request, None where the source gives none; one that was made is not made again."""
        if request.identity not in self._answers:
            if len(self._answers) >= MOST_REQUESTS:
                self._doubt(f"{MOST_REQUESTS} requests were made, and not everything was looked for")
                return None
            self._answers[request.identity] = None
            try:
                self._answers[request.identity] = self._client.probe(request)
            except SourceError as error:
                self._doubt(str(error))
        return self._answers[request.identity]

    def _doubt(self, text: str) -> None:
        text = self._client.mask(text)
        if text not in self._result.unsure:
            self._result.unsure.append(text)

    def _tell(self, what: str, found: str, evidence: str = "") -> None:
        self._result.findings.append(Finding(what, found, self._client.mask(evidence)))

    def _describe_list(self) -> None:
        selector = self._client.selector
        self._selector = selector
        if selector and not self._config.preset:
            self._keys["data_selector"] = selector
        beside = ", ".join(word.path for word in find_fields(self._page)[:12])
        self._tell(
            "list",
            f"'{selector}'" if selector else "the page itself",
            f"{len(self._page.records)} records on the first page" + (f"; beside it: {beside}" if beside else ""),
        )
        if not self._page.records:
            self._doubt("the first page is empty: nothing is known of records and pages; ask for a fuller one")

    def _describe_paging(self) -> None:
        if self._paging.paginator != "auto":
            self._check_paging()
            return
        decision = self._decide(self._paging, self._request, self._page)
        if decision.keys.get("paginator") == "single" and not self._endless:
            decision = self._look_closer(decision)
        name, keys = decision.keys.get("paginator", "auto"), decision.keys
        if name == "single" and not self._endless:
            # Everything came today: whether more follow is to be found out on each day anew.
            name, keys = "auto", {key: value for key, value in keys.items() if key.startswith("total_")}
            self._doubt(ONE_PAGE)
        self._keys |= keys
        self._tell("paginator", name, decision.why.removeprefix(f"{decision.keys.get('paginator')}: "))

    def _check_paging(self) -> None:
        """Whether the paginator that is set gives another page two."""
        pages = self._take_two({})
        shown = f"page two has {len(pages[1].records)} other keys" if len(pages) > 1 else "no page two follows"
        if len(pages) < 2:
            self._doubt(ONE_PAGE)
        elif not self._proves({}):
            shown = "page two has keys of page one again"
            self._doubt(f"paginator = {self._paging.paginator}: {shown}; check it and its keys")
        self._tell("paginator", self._paging.paginator, f"as it is set; {shown}")

    def _decide(self, paging: Paging, request: Request, page: Page) -> Decision:
        try:
            return decide(paging, request, page, self._ask)
        except EndlessError as error:
            self._endless = True
            self._doubt(f"{error}; one page is taken for everybody")
            return Decision({"paginator": "single"}, "its pages never end")
        except UndecidedError as error:
            self._doubt(str(error))
            return Decision({}, str(error))

    def _look_closer(self, decision: Decision) -> Decision:
        """Where everything came on one page: what is decided when less is asked for."""
        self._small = self._find_size_param()
        size = len(self._page.records) // 2
        paging = replace(self._paging, size_param=self._small, page_size=size, **self._cursor_in)
        page = self._ask(paging.add_size(self._request)) if self._small else None
        if page is None:
            return decision
        with contextlib.suppress(UndecidedError):
            closer = decide(paging, paging.add_size(self._request), page, self._ask)
            if closer.keys["paginator"] != "single":
                return Decision(closer.keys, f"{closer.why} ({size} records asked for with {self._small})")
        return decision

    def _find_size_param(self) -> str:
        """The parameter by which half of the first page comes when half is asked for; empty if none does."""
        got, keys = len(self._page.records), self._read_keys(self._page)
        if got < 2 or any(SIZE.fullmatch(word.name) for word in list_params(self._request)):
            return ""
        echoed = (word.path.rpartition(".")[2] for word in find_sizes(self._request, self._page))
        names = [{"itemsPerPage": "count", "X-Per-Page": "per_page"}.get(name, name) for name in echoed]
        for name in dict.fromkeys([*names, *SIZE_PARAMS]):
            page = self._ask(self._request.put(self._where, name, got // 2))
            if page is not None and self._read_keys(page) == keys[: got // 2]:
                return name
        return ""

    def _describe_size(self) -> None:
        if self._paging.size_param or self._endless or self._paging.paginator != "auto":
            return
        got = len(self._page.records)
        param = self._small or self._find_size_param()
        if not param:
            self._tell("page size", f"{got}", "no parameter was found that changes it")
            return
        for size in SIZES:
            page = self._ask(self._request.put(self._where, param, size)) if size > got or self._small else None
            if page is None:
                continue
            came = len(page.records)
            total, _ = self._page_by(self._keys).read_totals(page)
            capped = came < size and (announces_more(page) or (total or 0) > came)
            keys = {**self._keys, "size_param": param, "page_size": came if capped else size, **self._cursor_in}
            if (came > got or not capped) and self._proves(keys):
                self._keys = keys
                self._tell("page size", f"{keys['page_size']}", f"asked for {size} with {param}, {came} came")
                return
        self._tell("page size", f"{got}", f"{param} changes it, and larger pages did not come")

    def _proves(self, keys: Mapping[str, Any]) -> bool:
        """Whether page two follows page one by these keys."""
        pages = self._take_two(keys)
        return len(pages) < 2 or not set(self._read_keys(pages[0])) & set(self._read_keys(pages[1]))

    def _take_two(self, keys: Mapping[str, Any]) -> list[Page]:
        """The first pages by these keys."""
        paging = self._page_by(keys)
        paginator = paging.build()
        request: Request | None = paginator.first(paging.add_size(self._request))
        pages: list[Page] = []
        with contextlib.suppress(ValueError):
            while request is not None and len(pages) < 2 and (page := self._ask(request)) is not None:
                pages.append(page)
                request = paginator.next(request, page, paging.read_more(page))
        return pages

    def _page_by(self, keys: Mapping[str, Any]) -> Paging:
        return replace(self._paging, **{name: keys[name] for name in keys if name in Paging.__dataclass_fields__})

    def _read_keys(self, page: Page) -> list[str]:
        path = next(iter(find_keys(load_records(self._page))), None)
        records = load_records(page)
        return [str(record if path is None else find(record, path)) for record in records]

    def _describe_records(self) -> None:
        pages = [page for page in self._take_two(self._keys) if page.records] or [self._page]
        self._records = [record for page in pages for record in load_records(page)]
        keys = find_keys(self._records)
        self._raw = [record for page in pages for record in page.records]
        seen = f"distinct and present in {len(self._records)} records of {count(len(pages), 'page')}"
        self._tell("key", keys[0] if keys else "none", seen + (f"; so are {', '.join(keys[1:5])}" if keys[1:] else ""))
        if self._records and not keys:
            self._doubt("no field tells the records apart: duplicates cannot be counted")

    def _describe_changes(self) -> None:
        times = find_times(self._records)
        updated = sorted(filter(UPDATED.search, times), key=lambda path: (path.count("."), len(path)))
        created = [path for path in times if CREATED.search(path)]
        if updated:
            self._tell("update field", updated[0], f"such as {find(self._records[0], updated[0])}")
        else:
            self._tell("update field", "none", f"only {created[0]}: changes cannot be read by it" if created else "")
        if self._asked:
            self._tell("filter", "as it is set", f"by {', '.join(sorted(self._asked))}")
        elif not updated:
            self._tell("filter", "none", "without an update field none could be checked")
        elif self._where == "body":
            self._tell("filter", "none", "what a body filters by is not looked for: everybody is read each day")
        elif self._find_filter(updated[0], times[updated[0]]):
            self._describe_filter()
        else:
            self._tell("filter", "none", f"no usual parameter filters by {updated[0]}: everybody is read each day")

    def _describe_filter(self) -> None:
        window = f"{{{UPPER}" in str(self._filter)
        self._tell(
            "filter",
            ", ".join(f"{name} = {text}" for name, text in self._filter.items()),
            "since 2100 it gives fewer, since 1970 the same" + "; before 1970 fewer, before 2100 the same" * window,
        )
        if window:
            self._doubt(
                "a day brings only the records that changed on it: to have all of them, backfill from the first day "
                "of the source"
            )
        else:
            self._doubt(
                "no usual parameter sets an upper bound, so the filter uses {watermark}: the first day reads all "
                "records, and days run one after the other; if the source takes an upper bound, "
                "use {day_start} and {day_stop}"
            )
        self._doubt(
            "an incremental filter cannot detect deletions: if they matter, set mode = snapshot and remove the filter"
        )

    def _find_filter(self, path: str, form: str) -> bool:
        """Find params that ask for the changes of a time window, or at least for those since a time."""
        for since, windows in self._list_filters(path, form):
            alone = {name: text.replace(LOWER, ONLY) for name, text in since.items()}
            if self._proves_filter(alone, ONLY):
                self._filter = next((params for params in windows if self._proves_filter(params, UPPER)), alone)
                return True
        return False

    def _list_filters(self, path: str, form: str) -> Iterator[tuple[dict[str, str], list[dict[str, str]]]]:
        """List params with a lower bound, each with the params that add an upper bound."""
        if "schemas" in self._records[0]:
            above = f'{path} gt "{{{LOWER}}}"'
            yield {"filter": above}, [{"filter": f'{above} and {path} lt "{{{UPPER}}}"'}]
        for lower, uppers in FILTERS.items():
            leaf, written = path.rpartition(".")[2], ":epoch" if lower == "start_time" else form
            since = {lower.format(name=leaf): f"{{{LOWER}{written}}}"}
            yield since, [since | {upper.format(name=leaf): f"{{{UPPER}{written}}}"} for upper in uppers]

    def _proves_filter(self, params: dict[str, str], bound: str) -> bool:
        """Tell whether the widest window gives the first page again, and one that `bound` makes empty gives fewer."""
        widest: dict[str, dt.datetime | dt.date] = {LOWER: EPOCH, ONLY: EPOCH, UPPER: FUTURE}
        none = self._ask_between(params, {**widest, bound: EPOCH if bound == UPPER else FUTURE})
        if none is None or len(none.records) >= len(self._page.records):
            return False
        everybody = self._ask_between(params, widest)
        return everybody is not None and self._read_keys(everybody) == self._read_keys(self._page)

    def _ask_between(self, params: dict[str, str], times: Mapping[str, dt.datetime | dt.date]) -> Page | None:
        request = self._request
        for name, text in params.items():
            request = request.put("query", name, render(text, times))
        return self._ask(request)

    def _describe_deletions(self) -> None:
        gone, perhaps = find_values(self._records, DELETED), find_values(self._records, PERHAPS_DELETED)
        if self._config.deleted_when:
            self._tell("deletions", f"deleted_when = {self._config.deleted_when}", "as it is set")
        elif gone:
            name, values = next(iter(gone.items()))
            self._keys["deleted_when"] = name
            self._doubt(f"that '{name}' tells deletions is known by its name only")
            self._tell("deletions", f"deleted_when = {name}", f"seen: {', '.join(sorted(values))[:SHOWN]}")
        elif perhaps:
            name, values = next(iter(perhaps.items()))
            seen = ", ".join(sorted(values))[:SHOWN]
            self._tell("deletions", "none", f"'{name}' is {seen}: set deleted_when, if that means deleted")
        else:
            self._tell("deletions", "none", "in mode snapshot whoever is no longer listed is gone")

    def _describe_fit(self) -> None:
        refused: Counter[str] = Counter()
        for record in self._raw:
            try:
                if is_deep(record):
                    refused[TOO_DEEP] += 1
                else:
                    msgspec.json.decode(record, type=self._record_class)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                refused[str(error)] += 1
        good = len(self._raw) - refused.total()
        reasons = "; ".join(f"{number} times: {reason}" for reason, number in refused.most_common(3))
        self._tell("record class", f"{good} of {len(self._raw)} records fit", reasons)
        names = [field.encode_name for field in msgspec.structs.fields(self._record_class)]
        if never := [name for name in names if all(find(record, name) is None for record in self._records)]:
            missing = ", ".join(never)
            where = f"edit the module {self._record_class.__module__}"
            self._doubt(f"no record has {missing}: what the table takes from there stays empty: {where}")
        if refused and refused.total() / len(self._raw) > self._config.max_reject_ratio:
            self._doubt(
                f"the record class {self._record_class.__name__} does not fit, so records would be rejected: edit it"
            )

    def _describe_limits(self) -> None:
        named = [name for name in self._page.headers if re.search(r"rate-?limit|retry-after", name, re.IGNORECASE)]
        told = ", ".join(f"{name}: {self._page.headers[name]}" for name in named)
        self._tell("rate limit", "said" if named else "not said", told or "set requests_per_second, if you know one")

    def _describe_gate(self) -> None:
        paging = self._page_by(self._keys)
        page = next(iter(self._take_two(self._keys)), self._page)  # as the section will ask for it
        for number, what in zip(paging.read_totals(page), ("distinct keys", "pages"), strict=True):
            if number is not None:
                headers = (name for name in TOTAL_HEADERS if name in page.headers)
                named = paging.total_path or paging.total_header or next(headers)
                self._tell("complete", f"if {number} {what} come", f"declared by {named}")
                return
        counted = paging.paginator in ("page", "offset", "last_id")
        end = (
            f"{paging.more_path} says so" if paging.more_path else "a page is empty" if counted else "nothing leads on"
        )
        self._tell("complete", f"where {end}", "nothing declares how many there are")
        self._doubt("nothing declares how many records there are: a page that the source leaves out is not noticed")

    def _describe_preset(self) -> None:
        """Propose the preset that the source looks like, if it can be read by it."""
        told = (name for name, path in TELLTALES.items() if find(self._page.fields, path) is not None)
        name = _find_by_address(self._config.url) or next(told, "")
        self._preset = self._config.preset
        if self._preset:
            self._tell("preset", self._preset, "known by its address")
        if not name or self._preset:
            return
        if clash := _find_clash(self._config, name):
            self._doubt(f"it looks like the preset {name}: leave out {', '.join(clash)} to see it read by that")
            return
        try:
            pages = _Examination(_copy(self._config, preset=name), self._record_class).take_two()
        except SourceError as error:
            self._doubt(f"it looks like the preset {name}, and cannot be read by it: {error}")
            return
        self._answers.update({f"{name} {number}".encode(): page for number, page in enumerate(pages)})
        keys = [self._read_keys(page) for page in pages]
        if not any(keys) or set(keys[0]) & set(keys[-1] if keys[1:] else []):
            self._doubt(f"it looks like the preset {name}, by which no page two follows page one")
            return
        self._preset = name
        came = " and ".join(f"{len(each)} records" for each in keys)
        self._tell("preset", name, f"the page looks like it; read by it, {came} came on the first pages")

    def take_two(self) -> list[Page]:
        """The first pages by the section as it is."""
        with self._client.open():
            return self._take_two({})

    def _write_keys(self) -> dict[str, str]:
        """The section as text: what was set, and what was found out."""
        values = _list_set(self._config)
        if self._preset:
            values = {"preset": self._preset, **values}
        else:
            values |= {"mode": SNAPSHOT, **self._keys}
            if self._filter:
                values |= {"mode": INCREMENTAL, "params": {**self._config.params, **self._filter}}
            elif self._asked - {"date"}:
                values["mode"] = INCREMENTAL
        values = {"url": values.pop("url"), **values}
        params = dict(self._config.get_params())
        texts = {name: _serialize(params[name], value) for name, value in values.items()}
        masked = {name: self._client.mask(text) for name, text in texts.items()}
        if masked != texts:
            self._doubt("a secret stood in the url, params, body or headers, here ***: name it in auth instead")
        return {name: text for name, text in masked.items() if self._can_write(name, text)}

    def _can_write(self, name: str, text: str) -> bool:
        """Whether luigi.cfg can hold a value. Many are names that the source chose."""
        try:
            write_value(text)
        except ValueError as error:
            self._doubt(f"luigi.cfg cannot hold {name} = {text!r}, so the section lacks this key: {error}")
            return False
        return True


def _serialize(param: Any, value: Any) -> str:
    text = param.serialize(value)
    return escape_json(text) if isinstance(value, (Mapping, tuple)) else text


def _list_values(config: Source) -> dict[str, dt.datetime | dt.date]:
    """What the placeholders stand for, as if nothing was loaded yet."""
    date = clock.utc_now().date()
    return {"date": date, "day_start": EPOCH, "day_stop": config.window(date).stop, "watermark": EPOCH}


def _copy(config: Source, **changes: Any) -> Source:
    """The same section with other keys; what a new preset says goes before a default."""
    return type(config)(**{**_list_set(config), **changes})


def _list_set(config: Source) -> dict[str, Any]:
    """The keys that are not as they would be if nobody had set them."""
    known = presets.get_keys(config.preset) if config.preset else {}
    values = {}
    for name, param in config.get_params():
        value, text = getattr(config, name), known.get(name)
        default = param._default if text is None else param.normalize(param.parse(text))
        if name == "url" or value != default:
            values[name] = value
    return values


def _find_by_address(url: str) -> str:
    """The preset that a URL is known by."""
    return next((name for name, address in ADDRESSES.items() if re.search(address, url)), "")


def _find_clash(config: Source, preset: str) -> list[str]:
    """The keys that are set and that the preset sets too, but for those that say how patient to be."""
    return sorted(presets.get_keys(preset).keys() & _list_set(config).keys() - {"requests_per_second", "max_wait"})


def command(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The first page. Flags such as --users-auth bearer:ENV may follow.")
    ],
) -> bool:
    """Print what a URL is as a source, and its section. What luigi.cfg says of another URL is left out."""
    load = pick_loads(context.obj)[0]
    dataset = load.dataset
    get_config().remove_section(dataset.name)
    with CmdlineParser.global_instance([load.task_family, f"--{dataset.name}-url", url, *context.obj.flags]):
        diagnosis = diagnose(dataset.config(), dataset.record_class)
    console = open_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    for finding in diagnosis.findings:
        table.add_row(*finding)
    console.print(table)
    for doubt in diagnosis.unsure:
        console.print(f"unsure: {doubt}", style="yellow", soft_wrap=True)
    console.print(
        f"after {count(diagnosis.requests, 'request')}; replace section [{dataset.name}] of luigi.cfg with this one:\n"
    )
    console.print(diagnosis.section, soft_wrap=True)
    return True
