"""The Kafka side of the index worker: one consumer, owned by one thread, that never moves past what the worker has not taken.

A partition is read only between `begin` (with the offset that the database gave) and `release`. Everything else about
ownership is the worker's business: this side tells what it gained and lost.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import FencedInstanceIdError, KafkaError, LogTruncationError, OffsetOutOfRangeError

from livedex.config import GROUP, KafkaSettings
from livedex.core.continuity import Topic
from livedex.core.record import Record
from livedex.core.trace_context import TraceContext
from livedex.errors import ConfigError
from livedex.index import mending
from livedex.index.inspection import Inspection
from livedex.index.reach import Reach
from livedex.index.unreadable import UnreadableError, WithheldError, unreadable
from livedex.kafka import open_admin, open_client, topic_of, translated, waited_for

# A position that no log has. A partition that is read without its stored position makes poll() raise
# OffsetOutOfRangeError, instead of silently reading the wrong records.
UNCLAIMED = 2**63 - 1

SETTINGS = {
    "enable_auto_commit": False,  # poll() moves the position before the work is done
    "auto_offset_reset": "none",  # a lost position is an error, never a silent skip
    "isolation_level": "read_committed",  # what a transaction took back never happened
    "partition_assignment_strategy": [CooperativeStickyAssignor],
    "heartbeat_interval_ms": 500,  # a member learns of a rebalance at its next heartbeat
    "session_timeout_ms": 10_000,  # a killed member's partitions move after this long
    "fetch_max_wait_ms": 100,  # a seek or a resume waits for the long poll in flight
    "fetch_max_bytes": 8 * 2**20,  # read ahead of need; larger records still come, one at a time
    "max_poll_records": 100,  # bounds a batch, and so how long its first event waits for its last
}
ASK_TIMEOUT_MS = 2_000
CLOSE_TIMEOUT_MS = 2_000


class LostPositionError(Exception):
    """The log no longer has the records at the stored position: retention passed it, or the topic was recreated."""

    def __init__(self, partitions: Iterable[TopicPartition], why: str) -> None:
        super().__init__(why)
        self.partitions = frozenset(partitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What one poll brought. Changes of ownership come before the records."""

    gained: tuple[TopicPartition, ...]  # to be claimed, before they are read
    lost: tuple[TopicPartition, ...]
    records: Mapping[TopicPartition, tuple[Record, ...]]


class KafkaSource(ConsumerRebalanceListener):
    """A member of the consumer group. All methods but the listener's belong to one thread."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._settings = settings
        self._admin: KafkaAdminClient | None = None
        self._consumer = open_client(KafkaConsumer, settings, client_id, group_id=GROUP, **SETTINGS)
        self._reach = Reach(settings)
        Inspection(self._consumer, self._reach)
        self._reading: set[TopicPartition] = set()
        self._events: deque[tuple[bool, frozenset[TopicPartition]]] = deque()  # (gained?, partitions), as they happened
        self.joined = False  # whether the group has given this member an assignment, maybe an empty one

    # The listener runs on the client's I/O thread, while the owner is inside poll() or close(). It touches memory only: what
    # blocks here stops the heartbeats.
    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause what came, at a position that no log has, until the worker has claimed it."""
        for partition in assigned:
            self._consumer.pause(partition)
            self._consumer.seek(partition, UNCLAIMED)
        self._events.append((True, frozenset(assigned)))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Remember what went."""
        self._events.append((False, frozenset(revoked)))

    on_partitions_lost = on_partitions_revoked

    def subscribe(self, topics: Iterable[str]) -> None:
        """Follow these topics, and no others."""
        with translated():
            self._consumer.subscribe(list(topics), listener=self)

    def poll(self, timeout: float) -> Polled:
        """Wait up to `timeout` seconds for records. LostPositionError when a position is not in its log, UnreadableError when
        the records at it cannot be taken apart, WithheldError when the broker refuses them; none may be polled on without
        `release`. ConfigError when another worker has this one's group_instance_id; any other KafkaError may pass.
        """
        mending.before_poll(self._consumer)
        with translated():
            try:
                batches = self._consumer.poll(int(timeout * 1000))
            except OffsetOutOfRangeError as error:
                raise LostPositionError(error.args[0], "the log has no such offset") from error
            except LogTruncationError as error:
                raise LostPositionError(error.divergent_offsets, "the log was cut off before it") from error
            except FencedInstanceIdError as error:
                raise _same_instance() from error
            except (UnreadableError, WithheldError):
                raise
            except Exception as error:
                found = unreadable(self._consumer, error)
                if found is None:
                    raise
                raise found from error
        gained, lost = self._ownership_changes()
        records = {tp: tuple(map(_record, batch)) for tp, batch in batches.items() if tp in self._reading}
        return Polled(gained=gained, lost=lost, records=records)

    def _ownership_changes(self) -> tuple[tuple[TopicPartition, ...], tuple[TopicPartition, ...]]:
        gained: dict[TopicPartition, None] = {}
        lost: dict[TopicPartition, None] = {}
        while self._events:
            came, partitions = self._events.popleft()
            self.joined = self.joined or came
            # Also for a partition that stayed here: its position in memory is not the stored one.
            self._reading -= partitions
            (gained if came else lost).update(dict.fromkeys(partitions))
        present = self._consumer.assignment()
        return tuple(tp for tp in gained if tp in present), tuple(lost)

    def topic(self, name: str) -> Topic | None:
        """The topic as it is now; None when there is none."""
        with waited_for(), translated():
            self._admin = self._admin or open_admin(self._settings, "livedex-claims")
            return topic_of(self._admin, name)

    def start_of(self, partition: TopicPartition) -> int:
        """The first offset that the log still has."""
        with translated():
            return int(self._consumer.beginning_offsets([partition], timeout_ms=ASK_TIMEOUT_MS)[partition])

    def last_of(self, partition: TopicPartition) -> int:
        """The end of the log, asked now: the offset that the next record will have, or the first of an open transaction."""
        with translated():
            return int(self._consumer.end_offsets([partition], timeout_ms=ASK_TIMEOUT_MS)[partition])

    def position(self, partition: TopicPartition) -> int | None:
        """Up to where a claimed partition was read, gaps and markers of transactions included; None also while the client
        cannot say: it asks the broker whether its position is still in the log when that came back with another epoch.
        """
        if partition not in self._reading or not self.holds(partition):
            return None
        try:
            position = self._consumer.position(partition, timeout_ms=ASK_TIMEOUT_MS)
        except (KafkaError, OSError):
            return None  # the next poll says what is wrong
        return None if position is None else int(position)

    def begin(self, partition: TopicPartition, offset: int) -> None:
        """Read a claimed partition from here on."""
        self._consumer.seek(partition, offset)
        self._consumer.resume(partition)
        self._reading.add(partition)

    def release(self, partition: TopicPartition) -> None:
        """Stop reading until the next `begin`; what was read ahead is forgotten."""
        self._reading.discard(partition)
        if partition in self._consumer.assignment():
            self._consumer.pause(partition)
            self._consumer.seek(partition, UNCLAIMED)

    def pause(self, partition: TopicPartition) -> None:
        """Hold a partition back, at its position."""
        self._consumer.pause(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Go on with a partition that was held back."""
        if partition in self._reading:
            self._consumer.resume(partition)

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """Partitions that are held back, claimed ones only."""
        return frozenset(self._consumer.paused() & self._reading)

    def holds(self, partition: TopicPartition) -> bool:
        """Whether the group gives this partition to this worker."""
        return partition in self._consumer.assignment()

    def end_of(self, partition: TopicPartition) -> int | None:
        """The log's end as the last fetch saw it."""
        return self._consumer.highwater(partition) if self.holds(partition) else None

    def report(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell Kafka the progress, for lag exporters and autoscalers. Nothing depends on it, so failing is no error."""
        committed = {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items() if self.holds(tp)}
        if not committed:
            return
        try:
            self._consumer.commit(committed, timeout_ms=1_000)
        except FencedInstanceIdError as error:
            raise _same_instance() from error
        except KafkaError:
            return

    def client_metrics(self) -> dict[str, float]:
        """The client's own metrics that are of no topic and no broker, by its names for them; any thread may ask."""
        found: dict[Any, Any] = self._consumer.metrics(raw=True) or {}
        of_all = [name for name in found if name.tags.keys() <= {"client-id"}]
        values = {name.name: float(found[name].value()) for name in of_all}
        return {name: value for name, value in values.items() if isfinite(value)}

    def close(self) -> None:
        """Leave the group."""
        if self._admin is not None:
            self._admin.close()
        self._reach.close()
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)


def _same_instance() -> ConfigError:
    return ConfigError("another worker runs with the same group_instance_id: give each its own")


def _record(record: ConsumerRecord) -> Record:
    headers = tuple((name, value) for name, value in record.headers or ())
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=headers,
        trace=TraceContext.of(headers),
    )
