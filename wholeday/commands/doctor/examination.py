"""Examine a source by requests, and suggest the section of luigi.cfg that reads it.

*Responsibilities*: the questions, and the conclusions from the answers. A conclusion without a proof is a doubt.
*Non-goals*: printing.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from wholeday.commands.doctor.diagnosis import Diagnosis
from wholeday.commands.doctor.filters import Filter, find_filter
from wholeday.commands.doctor.probe import Probe
from wholeday.commands.doctor.section import copy_section, find_preset_by_url, list_clashes, list_set_keys, serialize
from wholeday.config.days import INCREMENTAL, SNAPSHOT
from wholeday.config.placeholders import find_placeholders
from wholeday.config.source import Source
from wholeday.config.writer import write_value
from wholeday.errors import SourceError
from wholeday.extract.detection import Decision, EndlessError, decide
from wholeday.extract.evidence import UndecidedError, announces_more
from wholeday.extract.http.client import AnswerError
from wholeday.extract.http.page import Page, Request
from wholeday.extract.paging import TOTAL_HEADERS, Paging
from wholeday.extract.vocabulary import (
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

ONE_PAGE = "all records came on one page, so paging was not seen: use a URL with more records"
SIZES = (500, 100)  # page sizes to try, in records
SIZE_PARAMS = ("limit", "per_page", "page_size", "count", "max", "size", "_limit", "pageSize", "$top", "_per_page")
SHOWN = 60  # characters of values in a line


def diagnose(config: Source, record_class: type[msgspec.Struct]) -> Diagnosis:
    """Examine a source. Raises SourceError if its first page cannot be read."""
    name = find_preset_by_url(config.url)
    if name and not config.preset and not list_clashes(config, name):
        with contextlib.suppress(AnswerError):
            return _Examination(copy_section(config, preset=name), record_class).run()
    return _Examination(config, record_class).run()


class _Examination:
    """The questions to one source. Each method answers one, and the later ones use the earlier answers."""

    def __init__(self, config: Source, record_class: type[msgspec.Struct]) -> None:
        self._config, self._record_class = config, record_class
        self._probe = Probe(config)
        self._diagnosis = self._probe.diagnosis
        self._paging, self._request = self._probe.paging, self._probe.request
        self._keys: dict[str, Any] = {}
        """The keys of the section that were found out."""
        self._is_endless, self._size_param = False, ""
        self._filter: Filter | None = None
        self._placeholders = find_placeholders(config)

    def run(self) -> Diagnosis:
        with self._probe.open():
            self._page = self._probe.page
            self._examine_list()
            self._examine_paging()
            self._examine_size()
            self._examine_records()
            self._examine_changes()
            self._examine_deletions()
            self._examine_record_class()
            self._examine_limits()
            self._examine_total()
            self._examine_preset()
        self._diagnosis.keys = self._build_keys()
        self._diagnosis.requests = len(self._probe.answers)
        return self._diagnosis

    def take_two(self) -> list[Page]:
        """Return the first two pages under the section, or fewer."""
        with self._probe.client.open():
            return self._probe.take_two({})

    def _examine_list(self) -> None:
        selector = self._probe.client.lists.selector
        if selector and not self._config.preset:
            self._keys["data_selector"] = selector
        others = ", ".join(word.path for word in find_fields(self._page)[:12])
        self._diagnosis.add(
            "list",
            f"'{selector}'" if selector else "the page itself",
            f"{len(self._page.records)} records on the first page" + (f"; other fields: {others}" if others else ""),
        )
        if not self._page.records:
            self._diagnosis.doubt("the first page is empty, so records and paging are unknown: use a URL with records")

    def _examine_paging(self) -> None:
        if self._paging.paginator != "auto":
            self._check_paging()
            return
        decision = self._decide(self._paging, self._request, self._page)
        if decision.keys.get("paginator") == "single" and not self._is_endless:
            decision = self._decide_by_smaller_page(decision)
        name, keys = decision.keys.get("paginator", "auto"), decision.keys
        if name == "single" and not self._is_endless:
            # All records came today. Each day detects again whether more pages follow.
            name, keys = "auto", {key: value for key, value in keys.items() if key.startswith("total_")}
            self._diagnosis.doubt(ONE_PAGE)
        self._keys |= keys
        self._diagnosis.add("paginator", name, decision.why.removeprefix(f"{decision.keys.get('paginator')}: "))

    def _check_paging(self) -> None:
        """Check that page two follows with the paginator of the section."""
        pages = self._probe.take_two({})
        evidence = f"page two has {len(pages[1].records)} other keys" if len(pages) > 1 else "page two does not exist"
        if len(pages) < 2:
            self._diagnosis.doubt(ONE_PAGE)
        elif not self._probe.follows({}):
            evidence = "page two repeats keys of page one"
            self._diagnosis.doubt(f"paginator = {self._paging.paginator}: {evidence}; check it and its keys")
        self._diagnosis.add("paginator", self._paging.paginator, f"as set; {evidence}")

    def _decide(self, paging: Paging, request: Request, page: Page) -> Decision:
        try:
            return decide(paging, request, page, self._probe.ask)
        except EndlessError as error:
            self._is_endless = True
            self._diagnosis.doubt(f"{error}; the first page is taken for all records")
            return Decision({"paginator": "single"}, "its pages never end")
        except UndecidedError as error:
            self._diagnosis.doubt(str(error))
            return Decision({}, str(error))

    def _decide_by_smaller_page(self, decision: Decision) -> Decision:
        """Request half of the records, so that a list that came on one page has a second one, and decide again."""
        self._size_param = self._find_size_param()
        size = len(self._page.records) // 2
        paging = replace(self._paging, size_param=self._size_param, page_size=size, **self._probe.cursor_in)
        request = paging.first(self._request)
        page = self._probe.ask(request) if self._size_param else None
        if page is None:
            return decision
        with contextlib.suppress(UndecidedError):
            other = decide(paging, request, page, self._probe.ask)
            if other.keys["paginator"] != "single":
                return Decision(other.keys, f"{other.why} (requested {size} records with {self._size_param})")
        return decision

    def _find_size_param(self) -> str:
        """Return the parameter that halves the first page, or nothing."""
        size, keys = len(self._page.records), self._probe.read_keys(self._page)
        if size < 2 or any(SIZE.fullmatch(word.name) for word in list_params(self._request)):
            return ""
        echoed = (word.path.rpartition(".")[2] for word in find_sizes(self._request, self._page))
        names = [{"itemsPerPage": "count", "X-Per-Page": "per_page"}.get(name, name) for name in echoed]
        for name in dict.fromkeys([*names, *SIZE_PARAMS]):
            page = self._probe.ask(self._request.put(self._probe.place, name, size // 2))
            if page is not None and self._probe.read_keys(page) == keys[: size // 2]:
                return name
        return ""

    def _examine_size(self) -> None:
        if self._paging.size_param or self._is_endless or self._paging.paginator != "auto":
            return
        usual = len(self._page.records)
        param = self._size_param or self._find_size_param()
        if not param:
            self._diagnosis.add("page size", f"{usual}", "no known parameter changes it")
            return
        for size in SIZES:
            request = self._request.put(self._probe.place, param, size)
            page = self._probe.ask(request) if size > usual or self._size_param else None
            if page is None:
                continue
            received = len(page.records)
            total, _ = self._probe.page_by(self._keys).read_totals(page)
            is_capped = received < size and (announces_more(page) or (total or 0) > received)
            page_size = received if is_capped else size
            keys = {**self._keys, "size_param": param, "page_size": page_size, **self._probe.cursor_in}
            if (received > usual or not is_capped) and self._probe.follows(keys):
                self._keys = keys
                self._diagnosis.add("page size", f"{page_size}", f"requested {size} with {param}, received {received}")
                return
        self._diagnosis.add("page size", f"{usual}", f"{param} changes it, but no larger page was received")

    def _examine_records(self) -> None:
        pages = [page for page in self._probe.take_two(self._keys) if page.records] or [self._page]
        self._records = [record for page in pages for record in load_records(page)]
        keys = find_keys(self._records)
        self._raw = [record for page in pages for record in page.records]
        seen = f"distinct and present in {len(self._records)} records of {count(len(pages), 'page')}"
        others = f"; so are {', '.join(keys[1:5])}" if keys[1:] else ""
        self._diagnosis.add("key", keys[0] if keys else "none", seen + others)
        if self._records and not keys:
            self._diagnosis.doubt("no field identifies a record, so duplicates cannot be counted")

    def _examine_changes(self) -> None:
        times = find_times(self._records)
        updated = sorted(filter(UPDATED.search, times), key=lambda path: (path.count("."), len(path)))
        created = [path for path in times if CREATED.search(path)]
        if updated:
            self._diagnosis.add("update field", updated[0], f"for example {find(self._records[0], updated[0])}")
        else:
            evidence = f"only {created[0]}, which does not show changes" if created else ""
            self._diagnosis.add("update field", "none", evidence)
        if self._placeholders:
            self._diagnosis.add("filter", "as set", f"by {', '.join(sorted(self._placeholders))}")
        elif not updated:
            self._diagnosis.add("filter", "none", "no update field to test one with")
        elif self._probe.place == "body":
            self._diagnosis.add("filter", "none", "filters in a body are not tested: every run reads all records")
        else:
            self._examine_filter(updated[0], times[updated[0]])

    def _examine_filter(self, path: str, form: str) -> None:
        self._filter = find_filter(self._probe, path, form, is_scim="schemas" in self._records[0])
        if not self._filter:
            evidence = f"no usual parameter filters by {path}: every run reads all records"
            self._diagnosis.add("filter", "none", evidence)
            return
        upper = "; fewer before 1970, all before 2100" * self._filter.has_upper
        self._diagnosis.add(
            "filter",
            ", ".join(f"{name} = {text}" for name, text in self._filter.params.items()),
            f"fewer records since 2100, all since 1970{upper}",
        )
        if self._filter.has_upper:
            self._diagnosis.doubt(
                "a day has only the records that changed on it: to load all records, backfill from the first day of "
                "the source"
            )
        else:
            self._diagnosis.doubt(
                "no usual parameter sets an upper bound, so the filter uses {watermark}: the first day reads all "
                "records, and days run one after the other; if the source supports an upper bound, "
                "use {day_start} and {day_stop}"
            )
        self._diagnosis.doubt(
            "an incremental filter cannot detect deletions: if they matter, set mode = snapshot and remove the filter"
        )

    def _examine_deletions(self) -> None:
        deleted, perhaps = find_values(self._records, DELETED), find_values(self._records, PERHAPS_DELETED)
        if self._config.deleted_when:
            self._diagnosis.add("deletions", f"deleted_when = {self._config.deleted_when}", "as set")
        elif deleted:
            name, values = next(iter(deleted.items()))
            self._keys["deleted_when"] = name
            self._diagnosis.doubt(f"'{name}' marks deletions, to judge by its name alone")
            self._diagnosis.add("deletions", f"deleted_when = {name}", f"seen: {', '.join(sorted(values))[:SHOWN]}")
        elif perhaps:
            name, values = next(iter(perhaps.items()))
            seen = ", ".join(sorted(values))[:SHOWN]
            self._diagnosis.add("deletions", "none", f"'{name}' is {seen}: set deleted_when if it marks deletions")
        else:
            self._diagnosis.add("deletions", "none", "in mode snapshot, a record that is no longer listed is removed")

    def _examine_record_class(self) -> None:
        reasons: Counter[str] = Counter()
        for record in self._raw:
            try:
                if is_deep(record):
                    reasons[TOO_DEEP] += 1
                else:
                    msgspec.json.decode(record, type=self._record_class)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                reasons[str(error)] += 1
        good = len(self._raw) - reasons.total()
        evidence = "; ".join(f"{number} times: {reason}" for reason, number in reasons.most_common(3))
        self._diagnosis.add("record class", f"{good} of {len(self._raw)} records fit", evidence)
        names = [field.encode_name for field in msgspec.structs.fields(self._record_class)]
        if absent := [name for name in names if all(find(record, name) is None for record in self._records)]:
            module = self._record_class.__module__
            self._diagnosis.doubt(
                f"no record has {', '.join(absent)}, so columns from there stay empty: edit the module {module}"
            )
        if reasons and reasons.total() / len(self._raw) > self._config.max_reject_ratio:
            name = self._record_class.__name__
            self._diagnosis.doubt(f"the record class {name} does not fit, so records would be rejected: edit it")

    def _examine_limits(self) -> None:
        headers = self._page.headers
        limits = [name for name in headers if re.search(r"rate-?limit|retry-after", name, re.IGNORECASE)]
        if limits:
            self._diagnosis.add("rate limit", "declared", ", ".join(f"{name}: {headers[name]}" for name in limits))
        else:
            self._diagnosis.add("rate limit", "not declared", "set requests_per_second if you know a limit")

    def _examine_total(self) -> None:
        """Find out what shows that an extraction is complete."""
        paging = self._probe.page_by(self._keys)
        page = next(iter(self._probe.take_two(self._keys)), self._page)  # as the section will request it
        for number, what in zip(paging.read_totals(page), ("distinct keys", "pages"), strict=True):
            if number is not None:
                headers = (name for name in TOTAL_HEADERS if name in page.headers)
                name = paging.total_path or paging.total_header or next(headers)
                self._diagnosis.add("complete", f"with {number} {what}", f"declared by {name}")
                return
        end = "a page is empty" if paging.paginator in ("page", "offset", "last_id") else "no page follows"
        end = f"{paging.more_path} says so" if paging.more_path else end
        self._diagnosis.add("complete", f"when {end}", "the source declares no total")
        self._diagnosis.doubt("the source declares no total, so a missing page is not detected")

    def _examine_preset(self) -> None:
        """Suggest the preset that the source looks like, if the preset reads it."""
        matches = (name for name, path in TELLTALES.items() if find(self._page.fields, path) is not None)
        name = find_preset_by_url(self._config.url) or next(matches, "")
        self._preset = self._config.preset
        if self._preset:
            self._diagnosis.add("preset", self._preset, "known by its URL")
        if not name or self._preset:
            return
        looks = f"the source looks like the preset {name}"
        if clashes := list_clashes(self._config, name):
            self._diagnosis.doubt(f"{looks}: leave out {', '.join(clashes)} to try the preset")
            return
        try:
            pages = _Examination(copy_section(self._config, preset=name), self._record_class).take_two()
        except SourceError as error:
            self._diagnosis.doubt(f"{looks}, but the preset fails: {error}")
            return
        self._probe.answers.update({f"{name} {number}".encode(): page for number, page in enumerate(pages)})
        keys = [self._probe.read_keys(page) for page in pages]
        if not any(keys) or set(keys[0]) & set(keys[-1] if keys[1:] else []):
            self._diagnosis.doubt(f"{looks}, but with it page two does not follow page one")
            return
        self._preset = name
        received = " and ".join(f"{len(each)} records" for each in keys)
        self._diagnosis.add("preset", name, f"the page looks like it; with it, the first pages have {received}")

    def _build_keys(self) -> dict[str, str]:
        """Build the section from the set keys and the detected keys. Values are texts."""
        values = list_set_keys(self._config)
        if self._preset:
            values = {"preset": self._preset, **values}
        else:
            values |= {"mode": SNAPSHOT, **self._keys}
            if self._filter:
                values |= {"mode": INCREMENTAL, "params": {**self._config.params, **self._filter.params}}
            elif self._placeholders - {"date"}:
                values["mode"] = INCREMENTAL
        values = {"url": values.pop("url"), **values}
        params: Mapping[str, Any] = dict(self._config.get_params())
        texts = {name: serialize(params[name], value) for name, value in values.items()}
        masked = {name: self._diagnosis.mask(text) for name, text in texts.items()}
        if masked != texts:
            self._diagnosis.doubt("url, params, body or headers hold a secret, shown as ***: name it in auth instead")
        return {name: text for name, text in masked.items() if self._can_write(name, text)}

    def _can_write(self, name: str, text: str) -> bool:
        """Tell whether luigi.cfg can hold a value. Many values are names that the source chose."""
        try:
            write_value(text)
        except ValueError as error:
            self._diagnosis.doubt(f"luigi.cfg cannot hold {name} = {text!r}, so the section lacks this key: {error}")
            return False
        return True
