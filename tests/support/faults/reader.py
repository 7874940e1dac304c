"""Searches all the time, as applications do, and looks at each answer: whole documents, and nothing that was gone already."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from livedex.core.record import Record
from support.faults import oracle
from support.faults.oplog import OpLog
from support.faults.texts import stamps, torn

PAUSE = 0.02  # seconds between two rounds: what is tested needs the cores too
_STATE = """
select d.document_id, d.content_version, d.deleted, v.title, c.texts
  from livedex.document d
  left join livedex.documents v using (document_id)
  left join (select document_id, array_agg(text order by ordinal) as texts, array_agg(ordinal order by ordinal) as ordinals
               from livedex.chunks group by document_id) c using (document_id)
 where d.content_version is not null"""
_SEARCH = """
select document_id, title, chunk from livedex.search_vector(%s::vector, k => 50, per_document => 20, mode => %s, query => %s)"""

Version = tuple[int, ...]
Connect = Callable[[], "psycopg.Connection[tuple[Any, ...]]"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A search answered with this writing of a document, after a snapshot had shown the document's content at this version."""

    name: str
    serial: int
    content_version: Version
    deleted: bool


class Reader:
    """A thread with a connection of its own. `violations` are what no fault excuses."""

    def __init__(self, connect: Connect, oplog: OpLog, *, seed: int) -> None:
        self.violations: list[str] = []
        self.searches = 0
        self.snapshots = 0
        self.durations: list[float] = []  # seconds, of the searches that were answered
        self.errors: Counter[str] = Counter()  # while they were allowed
        self.sightings: set[Sighting] = set()
        self._connect = connect
        self._oplog = oplog
        self._choose = random.Random(seed)
        self._excused = 0
        self._seen: dict[str, tuple[Version, bool]] = {}  # by document: the newest content, whether it was a delete
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> "Reader":
        """Begin to search."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Search no more."""
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "a search has not ended within 30 s"

    @contextmanager
    def excused(self) -> Iterator[None]:
        """While a fault lasts that may make searches fail."""
        self._excused += 1
        try:
            yield
        finally:
            self._excused -= 1

    @property
    def p99(self) -> float:
        """Seconds within which 99 of 100 searches were answered."""
        return float(np.quantile(self.durations, 0.99)) if self.durations else 0.0

    def _run(self) -> None:
        connection: psycopg.Connection[tuple[Any, ...]] | None = None
        while not self._stop.wait(PAUSE):
            excused = self._excused > 0
            try:
                connection = connection or self._connect()
                self._look(connection)
                self._search(connection)
            except psycopg.Error as error:
                if connection is not None:
                    connection.close()
                connection = None
                self._note_error(error, excused=excused or self._excused > 0)
        if connection is not None:
            connection.close()

    def _note_error(self, error: psycopg.Error, *, excused: bool) -> None:
        kind = f"{type(error).__name__} {error.sqlstate or ''}".strip()
        if excused:
            self.errors[kind] += 1
        else:
            self._violate(f"a search failed without a fault that allows it: {kind}: {error}")

    def _look(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """One snapshot of all documents: each is whole, and none went back."""
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read read only")
            rows = connection.execute(_STATE).fetchall()
        self.snapshots += 1
        for name, content, deleted, title, texts in rows:
            version = tuple(content)
            before, was_deleted = self._seen.get(name, ((), False))
            if version < before:
                self._violate(f"{name} went back from version {before} to {version}")
            elif version == before and was_deleted and not deleted:
                self._violate(f"{name} came back after its delete {before} without a newer event")
            if not deleted and (wrong := torn(name, title, texts or ())):
                self._violate(f"a snapshot is torn: {wrong}")
            if deleted and (texts or title):
                self._violate(f"{name} is deleted and still has chunks or a title")
            self._seen[name] = (version, deleted)
        gone = self._seen.keys() - {row[0] for row in rows}
        if gone:
            self._violate(f"the versions of {sorted(gone)[:3]} are forgotten")

    def _search(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """One search; what it answers is judged against what the snapshots before it showed."""
        query = f"offset fence {self._choose.randrange(10**6)}"
        vector = str(oracle.vector("", query).tolist())
        mode = self._choose.choice(("hybrid", "vector"))
        began = time.perf_counter()
        rows = connection.execute(_SEARCH, (vector, mode, query)).fetchall()
        self.durations.append(time.perf_counter() - began)
        self.searches += 1
        serials: dict[str, set[int]] = defaultdict(set)
        for name, title, chunk in rows:
            serials[name] |= {stamp.serial for part in (title or "", chunk) for stamp in stamps(part)}
        for name, found in serials.items():
            if len(found) != 1:
                self._violate(f"a search mixed the writings {sorted(found)} of {name}")
            elif name in self._seen:
                self.sightings.add(Sighting(name, found.pop(), *self._seen[name]))

    def _violate(self, what: str) -> None:
        self._oplog.note("reader", "violation", what=what)
        if len(self.violations) < 100:
            self.violations.append(what)

    def check_sightings(self, records: list[Record], *, numbered_by: str) -> list[str]:
        """Searches that showed a writing which the document had left behind already, judged by the log."""
        newest: dict[tuple[str, int], Version] = {}
        for one in oracle.good(records, numbered_by=numbered_by):
            for stamp in stamps(one.event.get("title") or "") if one.op == "upsert" else ():
                key = (one.name, stamp.serial)
                newest[key] = max(newest.get(key, ()), one.version)
        return [
            f"a search showed {seen.name}#{seen.serial} after {'the delete' if seen.deleted else ''} {seen.content_version}"
            for seen in self.sightings.copy()  # in one step: the reader goes on
            if (version := newest.get((seen.name, seen.serial), ())) < seen.content_version
            or (seen.deleted and version == seen.content_version)
        ]
