"""Progress of a partition as its owner knows it: staleness is that of the oldest event that is not applied."""

from livedex.core.progress import PartitionProgress


def test_nothing_waits_at_first() -> None:
    """A partition that nothing was read from is not stale, and behind by what the log has."""
    progress = PartitionProgress(next_offset=5)
    assert (progress.staleness(1000.0, 0), progress.lag(0)) == (0.0, 0)
    progress.end_offset = 12
    assert (progress.lag(0), progress.lag(15)) == (7, 10)


def test_the_oldest_event_that_waits_counts() -> None:
    """In whatever batch it is, until that batch is applied; never below zero."""
    progress = PartitionProgress(next_offset=0)
    progress.polled(0, 9, 100.0)
    progress.polled(10, 19, 90.0)
    progress.polled(20, 29, 110.0)
    assert progress.staleness(120.0, 0) == 30.0
    progress.applied(10)
    assert progress.staleness(120.0, 0) == 30.0
    progress.applied(20)
    assert progress.staleness(120.0, 0) == 10.0
    assert progress.staleness(50.0, 0) == 0.0
    progress.applied(30)
    assert progress.staleness(1000.0, 0) == 0.0
    assert progress.next_offset == 30


def test_a_batch_is_not_applied_in_part() -> None:
    """It waits until the progress has passed its last offset."""
    progress = PartitionProgress(next_offset=0)
    progress.polled(0, 9, 100.0)
    progress.applied(9)
    assert progress.staleness(101.0, 0) == 1.0
    progress.applied(10)
    assert progress.staleness(101.0, 0) == 0.0


def test_reading_again_does_not_make_events_younger() -> None:
    """After a drop the same events come again, in batches cut elsewhere: the age counts from the first reading."""
    progress = PartitionProgress(next_offset=0)
    progress.polled(0, 9, 100.0)
    progress.polled(0, 4, 150.0)
    progress.polled(5, 25, 150.0)
    assert progress.staleness(300.0, 0) == 200.0
    progress.applied(26)
    assert progress.staleness(300.0, 0) == 0.0


def test_reading_again_does_not_make_events_linger() -> None:
    """The same batches once more, as after a drop: each is gone when it is applied."""
    progress = PartitionProgress(next_offset=0)
    for _ in range(2):
        progress.polled(0, 9, 100.0)
        progress.polled(10, 19, 200.0)
    progress.applied(10)
    assert progress.staleness(300.0, 0) == 100.0
    progress.applied(20)
    assert progress.staleness(300.0, 0) == 0.0


def test_the_lag_is_never_negative() -> None:
    """The end that was heard of may be older than the progress."""
    assert PartitionProgress(next_offset=9, end_offset=5).lag(0) == 0


def test_what_nobody_reads_grows_stale() -> None:
    """From the moment when the reading ended, while the log has more, or while nobody knows; until the next claim."""
    progress = PartitionProgress(stalled_since=100.0)
    assert progress.staleness(130.0, 0) == 30.0
    progress.claimed(5)
    assert progress.staleness(130.0, 9) == 0.0
    progress.stalled(140.0)
    progress.stalled(150.0)
    assert progress.staleness(160.0, 9) == 20.0
    assert progress.staleness(160.0, 5) == 0.0


def test_events_that_nobody_read_make_a_partition_stale() -> None:
    """Although nothing was polled, from the moment when they were seen; and no longer once they are read and applied."""
    progress = PartitionProgress(next_offset=5)
    progress.saw_end(5, 100.0)
    assert progress.staleness(200.0, 5) == 0.0
    progress.saw_end(7, 100.0)
    progress.saw_end(9, 110.0)
    assert progress.staleness(130.0, 9) == 30.0
    progress.polled(5, 8, 95.0)
    assert progress.staleness(130.0, 9) == 35.0
    progress.applied(9)
    assert progress.staleness(130.0, 9) == 0.0
    progress.saw_end(9, 131.0)
    progress.saw_end(10, 140.0)
    assert progress.staleness(141.0, 10) == 1.0
