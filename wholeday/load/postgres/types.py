"""How PostgreSQL stores the kinds of values, and how it reads them from the items of a JSON list."""

from wholeday.schema.kinds import BOOLEAN, DATE, FLOAT, INTEGER, JSON, TEXT, TIME, TIMESTAMP, UUID, parse_decimal

TYPES = {
    INTEGER: "bigint",
    TEXT: "text",
    BOOLEAN: "boolean",
    FLOAT: "double precision",
    DATE: "date",
    TIMESTAMP: "timestamp with time zone",
    TIME: "time without time zone",
    UUID: "uuid",
    JSON: "jsonb",
}


def to_type(kind: str) -> str:
    """Return the type of a column, as the catalog spells it."""
    digits = parse_decimal(kind)
    return f"numeric({digits[0]},{digits[1]})" if digits else TYPES[kind]


def list_items(list_: str, alias: str) -> str:
    """Return a table of the items of a JSON list. Any other value has none."""
    items = f"jsonb_array_elements(case jsonb_typeof({list_}) when 'array' then {list_} end)"
    return f"{items} with ordinality as {alias}(value, number)"


def read_position(alias: str) -> str:
    """Return the position of an item, from 0."""
    return f"({alias}.number - 1)"


def read_member(alias: str, name: str, kind: str) -> str:
    """Return the value of a name in an item, as a column of this kind holds it."""
    quoted = "'{}'".format(name.replace("'", "''"))
    if kind == JSON:
        return f"nullif({alias}.value -> {quoted}, cast('null' as jsonb))"
    return f"cast({alias}.value ->> {quoted} as {to_type(kind)})"
