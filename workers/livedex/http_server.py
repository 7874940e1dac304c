"""A worker over HTTP: a server in a thread of its own, and the routes that both workers have."""

import socket
import threading
from collections.abc import Callable

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from livedex.errors import ConfigError
from livedex.http_protocol import LONGEST_HEAD, HastyProtocol
from livedex.lifecycle import Health

# of every answer: a browser must not take a document for something else than it is declared as, nor tell where it came from
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]


def health_routes(
    health: Health, registry: CollectorRegistry, *, before_scrape: Callable[[], None] = lambda: None
) -> APIRouter:
    """`/healthz` (alive), `/readyz` (503 names what is waited for) and `/metrics`.

    They run on the server's own thread: requests that wait for a database must not make a live process look dead.
    """
    routes = APIRouter(tags=["operations"])

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Alive: the process answers."""
        return {"status": "alive"}

    @routes.get("/readyz", responses={503: {"description": "waiting for the named dependencies"}})
    async def readyz(response: Response) -> dict[str, object]:
        """Ready: every dependency answers."""
        waiting = health.waiting_for
        response.status_code = 503 if waiting else 200
        return {"status": "waiting" if waiting else "ready", "waiting_for": waiting}

    @routes.get("/metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Prometheus metrics; as OpenMetrics, with exemplars, for those who accept that."""
        before_scrape()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return routes


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket; ConfigError when the port is busy or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; else each answer waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with {setting}") from error
    return listener


class HttpServer:
    """An application served by uvicorn in a thread of its own, on a socket that is listening already."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=HastyProtocol,
                h11_max_incomplete_event_size=LONGEST_HEAD,
                ws="none",
                headers=HEADERS,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=3,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._listener = listener
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what was asked, at most 3 s, then close."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
