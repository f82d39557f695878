"""Make text of others fit to be shown: on a terminal, in a log line, in a chat.

Responsibilities: characters that a terminal or a chat acts on. Whoever prints or sends text calls one of these.
Non-goals: secrets, which mask.py removes. HTML, which the template engine escapes.
"""

import re
from collections.abc import Iterator, Mapping

ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)
CHAT = str.maketrans({"<": "(", ">": ")", "@": "(at)", "`": "'"})


def clean_line(text: str) -> str:
    """Return a text as one line: white space becomes one space, other characters that do not print are escaped.

    Control characters become `\\x1b`, characters that hide text or change its direction become `\\u202e`.
    """
    return _escape(" ".join(text.split()))


def clean_lines(text: str) -> str:
    """Return a text of several lines, each of them cleaned. Spaces at the start of a line stay."""
    return "\n".join(map(_escape, text.split("\n")))


def clean_chat(text: str) -> str:
    """Return a text as a line of code in a chat: it mentions nobody, and no part of it is a link.

    Slack reads `<!channel>` and `<url|text>` also within code, so neither angle brackets nor @ stay. Where a chat does
    not know code, a broken address (`https[:]//host`) is no link either.
    """
    line = ADDRESS.sub(r"[\g<0>]", clean_line(text))
    return f"`{line.translate(CHAT)}`"


def walk_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from walk_texts(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from walk_texts(item)


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
