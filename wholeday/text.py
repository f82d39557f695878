"""Clean text from elsewhere for a terminal, a log line or a chat.

Responsibilities: characters that a terminal or a chat interprets.
Non-goals: secrets, which redaction.py removes; HTML, which the template engine escapes.
"""

import re
from collections.abc import Iterator, Mapping

ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)
CHAT = str.maketrans({"<": "(", ">": ")", "@": "(at)", "`": "'"})


def clean_line(text: str) -> str:
    """Return a text as one line: runs of white space become one space, unprintable characters are escaped.

    Escapes look like `\\x1b` for control characters, and `\\u202e` for characters that hide text or turn it around.
    """
    return _escape(" ".join(text.split()))


def clean_lines(text: str) -> str:
    """Return a text of several lines with each line cleaned. Spaces at the start of a line stay."""
    return "\n".join(map(_escape, text.split("\n")))


def clean_chat(text: str) -> str:
    """Return a text as a line of code in a chat, without mentions and links.

    Angle brackets and @ are replaced, as Slack interprets `<!channel>` and `<url|text>` within code too. Addresses
    become `https[:]//host`, which is not a link in chats without code either.
    """
    line = ADDRESS.sub(r"[\g<0>]", clean_line(text))
    return f"`{line.translate(CHAT)}`"


def walk_texts(value: object) -> Iterator[str]:
    """Yield each text in nested lists and objects."""
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
