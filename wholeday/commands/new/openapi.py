"""Read from an OpenAPI document what it says of the records of a URL: types, and which fields are required.

Responsibilities: OpenAPI 3 and Swagger 2, in JSON. Values that came outrank the document; `infer` sees to it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any
from urllib.parse import urlsplit

import requests

from wholeday.commands.new.infer import Hint
from wholeday.commands.new.model import Path
from wholeday.errors import ConfigError, SourceError

SECONDS = 30  # for the answer of a server
DEEPEST = 6  # objects and lists in one another; schemas may hold themselves
METHODS = ("get", "post")
FORMATS = {"date-time": "datetime", "date": "date", "uuid": "UUID", "time": "time"}
TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}


def read_document(place: str) -> dict[str, Any]:
    """Read a document from a file or a URL. Raises ConfigError, SourceError."""
    if place.startswith(("http://", "https://")):
        try:
            answer = requests.get(place, timeout=SECONDS)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise SourceError(f"cannot read the OpenAPI document {place}: {error}: check its URL") from error
        text = answer.text
    else:
        try:
            text = File(place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the OpenAPI document {place}: {error}") from error
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise ConfigError(f"{place} is no OpenAPI document in JSON: give the JSON form, not YAML")
    return document


def read_hints(document: Mapping[str, Any], url: str, selector: str) -> dict[Path, Hint]:
    """Return what the document says of each place in the records of a URL, whose list is at `selector`.

    Raises ConfigError if the document does not have the endpoint, or no list there.
    """
    schema = _find_answer(document, url)
    for name in selector.split(".") if selector not in ("", "@") else ():
        schema = _list_properties(_resolve(document, schema)).get(name)
        if schema is None:
            raise ConfigError(f"the OpenAPI document has no field {selector} in the answer of {urlsplit(url).path}")
    schema = _resolve(document, schema)
    if selector != "@":
        schema = _resolve(document, schema.get("items") or {})
    return dict(_list_hints(document, schema, (), True, 0))


def _find_answer(document: Mapping[str, Any], url: str) -> Any:
    """Return the schema of the answer at a URL: of the path that ends like it, and has the most segments."""
    own = [segment for segment in urlsplit(url).path.split("/") if segment]
    found = []
    for template, item in document["paths"].items():
        segments = [segment for segment in template.split("/") if segment]
        ends = own[len(own) - len(segments) :]
        same = len(segments) <= len(own) and all(
            re.fullmatch(r"\{.*\}", segment) or segment == other for segment, other in zip(segments, ends, strict=False)
        )
        methods = [item[method] for method in METHODS if isinstance(item, dict) and method in item]
        if same and segments and methods:
            found.append((sum(not segment.startswith("{") for segment in segments), len(segments), methods[0]))
    if not found:
        raise ConfigError(f"the OpenAPI document has no path {urlsplit(url).path}: leave out --openapi")
    operation = max(found, key=lambda each: each[:2])[2]
    responses = operation.get("responses") or {}
    answer: dict[str, Any] = next(
        (responses[code] for code in ("200", "2XX", "206", "default") if code in responses), {}
    )
    answer = _follow(document, answer)
    contents = answer.get("content") or {}
    kinds = [kind for kind in contents if "json" in kind] or list(contents)
    return answer.get("schema") or (contents[kinds[0]].get("schema") if kinds else {}) or {}


def _list_hints(
    document: Mapping[str, Any], schema: Mapping[str, Any], path: Path, is_required: bool, depth: int
) -> Iterator[tuple[Path, Hint]]:
    required = schema.get("required") or []
    for name, member in _list_properties(schema).items():
        place, inner = (*path, name), _resolve(document, member)
        kinds = [kind for kind in _list_kinds(inner) if kind != "null"]
        is_null = inner.get("nullable") is True or inner.get("x-nullable") is True or "null" in _list_kinds(inner)
        is_sure = is_required and name in required and not is_null
        kind = kinds[0] if len(kinds) == 1 else ""
        if kind == "object" or inner.get("properties"):
            if depth < DEEPEST and inner.get("properties"):
                yield from _list_hints(document, inner, place, is_sure, depth + 1)
            elif inner.get("additionalProperties"):
                yield place, Hint("Json", is_sure)
        elif kind == "array":
            items = _resolve(document, inner.get("items") or {})
            type_ = TYPES.get(str(items.get("type")))
            yield place, Hint(f"list[{type_}]" if type_ else "", is_sure)
            if depth < DEEPEST:
                yield from _list_hints(document, items, place, True, depth + 1)
        else:
            text_type = FORMATS.get(str(inner.get("format")), "str")
            yield place, Hint(text_type if kind == "string" else TYPES.get(kind, ""), is_sure)


def _list_properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    return dict(schema.get("properties") or {})


def _list_kinds(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type") or []
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else [str(kinds)]


def _resolve(document: Mapping[str, Any], schema: Any, depth: int = 0) -> dict[str, Any]:
    """Return a schema with its reference followed, and the parts of `allOf` in one."""
    schema = _follow(document, schema)
    if depth > DEEPEST:
        return {}
    others = [_follow(document, each) for name in ("oneOf", "anyOf") for each in schema.get(name) or []]
    real = [each for each in others if each.get("type") != "null"]
    if len(real) == 1:
        nullable = {"nullable": True} if len(others) > 1 else {}
        return {**_resolve(document, real[0], depth + 1), **nullable}
    merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema.get("allOf") or []:
        each = _resolve(document, part, depth + 1)
        properties = {**(each.get("properties") or {}), **(merged.get("properties") or {})}
        required = [*(each.get("required") or []), *(merged.get("required") or [])]
        merged = {**each, **merged}
        merged |= {"properties": properties} if properties else {}
        merged |= {"required": required} if required else {}
    return merged


def _follow(document: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Follow references within the document; an unknown one is an empty schema."""
    for _ in range(DEEPEST):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = document
        for name in reference.removeprefix("#/").split("/"):
            name = name.replace("~1", "/").replace("~0", "~")
            schema = schema.get(name) if isinstance(schema, dict) else None
    return {}
