"""The stack of a run, and livedex on it: a broker, a Postgres, and an index worker with the real model."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from psycopg import sql

from bench.events import Event, Events
from livedex.config import KafkaSettings
from livedex.dev import postgres
from livedex.dev.stack import Addresses, Stack
from support.database import create_template, fresh_database, url_of
from support.kafka import Log
from support.workers import Process, Workers

PARTITIONS = 3
TEMPLATE = "bench"


class Live:
    """livedex with the real model on a topic of its own. The index worker runs from the start."""

    def __init__(self, workers: Workers, log: Log) -> None:
        self.workers = workers
        self.log = log
        self.topic = log.topic(PARTITIONS)
        self.config = workers.config(self.topic)
        workers.apply(self.config, LIVEDEX_EMBEDDER="auto")
        self.drop_index()
        self.ends: Counter[int] = Counter()
        self.changed = False  # whether the changes of the stream are in the log
        self.index = workers.start("index", self.config, LIVEDEX_EMBEDDER="auto")

    @cached_property
    def serve(self) -> Process:
        """The query worker."""
        return self.workers.start("serve", self.config, LIVEDEX_EMBEDDER="auto")

    @property
    def precision(self) -> str:
        """In which the encoder computes."""
        return str(self.workers.rows("select precision from livedex.generation")[0][0])

    def post(self, events: Sequence[Event]) -> None:
        """Put events into the log."""
        places = [self.log.post(self.topic, event) for event in events]
        self.log.flush()
        for place in places:
            found = place()
            self.ends[found.partition] = max(self.ends[found.partition], found.offset + 1)

    def index_all(self, events: Sequence[Event]) -> float:
        """Put events into the log and wait until they are searchable; seconds from the first one on."""
        started = time.perf_counter()
        self.post(events)
        self.workers.caught_up(self.topic, self.ends, timeout=3600)
        return time.perf_counter() - started

    def embedded(self) -> int:
        """Chunks that the worker has embedded so far."""
        return int(self.index.metrics().value("livedex_chunks_total", outcome="embedded"))

    def drop_index(self) -> None:
        """The vector index, if there is one: it is built behind the rows."""
        self.workers.execute("drop index if exists livedex.embedding_1_hnsw")

    def need_index(self) -> None:
        """Wait until the vector index is there; make it where nobody does."""
        statement = "select count(*) from pg_index where indexrelid = to_regclass('livedex.embedding_1_hnsw') and indisvalid"
        deadline = time.monotonic() + 60
        while self.workers.rows(statement) == [(0,)]:
            if time.monotonic() > deadline:
                self.workers.execute(
                    "create index embedding_1_hnsw on livedex.embedding_1 using hnsw (embedding halfvec_cosine_ops)"
                )
            time.sleep(0.2)


@dataclass(slots=True)
class Scene:
    """What the parts of a run share. Memory of workers is noted when they end."""

    stack: Addresses
    folder: Path
    log: Log
    events: Events
    naive_every: int = 1  # of how many changes of the stream the naive pipeline does one
    peaks: dict[str, int] = field(default_factory=dict)  # bytes, by worker
    _live: Live | None = None
    _open: list[Any] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the full size of each part that is measured."""
        return self.events.share

    def rounds(self, whole: int, least: int = 3) -> int:
        """How often something is repeated that is repeated `whole` times in a whole run."""
        return max(least, round(whole * self.share))

    @contextmanager
    def database(self) -> Iterator[Workers]:
        """A database of a part's own, and workers on it."""
        with fresh_database(self.stack.database_url, TEMPLATE) as url, Workers(self.stack, url, self.folder) as workers:
            yield workers

    @property
    def live(self) -> Live:
        """A livedex with the snapshot in it, which is loaded when it is first asked for."""
        if self._live is None:
            self.empty_live().index_all(self.events.snapshot)
        assert self._live is not None
        return self._live

    def empty_live(self) -> Live:
        """It before that; only once, and who asks has to load the snapshot."""
        assert self._live is None
        manager = self.database()
        workers = manager.__enter__()
        self._open.append(manager)
        self._live = Live(workers, self.log)
        return self._live

    def close(self) -> None:
        """Note the memory of the workers, and end them."""
        if self._live is not None:
            self.note(self._live.index, "index")
            if "serve" in vars(self._live):
                self.note(self._live.serve, "serve")
        for manager in self._open:
            manager.__exit__(None, None, None)
        self._open.clear()
        self._live = None

    def note(self, process: Process, name: str) -> None:
        """Remember the most memory that a worker had resident."""
        status = Path(f"/proc/{process.popen.pid}/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        self.peaks[name] = max(self.peaks.get(name, 0), peak)


@contextmanager
def running(events: Events, naive_every: int) -> Iterator[Scene]:
    """A stack of the run's own, ended in the end."""
    postgres.SETTINGS["min_dynamic_shared_memory"] = "2200MB"  # so that an index of half a million vectors is built in memory
    with tempfile.TemporaryDirectory(prefix="livedex-bench-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "stack")
        try:
            addresses = stack.up()
            create_template(addresses.database_url, TEMPLATE)
            settings = KafkaSettings(bootstrap_servers=addresses.kafka_bootstrap_servers)
            with Log(settings) as log:
                scene = Scene(addresses, Path(folder), log, events, naive_every)
                try:
                    yield scene
                finally:
                    scene.close()
        finally:
            stack.down()


def create_database(scene: Scene, name: str) -> str:
    """An empty database beside livedex's, and its URL; it goes with the stack."""
    import psycopg

    with psycopg.connect(scene.stack.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return url_of(scene.stack.database_url, name)
