"""How SQLite stores the kinds of values, and how it reads them from the items of a JSON list."""

from wholeday.errors import DatasetError
from wholeday.schema.kinds import BOOLEAN, DATE, FLOAT, INTEGER, JSON, TEXT, TIME, TIMESTAMP, UUID, parse_decimal

MAX_DIGITS = 15  # a REAL holds each decimal of so many digits
TYPES = {
    INTEGER: "INTEGER",
    TEXT: "TEXT",
    BOOLEAN: "BOOLEAN",
    FLOAT: "REAL",
    DATE: "DATE",  # stored as text, although the name has another affinity
    TIMESTAMP: "DATETIME",
    # SQLite stores these as text. Their names differ, so that a change of type is noticed.
    TIME: "TIME TEXT",
    UUID: "UUID TEXT",
    JSON: "JSON TEXT",
}


def to_type(kind: str) -> str:
    """Return the type of a column. Raises DatasetError for decimals that a REAL cannot hold.

    REAL, so that decimals sort and divide as numbers do; the digits in its name are for people.
    """
    digits = parse_decimal(kind)
    if digits is None:
        return TYPES[kind]
    if digits[0] > MAX_DIGITS:
        raise DatasetError(
            f"SQLite holds decimals of at most {MAX_DIGITS} digits exactly, and max_digits is {digits[0]}: "
            "declare fewer digits, or use PostgreSQL"
        )
    return f"REAL({digits[0]},{digits[1]})"


def list_items(list_: str, alias: str) -> str:
    """Return a table of the items of a JSON list. Any other value has none."""
    return f"json_each(case when substr({list_}, 1, 1) = '[' then {list_} end) {alias}"


def read_position(alias: str) -> str:
    """Return the position of an item, from 0."""
    return f"{alias}.key"


def read_member(alias: str, name: str, kind: str) -> str:
    """Return the value of a name in an item, as a column of this kind holds it."""
    path = "'$.\"{}\"'".format(name.replace("'", "''"))
    if kind == JSON:  # the text as it is: numbers may be larger than SQLite's
        value = f"{alias}.value -> {path}"
        return f"case json_type({alias}.value, {path}) when 'null' then null else {value} end"
    value = f"json_extract({alias}.value, {path})"
    if digits := parse_decimal(kind):
        # A quotient is exact to the last bit. SQLite's conversion of text is not, for numbers with many zeros. A list
        # that was stored before the column was widened has fewer places.
        point, zeros = f"instr({value}, '.')", "0" * digits[1]
        places = f"case {point} when 0 then 0 else length({value}) - {point} end"
        return f"cast(replace({value}, '.', '') || substr('{zeros}', 1 + {places}) as integer) / {10 ** digits[1]}.0"
    return value
