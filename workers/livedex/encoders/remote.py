"""One conversation with an embedding server: JSON over HTTP, a few requests at a time, tried again where that helps.

refused now (429, no connection)      -> tried again, as Retry-After says; then UnavailableError
fails (5xx, TEI's 424)                -> the same; then FailingError: the server is at fault, or the text that it fails on
refused for ever (401, 403, 404)      -> SystemicError: the operator has to act
refused for this input (other 4xx)    -> InputRefusedError: the text is at fault
"""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from livedex.core.backoff import backoff
from livedex.encoders.places import TICK, Places
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConfigError, SystemicError, UnavailableError

PATIENCE = 30.0  # seconds for an answer, and for all tries of a request together
LONGEST_WAIT = 10.0  # seconds, of ours between two tries; who has to wait longer is told, and the caller has its own ways
LONGEST_HEEDED = 3600.0  # seconds of a Retry-After: what is longer is a mistake of the server
_OPERATORS = {401, 403, 404, 405}
_PASSING = {408, 425, 429}
_FAILED = {424}  # how Text Embeddings Inference says that its model failed


class InputRefusedError(Exception):
    """The server does not take this input, whoever asks and whenever."""


class FailingError(UnavailableError):
    """The server answers that it fails. On this input alone, or on any: the answer does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An embedding server as the settings name it."""

    url: str
    token_file: Path | None = None  # a bearer token, the file's only line
    max_tokens: int | None = None  # that its model reads of one text; None: the server says it
    concurrency: int = 4  # requests at a time, of this process

    def headers(self) -> dict[str, str]:
        """What authenticates every request; ConfigError when the token cannot be read."""
        if self.token_file is None:
            return {}
        try:
            token = self.token_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                f"the token of the embedding server, {self.token_file}, cannot be read: {error.strerror}"
            ) from error
        if not re.fullmatch(rb"[!-~]{1,8192}", token):  # what a header cannot carry would be quoted by who refuses it
            raise ConfigError(
                f"the file {self.token_file} does not have one token of ASCII on one line: check LIVEDEX_EMBEDDER_TOKEN_FILE"
            )
        return {"Authorization": f"Bearer {token.decode()}"}

    @property
    def shown(self) -> str:
        """The address for messages: without a password, or a key in the query."""
        try:
            return str(httpx.URL(self.url).copy_with(userinfo=b"", query=None)).rstrip("/")
        except httpx.InvalidURL:
            return "of LIVEDEX_EMBEDDER_URL"


class Conversation:
    """Requests to one server, from any thread."""

    def __init__(self, server: Server, *, patience: float = PATIENCE, jitter: Callable[[], float] = random.random) -> None:
        self._url, self._shown = server.url.rstrip("/"), server.shown
        self._patience = patience
        self._jitter = jitter
        self._places = Places(server.concurrency)
        self._closed_until = 0.0  # monotonic: the server wants nothing before
        limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        self._client = httpx.Client(headers=server.headers(), timeout=httpx.Timeout(patience, connect=5.0), limits=limits)

    def get(self, path: str) -> Any | None:
        """The JSON at `path`; None when the server has nothing there."""
        answer = self._send("GET", path, None, self._patience, lambda: False)
        return None if answer.status_code in {404, 405} else _json(self._settled(answer, path), path)

    def post(
        self, path: str, body: Any, *, patience: float | None = None, failing: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Any:  # fmt: skip
        """The JSON that `path` answers to `body`. `patience`: seconds for all tries together; `failing`: the same with a server
        that says that it fails.
        """
        answer = self._send("POST", path, body, self._patience if patience is None else patience, stopped, failing)
        return _json(self._settled(answer, path), path)

    def _send(
        self, method: str, path: str, body: Any, patience: float, stopped: Callable[[], bool], failing: float | None = None
    ) -> httpx.Response:
        begun = time.monotonic()
        deadline, attempt = begun + patience, 0
        while True:
            attempt += 1
            if stopped():
                raise EncodingStopped
            wait, failed = None, False
            try:
                answer = self._request(method, path, body, deadline, stopped)
            except httpx.HTTPError as error:
                why = type(error).__name__
            else:
                failed = answer.status_code in _FAILED or answer.is_server_error
                if not failed and answer.status_code not in _PASSING:
                    return answer
                wait, why = retry_after(answer, datetime.now(UTC)), f"status {answer.status_code}"
            if wait is not None and (wait > LONGEST_WAIT or time.monotonic() + wait >= deadline):
                self._closed_until = time.monotonic() + min(wait, LONGEST_HEEDED)
                raise UnavailableError("embedder", f"{self._away} {why}, and is to be asked again in {wait:.0f} s")
            pause = wait or backoff(attempt, self._jitter())  # "at once" is what a server says whose clock is wrong
            end = min(deadline, begun + failing) if failed and failing is not None else deadline
            if time.monotonic() + pause >= end:
                raise (FailingError if failed else UnavailableError)("embedder", f"{self._away} {why}")
            _sleep(pause, stopped)

    def _request(self, method: str, path: str, body: Any, deadline: float, stopped: Callable[[], bool]) -> httpx.Response:
        """One try, once there is a place for it; UnavailableError when there is none until the deadline."""
        left = self._closed_until - time.monotonic()
        if left > 0:
            raise UnavailableError("embedder", f"{self._away} it is to be asked again in {left:.0f} s")
        try:
            with self._places.one(deadline, stopped):
                left = max(0.1, deadline - time.monotonic())
                return self._client.request(method, self._url + path, json=body, timeout=left)
        except TimeoutError:
            message = f"{self._away} it is busy with other requests of this process"
            raise UnavailableError("embedder", message) from None

    @property
    def _away(self) -> str:
        return f"the embedding server {self._shown} does not answer:"

    def _settled(self, answer: httpx.Response, path: str) -> httpx.Response:
        """The answer, if it is one."""
        if answer.is_success:
            return answer
        said = f"the embedding server answers {answer.status_code} to {self._shown}{path}: {_reason(answer)}"
        if answer.status_code in _OPERATORS:
            raise SystemicError("embedder", f"{said}: check LIVEDEX_EMBEDDER_URL and LIVEDEX_EMBEDDER_TOKEN_FILE")
        raise InputRefusedError(said)


def retry_after(answer: httpx.Response, now: datetime) -> float | None:
    """Seconds that the server asks to wait, as a number or a date; None when it does not say."""
    said = answer.headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, (parsedate_to_datetime(said) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stopped():
            raise EncodingStopped
        time.sleep(min(TICK, left))


def _json(answer: httpx.Response, path: str) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise SystemicError(
            "embedder", f"the embedding server answers no JSON to {path}: check LIVEDEX_EMBEDDER_URL"
        ) from error


def _reason(answer: httpx.Response) -> str:
    """What the server says, without what may quote the text."""
    try:
        found = answer.json()
        kind = found.get("error_type") or found.get("error")
        return str(kind.get("type") or kind.get("code")) if isinstance(kind, dict) else str(kind or answer.reason_phrase)[:80]
    except (ValueError, AttributeError):
        return answer.reason_phrase
