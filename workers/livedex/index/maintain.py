"""The upkeep of the index, by one worker of all: its vector indexes and its orphans.

Every worker tries to be the one; the lock of the session decides, and is free when that session ends. Whatever fails here is
said once and tried again: no batch waits for the upkeep, and the worker's readiness does not depend on it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from livedex.config import KafkaSettings
from livedex.core.upkeep import Pace, sweep_due
from livedex.database import translated
from livedex.errors import LivedexError, UnavailableError
from livedex.index.maintain_index import keep_index
from livedex.index.maintain_log import LogLook
from livedex.index.maintain_orphans import sweep
from livedex.index.maintain_session import Kept, UpkeepSession
from livedex.index.refusals import judged
from livedex.lifecycle import Stop
from livedex.observe import IndexMetrics, logger

SAMPLED_PAGES = 2_000  # of the table of vectors, to see how many no document has
_log = logger("upkeep")


@dataclass(slots=True, kw_only=True)
class _Measured:
    """When something of a generation was measured last (monotonic seconds), and what it was."""

    at: float
    vectors: float = 0.0  # about how many there are
    unmapped: float = 0.0  # share
    probed_at: float | None = None


@dataclass(slots=True, kw_only=True)
class _Notes:
    """What was said, so that it is said once."""

    failing: dict[str, str] = field(default_factory=dict)  # by what fails
    workers: dict[int, tuple[str, str | None]] = field(default_factory=dict)  # worker and problem, by generation

    def failed(self, what: str, why: str) -> None:
        if self.failing.get(what) != why:
            self.failing[what] = why
            _log.warning("upkeep.fails", what=what, why=why)

    def passed(self, what: str) -> None:
        if self.failing.pop(what, None) is not None:
            _log.info("upkeep.works", what=what)


class Maintainer:
    """A thread of the index worker. `start` it, and `join` it after the stop was asked for."""

    def __init__(
        self, *, url: str, kafka: KafkaSettings, name: str, metrics: IndexMetrics, stop: Stop, pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._url = url
        self._name = name
        self._metrics = metrics
        self._stop = stop
        self._pace = pace
        self._clock = clock
        self._log_look = LogLook(kafka)
        self._session: UpkeepSession | None = None
        self._measured: dict[int, _Measured] = {}
        self._swept_at: float | None = None
        self._words_of: datetime | None = None  # when the statistics were made that the frequent words are from
        self._notes = _Notes()
        self.looks = 0  # that came to their end
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for the end; what takes longer is left to the end of the process."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.asked:
            with self._noting("upkeep"):
                self._look()
                self.looks += 1
            self._stop.wait(self._pace.look)
        self._leave()
        self._log_look.close()

    @contextmanager
    def _noting(self, what: str, kept: Kept | None = None) -> Iterator[None]:
        """Say what fails, once. Without its connection the session ends; with it, the upkeep of the others goes on."""
        try:
            with translated(), judged():
                yield
        except UnavailableError as error:
            self._leave()
            if kept is not None:
                raise
            if not self._stop.asked:  # which cancels what runs
                self._notes.failed(what, str(error))
        except Exception as error:  # noqa: BLE001 - the upkeep must not end because one thing failed
            why = str(error) if isinstance(error, LivedexError) else f"{type(error).__name__}, which livedex did not expect"
            self._notes.failed(what, why)
            self._note_worker(kept, why)
        else:
            self._notes.passed(what)
            self._note_worker(kept, None)

    def _leave(self) -> None:
        session, self._session = self._session, None
        self._notes.workers.clear()
        self._forget_gauges()
        if session is not None:
            session.close()

    def _look(self) -> None:
        self._session = self._session or UpkeepSession(self._url, self._name, self._stop)
        session = self._session
        if not session.elected():
            return
        generations = session.generations()
        written = {kept.generation_id for kept in generations}
        self._measured = {number: found for number, found in self._measured.items() if number in written}
        for kept in generations:
            with self._noting(f"collection {kept.collection}", kept):
                self._keep(session, kept)
        self._collect(session, generations)
        with self._noting("frequent words"):
            self._follow_words(session)
        self._show(session.generations())

    def _keep(self, session: UpkeepSession, kept: Kept) -> None:
        if kept.generation_id not in self._notes.workers:
            self._note_worker(kept, None)
        measured = self._measure(session, kept)
        self._probe(session, kept, measured)
        keep_index(session, kept, vectors=measured.vectors, ends_of=self._log_look.ends, pace=self._pace)

    def _measure(self, session: UpkeepSession, kept: Kept) -> _Measured:
        measured = self._measured.get(kept.generation_id)
        if measured is not None and self._clock() - measured.at < self._pace.measure:
            return measured
        percent = min(100.0, 100.0 * SAMPLED_PAGES / max(kept.pages, 1))
        arguments = {"chunking_id": kept.chunking_id, "percent": percent}
        found = session.rows("measure", arguments, embeddings=kept.embeddings)[0]
        unmapped = found["unmapped"] / max(found["vectors"], 1)
        if measured is None:
            measured = self._measured[kept.generation_id] = _Measured(at=self._clock())
        measured.at, measured.vectors, measured.unmapped = self._clock(), found["vectors"] * 100 / percent, unmapped
        session.execute("note_unmapped", {"generation_id": kept.generation_id, "unmapped": unmapped})
        return measured

    def _probe(self, session: UpkeepSession, kept: Kept, measured: _Measured) -> None:
        last = measured.probed_at if kept.recall is not None else None  # None: a new index, or nobody asked yet
        if kept.ready is None or (last is not None and self._clock() - last < self._pace.probe):
            return
        wanted = {"queries": self._pace.probe_queries, "budget": self._pace.probe_budget}
        recall = session.value("probe", {"generation_id": kept.generation_id, **wanted})
        measured.probed_at = self._clock()
        if recall is not None:
            session.execute("note_recall", {"generation_id": kept.generation_id, "recall": recall})

    def _collect(self, session: UpkeepSession, generations: list[Kept]) -> None:
        if not generations:
            return
        since_last = float("inf") if self._swept_at is None else self._clock() - self._swept_at
        unmapped = max((found.unmapped for found in self._measured.values()), default=0.0)
        if sweep_due(since_last, grace=min(kept.grace for kept in generations), unmapped=unmapped, pace=self._pace):
            gone = sweep(session, self._pace, self._stop)
            self._swept_at = self._clock()
            if gone:
                _log.info("upkeep.collected", chunks=gone)

    def _follow_words(self, session: UpkeepSession) -> None:
        """Let searches know what words are frequent now, once the statistics are others."""
        analyzed = session.value("analyzed")
        if analyzed is not None and analyzed != self._words_of:
            session.value("note_frequent_words")
            self._words_of = analyzed

    def _note_worker(self, kept: Kept | None, problem: str | None) -> None:
        """Let `livedex status` say who does the upkeep, and what is in the way."""
        if kept is None or self._session is None or self._notes.workers.get(kept.generation_id) == (self._name, problem):
            return
        arguments = {"generation_id": kept.generation_id, "worker": self._name, "problem": problem}
        self._session.execute("note_worker", arguments)
        self._notes.workers[kept.generation_id] = (self._name, problem)

    def _show(self, generations: list[Kept]) -> None:
        for kept in generations:
            if kept.active:
                self._metrics.index_ready.labels(kept.collection).set(kept.ready is not None)
                self._metrics.unmapped_share.labels(kept.collection).set(kept.unmapped or 0.0)
                if kept.recall is not None:
                    self._metrics.index_recall.labels(kept.collection).set(kept.recall)

    def _forget_gauges(self) -> None:
        """Another worker shows them, or nobody knows."""
        for gauge in (self._metrics.index_ready, self._metrics.unmapped_share, self._metrics.index_recall):
            gauge.clear()
