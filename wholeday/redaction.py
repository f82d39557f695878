"""Remove secrets from every text that is printed or stored.

Responsibilities: what counts as a secret in a text, a section or the environment, and its spellings.
A part of eight characters counts as the whole secret.
Non-goals: sending secrets, which auth.py does.
"""

import base64
import contextlib
import functools
import html.entities
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from urllib.parse import parse_qsl

from wholeday.text import clean_line, walk_texts

SENSITIVE = "(?:token|key|secret|passw|pwd|signature|credential|auth|session|jwt|cookie)"
# A pointer to the next page is not a secret under any name: errors show it, and an extraction resumes from it.
POINTER = r"(?:\$|%24)?(?:after|continuation|cursor|delta|last|next|page|pagination|skip|start|sync)[_-]?(?:token|key)"
SECRET_NAME = re.compile(rf"^(?!{POINTER}$)(?:.*{SENSITIVE}|(?:sig|pass|code)$)", re.IGNORECASE | re.DOTALL)
# The lengths are bounded, as a hostile body would slow the pattern down otherwise.
SECRET_PARAM = re.compile(
    rf"([?&;](?!{POINTER}=)(?:[^=&?;\s]{{0,80}}{SENSITIVE}[^=&?;\s]{{0,80}}|sig|pass|code)=)"
    r"[^&#\s]*(?<![:,;.)'\"])",
    re.IGNORECASE,
)
# The text before the host of a URL. A password may contain / ? # if it cannot be confused with a port.
USERINFO = re.compile(r"(//)(?:[^/?#\s]*|[^/?#\s@:\[]*:(?!\d*(?:[/?#\s]|$))[^\s]{0,300})@")
HOST = re.compile(r"(?:[^/?#]*//)?([^/?#]*)(.*)", re.DOTALL)
HARMLESS_AT = re.compile(
    r"/@(?=[a-z_]+(?:[/?#]|$))|[?&][^=&?#]+=[^&#]*", re.IGNORECASE
)  # as in /users/@me and ?email=ann@example.com
URL_LOGGERS = ("urllib3.connection", "urllib3.connectionpool")  # they log URLs at DEBUG
SHORTEST = 4  # characters of a secret: masking shorter texts would garble every line
PART = 8  # characters: no longer part of a secret is shown

ENTITIES = {name.rstrip(";"): char for name, char in html.entities.html5.items() if len(char) == 1 and ord(char) < 256}
ENTITIES |= {name.lower(): ENTITIES.get(name.lower(), char) for name, char in ENTITIES.items()}
ESCAPE = re.compile(
    r"%(?P<byte>[0-9a-f]{2})"
    r"|(?<!\\)\\+(?:"
    r"u(?P<high>d[89ab][0-9a-f]{2})\\+u(?P<low>d[c-f][0-9a-f]{2})"
    r"|u\{(?P<braced>[0-9a-f]{1,6})\}|(?-i:U)(?P<long>[0-9a-f]{8})|u(?P<short>[0-9a-f]{4})"
    r"|x(?P<hex>[0-9a-f]{2})|(?P<octal>[0-7]{3})|(?P<char>[\"'/bfnrt]))"
    r"|&(?:\#0*(?P<decimal>\d{1,7});?|\#x0*(?P<hexadecimal>[0-9a-f]{1,6});?"
    rf"|(?P<name>{'|'.join(sorted(ENTITIES, key=len, reverse=True))});)"
    r"|=[ \t]*\r?\n",
    re.IGNORECASE,
)
CHARS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
MAX_ESCAPE_DEPTH = 12  # of escapes within escapes; a text with more is hidden as a whole
SPACES = str.maketrans(dict.fromkeys("\t\n\r+", " "))
DROPPED = {*map(chr, range(33)), *map(chr, range(127, 161)), "\\"}
"""Characters that are ignored within a secret: white space, control characters, backslashes."""
DROP = str.maketrans(dict.fromkeys(DROPPED))


class Mask:
    """Replaces secrets in a text by ***: known secrets, user info in URLs, and parameters with secret-looking names.

    Known secrets are found in any case and any mixture of spellings: percent-encoded, escaped as in JSON or HTML, in
    base64, in hexadecimal, reversed, with white space in between. A part of PART characters is replaced too. Secrets
    of the environment's proxies are known from the start. Texts shorter than SHORTEST are not masked.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._windows: dict[int, frozenset[str]] = {}
        """Pieces of the secrets by their length. A text with one of them contains a part of a secret."""
        self.add(*find_proxy_secrets(os.environ), *secrets)

    def add(self, *secrets: str) -> None:
        """Mask further secrets from now on. Thread-safe."""
        cut = [_cut(secret) for secret in secrets if len(secret) >= SHORTEST]
        with self._lock:
            windows = dict(self._windows)
            for length, pieces in (item for each in cut for item in each.items()):
                windows[length] = windows[length] | pieces if length in windows else pieces
            self._windows = windows

    def __call__(self, text: str) -> str:
        text = text.encode("utf-8", "backslashreplace").decode()
        if self._windows:
            text = self._hide(text)
        return SECRET_PARAM.sub(r"\1***", USERINFO.sub(r"\1***@", text))

    @contextlib.contextmanager
    def cover(self) -> Iterator[None]:
        """Mask the log lines of urllib3 within the block. Blocks may overlap."""
        loggers = [logging.getLogger(name) for name in URL_LOGGERS]
        rewrite = partial(self._rewrite)  # a new object each time, as a logger drops equal filters
        for each in loggers:
            each.addFilter(rewrite)
        try:
            yield
        finally:
            for each in loggers:
                each.removeFilter(rewrite)

    def _rewrite(self, record: logging.LogRecord) -> bool:
        record.msg, record.args, record.exc_info = clean_line(self(record.getMessage())), (), None
        return True

    def _hide(self, text: str) -> str:
        """Replace each part of a known secret."""
        layer = _to_bytes(text)
        marks = bytearray(len(layer))
        for number, (decoded, places) in enumerate(_decode_layers(layer)):
            if number == MAX_ESCAPE_DEPTH:
                return "***"
            for start, stop in self._find(decoded):
                first, last = (places[start][0], places[stop - 1][1]) if places else (start, stop)
                marks[first:last] = b"\1" * (last - first)
        if not any(marks):
            return text
        shown, at = [], 0
        for run in re.finditer(b"\1+", marks):
            shown += [layer[at : run.start()], "***"]
            at = run.end()
        # A mark may begin within the bytes of a character. Its other bytes are dropped.
        return "".join([*shown, layer[at:]]).encode("latin-1").decode("utf-8", "ignore")

    def _find(self, layer: str) -> Iterator[tuple[int, int]]:
        """Yield start and stop of each part of a secret in a decoded text, with and without its white space."""
        whole = layer.translate(SPACES).lower()
        for start, stop in self._search(whole):
            yield start, stop
        bare = whole.translate(DROP)
        if bare != whole and (found := list(self._search(bare))):
            kept = [place for place, char in enumerate(whole) if char not in DROPPED]
            for start, stop in found:
                yield kept[start], kept[stop - 1] + 1

    def _search(self, text: str) -> Iterator[tuple[int, int]]:
        for length, windows in self._windows.items():
            for start in range(len(text) - length + 1):
                if text[start : start + length] in windows:
                    yield start, start + length


def _to_bytes(text: str) -> str:
    """Return a text with one character for each byte of its UTF-8, as escapes stand for bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


@functools.lru_cache(64)
def _cut(secret: str) -> dict[int, frozenset[str]]:
    """Cut each spelling of a secret into pieces, grouped by their length. Escapes are decoded elsewhere.

    Cached, as each day of a backfill masks the same secrets.
    """
    wholes = {secret.encode("latin-1", "replace").decode("latin-1")}
    for layer, _ in _decode_layers(_to_bytes(secret)):  # the secret itself may be percent-encoded
        raw = layer.encode("latin-1")
        wide = raw.decode("utf-8", "replace").encode("utf-16-le")
        wholes |= {layer, _to_bytes(layer), raw.hex(), *_list_base64(raw), *_list_base64(wide)}
    wholes |= {whole[::-1] for whole in wholes}
    pieces: set[str] = set()
    for whole in wholes:
        text = whole.translate(SPACES).lower()
        for form in (text, text.translate(DROP)):
            if len(form) >= SHORTEST:
                pieces.update(form[at : at + PART] for at in range(max(1, len(form) - PART + 1)))
    return {size: frozenset(piece for piece in pieces if len(piece) == size) for size in {*map(len, pieces)}}


def _list_base64(data: bytes) -> Iterator[str]:
    """Yield the part of the base64 of `data` that does not depend on the bytes around it, in both alphabets."""
    for before in range(3):
        code = base64.b64encode(bytes(before) + data)
        stable = code[-(-before * 8 // 6) : (before + len(data)) * 8 // 6].decode()
        yield stable
        yield stable.translate(str.maketrans("+/", "-_"))


def _decode_layers(layer: str) -> Iterator[tuple[str, list[tuple[int, int]] | None]]:
    """Yield a text, then the text with its escapes decoded once, twice and so on.

    Each comes with the places of its characters in the original text; None for the original text itself.
    """
    places: list[tuple[int, int]] | None = None
    yield layer, places
    while found := list(ESCAPE.finditer(layer)):
        known = places or [(at, at + 1) for at in range(len(layer))]
        pieces, places, at = list[str](), [], 0
        for escape in found:
            decoded = _decode_escape(escape)
            pieces += [layer[at : escape.start()], decoded]
            places += known[at : escape.start()]
            places += [(known[escape.start()][0], known[escape.end() - 1][1])] * len(decoded)
            at = escape.end()
        places += known[at:]
        layer = "".join([*pieces, layer[at:]])
        yield layer, places


def _decode_escape(escape: re.Match[str]) -> str:
    """Return the bytes that an escape stands for, one character per byte."""
    kind, text = escape.lastgroup, escape[escape.lastgroup or 0]
    match kind:
        case "byte" | "hex":
            return chr(int(text, 16))
        case "octal":
            return chr(int(text, 8) % 256)
        case "char":
            return CHARS.get(text.lower(), text)
        case "name":
            return _to_bytes(ENTITIES.get(text) or ENTITIES[text.lower()])
        case "low":
            return _to_bytes(chr(0x10000 + ((int(escape["high"], 16) & 0x3FF) << 10) + (int(text, 16) & 0x3FF)))
        case "braced" | "long" | "short" | "hexadecimal" | "decimal":
            point = int(text, 10 if kind == "decimal" else 16)
            return _to_bytes(chr(point)) if point <= 0x10FFFF else ""
    return ""


def find_proxy_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in the proxy URLs of the environment, such as HTTPS_PROXY."""
    for name, url in environment.items():
        if name.lower().endswith("_proxy"):
            yield from find_userinfo(url)


def find_userinfo(url: str) -> Iterator[str]:
    """Yield the secret before the last @ of a URL, which may be malformed: the password, or the user without one."""
    userinfo, at, _ = url.rpartition("@")
    if at:
        user, _, password = userinfo.rpartition("//")[2].partition(":")
        yield password or user


def hides_userinfo(url: str) -> bool:
    """Return whether an @ after the host of a URL may end a password with / ? or #, so that the host is uncertain."""
    found = HOST.fullmatch(url)
    if found is None or not re.search(r"[@:]", found[1]):
        return False
    return "@" in HARMLESS_AT.sub("", found[2])


def find_secrets(url: str, values: object, headers: Mapping[str, object]) -> Iterator[str]:
    """Yield the texts under secret-looking names: in the query of a URL, in nested values, in headers.

    Each word of a header counts as a secret too, as in `Bearer TOKEN`.
    """
    pairs: list[tuple[str, object]] = [*parse_qsl(url.partition("#")[0].partition("?")[2]), *_walk_names(values)]
    pairs += [(name, [value, *str(value).split()]) for name, value in headers.items()]
    for name, value in pairs:
        if SECRET_NAME.search(name):
            yield from (text for text in walk_texts(value) if len(text) >= SHORTEST)


def _walk_names(value: object) -> Iterator[tuple[str, object]]:
    """Yield each name in nested objects with its value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name, item
            yield from _walk_names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk_names(item)
