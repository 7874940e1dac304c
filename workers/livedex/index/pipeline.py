"""The pipeline: poll > plan > embed > stage > apply, on threads with bounded queues between them.

A batch is planned when the encoder is free for it, and no sooner: until then it waits where the partitions are served in turn,
and where newer versions of its documents join it. Between two slices of a large batch one of another partition goes first.
Batches of a partition stay in order. Any surprise has one answer: the partition is disowned, everything of it in flight is
dropped, and the worker claims it again and reads on from the database's progress. Nothing is lost, because nothing moves the
progress but `apply`.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from livedex.core.upkeep import HOLD_EVERY
from livedex.index.applying import Claim, Keys, merged
from livedex.index.batch import Applied, Batch, Dropped, End, Work, take_joined
from livedex.index.fair import FairQueue
from livedex.index.spans import Spans
from livedex.index.stages import Stages
from livedex.observe import logger

_log = logger("index")
BATCHES_TO_APPLY = 2  # staged and waiting: more would only hold memory


class Handover:
    """Between the encoder and what keeps its vectors: who puts waits until it was taken, so that the encoder is never more than
    one slice ahead. A kill loses what was embedded and not staged.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(1)

    def put(self, work: Any) -> None:
        """Hand over; returns when it was taken."""
        self._queue.put(work)
        self._queue.join()

    def get(self) -> Any:
        """Take what comes next."""
        work = self._queue.get()
        self._queue.task_done()
        return work


class Ownership:
    """Which partitions this worker may work on, under which claim. Read by every stage, so that lost work stops early."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, int], Claim] = {}
        self._lock = threading.Lock()

    def take(self, claim: Claim) -> None:
        """From now on the partition is worked on under this claim."""
        with self._lock:
            self._claims[claim.topic, claim.partition] = claim

    def drop(self, topic: str, partition: int) -> None:
        """Give the partition up, under whatever claim."""
        with self._lock:
            self._claims.pop((topic, partition), None)

    def disown(self, claim: Claim) -> None:
        """Give up this claim; a newer one of the same partition stays."""
        with self._lock:
            if self._claims.get((claim.topic, claim.partition)) is claim:
                del self._claims[claim.topic, claim.partition]

    def held(self, topic: str, partition: int) -> Claim | None:
        """The claim in force on a partition."""
        return self._claims.get((topic, partition))

    def holds(self, claim: Claim) -> bool:
        """Whether this very claim is in force."""
        return self.held(claim.topic, claim.partition) is claim


class LostError(Exception):
    """The partition went while its batch was in work."""


class Ahead:
    """Stages the slices of one batch, each while the next is encoded; the encoder waits for the one before. Used in one `with`,
    at whose end nothing is in work any more.
    """

    def __init__(self, stages: Stages, holds: Callable[[Claim], bool], clock: Callable[[], float]) -> None:
        self._stages = stages
        self._holds = holds
        self._clock = clock
        self._held_at = clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")  # begins with the first slice, which few batches have
        self._staging: Future[Work] | None = None
        self._keys: Keys = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()

    def keep(self, work: Work) -> Work:
        """Begin to stage what the work has vectors of; the work without them. Raises what staging the slice before raised."""
        self._wait()
        if not self._holds(work.batch.claim):
            raise LostError
        self._staging = self._thread.submit(self._stages.stage, work)
        return replace(work, staging=None, vectors={})

    def hold(self) -> None:
        """Keep what was staged from the collector: no document has it yet, and the batch may take longer than a grace."""
        now = self._clock()
        if now - self._held_at < HOLD_EVERY:
            return
        keys, last = self._keys, self._staging
        if last is not None and last.done() and last.exception() is None:  # what it raised is for who waits for it
            keys = merged(keys, last.result().keys)
        self._held_at = now
        try:
            self._stages.hold(keys)
        except Exception as error:  # noqa: BLE001 - foreign keys see what is gone; the partition that gave way is not to pay
            _log.warning("index.staged_not_kept", error=type(error).__name__)

    def settled(self, work: Work) -> Work:
        """The work with the keys of all that was kept."""
        self._wait()
        return replace(work, keys=merged(work.keys, self._keys))

    def _wait(self) -> None:
        if self._staging is not None:
            self._keys = merged(self._keys, self._staging.result().keys)


class Pipeline:
    """Takes batches and reports how each ended, alone or joined with its neighbours, exactly once. `submit` and `ended` belong
    to one thread.
    """

    def __init__(self, stages: Stages, ownership: Ownership, spans: Spans, clock: Callable[[], float] = time.monotonic) -> None:
        self._stages = stages
        self._ownership = ownership
        self._spans = spans
        self._clock = clock
        self._ended: queue.SimpleQueue[End] = queue.SimpleQueue()
        self._entry: FairQueue[Work] = FairQueue(take_joined)  # bounded by the bytes that the worker lets in flight
        self._under_way: dict[tuple[str, int], Ahead] = {}  # partitions whose batches are embedded, the latest last
        self._encoding: dict[str, Callable[[Work], Any]] = {"plan": stages.plan, "embed": self._embed}
        self._staging = Handover()
        applying: queue.Queue[Any] = queue.Queue(BATCHES_TO_APPLY)
        self._threads = [
            self._thread(self._encoding, self._entry.get, self._staging.put),
            self._thread({"stage": stages.stage}, self._staging.get, applying.put),
            self._thread({"apply": stages.apply}, applying.get, self._ended.put),
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Batch) -> None:
        """Hand a batch in; returns at once."""
        self._entry.put((batch.claim.topic, batch.claim.partition), Work.of(batch))

    def ended(self) -> list[End]:
        """How batches ended since the last call."""
        ends = []
        while not self._ended.empty():
            ends.append(self._ended.get())
        return ends

    def _embed(self, work: Work) -> Work:
        """Embed a batch; of a large one all but the last slice is staged by then, and other partitions came in between."""
        partition = work.batch.claim.topic, work.batch.claim.partition
        with Ahead(self._stages, self._ownership.holds, self._clock) as ahead:

            def keep(done: Work) -> Work:
                kept = ahead.keep(done)
                for each in self._under_way.values():
                    each.hold()
                self._give_way()
                return kept

            self._under_way[partition] = ahead
            try:
                return ahead.settled(self._stages.embed(work, keep))
            finally:
                del self._under_way[partition]

    def _give_way(self) -> None:
        """Let a batch of another partition go first: a large document is minutes of work, and others are not to wait for it."""
        other = self._entry.other(self._under_way)
        if other is not None:
            self._pass_on(self._encoding, other, self._staging.put)

    def _thread(
        self, steps: Mapping[str, Callable[[Work], Any]], take: Callable[[], Work], forward: Callable[[Any], None]
    ) -> threading.Thread:
        def run() -> None:
            while True:
                self._pass_on(steps, take(), forward)

        return threading.Thread(target=run, name=" and ".join(steps), daemon=True)

    def _pass_on(self, steps: Mapping[str, Callable[[Work], Any]], work: Work, forward: Callable[[Any], None]) -> None:
        """Take a batch through the steps of a thread, to the next one or to its end."""
        done: Any = work
        for name, step in steps.items():
            done = done if isinstance(done, Dropped) else self._guarded(name, step, done)
        (self._ended.put if isinstance(done, Applied | Dropped) else forward)(done)

    def _guarded(self, name: str, step: Callable[[Work], Any], work: Work) -> Any:
        """The step's result, or the batch dropped."""
        batch = work.batch
        if not self._ownership.holds(batch.claim):
            return Dropped(batch=batch)
        try:
            with self._spans.stage(name, batch):
                return step(work)
        except LostError:
            return Dropped(batch=batch)
        except Exception as error:  # noqa: BLE001 - one answer to every surprise; the worker tells them apart
            self._ownership.disown(batch.claim)  # at once: the batches behind this one must not reach the fence
            return Dropped(batch=batch, error=error)
