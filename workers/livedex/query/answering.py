"""From requests to answers: allowed, once their event is there, in their turn, in a thread, timed."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

import anyio

from livedex.observe import QueryMetrics
from livedex.query.access import Caller
from livedex.query.admission import Admission, BusyError
from livedex.query.bodies import BatchAnswer, SearchRequest, SearchResponse
from livedex.query.problems import Problems
from livedex.query.searcher import Answer, Search, Searcher
from livedex.query.waiting import NotSearchableError, TooManyWaitError, Waiting
from livedex.tracing import current, exemplar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of several searches ended."""

    code: str  # as the metrics have it
    body: bytes  # JSON: a BatchAnswer or a problem document


class Answering:
    """Answers the searches of the HTTP interface, `slots` at a time. For one event loop."""

    def __init__(self, searcher: Searcher, metrics: QueryMetrics, problems: Problems, *, slots: int, queue: int) -> None:
        self._searcher = searcher
        self._metrics = metrics
        self._problems = problems
        self._admission = Admission(slots, queue, metrics.waiting)
        self._waiting = Waiting(searcher)
        self._threads = anyio.CapacityLimiter(slots)

    async def one(self, request: SearchRequest, caller: Caller, *, canaries: bool = False) -> bytes:
        """The answer as JSON, or what Problems tells."""
        return await self._one(request, caller, SearchResponse, canaries=canaries)

    async def _one(
        self, request: SearchRequest, caller: Caller, form: type[SearchResponse], *, canaries: bool = False
    ) -> bytes:
        caller.check(request.collection)
        search, started = replace(request.search(), canaries=canaries), time.perf_counter()
        deadline = started + search.timeout
        await self._waiting.until_searchable(search, deadline)
        with self._timed(time.perf_counter(), search):  # how long the index takes to have the event is no time of a search
            async with self._admission.slot(deadline):
                return await self._in_thread(lambda: self._found(replace(search, after=None), started, deadline, form))

    def _found(self, search: Search, started: float, deadline: float, form: type[SearchResponse]) -> bytes:
        """JSON is made in the search's own thread: a large answer takes its time."""
        return _json(self._searcher.search(search, deadline=deadline), search, started, form)

    async def many(self, requests: Sequence[SearchRequest], caller: Caller) -> list[Outcome]:
        """How each ended, in their order. BusyError when there is no room for those that can be answered now.

        These take one slot together, and their texts are embedded together. Those that wait for an event do so by themselves.
        """
        together = [
            number for number, request in enumerate(requests) if request.after is None and caller.may_search(request.collection)
        ]
        alone = [number for number in range(len(requests)) if number not in together]
        tasks = [asyncio.ensure_future(self._alone(requests[number], caller)) for number in alone]
        try:
            outcomes = dict(
                zip(together, await self._together([requests[number].search() for number in together]), strict=True)
            )
            outcomes |= dict(zip(alone, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()
        return [outcomes[number] for number in range(len(requests))]

    async def _alone(self, request: SearchRequest, caller: Caller) -> Outcome:
        try:
            return Outcome(str(HTTPStatus.OK.value), await self._one(request, caller, BatchAnswer))
        except Exception as error:  # noqa: BLE001 - told in its place of the answer
            return self._failed(error)

    async def _together(self, searches: Sequence[Search]) -> list[Outcome]:
        if not searches:
            return []
        started = time.perf_counter()
        last = started + max(search.timeout for search in searches)
        try:
            async with self._admission.slot(last, len(searches)):
                return await self._in_thread(lambda: self._all_found(searches, started))
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - told in the place of each
            return [self._failed(error) for _ in searches]

    def _all_found(self, searches: Sequence[Search], started: float) -> list[Outcome]:
        outcomes = []
        for search, found in zip(searches, self._searcher.search_all(searches, started=started), strict=True):
            with self._timed(started, search):
                if isinstance(found, Answer):
                    outcomes.append(Outcome(str(HTTPStatus.OK.value), _json(found, search, started, BatchAnswer)))
                else:
                    outcomes.append(self._failed(found))
        return outcomes

    def _failed(self, error: Exception) -> Outcome:
        told = self._problems.of(error)
        return Outcome(code_of(error) or str(told.status_code), bytes(told.body))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    @contextmanager
    def _timed(self, started: float, search: Search) -> Iterator[None]:
        """A search that came too late took its time too; one that was refused at once did not."""
        try:
            yield
        except BusyError:
            raise
        except BaseException:
            self._observe(started, search)
            raise
        self._observe(started, search)

    def _observe(self, started: float, search: Search) -> None:
        if search.canaries:
            return  # it is no user's
        self._metrics.search.labels("http", search.mode).observe(time.perf_counter() - started, exemplar(current()))


def code_of(error: Exception) -> str | None:
    """How the metrics name it; None where they have the status of the answer."""
    return error.code if isinstance(error, NotSearchableError | TooManyWaitError) else None


def _json(answer: Answer, search: Search, started: float, form: type[SearchResponse]) -> bytes:
    took = {**answer.took_ms, "total": round((time.perf_counter() - started) * 1000, 3)}
    fields: dict[str, Any] = {
        "results": answer.results, "took_ms": took, "generation": answer.generation, "degraded": answer.degraded,
    }  # fmt: skip
    unasked = None if search.explain else {"results": {"__all__": {"why"}}}
    return form.model_validate(fields).model_dump_json(exclude=unasked).encode()
