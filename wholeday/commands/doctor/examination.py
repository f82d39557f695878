"""Examine a source by requests, and suggest the section of luigi.cfg that reads it.

Responsibilities: the questions, and the conclusions from the answers. A conclusion without a proof is a doubt.
Non-goals: printing.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wholeday.commands.doctor.filters import Filter, find_filter
from wholeday.commands.doctor.probe import Probe
from wholeday.commands.doctor.section import copy_section, find_preset_by_url, list_clashes, list_set_keys, serialize
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.config.placeholders import find_parent, find_placeholders
from wholeday.config.presets import TELLTALES
from wholeday.config.source import Source
from wholeday.config.writer import write_section, write_value
from wholeday.errors import ConfigError, SourceError
from wholeday.extract import vocabulary
from wholeday.extract.detection import Decision, EndlessError, decide
from wholeday.extract.evidence import Evidence, UndecidedError, announces_more
from wholeday.extract.http.client import AnswerError
from wholeday.extract.http.envelope import starts_with
from wholeday.extract.http.page import Page, Request
from wholeday.extract.links import push_link
from wholeday.extract.paging import TOTAL_HEADERS, Paging, resolve_link
from wholeday.extract.vocabulary import find_keys, load_records
from wholeday.log import count
from wholeday.schema.dataset import Dataset
from wholeday.schema.paths import drop, find
from wholeday.schema.raw_fields import Deletion

ONE_PAGE = "all records came on one page, so paging was not seen: use a URL with more records"
ONLY_CHANGES = (
    "a day has only the records that changed on it: to load all records, backfill from the first day of the source"
)
NO_UPPER = (
    "no usual parameter sets an upper bound, so the filter uses {watermark}: the first day reads all records, and days "
    "run one after the other; if the source supports an upper bound, use {day_start} and {day_stop}"
)
NO_DELETIONS = (
    "an incremental filter cannot detect deletions: if they matter, set mode = snapshot and remove the filter"
)
NO_KEY = "no field identifies a record, so duplicates cannot be counted"
SIZES = (500, 100)  # page sizes to try, in records
SIZE_PARAMS = ("limit", "per_page", "page_size", "count", "max", "size", "_limit", "pageSize", "$top", "_per_page")
SHOWN = 60  # characters of values in a line


def diagnose(config: Source, dataset: Dataset | None = None) -> "Examination":
    """Examine a source, and whether its records fit the class of a dataset.

    Raises SourceError if its first page cannot be read.
    """
    name = find_preset_by_url(config.url)
    if name and not config.preset and not list_clashes(config, name):
        with contextlib.suppress(AnswerError):
            return Examination(copy_section(config, preset=name), dataset).run()
    return Examination(config, dataset).run()


class Examination(Probe):
    """The questions to one source. Each method answers one, and the later ones use the earlier answers.

    `findings` are properties of the source, their values, and the evidence. `section` is the text for luigi.cfg.
    """

    def __init__(self, config: Source, dataset: Dataset | None = None) -> None:
        super().__init__(config)
        self._dataset = dataset
        self.findings: list[tuple[str, str, str]] = []
        self._keys: dict[str, Any] = {}
        """The keys of the section that were found out."""
        self._suggested: dict[str, tuple[str, str]] = {}
        """Keys that a person may switch on, with their values and the evidence."""
        self._is_endless, self._size_param = False, ""
        self._filter: Filter | None = None
        self._placeholders = find_placeholders(config)
        if parents := find_parent(config):
            raise ConfigError(
                f"[{config.section}] {{{parents[0]}.{parents[1][0]}}} stands for a column of {parents[0]}: give the "
                "URL of one of its rows, and write the placeholders into luigi.cfg afterwards"
            )

    def run(self) -> "Examination":
        with self.open():
            self._examine_list()
            self._examine_paging()
            self._examine_size()
            self._examine_records()
            self._examine_changes()
            self._examine_deletions()
            if self._dataset:
                self._examine_record_class(self._dataset)
            self._examine_limits()
            self._examine_total()
            self._examine_preset()
        self.keys = self._build_keys()
        """The keys of the section, as texts."""
        self.section = write_section(self.config.section, self.keys)
        for name, (value, evidence) in self._suggested.items():
            if self._can_write(name, value):
                self.section += f"\n# {value}: {evidence}. Switch it on if it is one:\n# {name} = {write_value(value)}"
        return self

    def add(self, what: str, found: str, evidence: str = "") -> None:
        self.findings.append((what, found, self.client.mask(evidence)))

    def _examine_list(self) -> None:
        selector = self.client.lists.selector
        if selector and not self.config.preset:
            self._keys["data_selector"] = selector
        others = ", ".join(word.path for word in vocabulary.find_fields(self.page)[:12])
        self.add(
            "list",
            f"'{selector}'" if selector else "the page itself",
            f"{len(self.page.records)} records on the first page" + (f"; other fields: {others}" if others else ""),
        )
        if not self.page.records:
            self.doubt("the first page is empty, so records and paging are unknown: use a URL with records")
        if rivals := ", ".join(map(repr, self.client.lists.rivals)):
            self.doubt(
                f"the list at '{selector}' is the likeliest of several, by its name: set data_selector if the "
                f"records are at {rivals}"
            )
        odd = sum(not starts_with(record, b"{") for record in self.page.records)
        if odd:
            self.doubt(
                f"{odd} of {len(self.page.records)} items of the list are not objects, so each is rejected: "
                "check whether another URL or format gives a list of objects"
            )

    def _examine_paging(self) -> None:
        if self.paging.paginator != "auto":
            self._check_paging()
            return
        decision = self._decide(self.paging, self.request, self.page)
        if decision.keys.get("paginator") == "single" and not self._is_endless:
            decision = self._decide_by_smaller_page(decision)
        if decision.keys.get("paginator") == "next_url":
            decision = self._decide_without_endless_link(decision)
        name, keys = decision.keys.get("paginator", "auto"), decision.keys
        if name == "single" and not self._is_endless:
            # All records came today. Each day detects again whether more pages follow.
            name, keys = "auto", {key: value for key, value in keys.items() if key.startswith("total_")}
            self.doubt(ONE_PAGE)
        self._keys |= keys
        self.add("paginator", name, decision.why.removeprefix(f"{decision.keys.get('paginator')}: "))

    def _check_paging(self) -> None:
        """Check that page two follows with the paginator of the section."""
        pages = self.take_two({})
        evidence = f"page two has {len(pages[1].records)} other keys" if len(pages) > 1 else "page two does not exist"
        if len(pages) < 2:
            self.doubt(ONE_PAGE)
        elif not self.follows({}):
            evidence = "page two repeats keys of page one"
            self.doubt(f"paginator = {self.paging.paginator}: {evidence}; check it and its keys")
        else:
            total, shown = Evidence(self.paging, self.request, self.page).find_total_key(pages[1])
            self._keys |= total
            evidence += f"; {shown}" if shown else ""
        self.add("paginator", self.paging.paginator, f"as set; {evidence}")

    def _decide(self, paging: Paging, request: Request, page: Page) -> Decision:
        try:
            return decide(paging, request, page, self.ask)
        except EndlessError as error:
            self._is_endless = True
            self.doubt(f"{error}; the first page is taken for all records")
            return Decision({"paginator": "single"}, "its pages never end")
        except UndecidedError as error:
            self.doubt(str(error))
            return Decision({}, str(error))

    def _decide_by_smaller_page(self, decision: Decision) -> Decision:
        """Request half of the records, so that a list that came on one page has a second one, and decide again."""
        self._size_param = self._find_size_param()
        size = len(self.page.records) // 2
        paging = replace(self.paging, size_param=self._size_param, page_size=size, **self.cursor_in)
        request = paging.first(self.request)
        page = self.ask(request) if self._size_param else None
        if page is None:
            return decision
        with contextlib.suppress(UndecidedError):
            other = decide(paging, request, page, self.ask)
            if other.keys["paginator"] != "single":
                return Decision(other.keys, f"{other.why} (requested {size} records with {self._size_param})")
        return decision

    def _decide_without_endless_link(self, decision: Decision) -> Decision:
        """Decide again without the link if an empty page far behind the last one has such a link too, as in CKAN."""
        path = decision.keys["cursor_path"]
        links = [find(page.fields, path) for page in self.take_two(decision.keys)]
        far = push_link(*map(str, links)) if len(links) == 2 else None
        page = None
        if far is not None:
            url = resolve_link(self.page.url, far, self.paging.next_link == "path")
            page = self.ask(replace(self.request, url=url, params={}))
        if page is None or page.records or not announces_more(page):
            return decision
        fields = drop(self.page.fields, path)
        with contextlib.suppress(UndecidedError):
            other = decide(self.paging, self.request, replace(self.page, fields=fields), self.ask)
            return Decision(other.keys, f"{other.why}; '{path}' has a link on an empty page too, so it never ends")
        self.doubt(f"'{path}' has a link on an empty page too, so the pages never end: set paginator and its keys")
        return decision

    def _find_size_param(self) -> str:
        """Return the parameter that halves the first page, or nothing."""
        size, keys = len(self.page.records), self.read_keys(self.page)
        if size < 2 or any(vocabulary.SIZE.fullmatch(word.name) for word in vocabulary.list_params(self.request)):
            return ""
        echoed = [
            name
            for word in vocabulary.find_sizes(self.request, self.page)
            for name in (*vocabulary.add_brackets(word.path), word.path.rpartition(".")[2])
        ]
        names = [{"itemsPerPage": "count", "X-Per-Page": "per_page"}.get(name, name) for name in echoed]
        for name in dict.fromkeys([*names, *SIZE_PARAMS]):
            page = self.ask(self.request.put(self.place, name, size // 2))
            if page is not None and self.read_keys(page) == keys[: size // 2]:
                return name
        return ""

    def _examine_size(self) -> None:
        if self.paging.size_param or self._is_endless or self.paging.paginator != "auto":
            return
        usual = len(self.page.records)
        param = self._size_param or self._find_size_param()
        if not param:
            self.add("page size", f"{usual}", "no known parameter changes it")
            return
        for size in SIZES:
            request = self.request.put(self.place, param, size)
            page = self.ask(request) if size > usual or self._size_param else None
            if page is None:
                continue
            received = len(page.records)
            total, _ = self.page_by(self._keys).read_totals(page)
            is_capped = received < size and (announces_more(page) or (total or 0) > received)
            page_size = received if is_capped else size
            keys = {**self._keys, "size_param": param, "page_size": page_size, **self.cursor_in}
            if (received > usual or not is_capped) and self.follows(keys):
                self._keys = keys
                self.add("page size", f"{page_size}", f"requested {size} with {param}, received {received}")
                return
        self.add("page size", f"{usual}", f"{param} changes it, but no larger page was received")

    def _examine_records(self) -> None:
        pages = [page for page in self.take_two(self._keys) if page.records] or [self.page]
        self._records = [record for page in pages for record in load_records(page)]
        keys = find_keys(self._records)
        self._raw = [record for page in pages for record in page.records]
        seen = f"distinct and present in {len(self._records)} records of {count(len(pages), 'page')}"
        others = f"; so are {', '.join(keys[1:5])}" if keys[1:] else ""
        self.add("key", keys[0] if keys else "none", seen + others)
        if self._records and not keys:
            self.doubt(NO_KEY)

    def _examine_changes(self) -> None:
        times = vocabulary.find_times(self._records)
        updated = sorted(filter(vocabulary.UPDATED.search, times), key=lambda path: (path.count("."), len(path)))
        created = [path for path in times if vocabulary.CREATED.search(path)]
        evidence = f"only {created[0]}, which does not show changes" if created else ""
        if updated:
            evidence = f"for example {find(self._records[0], updated[0])}"
        self.add("update field", updated[0] if updated else "none", evidence)
        if self._placeholders:
            self.add("filter", "as set", f"by {', '.join(sorted(self._placeholders))}")
        elif not updated:
            self.add("filter", "none", "no update field to test one with")
        elif self.place == "body":
            self.add("filter", "none", "filters in a body are not tested: every run reads all records")
        else:
            self._examine_filter(updated[0], times[updated[0]])

    def _examine_filter(self, path: str, form: str) -> None:
        self._filter = find_filter(self, path, form, is_scim="schemas" in self._records[0])
        if not self._filter:
            self.add("filter", "none", f"no usual parameter filters by {path}: every run reads all records")
            return
        upper = "; fewer before 1970, all before 2100" * self._filter.has_upper
        params = ", ".join(f"{name} = {text}" for name, text in self._filter.params.items())
        self.add("filter", params, f"fewer records since 2100, all since 1970{upper}")
        self.doubt(ONLY_CHANGES if self._filter.has_upper else NO_UPPER)
        self.doubt(NO_DELETIONS)

    def _examine_deletions(self) -> None:
        kinds = vocabulary.DELETED, vocabulary.PERHAPS_DELETED
        deleted, perhaps = (vocabulary.find_values(self._records, kind) for kind in kinds)
        if self.config.deleted_when:
            self.add("deletions", f"deleted_when = {self.config.deleted_when}", "as set")
        elif deleted:
            name, values = next(iter(deleted.items()))
            marked = sum(Deletion(name).judge([record.get(name) for record in self._records]))
            evidence = f"true in {marked} of {count(len(self._records), 'record')}, to judge by its name a deletion"
            self._suggested["deleted_when"] = name, evidence
            seen = ", ".join(sorted(values))[:SHOWN]
            self.add("deletions", "none", f"'{name}' is {seen}: set deleted_when = {name} if it marks deletions")
            self.doubt(f"'{name}' marks deletions, to judge by its name alone")
        elif perhaps:
            name, values = next(iter(perhaps.items()))
            seen = ", ".join(sorted(values))[:SHOWN]
            self.add("deletions", "none", f"'{name}' is {seen}: set deleted_when if it marks deletions")
        else:
            self.add("deletions", "none", "in mode snapshot, a record that is no longer listed is removed")

    def _examine_record_class(self, dataset: Dataset) -> None:
        from wholeday.transform.rows import transform

        cleaned = transform([bytes(record) for record in self._raw], dataset.conversion(self.config))
        reasons = Counter(reject.describe() for reject in cleaned.rejects)
        evidence = "; ".join(f"{number} times: {reason}" for reason, number in reasons.most_common(3))
        self.add("record class", f"{len(cleaned.rows)} of {len(self._raw)} records fit", evidence)
        record_class = dataset.record_class
        if absent := [field for field, (records, present) in cleaned.fields.items() if records and not present]:
            module = record_class.__module__
            self.doubt(f"no record has {', '.join(absent)}, so columns from there stay empty: edit the module {module}")
        if reasons.total() / len(self._raw) > self.config.max_reject_ratio:
            self.doubt(f"the record class {record_class.__name__} does not fit, so records would be rejected: edit it")

    def _examine_limits(self) -> None:
        headers = self.page.headers
        limits = [name for name in headers if re.search(r"rate-?limit|retry-after", name, re.IGNORECASE)]
        evidence = ", ".join(f"{name}: {headers[name]}" for name in limits)
        unknown = "set requests_per_second if you know a limit"
        self.add("rate limit", "declared" if limits else "not declared", evidence or unknown)

    def _examine_total(self) -> None:
        """Find out what shows that an extraction is complete."""
        paging = self.page_by(self._keys)
        page = next(iter(self.take_two(self._keys)), self.page)  # as the section will request it
        for number, what in zip(paging.read_totals(page), ("distinct keys", "pages"), strict=True):
            if number is not None:
                headers = (name for name in TOTAL_HEADERS if name in page.headers)
                name = paging.total_path or paging.total_header or next(headers)
                self.add("complete", f"with {number} {what}", f"declared by {name}")
                return
        end = "a page is empty" if paging.paginator in ("page", "offset", "last_id") else "no page follows"
        end = f"{paging.more_path} says so" if paging.more_path else end
        self.add("complete", f"when {end}", "the source declares no total")
        self.doubt("the source declares no total, so a missing page is not detected")

    def _examine_preset(self) -> None:
        """Suggest the preset that the source looks like, if the preset reads it."""
        matches = (name for name, path in TELLTALES.items() if find(self.page.fields, path) is not None)
        name = find_preset_by_url(self.config.url) or next(matches, "")
        self._preset = self.config.preset
        if self._preset:
            self.add("preset", self._preset, "known by its URL")
        if not name or self._preset:
            return
        looks = f"the source looks like the preset {name}"
        if clashes := list_clashes(self.config, name):
            self.doubt(f"{looks}: leave out {', '.join(clashes)} to try the preset")
            return
        try:
            other = Probe(copy_section(self.config, preset=name))
            with other.client.open():
                pages = other.take_two({})
        except SourceError as error:
            self.doubt(f"{looks}, but the preset fails: {error}")
            return
        self.answers.update({f"{name} {number}".encode(): page for number, page in enumerate(pages)})
        keys = [self.read_keys(page) for page in pages]
        if not any(keys) or set(keys[0]) & set(keys[-1] if keys[1:] else []):
            self.doubt(f"{looks}, but with it page two does not follow page one")
            return
        self._preset = name
        received = " and ".join(f"{len(each)} records" for each in keys)
        self.add("preset", name, f"the page looks like it; with it, the first pages have {received}")

    def _build_keys(self) -> dict[str, str]:
        """Build the section from the set keys and the detected keys. Values are texts."""
        values = list_set_keys(self.config)
        if self._preset:
            values = {"preset": self._preset, **values}
        else:
            values |= {"mode": SNAPSHOT, **self._keys}
            if self._filter:
                values |= {"mode": INCREMENTAL, "params": {**self.config.params, **self._filter.params}}
            elif self._placeholders - {"date"}:
                values["mode"] = INCREMENTAL
        base = self.config.base.rstrip("/")
        url = values.pop("url")
        values = {"url": url.removeprefix(base) if base and url.startswith(f"{base}/") else url, **values}
        params: Mapping[str, Any] = dict(self.config.get_params())
        texts = {name: serialize(params[name], value) for name, value in values.items()}
        masked = {name: self.client.mask(text) for name, text in texts.items()}
        if masked != texts:
            self.doubt("url, params, body or headers hold a secret, shown as ***: name it in auth instead")
        return {name: text for name, text in masked.items() if self._can_write(name, text)}

    def _can_write(self, name: str, text: str) -> bool:
        """Tell whether luigi.cfg can hold a value. Many values are names that the source chose."""
        try:
            write_value(text)
        except ValueError as error:
            self.doubt(f"luigi.cfg cannot hold {name} = {text!r}, so the section lacks this key: {error}")
            return False
        return True
