"""Keeps the vector index of a generation: builds it behind the rows, mends what was interrupted, rebuilds what aged.

In a thread and a session of its own: a build takes hours where there is much, and waits for every older transaction.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from psycopg import sql

from livedex.config import KafkaSettings
from livedex.core.upkeep import IndexFacts, Pace, Setback, Step, build_memory, caught_up, dead_share, next_step
from livedex.database import first_line, translated
from livedex.errors import UnavailableError
from livedex.index.maintain_log import LogLook
from livedex.index.maintain_notes import Notes
from livedex.index.maintain_session import Kept, UpkeepSession, memory_refused
from livedex.index.refusals import judged
from livedex.lifecycle import Stop
from livedex.observe import logger

_log = logger("upkeep")


class IndexKeeper:
    """A thread of the index worker. It works while `elected` says that the upkeep is this worker's."""

    def __init__(
        self, *, url: str, kafka: KafkaSettings, name: str, stop: Stop, pace: Pace, notes: Notes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._url = url
        self._name = name
        self._stop = stop
        self._pace = pace
        self._notes = notes
        self._clock = clock
        self._log_look = LogLook(kafka)
        self._session: UpkeepSession | None = None
        self._setbacks: dict[int, Setback] = {}  # by generation; of builds that failed since the last that did not
        self.elected = False
        self.looks = 0  # that came to their end
        self._thread = threading.Thread(target=self._run, name="upkeep-index", daemon=True)

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
            with self._notes.noting("upkeep of the indexes"):
                self._look()
                self.looks += 1
            if self._session is not None and (self._session.broken or not self.elected):
                self._leave()
            self._stop.wait(self._pace.look)
        self._leave()
        self._log_look.close()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _look(self) -> None:
        if not self.elected:
            return
        self._session = self._session or UpkeepSession(self._url, f"{self._name}-upkeep-index", self._stop)
        for kept in self._session.generations():
            if self._stop.asked or not self.elected:
                return
            with self._notes.noting(f"index of {kept.collection}", kept.generation_id, self._session):
                self._keep(self._session, kept.generation_id)

    def _keep(self, session: UpkeepSession, generation_id: int) -> None:
        """Do what the generation's index needs now, however long it takes. ConfigError when the session may not."""
        step, kept = self._next(session, generation_id)
        if step is Step.DROP and kept is not None:
            _drop(session, kept)
            step, kept = self._next(session, generation_id)
        if kept is not None and step in (Step.BUILD, Step.REBUILD):
            self._make(session, kept, step)

    def _next(self, session: UpkeepSession, generation_id: int) -> tuple[Step, Kept | None]:
        """What to do next, by what there is at this moment: a while ago may be hours ago, and others act too."""
        kept = next((found for found in session.generations() if found.generation_id == generation_id), None)
        if kept is None:
            return Step.NOTHING, None
        if kept.wanted or kept.left_over:
            session.as_owner()  # who may not says so before there is anything to do
        if kept.wanted and not kept.in_work and kept.vacuum_factor is not None and kept.vacuum_factor <= self._pace.most_dead:
            session.defer_vacuum(kept.embeddings, self._pace.vacuum_dead)
        facts = _facts(session, kept, self._pace)
        step = next_step(facts, self._pace)
        if step is Step.ASK_LOG:
            step = next_step(replace(facts, caught_up=self._caught_up(session, kept)), self._pace)
        return step, kept

    def _caught_up(self, session: UpkeepSession, kept: Kept) -> bool:
        rows = session.rows("positions", {"collection_id": kept.collection_id})
        topics = {row["topic"] for row in rows}
        positions = {(row["topic"], row["partition"]): row["next_offset"] for row in rows if row["partition"] is not None}
        return not topics or caught_up(positions, self._log_look.ends(topics))

    def _make(self, session: UpkeepSession, kept: Kept, step: Step) -> None:
        """Build or rebuild, unless that failed a short while ago: then what failed is said again."""
        before = self._setbacks.get(kept.generation_id)
        if before is not None and self._clock() < before.until:
            raise UnavailableError("postgres", before.why)
        try:
            with translated(), judged():
                _ACTIONS[step](session, kept, parallel=before is None or not before.serial)
        except Exception as error:
            if self._stop.asked:  # which canceled it
                raise
            setback = self._setbacks[kept.generation_id] = self._setback(before, error, step)
            raise UnavailableError("postgres", setback.why) from error
        self._setbacks.pop(kept.generation_id, None)

    def _setback(self, before: Setback | None, error: Exception, step: Step) -> Setback:
        why = f"to {step} the vector index fails, and is tried again after a while: {first_line(error)}"
        if memory_refused(error):
            why += "; it needs memory, shared memory (/dev/shm) for parallel workers, and disk, on the database server"
        return Setback.after(before, why=why, starved=memory_refused(error), now=self._clock(), pace=self._pace)


def _facts(session: UpkeepSession, kept: Kept, pace: Pace) -> IndexFacts:
    rows = 0
    if kept.ready is None and kept.wanted:
        rows = session.value("count_rows", {"most": pace.build_rows}, embeddings=kept.embeddings)
    return IndexFacts(
        wanted=kept.wanted,
        filling=kept.filling,
        ready=kept.ready is not None,
        left_over=bool(kept.left_over),
        in_work=kept.in_work,
        rows=rows,
        dead_share=dead_share(kept.dead, kept.live),
        recall=kept.recall,
        first_recall=kept.first_recall,
        age=kept.age,
    )


def _drop(session: UpkeepSession, kept: Kept) -> None:
    for name in kept.left_over:
        aside = session.set_aside(kept.embeddings, name)
        if aside is not None:
            _log.warning("upkeep.index_left_over", collection=kept.collection, index=name, why="its build was interrupted")
            session.at_length("drop_index", index=aside)


def _build(session: UpkeepSession, kept: Kept, *, parallel: bool) -> None:
    _log.info("upkeep.index_building", collection=kept.collection, index=kept.index, parallel=parallel)
    with session.building(_memory(kept), parallel=parallel):
        session.at_length("build_index", index=kept.index, embeddings=kept.embeddings, indexed=sql.SQL(kept.indexed))
    session.execute("note_built", {"generation_id": kept.generation_id})
    _log.info("upkeep.index_built", collection=kept.collection, index=kept.index)


def _rebuild(session: UpkeepSession, kept: Kept, *, parallel: bool) -> None:
    """First the index, which is faster than a vacuum that takes the dead rows out of it, then the vacuum."""
    assert kept.ready is not None
    _log.info("upkeep.index_rebuilding", collection=kept.collection, index=kept.ready, dead=kept.dead, recall=kept.recall)
    with session.building(_memory(kept), parallel=parallel):
        session.at_length("rebuild_index", index=kept.ready)
    session.execute("note_built", {"generation_id": kept.generation_id})
    session.at_length("vacuum", embeddings=kept.embeddings)
    _log.info("upkeep.index_rebuilt", collection=kept.collection, index=kept.ready)


def _memory(kept: Kept) -> int:
    return build_memory(kept.bytes, dimension=kept.dimension, storage=kept.storage)


_ACTIONS: Mapping[Step, Callable[..., None]] = {Step.BUILD: _build, Step.REBUILD: _rebuild}
