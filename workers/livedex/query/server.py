"""The HTTP interface: contracts.md section 6. It parses, has the searches answered, and answers."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response

from livedex.query.access import Caller
from livedex.query.answering import Answering, code_of
from livedex.query.bodies import BatchRequest, BatchResponse, SearchParameters, SearchRequest, SearchResponse
from livedex.query.front import answered_each, caller_of, is_canary
from livedex.query.problems import problems_of

_JSON = "application/json"


def search_routes(answering: Answering, status: Callable[[Caller], dict[str, Any]], *, tokens: bool) -> APIRouter:
    """The routes under /v1; `tokens`: whether they ask for one, which is checked before they are reached."""
    says = HTTPBearer(auto_error=False, description="a token of the file LIVEDEX_API_TOKENS_FILE")
    routes = APIRouter(prefix="/v1", tags=["search"], dependencies=[Security(says)] if tokens else [])
    refused = problems_of(400, 401, 403, 404, 413, 429, 503, 504)

    async def one(request: SearchRequest, asked: Request) -> Response:
        try:
            found = await answering.one(request, caller_of(asked.scope), canaries=is_canary(asked.scope))
        except Exception as error:
            code = code_of(error)
            if code is not None:
                answered_each(asked.scope, [code])
            raise
        return Response(found, media_type=_JSON)

    @routes.post("/search", responses=refused, response_model=SearchResponse)
    async def search(request: SearchRequest, asked: Request) -> Response:
        """Search a collection by meaning, by words, or both."""
        return await one(request, asked)

    @routes.get("/search", responses=refused, response_model=SearchResponse)
    async def search_by_address(request: Annotated[SearchParameters, Query()], asked: Request) -> Response:
        """The same with the search in the address."""
        return await one(request, asked)

    @routes.post("/search/batch", responses=problems_of(400, 401, 413, 429), response_model=BatchResponse)
    async def search_batch(request: BatchRequest, asked: Request) -> Response:
        """Several searches at once, each answered or refused by itself; their texts are embedded together."""
        found = await answering.many(request.searches, caller_of(asked.scope))
        answered_each(asked.scope, [each.code for each in found])
        return Response(b'{"results":[' + b",".join(each.body for each in found) + b"]}", media_type=_JSON)

    @routes.get("/status", responses=problems_of(401, 503))
    def read_status(asked: Request) -> dict[str, Any]:
        """Sources and collections that the caller may search; dead letters, by reason, for operators."""
        return status(caller_of(asked.scope))

    return routes
