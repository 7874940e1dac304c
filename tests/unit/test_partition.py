"""What the worker knows of a partition between its coming and its going."""

from livedex.core.change import Reason, Rejection
from livedex.core.progress import PartitionProgress
from livedex.errors import ConflictError, SystemicError, UnavailableError
from livedex.index.partition import Hold, Partition, hold_of
from livedex.index.refusals import FencedError

WHY = Rejection(reason=Reason.EMBEDDING_FAILED, detail="a token that the model does not know")


def test_a_partition_is_claimed_before_it_is_read() -> None:
    """It comes held, may be claimed at once, and is read from the claim's offset."""
    own = Partition(progress=PartitionProgress())
    assert (own.reading, own.hold, own.due) == (False, Hold.CLAIM, 0.0)
    own.claimed(7)
    assert (own.reading, own.due, own.position, own.progress.next_offset) == (True, None, 7, 7)


def test_what_is_at_fault_is_remembered_until_it_is_applied() -> None:
    """For the batch that has it, and no longer."""
    own = Partition(progress=PartitionProgress(), poisoned={3: WHY, 9: WHY})
    assert own.rejections(range(5)) == {3: WHY}
    own.applied(4)
    assert own.poisoned == {9: WHY}


def test_a_stopped_source_grows_stale_whatever_its_log_is_now() -> None:
    """Another topic's offsets do not say how late the index is."""
    own = Partition(progress=PartitionProgress(next_offset=100))
    own.held(Hold.STOPPED, 50.0, due=None)
    assert own.staleness(80.0, end_offset=3) == 30.0
    own.claimed(0)
    assert own.staleness(90.0, end_offset=0) == 0.0


def test_each_failure_says_what_is_waited_for() -> None:
    """A dependency by its name; what nobody expected is a defect."""
    failures = {
        Hold.POSTGRES: UnavailableError("postgres", "gone"),
        Hold.EMBEDDER: UnavailableError("embedder", "gone"),
        Hold.SYSTEMIC: SystemicError("postgres", "no table"),
        Hold.CONFLICT: ConflictError("a lock"),
        Hold.DEFECT: ZeroDivisionError(),
    }
    assert {hold: hold_of(error) for hold, error in failures.items()} == {hold: hold for hold in failures}
    assert hold_of(FencedError()) is Hold.CONFLICT
