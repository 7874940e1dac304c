"""Search from Python: `search`, and `asearch` for asyncio. Neither loads a model, Kafka's client or Postgres's.

    from livedex.client import search

    for hit in search("how do I reset my password", url="https://search.example.org", token=TOKEN, k=3):
        print(hit.score, hit.document_id, hit.chunk)

Errors are those of livedex.errors: UsageError (the search is wrong), ConfigError (the token, the collection or the address is),
UnavailableError (the worker or something behind it is away or busy; it was asked again until the timeout), TimedOutError.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

import httpx

from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError

__all__ = ["Hit", "asearch", "search"]

LONGEST = 60.0  # seconds that a query worker lets a search take
GRACE = 1.0  # seconds for the worker's own 504 to arrive
_AGAIN = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A document that was found with its best passage, or one of its passages where `per_document` is more than 1."""

    document_id: str
    score: float  # higher is better
    title: str | None
    chunk: str
    ordinal: int  # of the chunk in the document, from 0
    metadata: dict[str, Any]
    version: int
    event_time: datetime  # when the document changed last
    indexed_at: datetime  # when that became searchable


def search(
    query: str,
    *,
    url: str,
    token: str | None = None,
    k: int = 10,
    collection: str = "default",
    mode: Literal["hybrid", "vector", "text"] = "hybrid",
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name that HTTP and SQL have
    per_document: int = 1,
    rerank: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    timeout: float = 2.0,
    http: httpx.Client | None = None,
) -> list[Hit]:
    """Documents by meaning, by words, or both, best first.

    `url` is where the query worker is, such as http://127.0.0.1:8080. `since` and `until` bound the event time and have a zone.
    `after` is the token of an event that must be searchable first. Within `timeout` seconds a busy worker is asked again when
    it says. `http` keeps connections open for many searches; without it each makes its own.
    """
    body = _body(
        query=query, k=k, collection=collection, mode=mode, filter=filter, per_document=per_document, rerank=rerank,
        since=since, until=until, after=after,
    )  # fmt: skip
    asked = _Asked(url, token, timeout, body)
    if http is None:
        with httpx.Client(verify=_trust()) as own:
            return _search(asked, own)
    return _search(asked, http)


async def asearch(
    query: str,
    *,
    url: str,
    token: str | None = None,
    k: int = 10,
    collection: str = "default",
    mode: Literal["hybrid", "vector", "text"] = "hybrid",
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name that HTTP and SQL have
    per_document: int = 1,
    rerank: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    timeout: float = 2.0,
    http: httpx.AsyncClient | None = None,
) -> list[Hit]:
    """The same as `search`, for asyncio."""
    body = _body(
        query=query, k=k, collection=collection, mode=mode, filter=filter, per_document=per_document, rerank=rerank,
        since=since, until=until, after=after,
    )  # fmt: skip
    asked = _Asked(url, token, timeout, body)
    if http is None:
        async with httpx.AsyncClient(verify=_trust()) as own:
            return await _asearch(asked, own)
    return await _asearch(asked, http)


def _search(asked: "_Asked", http: httpx.Client) -> list[Hit]:
    while True:
        try:
            response = _posted(asked, http)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise asked.failed(error) from None
        if response.is_success:
            return asked.hits(response)
        time.sleep(asked.pause(response))


def _posted(asked: "_Asked", http: httpx.Client) -> httpx.Response:
    """The whole answer, in time: the timeout of httpx is for each piece of it."""
    request = asked.request()
    end = time.monotonic() + request["timeout"]
    content = bytearray()
    with http.stream("POST", **request) as response:
        for piece in response.iter_raw():
            content += piece
            if time.monotonic() > end:
                raise httpx.ReadTimeout("")
    return httpx.Response(response.status_code, headers=response.headers, content=bytes(content))


async def _asearch(asked: "_Asked", http: httpx.AsyncClient) -> list[Hit]:
    while True:
        try:
            request = asked.request()
            async with asyncio.timeout(request["timeout"]):  # that of httpx is for each piece of an answer
                response = await http.post(**request)
        except TimeoutError:
            raise asked.failed(httpx.ReadTimeout("")) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise asked.failed(error) from None
        if response.is_success:
            return asked.hits(response)
        await asyncio.sleep(asked.pause(response))


@cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reading the certificates takes longer than a search


def _body(*, filter: Mapping[str, Any] | None, since: datetime | None, until: datetime | None, **body: Any) -> dict[str, Any]:  # noqa: A002
    times = {name: bound.isoformat() for name, bound in (("since", since), ("until", until)) if bound is not None}
    return {**body, **times, "filter": dict(filter or {})}


class _Asked:
    """One search and the time that is left for it; what is sent, and what the answer means."""

    def __init__(self, url: str, token: str | None, timeout: float, body: dict[str, Any]) -> None:
        if not 0 < timeout <= LONGEST:
            raise UsageError(f"timeout is {timeout} s, expected more than 0 and at most {LONGEST:g}")
        self._url = f"{url.rstrip('/')}/v1/search"
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._body = body

    @property
    def _left(self) -> float:
        return max(0.001, self._deadline - time.monotonic())

    def request(self) -> dict[str, Any]:
        """What httpx posts: the worker is told the time that is left."""
        left = self._left
        content = json.dumps({**self._body, "timeout_ms": max(1, int(left * 1000))}).encode()
        return {
            "url": self._url,
            "content": content,
            "headers": self._headers,
            "timeout": left + GRACE,
            "follow_redirects": False,
        }

    def hits(self, response: httpx.Response) -> list[Hit]:
        """The rows of an answer."""
        try:
            return [_hit(row) for row in response.json()["results"]]
        except (ValueError, TypeError, KeyError):
            raise self._stranger() from None

    def pause(self, response: httpx.Response) -> float:
        """Seconds until the worker may be asked again; the error of the answer when that is no use, or too late."""
        error = self._error(response)
        if response.status_code not in _AGAIN:
            raise error
        said = response.headers.get("retry-after", "")
        seconds = float(said) if said.isdecimal() else 1.0
        if time.monotonic() + seconds >= self._deadline:
            raise error
        return seconds

    def _error(self, response: httpx.Response) -> LivedexError:
        try:
            problem = response.json()
            status, detail = int(problem["status"]), str(problem["detail"])
        except (ValueError, TypeError, KeyError):
            return self._stranger()
        if status in _AGAIN or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            late = status == httpx.codes.GATEWAY_TIMEOUT
            return TimedOutError(detail) if late else UnavailableError(str(problem.get("dependency", "serve")), detail)
        refused = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE)
        return UsageError(detail) if status in refused else ConfigError(detail)

    def failed(self, error: Exception) -> LivedexError:
        """What it means that there was no answer."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return UnavailableError(
                "serve", f"no query worker answers at {self._url}: {error}; is livedex serve running there?"
            )
        if isinstance(error, httpx.TimeoutException):
            return TimedOutError(f"the query worker at {self._url} did not answer within {self._timeout:g} s")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return UsageError(f"the url {self._url!r} is none of a query worker, such as http://127.0.0.1:8080: {error}")
        return UnavailableError("serve", f"the query worker at {self._url} broke off: {str(error) or type(error).__name__}")

    def _stranger(self) -> ConfigError:
        return ConfigError(f"what answers at {self._url} is no query worker of livedex: check url")


def _hit(row: dict[str, Any]) -> Hit:
    times = {name: datetime.fromisoformat(row[name]) for name in ("event_time", "indexed_at")}
    return Hit(**{name: row[name] for name in Hit.__dataclass_fields__} | times)
