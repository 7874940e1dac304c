"""Waits for the event that a search has to come after. It looks again and again, and has neither a connection nor a thread
between two looks: any number of searches may wait, and the others are answered as if none did.
"""

import asyncio
import time
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from livedex.errors import TimedOutError
from livedex.query.searcher import Search, Searcher

FIRST_NAP, LONGEST_NAP, GROWTH = 0.001, 0.02, 1.3  # seconds, as livedex.wait_for does


async def once_searchable(searcher: Searcher, search: Search) -> Search:
    """The same search with nothing to wait for and the time that is left, or TimedOutError."""
    if search.after is None:
        return search
    deadline = time.perf_counter() + search.timeout
    nap = FIRST_NAP
    while not await run_in_threadpool(searcher.reached, search, deadline):
        left = deadline - time.perf_counter()
        if left <= nap:
            raise TimedOutError(
                f"the event {search.after!r} was not searchable within {search.timeout:g} s: ask again later, or with a longer "
                "timeout"
            )
        await asyncio.sleep(nap)
        nap = min(nap * GROWTH, LONGEST_NAP)
    return replace(search, after=None, timeout=deadline - time.perf_counter())
