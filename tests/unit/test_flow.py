"""How much is in flight decides which partitions are held back, so that memory stays bounded and nothing stands still."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.index.flow import PARTITION_HIGH, PARTITION_LOW, TOTAL_HIGH, InFlight
from support.records import reproducible


def test_a_partition_is_held_back_between_its_marks() -> None:
    """Above the high mark it is paused, below the low mark it goes on, between them it stays as it is."""
    flow: InFlight[str] = InFlight()
    flow.add("a", PARTITION_HIGH)
    assert (flow.to_pause(["a", "b"]), flow.to_resume(["a"])) == ([], [])
    flow.add("a", 1)
    assert (flow.to_pause(["a", "b"]), flow.to_resume(["a"])) == (["a"], [])
    flow.remove("a", PARTITION_HIGH)
    flow.add("a", PARTITION_LOW - 1)
    assert (flow.to_pause(["a"]), flow.to_resume(["a"])) == ([], [])
    flow.remove("a", 1)
    assert (flow.to_pause(["a"]), flow.to_resume(["a"])) == ([], ["a"])


def test_all_are_held_back_when_the_whole_is_too_much() -> None:
    """Many partitions below their own marks can be too much together."""
    flow: InFlight[int] = InFlight()
    for partition in range(TOTAL_HIGH // PARTITION_LOW + 1):
        flow.add(partition, PARTITION_LOW)
    assert flow.to_pause([0, 1, 99]) == [0, 1, 99]
    assert flow.to_resume([98, 99]) == []
    flow.remove(0, PARTITION_LOW)
    assert flow.to_pause([0, 1, 99]) == []
    assert flow.to_resume([0, 1, 99]) == [0, 99]


def test_batches_that_became_one_end_together() -> None:
    """All of them are in flight until then."""
    flow: InFlight[str] = InFlight()
    for _ in range(3):
        flow.add("a", 5)
    flow.remove("a", 10, batches=2)
    assert (flow.of("a"), flow.bytes, flow.empty) == (1, 5, False)
    flow.remove("a", 5)
    assert (flow.of("a"), flow.bytes, flow.empty) == (0, 0, True)


@pytest.mark.parametrize("size", [0, 1, TOTAL_HIGH * 2])
def test_nothing_in_flight_lets_everything_go_on(size: int) -> None:
    """A single batch above every mark goes through; an empty one counts as in flight."""
    flow: InFlight[str] = InFlight()
    assert flow.empty
    flow.add("a", size)
    assert not flow.empty
    flow.remove("a", size)
    assert flow.empty
    assert flow.to_resume(["a", "b"]) == ["a", "b"]


@settings(reproducible, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, TOTAL_HIGH)), max_size=20))
def test_what_ends_frees_what_is_held(batches: list[tuple[int, int]]) -> None:
    """No partition is both to pause and to resume, and in the end all resume: nothing can stand still for ever."""
    flow: InFlight[int] = InFlight()
    for partition, size in batches:
        flow.add(partition, size)
        assert not set(flow.to_pause(range(4))) & set(flow.to_resume(range(4)))
    for partition, size in batches:
        flow.remove(partition, size)
    assert (flow.empty, flow.to_pause(range(4)), flow.to_resume(range(4))) == (True, [], [0, 1, 2, 3])
