"""Find the items of a JSON list or the members of a JSON object without limits on numbers, text or nesting.

Responsibilities: where each value begins and ends. What Python reads beyond JSON (NaN, half a surrogate pair) passes.
Non-goals: speed. The callers use it for what msgspec refuses.
"""

import json
import re
from collections.abc import Iterator

import msgspec

CHUNK = 2**16  # bytes looked at in one step
BLANK = re.compile(r"[ \t\r\n]*")
TOKEN = re.compile(
    r"[ \t\r\n]*"
    r'([\[\]{},:]|"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity)"
)
VALUE, FIRST_VALUE, NAME, FIRST_NAME, COLON, END = range(6)  # what may come next; FIRST: or the end of an empty one


def scan(text: str) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield the items of the list, or the members of the object, that `text` is. The name of an item is empty.

    Raises JSONDecodeError where `text` is neither.
    """
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)  # numbers of any length
    is_object, close = text[:1] == "{", {"{": "}", "[": "]"}.get(text[:1], "no list or object")

    def expect(wanted: str, at: int) -> int:
        at = BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
        if not text.startswith(wanted, at):
            raise json.JSONDecodeError(f"no {wanted}", text, at)
        return BLANK.match(text, at + len(wanted)).end()  # type: ignore[union-attr]

    at = expect(text[:1], 0)
    more = not text.startswith(close, at)
    while more:
        name = ""
        if is_object:
            name, at = decoder.raw_decode(text, at)
            at = expect(":", at)
        try:
            end = decoder.raw_decode(text, at)[1]
        except RecursionError:
            end = _find_end(text, at)
        yield name, msgspec.Raw(text[at:end].encode())
        at = expect("", end)
        more = not text.startswith(close, at)
        if more:
            at = expect(",", at)
    if expect(close, at) != len(text):
        raise json.JSONDecodeError("more than one value", text, at)


def count_items(text: bytes, most: int) -> int:
    """Count the items of the list, or the members of the object, that `text` is; stop when there are more than `most`.

    An empty one counts as one item. Memory does not depend on their number.
    """
    import numpy as np

    count, at, depth, quoted = 1, 0, 0, 0
    while at < len(text) and count <= most:
        end = at + CHUNK
        backslashes = len(text[at:end]) - len(text[at:end].rstrip(b"\\"))
        end += backslashes % 2  # what is escaped belongs to the chunk
        marks = np.frombuffer(text[at:end].replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
        at = end
        in_string = np.bitwise_xor.accumulate((marks == ord('"')).view(np.uint8)) ^ quoted
        brackets = marks | 0x20  # "[" becomes "{", and "]" becomes "}"
        steps = (brackets == ord("{")).view(np.int8) - (brackets == ord("}")).view(np.int8)
        steps[in_string == 1] = 0
        levels = np.cumsum(steps, dtype=np.int64) + depth
        count += int(np.count_nonzero((marks == ord(",")) & (in_string == 0) & (levels == 1)))
        if len(marks):
            depth, quoted = int(levels[-1]), int(in_string[-1])
    return count


def _find_end(text: str, at: int) -> int:
    """Return where the list or object at `at` ends, however deep it is. Raises JSONDecodeError."""
    closes: list[str] = []
    state = VALUE
    while token := TOKEN.match(text, at):
        word, at = token[1], token.end()
        if word in "[{" and state in (VALUE, FIRST_VALUE):
            closes.append("]" if word == "[" else "}")
            state = FIRST_VALUE if word == "[" else FIRST_NAME
        elif word in "]}" and state in (END, FIRST_VALUE, FIRST_NAME) and closes[-1] == word:
            closes.pop()
            state = END
        elif word == "," and state == END:
            state = VALUE if closes[-1] == "]" else NAME
        elif word == ":" and state == COLON:
            state = VALUE
        elif word.startswith('"') and state in (NAME, FIRST_NAME):
            state = COLON
        elif word not in "[]{},:" and state in (VALUE, FIRST_VALUE):
            state = END
        else:
            break
        if not closes:
            return at
    raise json.JSONDecodeError("no value", text, at)
