"""Errors of the HTTP interface as application/problem+json (RFC 9457), from the errors that the inside raises."""

from http import HTTPStatus

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException

from livedex.database import first_line
from livedex.errors import ConfigError, TimedOutError, UnavailableError
from livedex.lifecycle import Health
from livedex.observe import logger
from livedex.query.active import NotLoadedError

# The SQLSTATEs of contracts.md section 5, and the status that says the same.
_STATUS_OF = {
    "22023": HTTPStatus.BAD_REQUEST,
    "0A000": HTTPStatus.BAD_REQUEST,
    "42704": HTTPStatus.NOT_FOUND,
    "42501": HTTPStatus.FORBIDDEN,
    "57014": HTTPStatus.GATEWAY_TIMEOUT,
}
_FAILED = "the search failed; the log of the query worker says why"
_log = logger("query")


def problem(status: HTTPStatus, detail: str, **more: object) -> JSONResponse:
    """A problem document."""
    headers = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **more}
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def _invalid(error: RequestValidationError) -> JSONResponse:
    fields = [
        {"field": ".".join(map(str, item["loc"][1:])) or str(item["loc"][0]), "detail": item["msg"]} for item in error.errors()
    ]
    detail = "; ".join(f"{item['field']}: {item['detail']}" for item in fields)
    return problem(HTTPStatus.BAD_REQUEST, detail, errors=fields)


def _refused(error: psycopg.Error) -> JSONResponse:
    status = _STATUS_OF.get(error.sqlstate or "")
    if status is None and (error.sqlstate or "").startswith("22"):
        status = HTTPStatus.BAD_REQUEST  # a value that Postgres cannot take
    if status is None:
        _log.error("query.failed", sqlstate=error.sqlstate, error=type(error).__name__)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
    more = {"hint": error.diag.message_hint} if error.diag.message_hint else {}
    return problem(status, first_line(error), **more)


def _unavailable(error: UnavailableError) -> JSONResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), dependency=error.dependency)


def add_handlers(app: FastAPI, health: Health) -> None:
    """Answer every error with a problem document; `health` hears of dependencies that do not answer."""

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error)

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(HTTPStatus(error.status_code), str(error.detail))

    @app.exception_handler(psycopg.Error)
    def refused(_: Request, error: psycopg.Error) -> JSONResponse:
        return _refused(error)

    @app.exception_handler(TimedOutError)
    def late(_: Request, error: TimedOutError) -> JSONResponse:
        return problem(HTTPStatus.GATEWAY_TIMEOUT, str(error))

    @app.exception_handler(UnavailableError)
    def unavailable(_: Request, error: UnavailableError) -> JSONResponse:
        if isinstance(error.__cause__, PoolTimeout) and error.dependency not in health.waiting_for:
            return problem(HTTPStatus.GATEWAY_TIMEOUT, "other searches kept every connection busy until the deadline")
        health.down(error.dependency, error)
        return _unavailable(error)

    @app.exception_handler(NotLoadedError)
    def loading(_: Request, error: NotLoadedError) -> JSONResponse:
        return _unavailable(error)  # of one collection: the worker stays ready for the others

    @app.exception_handler(ConfigError)
    def misconfigured(_: Request, error: ConfigError) -> JSONResponse:
        _log.error("query.misconfigured", why=str(error))
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), dependency="embedder")

    @app.exception_handler(Exception)
    def unforeseen(_: Request, error: Exception) -> JSONResponse:
        _log.error("query.failed", error=type(error).__name__)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
