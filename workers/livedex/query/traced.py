"""A span for each request below /v1: it continues the trace of whoever asks, and is the current one of what is done for it."""

from http import HTTPMethod, HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from livedex.core.trace_context import TraceContext
from livedex.query.front import Sent
from livedex.tracing import Tracer

_METHODS = frozenset(HTTPMethod)


class TraceRequests:
    """The outermost of what stands before the routes: what they refuse has its span too."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        sent = Sent(send)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        parent = TraceContext.of((name.decode("latin-1"), value) for name, value in scope["headers"])
        known = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        unrouted = "HTTP" if method == "_OTHER" else method
        with self._tracer.span(unrouted, kind="server", parent=parent, attributes=known) as span:
            try:
                await self._app(scope, receive, sent)
            finally:
                route = getattr(scope.get("route"), "path", None)
                name = None if route is None else f"{unrouted} {route}"
                found = {"http.response.status_code": sent.code} | ({} if route is None else {"http.route": route})
                failed = str(sent.code) if sent.code >= HTTPStatus.INTERNAL_SERVER_ERROR else None
                span.note(name=name, attributes=found, failed=failed)
