"""Events per second by the number of index workers that share four partitions, with the hash encoder.

Once with an encoder that takes 5 ms for each chunk and no core, as one on another machine does: then workers add up, whatever
the cores here. And once with nothing to wait for, where workers, broker and Postgres share the cores.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.scene import Scene
from support.faults.encoder import Behaviour, Control
from support.faults.nursery import Nursery
from support.faults.processes import Processes
from support.waiting import until
from support.workers import Process

PART = "workers"
PARTITIONS = 4
EACH = 0.005  # seconds
REMOTE, LOCAL = 1_500, 3_000  # events for each worker; for all
KINDS = {"an encoder elsewhere, 5 ms a chunk": EACH, "an encoder that takes no time": 0.0}
TEXT = "Document {number} of the load says that {digits} is the number of {number}, and nothing else is to be read here."
PATIENCE = 600  # seconds for whatever is waited for: the machine may be busy


def measure(scene: Scene) -> Iterator[Figure]:
    """One to four workers, each with an empty database and a topic of its own."""
    with Nursery() as nursery:
        for kind, each in KINDS.items():
            found: list[float] = []
            for count in range(1, PARTITIONS + 1):
                found.append(_rate(scene, nursery, count, each))
                yield Figure(
                    part=PART, name=f"{kind}, {count} worker{'s' if count > 1 else ''}", value=found[-1], unit="events/s",
                    detail=f"{found[-1] / found[0]:.2f} times one worker; a chunk an event, {PARTITIONS} partitions",
                )  # fmt: skip


def _rate(scene: Scene, nursery: Nursery, count: int, each: float) -> float:
    events = max(400, round((REMOTE * count if each else LOCAL) * scene.share))
    with scene.database() as usual:
        own = Processes(scene.stack, usual.database_url, scene.folder, nursery=nursery)
        encoder = Control(Path(scene.folder) / f"encoder-{count}-{each}")
        encoder.set(Behaviour(each=each))
        topic = scene.log.topic(PARTITIONS)
        config = own.config(topic, client={"session_timeout_ms": 30_000})
        own.apply(config)
        with own:
            workers = [own.sabotaged(["--keep-orphans", f"--encoder={encoder.folder}"], config) for _ in range(count)]
            _wait_for_owners(own, workers)
            started = time.perf_counter()
            ends = _post(scene, topic, events)
            own.caught_up(topic, ends, timeout=PATIENCE)
            spent = time.perf_counter() - started
            for worker in workers:
                assert worker.stop() == 0, worker.log()[-2000:]
    return events / spent


def _post(scene: Scene, topic: str, events: int) -> dict[int, int]:
    """Documents of one chunk each, all at once, evenly over the partitions; where each partition ends."""
    ends: dict[int, int] = {}
    places = []
    for number in range(events):
        text = TEXT.format(number=number, digits=number * 7919 % 104729)
        value = json.dumps({"op": "upsert", "id": f"d/{number}", "text": text}).encode()
        places.append(scene.log.post(topic, value, key=f"d/{number}", partition=number % PARTITIONS))
    scene.log.flush()
    for place in places:
        found = place()
        ends[found.partition] = max(ends.get(found.partition, 0), found.offset + 1)
    return ends


def _wait_for_owners(own: Processes, workers: list[Process]) -> None:
    """Until every partition has an owner, and every worker a partition."""
    statement = "select count(*), count(distinct owner) from livedex.source_progress where owner <> ''"

    def owned() -> bool:
        for worker in workers:
            assert worker.popen.poll() is None, worker.log()[-2000:]
        return own.rows(statement) == [(PARTITIONS, len(workers))]

    until(owned, timeout=PATIENCE, what="every partition to have an owner, and every worker a partition")
