"""Store an OAuth 2.0 refresh token that the endpoint replaces with each use.

Responsibilities: the newest token is never lost. Its file is private (mode 0600), replaced atomically, and used by one
process at a time. Disk space is reserved before a token is used.
Non-goals: requests to the endpoint.
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

RESERVED = 2**13  # bytes on the disk, before a token is used


class StoredToken(msgspec.Struct, frozen=True):
    """The content of the file: the newest token, and the digest of the first token, which the variable holds."""

    descends_from: str
    refresh_token: str


class RefreshToken:
    """The refresh token in an environment variable, or its newest replacement in `token_file`.

    The file counts while the variable holds the token that the replacement descends from. After a new authorisation,
    exporting the new token is enough.
    """

    def __init__(self, config: Source, mask: Mask, variable: str, value: str) -> None:
        self._name, self._mask, self.variable = config.section, mask, variable
        self._value, self._digest = value, hashlib.sha256(value.encode()).hexdigest()
        self._path = Path(os.path.realpath(config.token_file)) if config.token_file else None
        self._warned = False
        mask.add(value)

    @contextlib.contextmanager
    def hold(self) -> Iterator[str]:
        """Yield the newest token, and keep other processes and threads from using it. Raises ConfigError."""
        if self._path is None:
            yield self._value
            return
        with contextlib.ExitStack() as stack:
            try:
                files.make_folder(self._path.parent, private=True)
                files.lock(stack.enter_context(files.open_file(self._beside(".lock"), "ab", private=True)))
                self._read_newest(self._path)
                files.write(self._beside(".new"), [b" " * RESERVED], "wb", private=True)
            except OSError as error:
                raise self._fail(f"cannot be used ({error.strerror}): name a file in a folder that you own") from None
            try:
                yield self._value
            finally:
                self._beside(".new").unlink(missing_ok=True)

    def replace(self, token: str) -> None:
        """Store the replacement of the token that `hold` yielded. Call it within `hold`, before anything can fail."""
        self._mask.add(token)
        if token == self._value:
            return
        self._value = token
        if self._path is None:
            if not self._warned:
                logger.warning(
                    "[%s] auth: the token endpoint replaced the refresh token, and the new one is not stored: set "
                    "token_file to a path, or the endpoint may refuse %s the next time",
                    *(self._name, self.variable),
                )
            self._warned = True
            return
        try:
            with self._beside(".new").open("r+b") as file:
                file.write(msgspec.json.encode(StoredToken(self._digest, token)).ljust(RESERVED))
                file.flush()
                os.fsync(file.fileno())
            self._beside(".new").replace(self._path)
            files.sync_folder(self._path.parent)
        except OSError as error:
            raise SourceError(
                f"[{self._name}] auth: the token endpoint replaced the refresh token, and token_file = {self._path} "
                f"cannot be written ({error.strerror}): free disk space or grant access; if {self.variable} is refused "
                "afterwards, authorise the application again and export the new refresh token"
            ) from None

    def _beside(self, ending: str) -> Path:
        assert self._path is not None  # noqa: S101 - called for a token with a file only
        return self._path.with_name(self._path.name + ending)

    def _read_newest(self, path: Path) -> None:
        """Read the token in the file if it descends from the token in the variable."""
        new = self._beside(".new")
        if _read(new) is not None:  # left by a process that was killed before this rename
            new.replace(path)
        new.unlink(missing_ok=True)
        if not path.exists():
            return
        stored = _read(path)
        if stored is None:
            raise self._fail(f"contains no refresh token: delete it, and export a new token as {self.variable}")
        if stored.descends_from == self._digest:
            self._mask.add(stored.refresh_token)
            self._value = stored.refresh_token

    def _fail(self, what: str) -> ConfigError:
        return ConfigError(f"[{self._name}] token_file = {self._path} {what}")


def _read(path: Path) -> StoredToken | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=StoredToken)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
