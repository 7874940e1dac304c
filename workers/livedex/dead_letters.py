"""`livedex dead-letters replay | discard`: a record that could not be indexed is tried again, or given up.

A replay goes the way of the index worker (plan, embed, stage) in the caller's process, and ends behind the same version fence,
together with the letter's new state and without any progress. So an older event cannot overwrite a newer one.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from livedex.catalogue import Generation, Target, opener
from livedex.config import EmbedderName, Settings
from livedex.core.backoff import backoff
from livedex.core.change import Reason, Rejection
from livedex.core.plan import Outcome, outcomes
from livedex.database import WRITER_SETTINGS, open_pool
from livedex.encoders import Encoder
from livedex.encoders.shelf import Later, Shelf
from livedex.errors import ConfigError, ConflictError
from livedex.index.batch import Batch, PoisonFoundError, Work
from livedex.index.blame import detail
from livedex.index.letters import Letter, LetterStore, State
from livedex.index.refusals import RefusedError
from livedex.index.stages import Stages
from livedex.index.store import STAGING_CONNECTIONS
from livedex.observe import IndexMetrics

OPEN = frozenset({State.OPEN})
CONFLICTS = 8  # tries while other transactions are in the way: about 20 seconds


class Result(StrEnum):
    """What became of a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    FAILED = "failed"  # the record cannot be indexed this time either
    REFUSED = "refused"  # nothing was tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a dead letter, and why."""

    id: int
    place: str | None
    document_id: str | None
    result: Result
    outcome: Outcome | None = None  # of the record's event, when it was replayed
    reason: str | None = None
    attempts: int | None = None
    detail: str | None = None

    @property
    def done(self) -> bool:
        """Whether it is what was asked for."""
        return self.result in (Result.REPLAYED, Result.DISCARDED)


class Letters:
    """Replays and discards the dead letters that are in one of these states. One thread may use it."""

    def __init__(
        self, store: LetterStore, shelf: Shelf[Generation], states: frozenset[State], *,
        pause: Callable[[float], None] = time.sleep, jitter: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._store = store
        self._shelf = shelf
        self._states = states
        self._pause = pause
        self._jitter = jitter
        # These records failed before: however many fail again in a row, that says nothing of the model or the database.
        self._stages = Stages(
            store, IndexMetrics(), failures_in_a_row=sys.maxsize, clock=time.time, stopped=lambda: False
        )  # fmt: skip

    def replay(self, number: int) -> Answer:
        """Try once more to make a letter's record searchable."""
        return self._settled(number, self._replay)

    def discard(self, number: int) -> Answer:
        """Give a letter's record up."""
        return self._settled(number, self._discard)

    def _settled(self, number: int, step: Callable[[Letter], Answer]) -> Answer:
        """How the step ended, begun again from what the database says then while other transactions are in the way."""
        for attempt in count(1):
            letter = self._store.letter(number)
            try:
                return _gone(number) if letter is None else step(letter)
            except ConflictError:
                if attempt == CONFLICTS:
                    raise
                self._pause(backoff(attempt, self._jitter()))
        raise AssertionError

    def _discard(self, letter: Letter) -> Answer:
        unfit = self._unfit(letter, State.DISCARDED)
        if unfit is not None:
            return unfit
        self._store.discard(letter)
        return _answer(letter, Result.DISCARDED)

    def _replay(self, letter: Letter) -> Answer:
        unfit = self._unfit(letter, State.REPLAYED) or _hopeless(letter)
        if unfit is not None:
            return unfit
        try:
            work = self._stages.stage(self._stages.embed(self._stages.plan(Work.of(self._batch(letter)))))
            if not work.planned.rejected:
                return self._apply(letter, work)
            ((_, rejection),) = work.planned.rejected
        except PoisonFoundError as found:
            (rejection,) = found.rejections.values()
        except RefusedError as error:
            rejection = Rejection(reason=Reason.STORING_FAILED, detail=detail(error))
        attempts = self._store.fail(letter, rejection)
        return _answer(letter, Result.FAILED, reason=rejection.reason, attempts=attempts, detail=rejection.detail)

    def _apply(self, letter: Letter, work: Work) -> Answer:
        results = self._store.replay(letter, work.batch.live, work.planned, work.keys)
        ((_, outcome),) = outcomes(work.planned, results)
        stale = "the document has a newer version: nothing was changed" if outcome is Outcome.STALE else None
        return _answer(letter, Result.REPLAYED, outcome=outcome, detail=stale)

    def _batch(self, letter: Letter) -> Batch:
        live = self._store.catalogue()[1].get(letter.collection_id)
        if live is None:
            raise ConfigError(f"the collection of topic {letter.record.topic} has no active generation: run livedex apply")
        offset = letter.record.offset
        return Batch(
            claim=letter.claim,
            targets=tuple(Target(generation=made, encoder=Later(self._shelf, made)) for made in live),
            records=(letter.record,),
            expected_offset=offset,
            next_offset=offset + 1,
            polled_at=time.time(),
        )

    def _unfit(self, letter: Letter, becomes: State) -> Answer | None:
        """The answer when the letter's state is none of those that were asked for."""
        if letter.state in self._states:
            return None
        if letter.state is becomes:
            return _answer(letter, Result(becomes), detail=f"it was {becomes} already")
        why = f"it is {letter.state}: --state {letter.state} takes it all the same"
        return _answer(letter, Result.REFUSED, detail=why)


@contextmanager
def opened(
    settings: Settings, states: frozenset[State], *,
    open_encoder: Callable[[EmbedderName, Generation], Encoder] | None = None,
) -> Iterator[Letters]:  # fmt: skip
    """Dead letters of a database, to be replayed and discarded."""
    pool = open_pool(
        settings.database_url, size=1 + STAGING_CONNECTIONS, name="livedex dead-letters", settings=WRITER_SETTINGS
    )  # fmt: skip
    store = LetterStore(pool)
    try:
        yield Letters(store, Shelf(settings.embedder, open_encoder or opener(settings)), states)
    finally:
        store.close()


def _hopeless(letter: Letter) -> Answer | None:
    """The answer when no replay can help."""
    why = None
    if letter.reason == Reason.UNREADABLE:
        why = (
            "it is a damaged batch of the log, no single record, and cannot be replayed: send its documents again and "
            f"livedex dead-letters discard {letter.number}"
        )
    elif letter.epoch != letter.source_epoch:
        why = (
            f"it is of epoch {letter.epoch} and {letter.record.topic} is in epoch {letter.source_epoch}, so the log that it "
            f"belongs to is gone: livedex dead-letters discard {letter.number}"
        )
    return None if why is None else _answer(letter, Result.REFUSED, detail=why)


def _answer(
    letter: Letter, result: Result, *, outcome: Outcome | None = None, reason: str | None = None, attempts: int | None = None,
    detail: str | None = None,
) -> Answer:  # fmt: skip
    return Answer(
        id=letter.number,
        place=str(letter.record.place),
        document_id=letter.document_id,
        result=result,
        outcome=outcome,
        reason=reason or letter.reason,
        attempts=attempts or letter.attempts,
        detail=detail,
    )


def _gone(number: int) -> Answer:
    return Answer(id=number, place=None, document_id=None, result=Result.REFUSED, detail="it is not there any more")
