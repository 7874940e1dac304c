"""One scenario's world: a database with an audit trail, topics, workers as processes, load, a reader, and the verdict."""

import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from livedex import apply as provisioning
from livedex.config import KafkaSettings
from livedex.core.record import Place, Record
from livedex.dev.stack import Addresses
from support.faults import audit, checks, snapshot, vitals
from support.faults.encoder import Control
from support.faults.load import Load
from support.faults.nursery import Nursery
from support.faults.oplog import OpLog
from support.faults.processes import Processes
from support.faults.reader import Reader
from support.faults.script import Event, Mix, Script
from support.kafka import Log
from support.waiting import until
from support.workers import Process

GRACE = "1s"  # of orphans, where chunks are collected
COLLECT_EVERY = 0.7  # seconds
Ends = dict[tuple[str, int], int]  # by topic and partition


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a scenario is given: servers and a database of its own, and how workers reach them."""

    direct: Addresses  # for the harness: no fault is meant for it
    seen: Addresses  # for the workers: perhaps through proxies
    folder: Path
    seed: int


class Arena:
    """Use it as a context; `verify` is for the end, when everything is at rest. `client` are options of Kafka's clients.

    `without` takes protections away from all workers, as in `sabotage`: the verdict must then be an AssertionError. Where it
    `collects`, chunks that no document has are deleted within seconds, under the load. `applied_by` is the folder of another
    livedex, which the database is set up with.
    """

    def __init__(
        self, world: World, *, topics: int = 1, partitions: int = 3, versions: str = "log", documents: int = 30,
        mix: Mix | None = None, nursery: Nursery | None = None, without: Sequence[str] = (), collects: bool = False,
        applied_by: Path | None = None, **client: Any,
    ) -> None:  # fmt: skip
        self.world = world
        self._applied_by = applied_by
        self.versions = versions
        self.choose = random.Random(world.seed)
        self.oplog = OpLog(world.folder / "operations.jsonl")
        self.encoder = Control(world.folder / "encoder")
        self.script = Script(seed=world.seed, numbered_by=versions, documents=documents, mix=mix or Mix())
        self.settings = KafkaSettings(bootstrap_servers=world.direct.kafka_bootstrap_servers)
        self.log = Log(self.settings)
        self.workers = Processes(world.seen, world.seen.database_url, world.folder, nursery=nursery)
        self.alive: list[Process] = []
        self.loads: list[Load] = []
        self.topics: list[str] = []
        self.kills = 0
        self._shape = (topics, partitions)
        self._client = client
        self._collects = collects
        self._without = without
        self._settled = False
        self._uncounted = False  # whether a worker ended whose last counters nobody has read
        self._counted = 0.0  # events, by workers that have stopped

    def __enter__(self) -> Self:
        audit.install(self.world.direct.database_url)
        self.log.__enter__()
        topics, partitions = self._shape
        self.topics = [self.log.topic(partitions) for _ in range(topics)]
        self.config = self.settings_file()
        self._apply()
        self.reader = Reader(self.connect, self.oplog, seed=self.world.seed).start()
        self.oplog.note("arena", "began", seed=self.world.seed, topics=self.topics)
        return self

    def _apply(self) -> None:
        if self._applied_by is not None:
            self.workers.apply(self.config, PYTHONPATH=str(self._applied_by))
            return
        with self.connect() as connection:  # in this process: a command takes two seconds
            provisioning.run(provisioning.plan(self.workers.settings(self.config), connection, topics=False))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for load in self.loads:
            load.give_up()
        self.workers.__exit__(kind, error, trace)
        self.reader.stop()
        self.log.__exit__(kind, error, trace)
        self.oplog.close()

    def report(self) -> None:
        """Print what helps to find out why a scenario failed: where everything is written down, and what workers are doing."""
        print(f"seed {self.world.seed}, operations in {self.oplog.path}")  # noqa: T201
        for worker in self.alive:
            vitals.say_where(worker)
            print(f"--- {worker.output}\n{worker.log()[-6000:]}")  # noqa: T201

    @property
    def topic(self) -> str:
        """The only topic, or the first."""
        return self.topics[0]

    def settings_file(self, **client: Any) -> Path:
        """Settings like the arena's own, with other options of Kafka's clients."""
        grace = {"orphan_grace": GRACE} if self._collects else {}
        return self.workers.config_of(self.topics, client={**self._client, **client}, versions=self.versions, **grace)

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection that no fault is meant for."""
        return psycopg.connect(self.world.direct.database_url, autocommit=True, connect_timeout=5)

    def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with self.connect() as connection:
            return connection.execute(statement, arguments or None).fetchall()

    # workers

    def worker(
        self, *, at: Sequence[str] = (), eager: bool = False, clock: float = 0.0, wait: bool = True,
        config: Path | None = None, **environment: str,
    ) -> Process:  # fmt: skip
        """Start an index worker whose encoder this arena controls; `at`, `eager` and `clock` as in `sabotage`."""
        options = [f"--at={moment}" for moment in at] + [f"--without={name}" for name in self._without]
        options += [*(["--eager"] if eager else []), f"--clock={clock}", f"--encoder={self.encoder.folder}"]
        options.append(f"--collect-every={COLLECT_EVERY}" if self._collects else "--keep-orphans")
        process = self.workers.sabotaged(options, config or self.config, **environment)
        self.alive.append(process)
        self.oplog.note("arena", "worker started", pid=process.popen.pid, options=options)
        if wait:
            self.ready(process)
        return process

    def ready(self, worker: Process) -> None:
        """Wait until a worker says that it is ready."""
        until(worker.ready, timeout=120, what="the worker to be ready")

    def kill(self, worker: Process) -> None:
        """SIGKILL."""
        worker.kill()
        self._gone(worker, "killed")

    def killed_itself(self, worker: Process, *, timeout: float = 60) -> None:
        """Wait until a worker has met the `kill` of its moment."""
        until(lambda: worker.popen.poll() is not None, timeout=timeout, what="the worker to reach its moment")
        assert worker.popen.returncode == -signal.SIGKILL, worker.log()[-2000:]
        self._gone(worker, "killed itself")

    def stopped_itself(self, worker: Process, *, timeout: float = 60) -> None:
        """Wait until a worker has met the `stop` of its moment: it is there, and does nothing."""
        until(lambda: vitals.is_stopped(worker), timeout=timeout, what="the worker to reach its moment")
        self.oplog.note("arena", "stopped itself", pid=worker.popen.pid)

    def go_on(self, worker: Process) -> None:
        """SIGCONT."""
        self.oplog.note("arena", "cont", pid=worker.popen.pid)
        worker.popen.send_signal(signal.SIGCONT)

    def terminate(self, worker: Process, *, code: int = 0, timeout: float = 10.0) -> None:
        """SIGTERM; I11: the worker ends in time, with this exit code."""
        if self._settled:
            self._counted += worker.metrics().value("livedex_events_total")
        ended = worker.stop(timeout=timeout)
        self._gone(worker, "terminated", counted=self._settled)
        assert ended == code, f"I11 a worker ended with {ended} after SIGTERM: {worker.log()[-2000:]}"
        # it ends itself with 0, too, when it hangs: then without this line
        assert code or "index.stopped" in worker.log(), f"I11 a worker hung after SIGTERM: {worker.log()[-2000:]}"

    def ended_itself(self, worker: Process, code: int, *, timeout: float = 30) -> None:
        """Wait until a worker has ended by itself, as it should, with this exit code."""
        until(lambda: worker.popen.poll() is not None, timeout=timeout, what="the worker to end")
        assert worker.popen.returncode == code, worker.log()[-2000:]
        self._gone(worker, "ended")

    def _gone(self, worker: Process, how: str, *, counted: bool = False) -> None:
        self.kills += worker.popen.returncode == -signal.SIGKILL
        self._uncounted = self._uncounted or not counted
        self.alive.remove(worker)
        self.oplog.note("arena", how, pid=worker.popen.pid, code=worker.popen.returncode)

    # load and progress

    def load(
        self, events: int | Sequence[Event], *, rate: float | None = None, producers: int = 2, shuffled: bool = False
    ) -> Load:
        """Begin to send: so many events of the script, or these. With several topics each producer has one."""
        planned = list(self.script.events(events)) if isinstance(events, int) else events
        load = Load(self.settings, self.topics, planned, self.oplog, producers=producers, rate=rate, shuffled=shuffled)
        self.loads.append(load)
        self._settled = False
        return load.start()

    def collected(self) -> int:
        """Chunks that workers have collected so far, as their logs say."""
        return sum(int(n) for log in self.workers.logs() for n in re.findall(r"upkeep\.collected\s+chunks=(\d+)", log))

    def applied(self) -> int:
        """Offsets that are applied, over all partitions."""
        return sum(self.progress().values())

    def progress(self) -> Ends:
        """The next offset of every partition that was ever claimed."""
        rows = self.rows("select topic, partition, next_offset from livedex.source_progress")
        return {(topic, partition): offset for topic, partition, offset in rows}

    def records(self) -> list[Record]:
        """The whole log, read by a client of its own."""
        return [record for topic in self.topics for record in self.log.records(topic)]

    def wait_for(self, condition: Callable[[], object], *, timeout: float = 60, what: str) -> None:
        """Wait for a condition, and meanwhile for what must hold at any moment."""

        def there() -> bool:
            self.watch()
            return bool(condition())

        until(there, timeout=timeout, what=what)

    def watch_for(self, seconds: float) -> None:
        """Let the scenario run for so long, and meanwhile look at what must hold at any moment."""
        ends = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() >= ends, timeout=seconds + 10, what="the time to pass")

    def settle(self, *, timeout: float = 60) -> list[Record]:
        """Let the producers finish, and wait until everything is applied (I9); the log."""
        for load in self.loads:
            load.finish()
        records = self.records()
        ends = {(record.topic, record.partition): record.offset + 1 for record in records}

        def there() -> bool:
            found = self.progress()
            return all(found.get(partition, 0) >= end for partition, end in ends.items())

        self.wait_for(there, timeout=timeout, what=f"I9 all of the log to be applied, up to {ends}")
        self._settled = True
        self.oplog.note("arena", "settled", ends=sorted(ends.items()))
        return records

    # the verdict

    def watch(self) -> None:
        """What must hold at any moment: the reader saw nothing wrong, no worker ended by itself, none is without bound."""
        checks.atomic_documents(self.reader)
        for worker in self.alive:
            vitals.lives(worker)

    def owners(self) -> set[int]:
        """The processes that own partitions, by pid: workers have it in their names."""
        return {int(row[0].split("-")[-2]) for row in self.rows("select owner from livedex.source_progress")}

    def verify_now(self) -> None:
        """I1 I5 I8, at any moment: the index is the fold up to its progress."""
        found = snapshot.take(self.world.direct.database_url)
        records = self.records()
        checks.fold_equality(found, records, numbered_by=self.versions)
        checks.every_offset_once(found, records)

    def verify(
        self, records: list[Record], *, counters: bool | None = None, may_fail: frozenset[Place] = frozenset()
    ) -> None:  # fmt: skip
        """All invariants, at rest. The counters of workers are compared unless one ended before they were read; `counters` says
        that those which ended had counted nothing.
        """
        self.watch()
        found = snapshot.take(self.world.direct.database_url)
        with self.connect() as connection:
            changes, steps = audit.documents(connection), audit.progress(connection)
        self.oplog.note("arena", "verify", records=len(records), changes=len(changes), steps=len(steps),
                        dead_letters=len(found.dead_letters), searches=self.reader.searches, p99=self.reader.p99)  # fmt: skip
        for load in self.loads:
            checks.acknowledged_is_there(load.acknowledged, records)
        checks.fold_equality(found, records, numbered_by=self.versions)
        checks.every_offset_once(found, records, may_fail=may_fail)
        checks.versions_rise(changes)
        checks.progress_is_safe(steps, changes, records, numbered_by=self.versions, without=found.left_out)
        checks.single_writer(steps)
        checks.no_resurrection(self.reader, records, numbered_by=self.versions)
        checks.searches_were_answered(self.reader)
        for worker in self.alive:
            vitals.gauges_are_at_rest(worker)
        if counters or not self._uncounted:
            until(lambda: self.counted() >= len(records), timeout=10, what="I8 every event to be counted")
            checks.counted_once(self.counted(), records)

    def counted(self) -> float:
        """Events that the workers' counters know of."""
        return self._counted + sum(worker.metrics().value("livedex_events_total") for worker in self.alive)
