"""Secrets: out of every text that is printed or kept.

Responsibilities: what counts as a secret in a text, in a section or in the environment, and in which spellings it turns
up. A part of eight characters counts as the whole.
Non-goals: where a secret is sent, which auth.py knows.
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

SECRETIVE = "(?:token|key|secret|passw|pwd|signature|credential|auth|session|jwt|cookie)"
# What only leads to the next page is none, whatever it is called: an error names it, and a reading goes on by it.
POINTER = r"(?:\$|%24)?(?:after|continuation|cursor|delta|last|next|page|pagination|skip|start|sync)[_-]?(?:token|key)"
SECRET_NAME = re.compile(rf"^(?!{POINTER}$)(?:.*{SECRETIVE}|(?:sig|pass|code)$)", re.IGNORECASE | re.DOTALL)
# The lengths are bounded because a hostile body would else take the pattern a long time.
SECRET_PARAM = re.compile(
    rf"([?&;](?!{POINTER}=)(?:[^=&?;\s]{{0,80}}{SECRETIVE}[^=&?;\s]{{0,80}}|sig|pass|code)=)"
    r"[^&#\s]*(?<![:,;.)'\"])",
    re.IGNORECASE,
)
# What stands before the host of a URL; also a password with / ? # in it, where no port would look like it.
USERINFO = re.compile(r"(//)(?:[^/?#\s]*|[^/?#\s@:\[]*:(?!\d*(?:[/?#\s]|$))[^\s]{0,300})@")
HOST = re.compile(r"(?:[^/?#]*//)?([^/?#]*)(.*)", re.DOTALL)
HARMLESS_AT = re.compile(
    r"/@(?=[a-z_]+(?:[/?#]|$))|[?&][^=&?#]+=[^&#]*", re.IGNORECASE
)  # as in /users/@me and ?email=ann@example.com
TALKERS = ("urllib3.connection", "urllib3.connectionpool")  # the loggers that say, at DEBUG, what is asked for
SHORTEST = 4  # characters; what is shorter is no secret, and masking it would garble every line
PART = 8  # characters of a secret that nobody may see

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
DEPTH = 12  # of escapes within escapes; a text with more says nothing that is worth the risk
SPACES = str.maketrans(dict.fromkeys("\t\n\r+", " "))
DROPPED = {*map(chr, range(33)), *map(chr, range(127, 161)), "\\"}
"""What does not count between the characters of a secret: white space, control characters, backslashes."""
DROP = str.maketrans(dict.fromkeys(DROPPED))


class Mask:
    """Puts *** in the place of secrets in a text: of those it knows, of userinfo, of parameters named like one.

    Those it knows are found in any mixture of spellings, at any depth: in other case, percent-encoded, escaped as in
    JSON or HTML, in base64, in hexadecimal, backwards, broken by white space; and so is a part of PART characters.
    A secret of less than SHORTEST characters is none. Those of the environment's proxies are known from the start.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._windows: dict[int, frozenset[str]] = {}
        """Pieces of the secrets by their length; a text that holds one of them holds a part of a secret."""
        self.add(*find_proxy_secrets(os.environ), *secrets)

    def add(self, *secrets: str) -> None:
        """Mask these too from now on; several threads may add at once."""
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
        """Mask what is logged of requests, however many cover it at once."""
        loggers = [logging.getLogger(name) for name in TALKERS]
        rewrite = partial(self._rewrite)  # another one each time: of those that are equal a logger keeps one
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
        """Replace each part of a secret."""
        layer = _to_bytes(text)
        marks = bytearray(len(layer))
        for number, (decoded, places) in enumerate(_decode_layers(layer)):
            if number == DEPTH:
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
        # A mark may begin within the bytes of a character: the rest of it is left out.
        return "".join([*shown, layer[at:]]).encode("latin-1").decode("utf-8", "ignore")

    def _find(self, layer: str) -> Iterator[tuple[int, int]]:
        """Where parts of secrets stand in a text that is not decoded any further: as it is, and without white space."""
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
    """Return a text with a character for each byte of its UTF-8, as escapes name bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


@functools.lru_cache(64)
def _cut(secret: str) -> dict[int, frozenset[str]]:
    """Cut a secret, in each spelling that no escape makes, into the pieces that count as the whole; by their length.

    Kept, as each day of a backfill has a mask of the same secrets.
    """
    wholes = {secret.encode("latin-1", "replace").decode("latin-1")}
    for layer, _ in _decode_layers(_to_bytes(secret)):  # it may be known as a URL writes it
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
    """Yield what of the base64 of `data` is the same wherever it stands in what is encoded, in both alphabets."""
    for before in range(3):
        code = base64.b64encode(bytes(before) + data)
        stable = code[-(-before * 8 // 6) : (before + len(data)) * 8 // 6].decode()
        yield stable
        yield stable.translate(str.maketrans("+/", "-_"))


def _decode_layers(layer: str) -> Iterator[tuple[str, list[tuple[int, int]] | None]]:
    """Yield a text, and what it says when its escapes are read once, twice and so on.

    With each text comes the place of each character in the first one; None for the first one itself.
    """
    places: list[tuple[int, int]] | None = None
    yield layer, places
    while found := list(ESCAPE.finditer(layer)):
        known = places or [(at, at + 1) for at in range(len(layer))]
        pieces, places, at = list[str](), [], 0
        for escape in found:
            said = _read_escape(escape)
            pieces += [layer[at : escape.start()], said]
            places += known[at : escape.start()]
            places += [(known[escape.start()][0], known[escape.end() - 1][1])] * len(said)
            at = escape.end()
        places += known[at:]
        layer = "".join([*pieces, layer[at:]])
        yield layer, places


def _read_escape(escape: re.Match[str]) -> str:
    """Return what an escape stands for, a character for a byte."""
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
    """The user info in the proxies that the environment names, as HTTPS_PROXY does."""
    for name, url in environment.items():
        if name.lower().endswith("_proxy"):
            yield from find_userinfo(url)


def find_userinfo(url: str) -> Iterator[str]:
    """The secrets before the last @ of a URL, which need not be well-formed: the password, or all if there is none."""
    userinfo, at, _ = url.rpartition("@")
    if at:
        user, _, password = userinfo.rpartition("//")[2].partition(":")
        yield password or user


def hides_userinfo(url: str) -> bool:
    """Whether an @ behind the host of a URL may end a password with / ? or # in it: nobody knows what the host is."""
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
    """Every name in nested objects, with what stands under it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name, item
            yield from _walk_names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk_names(item)
