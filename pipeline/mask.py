"""Secrets: out of every text that is printed or kept.

Owns what counts as a secret in a text or in a section, and in which forms it may turn up there. Refuses to know
where a secret is sent: that is auth.py's.
"""

import contextlib
import html
import json
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from urllib.parse import parse_qsl

from pipeline.config import Source
from pipeline.placeholders import walk_texts
from pipeline.sanitize import clean_line

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
USERINFO = re.compile(r"(//)[^/?#\s]*@")
TALKERS = ("urllib3.connection", "urllib3.connectionpool")  # the loggers that say, at DEBUG, what is asked for
SHORTEST = 4  # characters; what is shorter is no secret, and masking it would garble every line


class Mask:
    """Puts *** in the place of secrets in a text: of those it knows, of userinfo, of parameters named like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._known: list[re.Pattern[str]] = []
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Mask these too from now on; several threads may add at once."""
        patterns = {re.compile("".join(map(_match_char, secret))) for secret in secrets if secret}
        with self._lock:
            # The longest first: where one secret begins with another, all of it goes.
            self._known = sorted(patterns.union(self._known), key=lambda each: len(each.pattern), reverse=True)

    def __call__(self, text: str) -> str:
        text = text.encode("utf-8", "backslashreplace").decode()
        for secret in self._known:
            text = secret.sub("***", text)
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


def _match_char(char: str) -> str:
    """A pattern for a character as it is, or as a URL (at any depth), JSON or HTML writes it."""
    if char.isascii() and char.isalnum():
        return char
    forms = [
        "".join(f"%(?:25)*{byte:02x}" for byte in char.encode("utf-8", "surrogatepass")),
        rf"\\u{ord(char):04x}|&#0*{ord(char)};|&#x0*{ord(char):x};",
        re.escape(html.escape(char)),
        re.escape(json.dumps(char)[1:-1]),
        rf"\\?{re.escape(char)}",
        *([r"\+"] if char == " " else []),
    ]
    return f"(?i:{'|'.join(sorted(forms, key=len, reverse=True))})"  # the longest first, or its end would stay


def find_secrets(config: Source) -> Iterator[str]:
    """The texts that `url`, `params`, `body` and `headers` hold under names that look secret."""
    query = config.url.partition("#")[0].partition("?")[2]
    pairs: list[tuple[str, object]] = [*parse_qsl(query), *_walk_names([config.params, config.body])]
    pairs += [(name, [value, *str(value).split()]) for name, value in config.headers.items()]
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
