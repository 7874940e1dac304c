"""Who may ask what over HTTP: the file of API tokens, read again when it changes.

    [tokens.website]
    token = "..."                 # or sha256 = "..."
    collections = ["docs"]        # or ["*"]
    operator = false              # true: /v1/status of everything, and dead letters, to be seen and settled

No token is ever logged or quoted in an error, and none is kept: what is compared are SHA-256 digests, all of them every time.
"""

import hashlib
import hmac
import re
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from livedex import secret_files
from livedex.config import CollectionName
from livedex.errors import ConfigError, LivedexError
from livedex.observe import logger

LOOK_EVERY = 1.0  # seconds between looks at whether the file has changed
EVERY_COLLECTION = "*"
MAX_FILE_BYTES = 2**20
_log = logger("access")


class ForbiddenError(LivedexError):
    """The caller may not search there, or there is nothing: the two are not told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    name: str
    collections: frozenset[str] | None  # None: all
    operator: bool = False

    def may_search(self, collection: str) -> bool:
        """Whether the collection is one of the caller's; one that does not exist may be."""
        return self.collections is None or collection in self.collections

    def check(self, collection: str) -> None:
        """ForbiddenError unless the caller may search there."""
        if not self.may_search(collection):
            raise ForbiddenError(
                f"the token {self.name} may not search the collection {collection}: add it to the token's collections in the "
                "file of LIVEDEX_API_TOKENS_FILE"
            )


ANYBODY = Caller(name="", collections=None, operator=True)  # where no tokens are asked for: this machine only


class _Token(BaseModel):
    """One entry of the file. Errors are told without `input`, which may be the token."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # the characters that a header of RFC 6750 can carry; the length makes guessing hopeless only if it is random
    token: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+/-]{16,512}=*$")] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    collections: list[CollectionName | Annotated[str, StringConstraints(pattern=r"^\*$")]]
    operator: bool = False

    @field_validator("collections")
    @classmethod
    def _all_or_some(cls, value: list[str]) -> list[str]:
        if EVERY_COLLECTION in value and len(value) > 1:
            raise ValueError('"*" stands alone')
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> "_Token":
        if (self.token is None) is (self.sha256 is None):
            raise ValueError("either token or sha256 was expected, and not both")
        return self

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256) if self.sha256 else hashlib.sha256((self.token or "").encode()).digest()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: dict[Annotated[str, Field(max_length=100)], _Token]


class Tokens:
    """The callers of a file of tokens. ConfigError when it is wrong at first; later the version before stays in force."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._callers = read(path)
        self._looked_at = clock()
        secret_files.warn_of(self._path, "LIVEDEX_API_TOKENS_FILE")

    def caller(self, token: str) -> Caller | None:
        """Who has this token; None when nobody has."""
        presented = hashlib.sha256(token.encode(errors="replace")).digest()
        with self._lock:
            self._look()
            callers = self._callers
        found = None
        for digest, caller in callers.items():  # all of them: how long it takes must not tell which
            if hmac.compare_digest(digest, presented):
                found = caller
        return found

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp  # before reading: what is written meanwhile is seen at the next look
        try:
            self._callers = read(self._path)
        except ConfigError as error:
            _log.error("access.tokens_refused", why=str(error), in_force="the tokens of the version before")
            return
        _log.info("access.tokens_read", path=str(self._path), tokens=len(self._callers))
        secret_files.warn_of(self._path, "LIVEDEX_API_TOKENS_FILE")

    def _stamp(self) -> tuple[int, ...]:
        """What changes when the file does; empty when it cannot be looked at, which `read` explains."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino


def read(path: Path) -> Mapping[bytes, Caller]:
    """The callers by the SHA-256 digest of their token. ConfigError names the file and the line or field, never a value."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the tokens file {path} cannot be read: {error.strerror}; check LIVEDEX_API_TOKENS_FILE") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"the tokens file {path} is larger than {MAX_FILE_BYTES} bytes; check LIVEDEX_API_TOKENS_FILE")
    try:
        entries = _File.model_validate(_parsed(content, path)).tokens
    except ValidationError as error:
        raise ConfigError(
            f"the tokens file {path} is wrong: {'; '.join(dict.fromkeys(map(_explain, error.errors())))}"
        ) from None
    callers: dict[bytes, Caller] = {}
    for name, entry in entries.items():
        if entry.digest in callers:
            raise ConfigError(
                f"the tokens file {path} is wrong: tokens.{name} and tokens.{callers[entry.digest].name} are the same token"
            )
        callers[entry.digest] = _caller(name, entry)
    return callers


def _caller(name: str, entry: _Token) -> Caller:
    collections = None if entry.collections == [EVERY_COLLECTION] else frozenset(entry.collections)
    return Caller(name=name, collections=collections, operator=entry.operator)


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"the tokens file {path} is no TOML: it is not in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # of the message only the place, since the rest may quote what stands there
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
        raise ConfigError(f"the tokens file {path} is no TOML: look at {place[1] if place else 'it'}") from None


_SAY = {
    "tokens.*.token": "16 to 512 of the characters A-Z a-z 0-9 . _ ~ + / - were expected",
    "tokens.*.sha256": "64 hexadecimal digits were expected",
    "tokens.*.collections": 'a list of collections was expected, or ["*"] alone',
    "tokens.*.operator": "true or false was expected",
    "tokens.*": 'a section was expected: [tokens.NAME] with token = "..." or sha256 = "...", and collections = [...]',
    "tokens": "a section [tokens.NAME] for each token was expected",
}


def _explain(error: Any) -> str:
    """The field and what it should be, from fixed sentences: a library's own may quote the value."""
    where = [str(part) for part in error["loc"]]
    field = ".".join(where[:3])
    if error["type"] == "extra_forbidden":
        return f"{field} is unknown, expected {'token, sha256, collections or operator' if len(where) > 2 else 'tokens'}"
    if error["type"] == "value_error" and len(where) == 2:
        return f"{field}: {str(error['msg']).removeprefix('Value error, ')}"
    pattern = ".".join(["tokens", "*", *where[2:3]][: max(1, len(where[:3]))])
    missing = "is missing: " if error["type"] == "missing" else ""
    return f"{field}: {missing}{_SAY[pattern]}"
