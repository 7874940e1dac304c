"""The page at `/` and the reference at `/docs`: files of this package, as they are. The page asks the routes under /v1 with the
token that is typed into it; the reference draws /openapi.json. They share an origin, so what ran in one could read the token
of the other.

What the page shows comes from documents and records of anybody, so nothing but these files may run or be loaded.
"""

import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

FOLDER = "/page/"
PAGES = {"index.html": "/", "docs.html": "/docs"}  # and where they are
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {  # besides those of every answer, see http_server
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time, sent when it changed
}


def _read() -> dict[str, bytes]:
    """The files by the path that they are asked for with."""
    folder = resources.files("livedex.query") / "page"
    files = [file for file in folder.iterdir() if _type(file.name)]
    return {PAGES.get(file.name, FOLDER + file.name): file.read_bytes() for file in files}


def _type(path: str) -> str | None:
    return _TYPES[".html"] if path in PAGES.values() else _TYPES.get(path[path.rfind(".") :])


def page_routes() -> tuple[APIRouter, frozenset[str]]:
    """The routes, and their paths: nobody needs a token for what holds no data."""
    files = _read()
    routes = APIRouter(include_in_schema=False)
    for path, content in files.items():
        routes.add_api_route(path, _answer(content, _type(path) or ""), methods=["GET", "HEAD"])
    return routes, frozenset(files)


def _answer(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {**HEADERS, "ETag": tag}

    async def answer(asked: Request) -> Response:
        if asked.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return answer
