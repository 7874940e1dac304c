"""The queue before the pipeline serves partitions in turn, and each in its order."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from livedex.index.fair import FairQueue
from support.records import reproducible
from support.waiting import until


def test_a_hot_partition_makes_others_wait_for_one_item_only() -> None:
    """However much of it came first."""
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put("hot", f"hot {number}")
    queue.put("calm", "calm 0")
    assert [queue.get() for _ in range(3)] == ["hot 0", "calm 0", "hot 1"]


def test_who_had_the_last_turn_waits_for_the_others() -> None:
    """Also where its next item came first."""
    queue: FairQueue[str] = FairQueue()
    queue.put("hot", "hot 0")
    assert queue.get() == "hot 0"
    for item in ("hot 1", "hot 2"):
        queue.put("hot", item)
    queue.put("calm", "calm 0")
    assert [queue.get() for _ in range(3)] == ["calm 0", "hot 1", "hot 2"]


@reproducible
@given(st.lists(st.integers(0, 3), max_size=50))
def test_everything_comes_out_once_and_in_the_order_of_its_partition(partitions: list[int]) -> None:
    """And no partition is served twice while another one waits."""
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number, partition in enumerate(partitions):
        queue.put(partition, (partition, number))
    out = [queue.get() for _ in partitions]
    assert sorted(out) == sorted((partition, number) for number, partition in enumerate(partitions))
    for partition in set(partitions):
        numbers = [number for at, number in out if at == partition]
        assert numbers == sorted(numbers)
    for place, (partition, _) in enumerate(out[1:], 1):
        left = {at for at, _ in out[place:]}
        assert partition != out[place - 1][0] or left == {partition}


def test_one_of_the_others_may_be_asked_for() -> None:
    """Without waiting; none of those that are under way."""
    queue: FairQueue[str] = FairQueue()
    for item in ("large 0", "small 0", "large 1"):
        queue.put(item.split()[0], item)
    assert queue.get() == "large 0"
    assert queue.other(["large"]) == "small 0"
    assert queue.other(["large"]) is None
    assert queue.get() == "large 1"


def test_who_asks_an_empty_queue_waits() -> None:
    """Until something comes."""
    queue: FairQueue[str] = FairQueue()
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()), daemon=True)
    thread.start()
    queue.put("p", "late")
    until(lambda: got == ["late"], timeout=5, what="the item")
