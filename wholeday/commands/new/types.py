"""Decide on the type of a column by the values seen at its place: the narrowest type that holds all of them."""

import re
from collections.abc import Collection

from wholeday.commands.new import observe
from wholeday.commands.new.model import Type
from wholeday.commands.new.observe import (
    BOOLEAN,
    CLOCK,
    DAY,
    DECIMAL,
    EMPTY,
    GUID,
    INTEGER,
    LIST,
    MOMENT,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Seen,
)
from wholeday.schema.raw_fields import INTEGERS

JSON = Type("Json")
STR = Type("str")
FORMS = {
    frozenset({DAY}): "date",
    frozenset({MOMENT}): "datetime",
    frozenset({CLOCK}): "time",
    frozenset({GUID}): "UUID",
}
ITEMS = {BOOLEAN: "bool", INTEGER: "int", TEXT: "str"}
KEY_FORMS = ("UUID", "date")
# Words of names, in snake_case.
MONEY = re.compile(
    r"(^|_)(price|amount|total|subtotal|cost|fee|tax|balance|revenue|discount|salary|paid|due|refund|charge|"
    r"credit|debit|spend|spent|budget|money|value_usd|shipping|tip|net|gross|payment)s?(_|$)"
)
FRACTION = re.compile(r"(^|_)(avg|average|mean|ratio|percent|percentage|latitude|longitude|lat|lng)(_|$)|(^|_)rate$")
VERSION = re.compile(r"(^|_)version(_|$)")
NO_MONEY = re.compile(r"percent|ratio|(^|_)(rate|count|change|supply|score)(_|$)")
CENTS = 4  # most digits after the point of a JSON number that is money
NO_NUMBER = re.compile(
    r"(^|_)(id|ids|uuid|guid|key|code|zip|zipcode|postal|postcode|phone|mobile|fax|tel|sku|isbn|ean|upc|gtin|barcode|"
    r"version|account|iban|bic|vat|ssn|serial|imei|ip|hash|token|ref|reference|name|title|label|tag|slug|sid|text|"
    r"number|address|last_?4|extension|house|ts|language|locale|symbol|pin)(_|$)|zip|postal|phone"
)
TIME_NAME = re.compile(
    r"(^|_)(at|on|time|date|datetime|timestamp|ts|utc|epoch|created|updated|modified|changed|deleted|expires?|expiry|"
    r"expiration|since|until|start|started|end|ended|begin|seen|login|joined|registered|published|lastlogin|mtime|ctime|"
    r"closed|opened|canceled|cancelled|due|birthday|ms|millis|posted)(_|$)|time$|date$"
)
NO_TIME_NAME = re.compile(
    r"(^|_)(count|duration|seconds|offset|id|size|version|amount|number|elapsed|uptime|runtime)(_|$)"
)
COORDINATE = re.compile(r"(^|_)(lat|lng|lon|long|latitude|longitude)(_|$)")
SECONDS = range(315_532_800, 4_102_444_800)  # 1980 to 2100
MILLISECONDS = range(315_532_800_000, 4_102_444_800_000)
MOST_TIMES = 0.98  # of the values of a field, the share of times after which the others are errors
LARGEST_MONEY = 12  # digits of a Decimal, if these are enough


def decide_type(seen: Seen, name: str, is_key: bool = False, most_digits: int = 15) -> Type:
    """Return the narrowest type that holds all values seen. `name` is the name of the field in snake_case.

    `most_digits`: digits of a Decimal in the database. A key is never converted.
    """
    kinds = frozenset(seen.kinds)
    if kinds == {BOOLEAN}:
        return Type("bool")
    if kinds <= {INTEGER, NUMBER} and kinds:
        return _decide_number(seen, name, most_digits)
    if kinds == {TEXT}:
        return _decide_text(seen, name, is_key, most_digits)
    if kinds == {LIST}:
        return _decide_list(seen)
    filled = _list_forms(seen)
    if kinds == {BOOLEAN, TEXT} and filled == {TRUTH}:
        return Type("bool", is_lenient=True)
    if kinds == {INTEGER, TEXT} and filled == {WHOLE} and is_key and _fits(seen):
        return Type("int", is_lenient=True)
    if kinds <= {INTEGER, NUMBER, TEXT} and filled and filled <= {WHOLE, DECIMAL} and not is_key:
        return _decide_numeric_text(seen, name, filled | ({DECIMAL} if NUMBER in kinds else set()), most_digits)
    return JSON


def find_format(seen: Seen) -> str:
    """Return the format of strptime that all texts of a place have; empty for JSON times and other texts."""
    return next((form for form in observe.OTHER_TIMES if seen.forms[form] == seen.present > 0), "")


def is_nearly_time(seen: Seen) -> bool:
    """Return whether all values but a few are times as RFC 3339 writes them."""
    return seen.forms[MOMENT] >= MOST_TIMES * seen.count > 0


def _list_forms(seen: Seen) -> frozenset[str]:
    """List the forms of the texts that are not empty; the form of a mere text is empty."""
    forms = {form for form in seen.forms if form not in (EMPTY, observe.LOCAL)}
    special = sum(number for form, number in seen.forms.items() if form != observe.LOCAL)
    return frozenset(forms | ({""} if special < seen.kinds[TEXT] else set()))


def _decide_number(seen: Seen, name: str, most_digits: int) -> Type:
    if NUMBER in seen.kinds:
        is_money = MONEY.search(name) and not NO_MONEY.search(name) and seen.places <= CENTS
        return _make_decimal(seen, most_digits) if is_money else Type("float")
    if epoch := _find_epoch(seen, name):
        return Type(epoch)
    if FRACTION.search(name):
        return Type("float")
    return Type("int") if _fits(seen) else JSON


def _decide_text(seen: Seen, name: str, is_key: bool, most_digits: int) -> Type:
    forms, has_empty = _list_forms(seen), seen.forms[EMPTY] > 0
    if (
        forms in FORMS
        and not VERSION.search(name)
        and not (is_key and (has_empty or FORMS[forms] not in ("UUID", "date")))
    ):
        return Type(FORMS[forms], is_lenient=has_empty)
    if is_key or not forms or VERSION.search(name):
        return STR
    if forms == {TRUTH}:
        return Type("bool", is_lenient=True)
    if forms <= {WHOLE, DECIMAL}:
        return _decide_numeric_text(seen, name, forms, most_digits)
    return STR


def _decide_numeric_text(seen: Seen, name: str, forms: Collection[str], most_digits: int) -> Type:
    if forms == {WHOLE} and (epoch := _find_epoch(seen, name)):
        return Type(epoch, is_lenient=True)
    if NO_NUMBER.search(name) and not MONEY.search(name.rpartition("_")[2]):
        return STR if set(seen.kinds) == {TEXT} else JSON
    if COORDINATE.search(name):
        return Type("float", is_lenient=True)
    if forms == {WHOLE}:
        return Type("int", is_lenient=True) if _fits(seen) else JSON if INTEGER in seen.kinds else STR
    if seen.places + seen.digits > most_digits:
        return STR if set(seen.kinds) == {TEXT} else Type("float", is_lenient=True)
    made = _make_decimal(seen, most_digits)
    return Type(made.name, made.options, is_lenient=made.name == "float" or seen.forms[EMPTY] > 0)


def _decide_list(seen: Seen) -> Type:
    """Decide on a list of scalars. Lists of records are not decided here."""
    items = seen.items
    if items is None or not items.kinds:
        return JSON
    kinds = set(items.kinds)
    name = (
        "float" if kinds in ({NUMBER}, {NUMBER, INTEGER}) else ITEMS.get(next(iter(kinds))) if len(kinds) == 1 else None
    )
    if name is None or (name == "int" and not _fits(items)):
        return JSON
    return Type(f"list[{name}{' | None' if items.present < items.count else ''}]")


def _make_decimal(seen: Seen, most_digits: int) -> Type:
    """Return a Decimal with room before the point, and after it where the digits seen vary."""
    places = max(2, seen.places)
    if len(seen.even_places) > 1 and seen.places > 2:
        places = min(seen.places + 2, max(seen.places, most_digits - seen.digits))
    digits = max(LARGEST_MONEY, min(seen.digits + 3, most_digits - places) + places)
    digits = min(digits, most_digits)
    if digits - places < seen.digits:
        return Type("float")
    return Type("Decimal", (("max_digits", digits), ("decimal_places", places)))


def _find_epoch(seen: Seen, name: str) -> str:
    if seen.low is None or seen.high is None or not TIME_NAME.search(name) or NO_TIME_NAME.search(name):
        return ""
    for epoch, span in (("Epoch", SECONDS), ("EpochMillis", MILLISECONDS)):
        if seen.low in span and seen.high in span:
            return epoch
    return ""


def _fits(seen: Seen) -> bool:
    return seen.low is None or seen.high is None or (seen.low in INTEGERS and seen.high in INTEGERS)
