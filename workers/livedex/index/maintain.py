"""The upkeep of the index, by one worker of all: its vector indexes and its orphans.

Every worker tries to be the one; the lock of the session decides, and is free when that session ends. Whatever fails here is
said once and tried again: no batch waits for the upkeep, and the worker's readiness does not depend on it. This thread
measures, probes and collects; what may take hours, and what waits for other people's transactions, is done by two others, see
maintain_index.py and maintain_build.py.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from psycopg import errors

from livedex.catalogue import Catalogue
from livedex.config import KafkaSettings
from livedex.core.upkeep import Pace, count_due, excess, probe_due, sweep_due
from livedex.index.building import BuildStore
from livedex.index.maintain_build import GenerationBuilder
from livedex.index.maintain_gauges import Measured, UpkeepGauges
from livedex.index.maintain_index import IndexKeeper
from livedex.index.maintain_notes import Notes
from livedex.index.maintain_orphans import collect_oldest, sweep
from livedex.index.maintain_retired import take_away
from livedex.index.maintain_session import Kept, UpkeepSession
from livedex.lifecycle import Stop
from livedex.observe import IndexMetrics, logger

SAMPLED_PAGES = 2_000  # of the table of vectors, to see how many no document has
_log = logger("upkeep")


class Maintainer:
    """Three threads of the index worker. `start` them, and `join` them after the stop was asked for."""

    def __init__(
        self, *, url: str, kafka: KafkaSettings, name: str, metrics: IndexMetrics, stop: Stop, pace: Pace,
        store: BuildStore, catalogue: Callable[[], Catalogue], busy: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._url = url
        self._name = name
        self._gauges = UpkeepGauges(metrics)
        self._stop = stop
        self._pace = pace
        self._clock = clock
        self._session: UpkeepSession | None = None
        self._measured: dict[int, Measured] = {}
        self._swept_at: float | None = None
        self._words_of: datetime | None = None  # when the statistics were made that the frequent words are from
        self._notes = Notes(stop)
        self._written: dict[int, str | None] = {}  # the problem that `livedex status` shows, by generation
        self._keeper = IndexKeeper(url=url, kafka=kafka, name=name, stop=stop, pace=pace, notes=self._notes, clock=clock)
        self._builder = GenerationBuilder(
            store=store, catalogue=catalogue, busy=busy, name=name, stop=stop, look=pace.look, notes=self._notes, clock=clock
        )
        self._looks = 0
        self.elected = False  # by the last word from the database: what is away does not change it
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    @property
    def looks(self) -> int:
        """How many looks came to their end, of either thread."""
        return min(self._looks, self._keeper.looks)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._keeper.start()
        self._builder.start()

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive() or self._keeper.running or self._builder.running

    def join(self, timeout: float) -> None:
        """Wait for the end; what takes longer is left to the end of the process."""
        deadline = self._clock() + timeout
        if self._thread.is_alive():
            self._thread.join(timeout)
        for other in (self._keeper, self._builder):
            other.join(max(0.0, deadline - self._clock()))

    def _run(self) -> None:
        while not self._stop.asked:
            with self._notes.noting("upkeep"):
                self._look()
                self._looks += 1
            if self._session is not None and self._session.broken:
                self._leave()
            self._stop.wait(self._pace.look)
        self._leave()

    def _leave(self) -> None:
        session, self._session = self._session, None
        self._keeper.elected = self._builder.elected = False
        self._written.clear()
        self._gauges.forget()
        if session is not None:
            session.close()

    def _look(self) -> None:
        self._session = self._session or UpkeepSession(self._url, f"{self._name}-upkeep", self._stop)
        session = self._session
        self.elected = session.elected()
        if not self.elected:
            return
        generations = session.generations()
        self._note_worker(session, generations)
        self._keeper.elected = self._builder.elected = True
        written = {kept.generation_id for kept in generations}
        self._measured = {number: found for number, found in self._measured.items() if number in written}
        for kept in generations:
            with self._notes.noting(f"measuring {kept.collection}", kept.generation_id, session):
                self._probe(session, kept, self._measure(session, kept))
        for kept in generations:
            with self._notes.noting(f"counting {kept.collection}", kept.generation_id, session):
                self._count(session, kept)
        with self._notes.noting("collecting", None, session):
            self._collect(session, generations)
        with self._notes.noting("taking dropped generations away", None, session):
            take_away(session, self._pace, self._stop)
        with self._notes.noting("frequent words", None, session):
            self._follow_words(session)
        generations = session.generations()
        self._note_worker(session, generations)
        self._gauges.show(generations, self._measured)

    def _measure(self, session: UpkeepSession, kept: Kept, *, anew: bool = False) -> Measured:
        measured = self._measured.get(kept.generation_id)
        if measured is not None and not anew and self._clock() - measured.at < self._pace.measure:
            return measured
        percent = min(100.0, 100.0 * SAMPLED_PAGES / max(kept.pages, 1))
        arguments = {"chunking_id": kept.chunking_id, "percent": percent}
        found = session.rows("measure", arguments, embeddings=kept.embeddings)[0]
        unmapped = found["unmapped"] / max(found["vectors"], 1)
        if measured is None:
            measured = self._measured[kept.generation_id] = Measured(at=self._clock())
        measured.at, measured.vectors, measured.unmapped = self._clock(), found["vectors"] * 100 / percent, unmapped
        session.execute("note_unmapped", {"generation_id": kept.generation_id, "unmapped": unmapped})
        return measured

    def _count(self, session: UpkeepSession, kept: Kept) -> None:
        """For the gauges only, and the more rarely the longer it takes."""
        measured, began = self._measured.get(kept.generation_id), self._clock()
        if measured is None:
            return
        if measured.counted_at is not None and not count_due(began - measured.counted_at, measured.counting, self._pace):
            return
        measured.counted_at = began  # also when it is not to be had in time
        try:
            with session.limited(self._pace.count_limit):
                documents = session.value("count_documents", {"collection_id": kept.collection_id})
                built = session.value("built_ratio", {"generation_id": kept.generation_id}) if kept.filling else None
        except errors.QueryCanceled:
            documents, built = None, None
        measured.documents, measured.built, measured.counting = documents, built, self._clock() - began

    def _probe(self, session: UpkeepSession, kept: Kept, measured: Measured) -> None:
        since_last = None if measured.probed_at is None else self._clock() - measured.probed_at
        if kept.ready is None or not probe_due(since_last, age=kept.age, judged=kept.recall is not None, pace=self._pace):
            return
        measured.probed_at = self._clock()  # also when there is no answer: what is too much is not asked at every look
        wanted = {"generation_id": kept.generation_id, "queries": self._pace.probe_queries, "budget": self._pace.probe_budget}
        try:
            with session.limited(self._pace.probe_limit):
                found = session.rows("probe", wanted)[0]
        except errors.QueryCanceled:
            _log.info("upkeep.probe_unanswered", collection=kept.collection, limit_s=self._pace.probe_limit)
            return
        session.execute("note_probe", {"generation_id": kept.generation_id, "least": self._pace.least_queries, **found})

    def _collect(self, session: UpkeepSession, generations: list[Kept]) -> None:
        if not generations:
            return
        since_last = float("inf") if self._swept_at is None else self._clock() - self._swept_at
        unmapped = max((found.unmapped for found in self._measured.values()), default=0.0)
        if not sweep_due(since_last, grace=min(kept.grace for kept in generations), unmapped=unmapped, pace=self._pace):
            return
        gone = sweep(session, self._pace, self._stop)
        for kept in generations:
            gone += self._collect_early(session, kept)
        self._swept_at = self._clock()
        if gone:
            _log.info("upkeep.collected", chunks=gone)

    def _collect_early(self, session: UpkeepSession, kept: Kept) -> int:
        """Where the unmapped share is too large, the oldest orphans go whatever is left of their grace, until it is not."""
        known = self._measured.get(kept.generation_id)
        if known is None or known.unmapped <= self._pace.most_unmapped:
            return 0
        measured = self._measure(session, kept, anew=True)  # without what the sweep took
        surplus = excess(measured.vectors, measured.unmapped, self._pace)
        return collect_oldest(session, kept.collection_id, surplus, self._pace, self._stop)

    def _follow_words(self, session: UpkeepSession) -> None:
        """Let searches know what words are frequent now, once the statistics are others."""
        analyzed = session.value("analyzed")
        if analyzed is not None and analyzed != self._words_of:
            session.value("note_frequent_words")
            self._words_of = analyzed

    def _note_worker(self, session: UpkeepSession, generations: list[Kept]) -> None:
        """Let `livedex status` say who does the upkeep, and what is in the way."""
        for kept in generations:
            number, problem = kept.generation_id, self._notes.problem(kept.generation_id)
            if number not in self._written or self._written[number] != problem:
                session.execute("note_worker", {"generation_id": number, "worker": self._name, "problem": problem})
                self._written[number] = problem
