"""The routes for people who look after the index: who they are here, how fresh it is, and its dead letters."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from livedex.core.change import Reason
from livedex.query.bodies import Text
from livedex.query.front import caller_of
from livedex.query.letter_desk import LetterDesk, Verb
from livedex.query.problems import problems_of
from livedex.query.reports import Reports

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


class Who(BaseModel):
    """Who asks. `tokens`: whether this worker asks for tokens at all; `name`: the token's in the file, else empty."""

    name: str
    operator: bool
    tokens: bool


class Figures(BaseModel):
    """Freshness in seconds of so many documents."""

    documents: int
    p50: float
    p95: float


class Slice(Figures):
    """Of the documents that changed in the slice that began at `at`, seconds since 1970."""

    at: float


class Searchable(BaseModel):
    """A collection, and the model that reranks there; empty: none does."""

    name: str
    reranker: str


class Freshness(Figures):
    """Of the documents of a collection that changed within the window."""

    collection: str
    slices: list[Slice]


class Partition(BaseModel):
    """How far a partition is. `lag` in offsets and `staleness_seconds` are null while the log's end is unknown."""

    topic: str
    partition: int
    collection: str
    next_offset: int
    owner: str
    event_time: datetime | None
    updated_at: datetime
    lag: int | None
    staleness_seconds: float | None


class LogState(BaseModel):
    """What is known of the log; `asked_at` in seconds since 1970."""

    state: Literal["asking", "known", "unknown"]
    asked_at: float | None
    problem: str | None


class Overview(BaseModel):
    """How fresh the index is, as Postgres and the log say it."""

    at: float
    window_seconds: int
    slice_seconds: int
    collections: list[Searchable]
    freshness: list[Freshness]
    partitions: list[Partition]
    log: LogState


class Filters(BaseModel):
    """Which dead letters."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["open", "replayed", "discarded", "all"] = "open"
    reason: Reason | None = None
    collection: Text | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Letter(BaseModel):
    """A record that could not be indexed."""

    id: int
    place: str
    collection: str
    document_id: str | None
    reason: str
    detail: str
    attempts: int
    state: str
    failed_at: datetime


class Letters(BaseModel):
    """Dead letters, the newest first, and whether the caller may change them here, or why not."""

    letters: list[Letter]
    may_change: bool
    why_not: str | None


class Settled(BaseModel):
    """What became of a dead letter. `failed`: its record cannot be indexed this time either; `refused`: nothing was tried."""

    id: int
    place: str
    document_id: str | None
    result: Literal["replayed", "discarded", "failed", "refused"]
    outcome: str | None
    reason: str | None
    attempts: int | None
    detail: str | None


def operating_routes(reports: Reports, desk: LetterDesk, *, tokens: bool) -> APIRouter:
    """The routes; `tokens`: whether they ask for one, which is checked before they are reached."""
    says = HTTPBearer(auto_error=False, description="a token of the file LIVEDEX_API_TOKENS_FILE")
    routes = APIRouter(prefix="/v1", tags=["operations"], dependencies=[Security(says)] if tokens else [])
    changed = problems_of(400, 401, 403, 404, 409, 503)

    def change(verb: Verb, number: int, asked: Request) -> dict[str, Any]:
        try:
            return desk.change(verb, number, caller_of(asked.scope))
        finally:
            reports.forget_letters()

    @routes.get("/caller", responses=problems_of(401), response_model=Who)
    async def caller(asked: Request) -> dict[str, Any]:
        """Who the caller is here."""
        known = caller_of(asked.scope)
        return {"name": known.name, "operator": known.operator, "tokens": tokens}

    @routes.get("/overview", responses=problems_of(401, 503), response_model=Overview)
    def read_overview(asked: Request) -> dict[str, Any]:
        """How fresh the collections are that the caller may search, and how far their sources; an operator's: all."""
        return reports.overview(caller_of(asked.scope))

    @routes.get("/dead-letters", responses=problems_of(400, 401, 403, 503), response_model=Letters)
    def list_letters(filters: Annotated[Filters, Query()], asked: Request) -> dict[str, Any]:
        """Dead letters, for operators."""
        return desk.list(caller_of(asked.scope), filters.model_dump())

    @routes.post("/dead-letters/{number}/replay", responses=changed, response_model=Settled)
    def replay(number: Number, asked: Request) -> dict[str, Any]:
        """Try again to index the record of an open dead letter; an older event does not overwrite a newer one."""
        return change("replay", number, asked)

    @routes.post("/dead-letters/{number}/discard", responses=changed, response_model=Settled)
    def discard(number: Number, asked: Request) -> dict[str, Any]:
        """Give the record of an open dead letter up: it counts as open no more."""
        return change("discard", number, asked)

    return routes
