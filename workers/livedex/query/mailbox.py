"""Answers texts that SQL sessions wait for (core/mailbox.py): looks into the lock table, embeds what it finds in one call, and
commits the vectors to the cache, where the waiting function sees them.

One thread for each server that is looked at: the primary, and standbys, whose sessions see what is committed on the primary.
"""

import random
import threading
import time
from collections.abc import Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray

from livedex.catalogue import Generation
from livedex.core.backoff import backoff
from livedex.core.mailbox import PRESENCE_CLASS, ForgedError, Question, collect, digest_of, read
from livedex.database import Connection, first_line, open_session, query, translated
from livedex.encoders.remote import FailingError
from livedex.errors import LivedexError, SystemicError, TimedOutError, UnavailableError, loggable
from livedex.lifecycle import Stop
from livedex.observe import QueryMetrics, logger
from livedex.query.active import Encoders
from livedex.query.embedding import QueryEmbedder
from livedex.tracing import OFF, Attributes, Tracer, current, exemplar

SHORTEST_NAP, LONGEST_NAP, GROWTH = 0.001, 0.005, 1.2  # seconds between looks: the lock table is small, a look takes 0.1 ms
MOST_AT_ONCE = 64  # texts that are taken at a look
PATIENCE = 10.0  # seconds for one call
PAUSE = 0.1  # seconds until what fails for now is asked again
PRUNE_EVERY = 60.0  # seconds
PRUNED_AT_ONCE = 1000  # vectors
MOST_CACHED = 50_000  # vectors in the cache: some 100 MB

_log = logger("mailbox")


class Mailbox:
    """The mailbox of one server. `start` begins, `stop` of the worker ends it; what goes wrong is tried again for ever."""

    def __init__(
        self,
        primary: str,
        encoders: Encoders,
        embedder: QueryEmbedder,
        metrics: QueryMetrics,
        stop: Stop,
        *,
        standby: str,
        name: str,
        tracer: Tracer = OFF,
    ) -> None:
        self._primary, self._standby, self._name = primary, standby, name
        self._encoders, self._embedder, self._metrics, self._stop = encoders, embedder, metrics, stop
        self._tracer = tracer
        self._answered: dict[int, bytes] = {}  # the last question of each session, by its nonce
        self._seen: dict[tuple[int, bytes], float] = {}  # when a question was first seen
        self._present: set[int] = set()  # the generations that this worker is said to have
        self._prune_at = 0.0
        self._attempts = 0  # since it was last looked into

    def start(self) -> None:
        """Look into the mailbox from now on, in a thread of its own."""
        threading.Thread(target=self._run, name=f"{self._name}-mailbox", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.asked:
            try:
                with translated():
                    self._serve()
            except Exception as error:  # noqa: BLE001 - a mailbox that nobody looks into would be missed by its readers only
                self._attempts += 1
                if self._attempts == 1:
                    known = isinstance(error, LivedexError | psycopg.Error)
                    _log.warning("mailbox.interrupted", why=first_line(error) if known else type(error).__name__)
                self._stop.wait(backoff(self._attempts, random.random()))  # noqa: S311

    def _serve(self) -> None:
        """One connection's life."""
        # a cached vector that a crash takes is made again; on its way to a standby it must not wait for the next flush
        writing = {"synchronous_commit": "local" if self._standby else "off"}
        with open_session(self._primary, name=f"{self._name}-mailbox", settings=writing) as writer:
            if not self._standby:
                self._look_for_ever(writer, writer)
                return
            with open_session(self._standby, name=f"{self._name}-mailbox") as reader:
                self._look_for_ever(reader, writer)

    def _look_for_ever(self, reader: Connection, writer: Connection) -> None:
        self._present, self._answered, self._prune_at = set(), {}, 0.0
        (secret,) = writer.execute(query("mailbox", "secret")).fetchone() or (b"",)
        nap = SHORTEST_NAP
        while not self._stop.wait(nap):
            self._say_what_is_loaded(reader)
            questions = self._look(reader, secret)
            self._attempts = 0
            if questions:
                self._answer(questions, writer)
            nap = SHORTEST_NAP if questions else min(nap * GROWTH, LONGEST_NAP)
            self._prune(writer)

    def _prune(self, writer: Connection) -> None:
        """Keep the cache at its size: looked at now and then, and then at every look until it is."""
        if self._standby or time.monotonic() < self._prune_at:
            return
        pruned = writer.execute(query("mailbox", "prune"), {"most": MOST_CACHED, "slice": PRUNED_AT_ONCE}).rowcount
        if pruned < PRUNED_AT_ONCE:
            self._prune_at = time.monotonic() + PRUNE_EVERY

    def _say_what_is_loaded(self, reader: Connection) -> None:
        """Hold a lock for each generation whose texts can be embedded, so that sessions know before they wait."""
        loaded = self._encoders.loaded()
        for generation_id in self._present - loaded:
            reader.execute("select pg_advisory_unlock_shared(%s, %s)", (PRESENCE_CLASS, generation_id))
        for generation_id in loaded - self._present:
            reader.execute("select pg_advisory_lock_shared(%s, %s)", (PRESENCE_CLASS, generation_id))
        self._present = loaded

    def _look(self, reader: Connection, secret: bytes) -> list[Question]:
        """The questions that were not answered yet."""
        waiting = collect(reader.execute(query("mailbox", "look")).fetchall())
        self._answered = {pid: nonce for pid, nonce in self._answered.items() if pid in waiting}
        found = []
        for pid, keys in waiting.items():
            try:
                question = read(pid, keys, secret)
            except ForgedError:
                if self._answered.get(pid) != b"forged":
                    self._answered[pid] = b"forged"
                    self._metrics.requests.labels("sql", "28000").inc()
                    _log.warning("mailbox.forged", pid=pid)
                continue
            if question is not None and self._answered.get(pid) != question.nonce:
                found.append(question)
        now = time.perf_counter()
        self._seen = {(each.pid, each.nonce): self._seen.get((each.pid, each.nonce), now) for each in found}
        return sorted(found, key=lambda each: self._seen[each.pid, each.nonce])[:MOST_AT_ONCE]

    def _answer(self, questions: Sequence[Question], writer: Connection) -> None:
        for generation_id in {question.generation_id for question in questions}:
            generation = self._encoders.with_id(generation_id)
            asked = [question for question in questions if question.generation_id == generation_id]
            if generation is None:
                self._answered.update({question.pid: question.nonce for question in asked})
                continue
            told: Attributes = {"livedex.collection": generation.collection, "livedex.questions": len(asked)}
            with self._tracer.span("answer sql", kind="server", attributes=told):
                self._embed(generation, asked, writer)

    def _embed(self, generation: Generation, asked: Sequence[Question], writer: Connection) -> None:
        """Answer them. What fails for now is asked again at the next look, as long as the session waits; what fails otherwise
        is tried alone, because a text that the model refuses must fail nobody else's.
        """
        texts = sorted({question.text for question in asked})
        try:
            with self._tracer.span("embed"):
                vectors = self._embedder.vectors(generation, texts, deadline=time.perf_counter() + PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the next text is answered
            if isinstance(error, UnavailableError | TimedOutError) and not isinstance(error, FailingError):
                _log.warning("mailbox.waits", why=str(error))
                self._stop.wait(PAUSE)
                return
            if len(texts) == 1 or isinstance(error, SystemicError):  # nobody's text is the reason of that
                _log.error("mailbox.failed", why=loggable(error))
                self._settle(asked, "57014")
                return
            for text in texts:
                self._embed(generation, [question for question in asked if question.text == text], writer)
        else:
            self._keep(writer, generation.generation_id, texts, vectors)
            self._settle(asked, "00000")

    @staticmethod
    def _keep(writer: Connection, generation_id: int, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        rows = sorted(
            ((generation_id, digest_of(text), vector) for text, vector in zip(texts, vectors, strict=True)),
            key=lambda row: row[1],
        )
        with writer.cursor() as cursor:
            cursor.executemany(query("mailbox", "keep"), rows)

    def _settle(self, asked: Sequence[Question], code: str) -> None:
        now = time.perf_counter()
        for question in asked:
            self._answered[question.pid] = question.nonce
            since = self._seen.get((question.pid, question.nonce), now)
            self._metrics.search.labels("sql", question.purpose).observe(now - since, exemplar(current()))
            self._metrics.requests.labels("sql", code).inc()
