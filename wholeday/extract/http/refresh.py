"""Keep an OAuth 2.0 refresh token that the endpoint replaces with each use.

Responsibilities: which token is the newest, and that it survives. The file that keeps it is private (mode 0600), is
replaced as a whole, and serves one process at a time. Whether it can be written is tried before a token is used up.
Non-goals: the conversation with the endpoint.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from wholeday.config.source import Source
from wholeday.errors import ConfigError, SourceError
from wholeday.log import logger
from wholeday.redaction import Mask
from wholeday.storage import files
from wholeday.storage.locks import lock_file

ROOM = 2**13  # bytes that are reserved on the disk before a token is used up


class Kept(msgspec.Struct, frozen=True):
    """The content of the file: the newest token, and the digest of the token in the variable that it descends from."""

    descends_from: str
    refresh_token: str


class RefreshToken:
    """The refresh token in an environment variable, or the one that has replaced it.

    `token_file` of the section keeps replacements. A token in the file counts as long as the variable holds the token
    that it descends from: whoever authorises again exports the new token, and nothing else.
    """

    def __init__(self, config: Source, mask: Mask, variable: str, value: str) -> None:
        self._name, self._mask, self.variable = config.section, mask, variable
        self._value, self._digest = value, hashlib.sha256(value.encode()).hexdigest()
        self._path = Path(os.path.realpath(config.token_file)) if config.token_file else None
        self._warned = False
        mask.add(value)

    @contextlib.contextmanager
    def hold(self) -> Iterator[str]:
        """Give the newest token, while no other process or thread can use it. Raises ConfigError, naming the file."""
        if self._path is None:
            yield self._value
            return
        with contextlib.ExitStack() as stack:
            try:
                files.make_folder(self._path.parent, private=True)
                lock = stack.enter_context(files.open_file(self._beside(".lock"), "ab", private=True))
                lock_file(lock)
                self._take_newest(self._path)
                files.write(self._beside(".new"), [b" " * ROOM], "wb", private=True)
            except OSError as error:
                raise self._fail(f"cannot be used ({error.strerror}): name a file in a folder of yours") from None
            try:
                yield self._value
            finally:
                self._beside(".new").unlink(missing_ok=True)

    def replace(self, token: str) -> None:
        """Keep `token`, which replaces the one that `hold` gave. Call it within `hold`, before anything can fail."""
        self._mask.add(token)
        if token == self._value:
            return
        self._value = token
        if self._path is None:
            if not self._warned:
                logger.warning(
                    "[%s] auth: the token endpoint replaced the refresh token, and nothing keeps the new one: set "
                    "token_file to a path, or %s may be refused the next time",
                    *(self._name, self.variable),
                )
            self._warned = True
            return
        try:
            with self._beside(".new").open("r+b") as file:
                file.write(msgspec.json.encode(Kept(self._digest, token)).ljust(ROOM))
                file.flush()
                os.fsync(file.fileno())
            self._beside(".new").replace(self._path)
            files.sync_folder(self._path.parent)
        except OSError as error:
            raise SourceError(
                f"[{self._name}] auth: the token endpoint replaced the refresh token, and token_file = {self._path} "
                f"cannot be written ({error.strerror}): make room or give access; if {self.variable} is refused then, "
                "authorise the application again and export the new refresh token"
            ) from None

    def _beside(self, ending: str) -> Path:
        assert self._path is not None  # noqa: S101 - only a token with a file comes here
        return self._path.with_name(self._path.name + ending)

    def _take_newest(self, path: Path) -> None:
        """Take the token in the file, if there is one that descends from the variable's."""
        new = self._beside(".new")
        if _read(new) is not None:  # a process was killed before it could put this file in its place
            new.replace(path)
        new.unlink(missing_ok=True)
        if not path.exists():
            return
        kept = _read(path)
        if kept is None:
            raise self._fail(f"holds no refresh token: delete it, and export a new token as {self.variable}")
        if kept.descends_from == self._digest:
            self._mask.add(kept.refresh_token)
            self._value = kept.refresh_token

    def _fail(self, what: str) -> ConfigError:
        return ConfigError(f"[{self._name}] token_file = {self._path} {what}")


def _read(path: Path) -> Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
