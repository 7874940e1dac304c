"""What is sent and answered over HTTP, as OpenAPI documents it."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Json, Strict

from livedex.core.change import MAX_NESTING
from livedex.core.nesting import walk
from livedex.query.searcher import Mode, Search

MAX_QUERY_CHARACTERS = 8192
MAX_TIMEOUT_MS = 60_000
MAX_SEARCHES = 32  # of one request


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


def _a_time(value: object) -> object:
    """Not a number, of seconds since an epoch: only what the documentation says."""
    written = value.isoformat() if isinstance(value, datetime) else value
    if isinstance(written, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", written):
        return value
    raise ValueError("a time of RFC 3339 was expected, such as 2026-01-31T12:00:00Z")


Text = Annotated[str, AfterValidator(_comparable)]
QueryText = Annotated[Text, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
Count = Annotated[int, Field(ge=1, le=1000)]
Timeout = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)]
Time = Annotated[AwareDatetime, BeforeValidator(_a_time)]


class SearchRequest(BaseModel):
    """A search."""

    model_config = ConfigDict(extra="forbid")

    query: QueryText
    k: Annotated[Count, Strict()] = 10
    collection: Text = "default"
    filter: Annotated[
        dict[str, Any], AfterValidator(_comparable_filter), Field(description="metadata that a document must contain")
    ] = {}
    mode: Mode = "hybrid"
    rerank: Annotated[bool, Strict()] = False
    per_document: Annotated[Count, Strict()] = 1
    since: Annotated[Time | None, Field(description="earliest event time")] = None
    until: Annotated[Time | None, Field(description="event time before which")] = None
    after: Annotated[Text | None, Field(description="token of an event that must be searchable first")] = None
    timeout_ms: Annotated[Timeout, Strict()] = 2000
    explain: Annotated[bool, Strict(), Field(description="say why each row was found")] = False

    def search(self) -> Search:
        """What the searcher is asked."""
        fields = self.model_dump(exclude={"timeout_ms"})
        return Search(**fields, timeout=self.timeout_ms / 1000)


class SearchParameters(SearchRequest):
    """A search in the address."""

    query: Annotated[QueryText, Field(alias="q")]
    k: Count = 10
    rerank: bool = False
    per_document: Count = 1
    timeout_ms: Timeout = 2000
    explain: bool = False
    filter: Annotated[Json[dict[str, Any]], AfterValidator(_comparable_filter), Field(description="a JSON object")] = {}


class Why(BaseModel):
    """Why a row was found. `vector`, `text`: the document's place, from 1, when searched by meaning or by words alone; null
    when it is not among the first `depth`, or when the mode does not look there. `words`: of title and chunk, that the query
    has too.
    """

    vector: int | None
    text: int | None
    words: list[str]
    depth: int


class Result(BaseModel):
    """One document, or one of its chunks with `per_document`. `why` is there when the search asked to `explain`; null: there
    was no time for it.
    """

    document_id: str
    score: float
    title: str | None
    chunk: str
    ordinal: int
    metadata: dict[str, Any]
    version: int
    event_time: datetime
    indexed_at: datetime
    why: Why | None = None


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


class BatchRequest(BaseModel):
    """Several searches at once."""

    model_config = ConfigDict(extra="forbid")

    searches: Annotated[list[SearchRequest], Field(min_length=1, max_length=MAX_SEARCHES)]


class BatchAnswer(SearchResponse):
    """The answer of one of several searches."""

    status: Literal[200] = 200


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it. More fields may come: `errors`, `hint`, `dependency`."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str


class BatchResponse(BaseModel):
    """One answer or problem for each search, in their order; `status` tells which."""

    results: list[BatchAnswer | Problem]
