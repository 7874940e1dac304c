"""Errors of the HTTP interface as application/problem+json (RFC 9457), from the errors that the inside raises."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException

from livedex.database import first_line
from livedex.encoders.remote import InputRefusedError
from livedex.errors import (
    ConfigError,
    ConflictError,
    InvalidFieldError,
    SystemicError,
    TimedOutError,
    UnavailableError,
    UsageError,
)
from livedex.lifecycle import Health
from livedex.observe import logger
from livedex.query.access import ForbiddenError
from livedex.query.active import NotLoadedError
from livedex.query.admission import BusyError
from livedex.query.bodies import Problem
from livedex.query.letter_desk import NoLetterError

# The SQLSTATEs of contracts.md section 5, and the status that says the same.
_STATUS_OF = {
    "22023": HTTPStatus.BAD_REQUEST,
    "0A000": HTTPStatus.BAD_REQUEST,
    "42704": HTTPStatus.NOT_FOUND,
    "42501": HTTPStatus.FORBIDDEN,
    "57014": HTTPStatus.GATEWAY_TIMEOUT,
    "LX001": HTTPStatus.SERVICE_UNAVAILABLE,  # its generation was dropped, twice in this search
}
# The same of whole classes.
_STATUS_OF_CLASS = {
    "22": HTTPStatus.BAD_REQUEST,  # a value that Postgres cannot take
    "53": HTTPStatus.SERVICE_UNAVAILABLE,  # the server has too little of something, for now
    "54": HTTPStatus.BAD_REQUEST,  # more than a limit allows
}
_REFUSED = "the embedding server does not take this text, others it does: ask in other words, or in mode text"
_FAILED = "the search failed; the log of the query worker says why"
_log = logger("query")


def problem(status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **more: object) -> JSONResponse:
    """A problem document. What passes by itself says when to ask again."""
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers = {"Retry-After": "1", **(headers or {})}
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **more}
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def problems_of(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route that may answer with these."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    described: dict[int | str, dict[str, Any]] = {
        code: {"description": HTTPStatus(code).phrase, "content": content} for code in codes
    }
    described["default"] = {"description": "any other problem", "content": content}
    return described


def _invalid(error: RequestValidationError) -> JSONResponse:
    fields = [
        {"field": ".".join(map(str, item["loc"][1:])) or str(item["loc"][0]), "detail": item["msg"]} for item in error.errors()
    ]
    detail = "; ".join(f"{item['field']}: {item['detail']}" for item in fields)
    return problem(HTTPStatus.BAD_REQUEST, detail, errors=fields)


def _invalid_field(error: InvalidFieldError) -> JSONResponse:
    more: dict[str, Any] = {"hint": error.hint} if error.hint else {}
    return problem(HTTPStatus.BAD_REQUEST, str(error), errors=[{"field": error.field, "detail": error.said}], **more)


def _refused(error: psycopg.Error) -> JSONResponse:
    state = error.sqlstate or ""
    status = _STATUS_OF.get(state) or _STATUS_OF_CLASS.get(state[:2])
    if status is None:
        _log.error("query.failed", sqlstate=error.sqlstate, error=type(error).__name__)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
    more: dict[str, Any] = {"hint": error.diag.message_hint} if error.diag.message_hint else {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more["dependency"] = "postgres"
    return problem(status, first_line(error), **more)


def _unavailable(error: UnavailableError) -> JSONResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), dependency=error.dependency)


class Problems:
    """Which problem document tells an error; `health` hears of dependencies that do not answer."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._tells: dict[type[Exception], Callable[[Any], JSONResponse]] = {
            RequestValidationError: _invalid,
            HTTPException: lambda error: problem(HTTPStatus(error.status_code), str(error.detail), headers=error.headers),
            psycopg.Error: _refused,
            NoLetterError: lambda error: problem(HTTPStatus.NOT_FOUND, str(error)),
            ConflictError: lambda error: problem(HTTPStatus.CONFLICT, str(error)),
            ForbiddenError: lambda error: problem(HTTPStatus.FORBIDDEN, str(error)),
            InputRefusedError: lambda _: _invalid_field(InvalidFieldError("query", _REFUSED)),
            BusyError: lambda error: problem(HTTPStatus.TOO_MANY_REQUESTS, str(error)),
            TimedOutError: lambda error: problem(HTTPStatus.GATEWAY_TIMEOUT, str(error)),
            UnavailableError: self._away,
            NotLoadedError: _unavailable,  # of one collection: the worker stays ready for the others
            ConfigError: _misconfigured,
            SystemicError: _misconfigured,  # the embedding server has another model now
            InvalidFieldError: _invalid_field,
            UsageError: lambda error: problem(HTTPStatus.BAD_REQUEST, str(error)),
            Exception: _unforeseen,
        }

    def of(self, error: Exception) -> JSONResponse:
        """The document, as specific as the error's class allows."""
        tell = next(self._tells[kind] for kind in type(error).__mro__ if kind in self._tells)
        return tell(error)

    def _away(self, error: UnavailableError) -> JSONResponse:
        if isinstance(error.__cause__, PoolTimeout) and error.dependency not in self._health.waiting_for:
            return problem(HTTPStatus.GATEWAY_TIMEOUT, "other searches kept every connection busy until the deadline")
        cause = error.__cause__
        if isinstance(cause, psycopg.Error) and (cause.sqlstate or "")[:2] in _STATUS_OF_CLASS:
            return _refused(cause)  # of this search: others may need less
        if error.dependency != "embedder":  # of that tells whoever asks it, also when nobody waits for the answer any more
            self._health.down(error.dependency, error)
        return _unavailable(error)

    def add_to(self, app: FastAPI) -> None:
        """Answer every error with its document."""

        async def answer(_: Request, error: Exception) -> JSONResponse:
            return self.of(error)

        for kind in self._tells:
            app.add_exception_handler(kind, answer)


def _misconfigured(error: ConfigError | SystemicError) -> JSONResponse:
    _log.error("query.misconfigured", why=str(error))
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), dependency="embedder")


def _unforeseen(error: Exception) -> JSONResponse:
    _log.error("query.failed", error=type(error).__name__)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
