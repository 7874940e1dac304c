"""The HTTP interface: contracts.md section 6. It parses, asks the searcher, and answers."""

import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, Json
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from livedex.core.change import MAX_NESTING, walk
from livedex.observe import QueryMetrics
from livedex.query.problems import problem
from livedex.query.searcher import Mode, Search, Searcher
from livedex.query.waiting import once_searchable

MAX_BODY_BYTES = 64 * 2**10
MAX_QUERY_CHARACTERS = 8192
MAX_TIMEOUT_MS = 60_000


def _comparable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains the NUL character, which no document has")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("contains half a surrogate pair, which is no Unicode text")
    return text


def _comparable_filter(wanted: dict[str, Any]) -> dict[str, Any]:
    for depth, text in walk(wanted):
        if depth > MAX_NESTING:
            raise ValueError(f"is nested deeper than {MAX_NESTING} levels, which no metadata is")
        _comparable(text)
    return wanted


Text = Annotated[str, AfterValidator(_comparable)]
QueryText = Annotated[Text, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]


class SearchRequest(BaseModel):
    """A search."""

    model_config = ConfigDict(extra="forbid")

    query: QueryText
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    collection: Text = "default"
    filter: Annotated[
        dict[str, Any], AfterValidator(_comparable_filter), Field(description="metadata that a document must contain")
    ] = {}
    mode: Mode = "hybrid"
    rerank: bool = False
    per_document: Annotated[int, Field(ge=1, le=1000)] = 1
    since: Annotated[AwareDatetime | None, Field(description="earliest event time")] = None
    until: Annotated[AwareDatetime | None, Field(description="event time before which")] = None
    after: Annotated[Text | None, Field(description="token of an event that must be searchable first")] = None
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] = 2000

    def search(self) -> Search:
        """What the searcher is asked."""
        fields = self.model_dump(exclude={"timeout_ms"})
        return Search(**fields, timeout=self.timeout_ms / 1000)


class SearchParameters(SearchRequest):
    """A search in the address."""

    query: Annotated[QueryText, Field(alias="q")]
    filter: Annotated[Json[dict[str, Any]], AfterValidator(_comparable_filter), Field(description="a JSON object")] = {}


class Result(BaseModel):
    """One document, or one of its chunks with `per_document`."""

    document_id: str
    score: float
    title: str | None
    chunk: str
    ordinal: int
    metadata: dict[str, Any]
    version: int
    event_time: datetime
    indexed_at: datetime


class Took(BaseModel):
    """Milliseconds."""

    embed: float
    search: float
    rerank: float
    total: float


class SearchResponse(BaseModel):
    """Results, best first. `degraded`: a part of the search was left out to be in time."""

    results: list[Result]
    took_ms: Took
    generation: int | None
    degraded: bool = False


def search_routes(searcher: Searcher, metrics: QueryMetrics, status: Callable[[], dict[str, Any]]) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["search"])
    problems: dict[int | str, dict[str, Any]] = {
        code: {"description": HTTPStatus(code).phrase, "content": {"application/problem+json": {}}}
        for code in (400, 403, 404, 413, 503, 504)
    }
    problems["default"] = {"description": "any other problem", "content": {"application/problem+json": {}}}

    async def answer(request: SearchRequest) -> Response:
        started = time.perf_counter()
        try:
            search = await once_searchable(searcher, request.search())
            return await run_in_threadpool(found, search, time.perf_counter() - started)
        finally:  # a search that came too late took its time too
            metrics.search.labels("http", request.mode).observe(time.perf_counter() - started)

    def found(search: Search, waited: float) -> Response:
        """The answer as JSON, made in the search's own thread: a large one takes its time."""
        answer = searcher.search(search)
        took = {**answer.took_ms, "total": round(answer.took_ms["total"] + waited * 1000, 3)}
        fields = {"results": answer.results, "took_ms": took, "generation": answer.generation}
        return Response(SearchResponse.model_validate(fields).model_dump_json(), media_type="application/json")

    @routes.post("/search", responses=problems, response_model=SearchResponse)
    async def search(request: SearchRequest) -> Response:
        """Search a collection by meaning, by words, or both."""
        return await answer(request)

    @routes.get("/search", responses=problems, response_model=SearchResponse)
    async def search_by_address(request: Annotated[SearchParameters, Query()]) -> Response:
        """The same with the search in the address."""
        return await answer(request)

    @routes.get("/status", responses=problems)
    def read_status() -> dict[str, Any]:
        """Sources, collections and dead letters."""
        return status()

    return routes


async def limit_body(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Refuse a body that is too large before reading it; so a body must say its length."""
    if "transfer-encoding" in request.headers:
        return problem(
            HTTPStatus.LENGTH_REQUIRED, "the body comes without its length: send it in one piece, with a content-length"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        return problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {announced} bytes, at most {MAX_BODY_BYTES} are read"
        )
    return await call_next(request)


def count_requests(metrics: QueryMetrics) -> Callable[[Request, RequestResponseEndpoint], Any]:
    """Count each answered search by its status code."""

    async def count(request: Request, call_next: RequestResponseEndpoint) -> Response:
        code = HTTPStatus.INTERNAL_SERVER_ERROR.value  # of an exception that passes
        try:
            response = await call_next(request)
            code = response.status_code
        finally:
            if request.url.path == "/v1/search":
                metrics.requests.labels("http", str(code)).inc()
        return response

    return count
