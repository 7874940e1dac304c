"""What stands before the routes: each request is counted, its caller known and its body small, before anything is parsed."""

import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from livedex.core.change import CANARY_HEADER
from livedex.observe import QueryMetrics
from livedex.query.access import ANYBODY, Caller, Tokens
from livedex.query.problems import problem

MAX_BODY_BYTES = 64 * 2**10  # of one search
MAX_BATCH_BODY_BYTES = 512 * 2**10  # of searches in one body
SEARCH = "/v1/search"
SEARCHES = {SEARCH: MAX_BODY_BYTES, "/v1/search/batch": MAX_BATCH_BODY_BYTES}

# Everything else needs a token, a path that is not there included.
OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
_HOST = re.compile(r"(\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]]+))(:[0-9]*)?")
_CALLER, _CODES = "livedex.caller", "livedex.codes"  # in the request's scope


def caller_of(scope: Scope) -> Caller:
    """Who sent this request."""
    found: Caller = scope[_CALLER]
    return found


def is_canary(scope: Scope) -> bool:
    """Whether livedex canary searches: it sees its own documents, which nobody else does, and no user is counted."""
    return scope["path"] == SEARCH and CANARY_HEADER in Headers(scope=scope)


class Sent:
    """Sends an answer on, and knows its status: 500 until it begins, as for an exception that passes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.code = HTTPStatus.INTERNAL_SERVER_ERROR.value

    async def __call__(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.code = message["status"]
        await self._send(message)


class CountSearches:
    """Counts each answered search of a user by its status code."""

    def __init__(self, app: ASGIApp, metrics: QueryMetrics) -> None:
        self._app = app
        self._count = metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] not in SEARCHES or is_canary(scope):
            await self._app(scope, receive, send)
            return
        sent = Sent(send)
        codes: list[str] = []  # of the searches of a batch, or one that says more than the status
        scope[_CODES] = codes
        try:
            await self._app(scope, receive, sent)
        finally:
            for each in codes or [str(sent.code)]:
                self._count.labels("http", each).inc()


def answered_each(scope: Scope, codes: list[str]) -> None:
    """Say how each search of this request ended, where its status does not; of a canary's nobody counts it."""
    scope.get(_CODES, []).extend(codes)


class CheckHost:
    """Where no tokens are asked for, answers only who asked for this machine by a name of the loopback: the page of somebody
    else, whose own name was made to point here, is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or is_loopback(Headers(scope=scope).getlist("host")):
            await self._app(scope, receive, send)
            return
        says = "without tokens this worker answers to localhost and loopback addresses only: ask 127.0.0.1, or set up tokens"
        await problem(HTTPStatus.MISDIRECTED_REQUEST, says)(scope, receive, send)


def is_loopback(hosts: Sequence[str]) -> bool:
    """Whether there is one Host, and it is localhost or an address of the loopback, with any port."""
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if found is None:
        return False
    name = found["address"] or found["name"]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() in ("localhost", "localhost.")


class CheckToken:
    """Lets pass who has a token of the file; without a file everybody."""

    def __init__(self, app: ASGIApp, tokens: Tokens | None, also_open: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._tokens = tokens
        self._open = OPEN | also_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        presented = _bearer(Headers(scope=scope))
        caller = ANYBODY if self._tokens is None else self._tokens.caller(presented or "")
        if caller is None:
            await _unauthorized(presented)(scope, receive, send)
            return
        scope[_CALLER] = caller
        await self._app(scope, receive, send)


def _bearer(headers: Headers) -> str | None:
    """The token of the request; None when it has none, or two."""
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _unauthorized(presented: str | None) -> ASGIApp:
    says, challenge = "this query worker asks for a token in the header Authorization: Bearer TOKEN", "Bearer"
    if presented is not None:
        says, challenge = "the token is not, or no longer, one of those that may ask here", 'Bearer error="invalid_token"'
    return problem(HTTPStatus.UNAUTHORIZED, says, headers={"WWW-Authenticate": challenge})


class LimitBody:
    """Refuses a body that is too large before reading it; so a body must say its length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        refused = _body_refused(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)


def _body_refused(headers: Headers, path: str) -> ASGIApp | None:
    if "transfer-encoding" in headers:
        says = "the body comes without its length: send it in one piece, with a content-length"
        return problem(HTTPStatus.LENGTH_REQUIRED, says)
    limit = SEARCHES.get(path, MAX_BODY_BYTES)
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {announced} bytes, at most {limit} are read")
    return None
