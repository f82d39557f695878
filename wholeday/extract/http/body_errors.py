"""Detect a failure that the body of an answer with a good status reports.

Responsibilities: the fields that APIs use for failures, and the keys `error_path` and `ok_when`.
Non-goals: the list of records, and the consequence of a failure.

A truthy `error` or `errors`, or a false `ok` or `success`, always counts. Other fields have innocent meanings too (a
user's status, a country's code), so they count only if the list is missing, null or empty.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from wholeday.config.parameters import split_words
from wholeday.schema.paths import Number, find, is_true, load, simplify, walk

# Names of fields in the form that `simplify` returns.
ALWAYS = {"error", "errors"}
ALWAYS_FALSE = {"ok", "success"}
ERROR_NAMES = ALWAYS | {
    *("err", "errormessage", "errormessages", "errormsg", "errmsg", "errortext", "errordescription", "errordetail"),
    *("errordetails", "errorsummary", "errorreason", "errortype", "errorname", "errorinfo", "errorlist", "odataerror"),
    *("fault", "faults", "faultstring", "faultcode", "soapfault", "exception", "exceptions", "exceptionmessage"),
    *("exceptiontype", "failure", "failures", "failurereason", "failurecode", "stacktrace", "traceback", "iserror"),
    *("haserror", "haserrors", "isfailed", "isfailure"),
}
ERROR_CODES = {"errorcode", "errorcodes", "errcode", "errno", "errorno", "errornumber", "errornum"}
CODES = {
    *("code", "statuscode", "httpcode", "httpstatus", "httpstatuscode", "responsecode", "respcode", "resultcode"),
    *("returncode", "retcode", "rtncode", "ret", "rc", "subcode"),
}
STATUSES = {
    *("status", "stat", "result", "outcome", "state", "statustext", "resultstatus", "responsestatus", "requeststatus")
}
TYPES = {"type", "object", "kind"}
FALSE = ALWAYS_FALSE | {"isok", "issuccess", "issuccessful", "successful", "succeeded", "succeed", "jobcomplete"}
TRUE = {
    *("quotaexceeded", "timedout", "istimedout", "timeout", "ratelimited", "ratelimitexceeded", "throttled", "failed"),
    "incompleteresults",
}
MESSAGES = {"message", "msg", "detail", "note", "information", "statusmessage", "responsemessage"}
EXPLAINS = MESSAGES | {
    *("errmsg", "errormsg", "errormessage", "description", "desc", "info", "title", "reason", "text", "resultmsg"),
    *("retmsg", "respmsg"),
}
IDENTITY = ("id", "uuid", "guid", "name", "key", "slug")  # an object with one of these is an entity, not an envelope
NEUTRAL = {"data", "requestid", "traceid", "timestamp", "time", "ts", "took", "version", "total", "count", "page"}
ENVELOPES = {
    *("meta", "metadata", "response", "responsestatus", "responseheader", "responsemetadata", "header", "head"),
    *("status", "result", "results", "data", "body", "payload", "info", "shards", "d", "service", "api", "envelope"),
}
# Objects that repeat the request, or that count and describe something else.
ELSEWHERE = {
    *("filter", "filters", "query", "params", "parameters", "request", "criteria", "search", "sort", "facets"),
    *("counts", "count", "aggregations", "aggs", "stats", "statistics", "summary", "totals", "links", "schema"),
    *("fields", "labels", "translations", "definitions", "legend", "options", "config", "settings", "features"),
}
OF_AN_ERROR = ERROR_NAMES | ERROR_CODES | CODES | EXPLAINS
OF_AN_ERROR |= {
    *("fields", "field", "status", "type", "source", "target", "details", "moreinfo", "help", "param", "severity"),
    *("timestamp", "requestid", "traceid", "links", "location"),
}

FAILED = re.compile(
    r"\b(err|errors?|errored|fail|failed|fails|failures?|faults?|exceptions?|ko|nok|notok|not ok|unsuccessful"
    r"|unauthori[sz]ed|unauthenticated|not (authori[sz]ed|authenticated|allowed|permitted)|forbidden|unavailable"
    r"|throttl\w+|throttle|rate limit\w*|too (many|fast)|over \w* ?limit|limit (was )?(exceeded|reached)|overloaded"
    r"|\w+ (denied|exceeded|exhausted|expired|invalid|rejected|revoked|missing|missed|required|suspended|disabled)"
    r"|(invalid|bad|illegal|malformed|missing|expired|unknown|unsupported|incorrect|denied) \w+|timed out|time out"
    r"|timeouts?|(was|is|are) not found|not found|zero results|internal( server)? error|aborted|maintenance|deadline)\b"
)
REFUSED = re.compile(  # in a message without a code
    r"\b(too many|rate limit\w*|limit (exceeded|reached)|quota exceeded|unauthori[sz]ed|not authori[sz]ed|forbidden"
    r"|(access|permission) denied|internal( server)? error|(service|temporarily) unavailable|try again|timed out"
    r"|bad gateway|bad request|something went wrong|(an|unexpected|unknown) error|authentication (failed|required)"
    r"|(invalid|expired|missing) (api|access|auth\w*|bearer)? ?(key|token|credentials?|signature))\b"
)
NO_FAILURE = re.compile(
    r"\b(no|without|zero|0|any|none) (known )?(err|errors?|failures?|exceptions?|faults?)\b|error free"
)
REFUSED_CODE = re.compile(
    r"denied|exceeded|exhausted|expired|invalid|rejected|revoked|missing|suspended|disabled|blocked"
)
FINE = re.compile(
    r"\b(ok|okay|success\w*|succeed\w*|done|completed?|fetched|retrieved|found|listed|empty|normal"
    r"|no (results?|data|records?|users?|items?|content|more|errors?))\b|成功|正常|exito|sucesso|erfolg|réussi"
)
OK_WORDS = {"", "ok", "okay", "success", "successful", "none", "noerror", "noerrors", "completed", "done"}
OK_CODES = re.compile(r"0+|20\d|20+")
ANY = "*"
MAX_ERROR_LIST = 2**14  # bytes: longer lists hold records


class Complaint(NamedTuple):
    """The field that reports a failure, and its value."""

    path: str
    value: Any


class BodyErrors:
    """Detects failures in the bodies of one source."""

    def __init__(self, error_path: str = "", ok_when: str = "") -> None:
        """Take the keys: `field` or `field=value`, and comma-separated `field=value`."""
        self._path, self._equals, self._text = (part.strip() for part in error_path.partition("="))
        rules = (rule.partition("=") for rule in split_words(ok_when))
        self._excuses = [(path.strip(), text.strip()) for path, _, text in rules]

    def find_always(self, fields: Mapping[str, Any]) -> Complaint | None:
        """Return a failure that counts even if the page has records: by `error_path` or by a plain field."""
        return self._pick(fields, self._list_always(fields))

    def find_without_records(self, fields: Mapping[str, Any], *, missing: bool, null: bool) -> Complaint | None:
        """Return a failure that counts if the list is missing, null or empty."""
        objects = [("", fields), *fields.items()]
        found = (
            complaint
            for name, value in objects
            if isinstance(value, Mapping) and simplify(name) not in ELSEWHERE
            for complaint in _Object(value, name, missing=missing, no_list=missing or null).list_complaints()
        )
        return self._pick(fields, found)

    def find_in_object(self, fields: Mapping[str, Any]) -> Complaint | None:
        """Return a failure in an object that may be a record. Ambiguous fields count only if it has no other fields."""
        found = self.find_always(fields)
        if found is None and _Object(fields, "", missing=False, no_list=True).is_plain:
            found = self.find_without_records(fields, missing=False, null=True)
        return found

    def find_in_list(self, content: bytes) -> Complaint | None:
        """Return the first error of a list that contains only errors: `[{"errorCode": …, "message": …}]`."""
        lowered = content.lower() if len(content) <= MAX_ERROR_LIST else b""
        if not any(word in lowered for word in (b"err", b"fault", b"exception")):
            return None
        items, found = load(content), None
        for item in items if isinstance(items, list) else []:
            errors = _list_errors(item)
            if not errors:
                return None
            found = found or self._pick(item, iter(errors))
        return found

    def _list_always(self, fields: Mapping[str, Any]) -> Iterator[Complaint]:
        if self._path:
            path = self._path.removeprefix("!")
            value = find(fields, path)
            matches = show(value) == self._text if self._equals else is_true(fields, path)
            if value is not None and bool(matches) != self._path.startswith("!"):
                yield Complaint(path, value)
        for name, value in fields.items():
            word = simplify(name)
            is_no = word in ALWAYS_FALSE and not isinstance(value, Mapping) and is_true({"": value}, "!")
            if is_no or (word in ALWAYS and _holds_error(word, value)):
                yield Complaint(name, value)

    def _pick(self, fields: Mapping[str, Any], complaints: Iterator[Complaint]) -> Complaint | None:
        """Return the first complaint that `ok_when` does not excuse."""
        return next((each for each in complaints if not self._is_excused(fields, each)), None)

    def _is_excused(self, fields: Mapping[str, Any], complaint: Complaint) -> bool:
        return any(
            (path == complaint.path or path.startswith(complaint.path + "."))
            and (value := find(fields, path)) is not None
            and text in (ANY, show(value))
            for path, text in self._excuses
        )


def _list_errors(item: object) -> list[Complaint]:
    """Return the complaints of an item that is an error and nothing else."""
    if not isinstance(item, dict) or not all(simplify(name) in OF_AN_ERROR for name in item):
        return []
    return [Complaint(name, value) for name, value in item.items() if _holds_error(simplify(name), value)]


def show(value: object) -> str:
    """Return a value in the form of `ok_when` and `error_path`: text unchanged, any other value as JSON."""
    return str(value) if isinstance(value, (str, Number)) else json.dumps(value, default=str)


class _Object:
    """Judges ambiguous fields of a page's object, or of an object in it, by the other fields."""

    def __init__(self, fields: Mapping[str, Any], name: str, *, missing: bool, no_list: bool) -> None:
        self._fields, self._prefix = fields, f"{name}." if name else ""
        self._missing, self._no_list = missing, no_list
        texts = [value for each, value in fields.items() if simplify(each) in EXPLAINS and isinstance(value, str)]
        self._message = " ".join(texts)
        plain = {simplify(each) for each, value in fields.items() if not isinstance(value, (Mapping, tuple, list))}
        self.is_plain = plain <= OF_AN_ERROR | FALSE | NEUTRAL | STATUSES | TYPES
        """Whether it has only fields that belong to an envelope or an error."""
        identities = (
            value for each, value in fields.items() if simplify(each) in IDENTITY and isinstance(value, (str, int))
        )
        is_entity = any(not _says_failed(str(value)) for value in identities)
        known = not name or simplify(name) in ENVELOPES or self.is_plain
        self._is_clear = known and (not is_entity or _says_failed(self._message))
        """Whether a status or a code belongs to the request, not to an entity."""

    def list_complaints(self) -> Iterator[Complaint]:
        for name, value in self._fields.items():
            if value is not None and self._complains(simplify(name), value):
                yield Complaint(self._prefix + name, value)

    def _complains(self, word: str, value: Any) -> bool:
        if word in ERROR_NAMES or word in ERROR_CODES:
            return _holds_error(word, value)
        if word in FALSE:
            return value is False or value == "false"
        if word in TRUE:
            return value is True or value == "true" or (self._prefix == "_shards." and bool(value))
        if isinstance(value, (Mapping, tuple, list)) or not self._is_clear:
            return False
        if word in CODES:
            return self._is_bad_code(value)
        if word in STATUSES:
            return self._is_bad_status(value)
        text = str(value)
        if word in TYPES:
            ends = re.search(r"^(error|errors|fault|failure)\b|\b(error|exception|fault|failure)$", _split_words(text))
            return bool(ends) and (self._no_list or bool(self._message))
        if word in MESSAGES and isinstance(value, str):
            return bool(text.strip() and not _says_fine(text)) if self._missing else _matches(REFUSED, text)
        return False

    def _is_bad_code(self, value: Any) -> bool:
        number = _read_number(value)
        if number is None:
            text = str(value)
            bare = self.is_plain and bool(REFUSED_CODE.fullmatch(_split_words(text)))
            return bare or _says_failed(text) or (not _says_fine(text) and _says_failed(self._message))
        if number < 0 or 400 <= number <= 599:
            return True
        if number == 1 or OK_CODES.fullmatch(str(number)):
            return _says_failed(self._message)
        return self._is_odd()

    def _is_odd(self) -> bool:
        """Return whether a code with an unknown meaning is a failure, by its message or by the lack of other fields."""
        return not _says_fine(self._message) if self._message else self.is_plain

    def _is_bad_status(self, value: Any) -> bool:
        if isinstance(value, bool) or value == "false":
            return value is not True
        number = _read_number(value)
        if number is None:
            return _says_failed(str(value))
        odd = number >= 100 and not OK_CODES.fullmatch(str(number)) and bool(self._message) and self._is_odd()
        return number < 0 or 400 <= number <= 599 or _says_failed(self._message) or odd


def _holds_error(word: str, value: Any) -> bool:
    """Return whether a field with the name of an error contains one."""
    if word in ERROR_CODES:
        text = show(value).strip()
        fine = value is None or value is False or simplify(text) in OK_WORDS or text == "null"
        return not fine and not OK_CODES.fullmatch(text) and value not in ([], {}, ())
    if word not in ERROR_NAMES or not is_true({"": value}, ""):
        return False
    if isinstance(value, Mapping):
        return not _is_fine_error(value)
    return not isinstance(value, str) or not (simplify(value) in OK_WORDS and value.isascii())


def _is_fine_error(error: Mapping[str, Any]) -> bool:
    """Return whether an error object means no error, such as `{"code": "ok", "message": ""}`."""
    if not any(value for _, value in walk(error)):
        return True
    codes = [value for name, value in error.items() if simplify(name) in CODES | ERROR_CODES]
    texts = [value for name, value in error.items() if simplify(name) in EXPLAINS]
    fine = all(code is not None and re.fullmatch(r"0*|ok|success|none|no_?error", show(code).lower()) for code in codes)
    return bool(codes) and fine and all(text is None or simplify(str(text)) in OK_WORDS for text in texts)


def _read_number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def _split_words(text: str) -> str:
    """Return the words of a text in lower case: `RateLimit_EXCEEDED` becomes `rate limit exceeded`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", text)
    return " ".join(words).lower()


def _says_failed(text: str) -> bool:
    return _matches(FAILED, text)


def _says_fine(text: str) -> bool:
    return bool(FINE.search(_split_words(text))) and not _says_failed(text)


def _matches(failure: re.Pattern[str], text: str) -> bool:
    return bool(failure.search(NO_FAILURE.sub("", _split_words(text))))
