"""One scenario's world: a database with an audit trail, a topic, workers as processes, load, a reader, and the verdict."""

import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

from livedex.config import KafkaSettings
from livedex.core.record import Place, Record
from livedex.dev.stack import Addresses
from support.faults import audit, checks, snapshot
from support.faults.encoder import Control
from support.faults.load import Load
from support.faults.oplog import OpLog
from support.faults.processes import Processes
from support.faults.reader import Reader
from support.faults.script import Event, Script
from support.kafka import Log
from support.waiting import until
from support.workers import Process

TESTS = Path(__file__).parents[2]
RESIDENT = 1024 * 2**20  # bytes: a worker above it has no bound
P99 = 2.0  # seconds: the deadline of a search


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a scenario is given: servers and a database of its own, and how workers reach them."""

    direct: Addresses  # for the harness: no fault is meant for it
    seen: Addresses  # for the workers: perhaps through proxies
    folder: Path
    seed: int


class Arena:
    """Use it as a context; `verify` is for the end, when everything has come to rest."""

    def __init__(self, world: World, *, partitions: int = 3, versions: str = "log", documents: int = 30, **client: Any) -> None:
        self.world = world
        self.versions = versions
        self.choose = random.Random(world.seed)
        self.oplog = OpLog(world.folder / "operations.jsonl")
        self.encoder = Control(world.folder / "encoder")
        self.script = Script(seed=world.seed, numbered_by=versions, documents=documents)
        self.log = Log(KafkaSettings(bootstrap_servers=world.direct.kafka_bootstrap_servers))
        self.workers = Processes(world.seen, world.seen.database_url, world.folder)
        self.alive: list[Process] = []
        self.ended: list[tuple[Process, int]] = []  # stopped ones, with their exit codes
        self.kills = 0
        self.loads: list[Load] = []
        self._partitions = partitions
        self._client = client
        self._counted = 0.0  # events, by workers that have stopped

    def __enter__(self) -> Self:
        audit.install(self.world.direct.database_url)
        self.log.__enter__()
        self.topic = self.log.topic(self._partitions)
        self.config = self.workers.config(self.topic, client=self._client, versions=self.versions)
        self.workers.apply(self.config)
        self.reader = Reader(self.connect, self.oplog, seed=self.world.seed).start()
        self.oplog.note("arena", "began", seed=self.world.seed, topic=self.topic)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            print(f"seed {self.world.seed}, operations in {self.oplog.path}")  # noqa: T201
        for load in self.loads:
            load._stop.set()
        for worker in self.alive:
            if worker.popen.poll() is None:
                worker.kill()
        self.workers.__exit__(kind, error, trace)
        self.reader.stop()
        self.log.__exit__(kind, error, trace)
        self.oplog.close()

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection that no fault is meant for."""
        return psycopg.connect(self.world.direct.database_url, autocommit=True, connect_timeout=5)

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with self.connect() as connection:
            return connection.execute(statement, arguments or None).fetchall()

    def worker(
        self, *, at: Sequence[str] = (), without: Sequence[str] = (), eager: bool = False, wait: bool = True,
        config: Path | None = None, **environment: str,
    ) -> Process:  # fmt: skip
        """Start an index worker whose encoder this arena controls; `at`, `without` and `eager` as in `sabotage`."""
        options = [f"--at={moment}" for moment in at] + [f"--without={name}" for name in without]
        options += ["--eager"] if eager else []
        process = self.workers.start_as(
            [sys.executable, "-m", "support.faults.sabotage", *options, f"--encoder={self.encoder.folder}", "index"],
            config or self.config, PYTHONPATH=os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]), **environment,
        )  # fmt: skip
        self.alive.append(process)
        self.oplog.note("arena", "worker started", pid=process.popen.pid, options=options)
        if wait:
            self.ready(process)
        return process

    def ready(self, worker: Process) -> None:
        """Wait until a worker says that it is ready."""
        until(worker.ready, timeout=60, what="the worker to be ready")

    def kill(self, worker: Process) -> None:
        """SIGKILL."""
        self.kills += 1
        self.alive.remove(worker)
        self.oplog.note("arena", "kill", pid=worker.popen.pid)
        worker.kill()

    def killed_itself(self, worker: Process, *, timeout: float = 60) -> None:
        """Wait until a worker has met the `kill` of its moment."""
        until(lambda: worker.popen.poll() is not None, timeout=timeout, what="the worker to reach its moment")
        assert worker.popen.returncode == -9, worker.log()[-2000:]
        self.kills += 1
        self.alive.remove(worker)
        self.oplog.note("arena", "killed itself", pid=worker.popen.pid)

    def stop(self, worker: Process, *, timeout: float = 10.0) -> None:
        """SIGTERM; the exit code is judged by `verify`."""
        self._counted += worker.metrics().value("livedex_events_total")
        self.alive.remove(worker)
        self.oplog.note("arena", "term", pid=worker.popen.pid)
        self.ended.append((worker, worker.stop(timeout=timeout)))

    def load(
        self, events: int | Sequence[Event], *, rate: float | None = None, producers: int = 2, shuffled: bool = False
    ) -> Load:
        """Begin to send: so many events of the script, or these."""
        planned = list(self.script.events(events)) if isinstance(events, int) else events
        settings = KafkaSettings(bootstrap_servers=self.world.direct.kafka_bootstrap_servers)
        load = Load(settings, [self.topic], planned, self.oplog, producers=producers, rate=rate, shuffled=shuffled)
        self.loads.append(load)
        return load.start()

    def applied(self) -> int:
        """Offsets that are applied, over all partitions."""
        rows = self.rows("select coalesce(sum(next_offset), 0) from livedex.source_progress where topic = %s", self.topic)
        return int(rows[0][0])

    def records(self) -> list[Record]:
        """The whole log, read by a client of its own."""
        return self.log.records(self.topic)

    def settle(self, *, timeout: float = 60) -> list[Record]:
        """Let the producers finish, and wait until everything is applied; the log. While it waits, nobody may die (I9)."""
        for load in self.loads:
            load.finish()
        records = self.records()
        ends: dict[int, int] = {}
        for record in records:
            ends[record.partition] = record.offset + 1

        def there() -> bool:
            self.watch()
            rows = self.rows("select partition, next_offset from livedex.source_progress where topic = %s", self.topic)
            found = {row[0]: row[1] for row in rows}
            return all(found.get(partition, 0) >= end for partition, end in ends.items())

        until(there, timeout=timeout, what=f"I9 all of the log to be applied, up to {ends}")
        self.oplog.note("arena", "settled", ends=ends)
        return records

    def watch(self) -> None:
        """What must hold at any moment: the reader saw nothing wrong, no worker ended by itself, none is without bound."""
        checks.atomic_documents(self.reader)
        for worker in self.alive:
            assert worker.popen.poll() is None, f"I9 a worker ended with {worker.popen.returncode}: {worker.log()[-2000:]}"
            resident = psutil.Process(worker.popen.pid).memory_info().rss
            assert resident < RESIDENT, f"I9 a worker has {resident / 2**20:.0f} MB resident"

    def counted(self) -> float:
        """Events that the workers' counters know of."""
        return self._counted + sum(worker.metrics().value("livedex_events_total") for worker in self.alive)

    def verify(
        self, records: list[Record], *, exact_counts: bool | None = None, may_fail: frozenset[Place] = frozenset()
    ) -> None:
        """All invariants, at rest. Counters are compared where no worker was killed, unless told otherwise."""
        self.watch()
        found = snapshot.take(self.world.direct.database_url)
        self.oplog.note(
            "arena", "verify", searches=self.reader.searches, p99=self.reader.p99, dead_letters=len(found.dead_letters)
        )
        for load in self.loads:
            checks.acknowledged_is_there(load.acknowledged, records)
        checks.fold_equality(found, records, numbered_by=self.versions)
        checks.every_offset_once(found, records, may_fail=may_fail)
        with self.connect() as connection:
            changes, steps = audit.documents(connection), audit.progress(connection)
        checks.versions_rise(changes)
        failed = frozenset(place for place, letter in found.dead_letters.items() if letter[3] == "embedding-failed")
        checks.progress_is_safe(steps, changes, records, numbered_by=self.versions, without=failed)
        checks.single_writer(steps)
        checks.no_resurrection(self.reader, records, numbered_by=self.versions)
        assert self.reader.searches, "I10 the reader has searched nothing"
        assert self.reader.p99 < P99, f"I10 one search in a hundred took {self.reader.p99:.2f} s or longer"
        if not self.kills if exact_counts is None else exact_counts:
            until(lambda: self.counted() >= len(records), timeout=10, what="I8 every event to be counted")
            checks.counted_once(self.counted(), records)
        for worker, code in self.ended:
            assert code == 0, f"I11 a worker ended with {code} after SIGTERM: {worker.log()[-2000:]}"
