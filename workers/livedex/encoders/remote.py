"""One conversation with an embedding server: JSON over HTTP, a few requests at a time, tried again where that helps.

refused now (429, 5xx, no connection) -> tried again, as Retry-After says; then UnavailableError
refused for ever (401, 403, 404)      -> SystemicError: the operator has to act
refused for this input (other 4xx)    -> InputRefusedError: the text is at fault
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from livedex.core.backoff import backoff
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConfigError, SystemicError, UnavailableError

PATIENCE = 30.0  # seconds for an answer, and for all tries of a request together
LONGEST_WAIT = 10.0  # seconds, whatever Retry-After says: the caller has its own ways of waiting
_TICK = 0.1  # seconds between two looks at whether to stop
_OPERATORS = {401, 403, 404, 405}
_PASSING = {408, 425, 429}


class InputRefusedError(Exception):
    """The server does not take this input, whoever asks and whenever."""


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
            return {"Authorization": f"Bearer {self.token_file.read_text(encoding='utf-8').strip()}"}
        except OSError as error:
            raise ConfigError(
                f"the token of the embedding server, {self.token_file}, cannot be read: {error.strerror}"
            ) from error


class Conversation:
    """Requests to one server, from any thread."""

    def __init__(self, server: Server, *, patience: float = PATIENCE, jitter: Callable[[], float] = random.random) -> None:
        self._url = server.url.rstrip("/")
        self._patience = patience
        self._jitter = jitter
        self._places = threading.BoundedSemaphore(server.concurrency)
        limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        self._client = httpx.Client(headers=server.headers(), timeout=httpx.Timeout(patience, connect=5.0), limits=limits)

    def get(self, path: str) -> Any | None:
        """The JSON at `path`; None when the server has nothing there."""
        answer = self._send("GET", path, None, self._patience, lambda: False)
        return None if answer.status_code in {404, 405} else _json(self._settled(answer, path), path)

    def post(self, path: str, body: Any, *, patience: float | None = None, stopped: Callable[[], bool] = lambda: False) -> Any:
        """The JSON that `path` answers to `body`. `patience`: seconds for all tries together."""
        answer = self._send("POST", path, body, self._patience if patience is None else patience, stopped)
        return _json(self._settled(answer, path), path)

    def _send(self, method: str, path: str, body: Any, patience: float, stopped: Callable[[], bool]) -> httpx.Response:
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            attempt += 1
            wait, why = None, ""
            try:
                with self._places:
                    answer = self._client.request(
                        method, self._url + path, json=body, timeout=max(0.1, deadline - time.monotonic())
                    )
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}"
            else:
                if answer.status_code not in _PASSING and answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return answer
                wait, why = retry_after(answer, datetime.now(UTC)), f"status {answer.status_code}"
            pause = min(LONGEST_WAIT, backoff(attempt, self._jitter()) if wait is None else wait)
            if time.monotonic() + pause >= deadline:
                raise UnavailableError("embedder", f"the embedding server {self._url} does not answer: {why}")
            _sleep(pause, stopped)

    def _settled(self, answer: httpx.Response, path: str) -> httpx.Response:
        """The answer, if it is one."""
        if answer.is_success:
            return answer
        said = f"the embedding server answers {answer.status_code} to {self._url}{path}: {_reason(answer)}"
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
        time.sleep(min(_TICK, left))


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
