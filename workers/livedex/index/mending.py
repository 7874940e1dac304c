"""Faults of the pinned client (3.0.12) that would make a worker stand still, and how they are got around before every poll.

They need members that are private to the client: the version is pinned, and a test for each fault watches.
"""

from kafka import KafkaConsumer


def before_poll(consumer: KafkaConsumer) -> None:
    """Put right what the last poll may have left behind."""
    _free_parked(consumer)
    _keep_joining(consumer)


def _free_parked(consumer: KafkaConsumer) -> None:
    """Let go of a used-up batch that the client still holds as the next one: while it does, records that were parked when their
    partition was paused are never given out after the resume, and the partition stays silent.
    """
    fetcher = consumer._fetcher  # noqa: SLF001
    if not fetcher._next_partition_records:  # noqa: SLF001
        fetcher._next_partition_records = None  # noqa: SLF001


def _keep_joining(consumer: KafkaConsumer) -> None:
    """Remind the client of a join that a poll began and did not live to see: when its reason was new metadata, the client
    forgets it as soon as the leader has assigned the partitions, and the member stays in the group without them for ever.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    if coordinator._join_task is not None and not coordinator.rejoin_needed:  # noqa: SLF001
        coordinator.request_rejoin()
