"""What `livedex doctor` takes for wrong, on both sides of each limit."""

import pytest

from livedex.core.health_rules import (
    LARGEST_CLOCK_DIFFERENCE,
    LEAST_FREE,
    SHORTEST_RETENTION,
    SMALLEST_BUFFERS,
    buffers,
    clocks,
    disks,
    future,
    rights,
    topic_settings,
)

MB, GB = 2**20, 2**30
LARGEST = 32 * MB


def test_buffers_have_a_least_size() -> None:
    """Below 512 MB inserts into the vector index are slow."""
    assert buffers(SMALLEST_BUFFERS, 64 * MB, {}) is None
    assert buffers(SMALLEST_BUFFERS - 1, 64 * MB, {}) == "shared_buffers is 511 MB: set at least 512 MB"


def test_a_build_needs_memory() -> None:
    """The larger of the two settings is what it gets; the largest collection is named."""
    needed = {"small": MB, "large": GB}
    assert buffers(GB, 64 * MB, needed) is None
    assert buffers(SMALLEST_BUFFERS, GB, needed) is None
    said = buffers(SMALLEST_BUFFERS, 64 * MB, needed)
    assert said is not None
    assert said.startswith("building the index of collection large needs 1024 MB and gets 512 MB")


def test_clocks_may_differ_by_little() -> None:
    """Ahead or behind; each that differs is named with how far."""
    near = {"a": LARGEST_CLOCK_DIFFERENCE, "b": -LARGEST_CLOCK_DIFFERENCE}
    assert clocks(near) is None
    assert clocks({**near, "kafka's clock": 3600.0, "d": -3.0}) == (
        "kafka's clock is 3600.0 s ahead of this clock, d is 3.0 s behind this clock: synchronise them"
    )


def test_records_are_from_the_past() -> None:
    """However old; one that is from later is a producer's clock."""
    assert future({"t": -1e6, "u": LARGEST_CLOCK_DIFFERENCE}) is None
    assert future({"t": 3600.0}) == "records are from the future, in t by 3600 s: synchronise their producers' clocks"


def test_disks_have_room() -> None:
    """An absolute size, and a share of the disk."""
    assert disks({}) is None
    assert disks({"a": (LEAST_FREE, 10 * LEAST_FREE)}) is None
    assert (
        disks({"a": (LEAST_FREE - 1, 10 * LEAST_FREE)})
        == "a has 1023 MB of 10240 MB left: make room, or Postgres and Kafka stop"
    )
    assert "b has 2048 MB" in (disks({"a": (GB, 2 * GB), "b": (2 * GB, 100 * GB)}) or "")


SOUND = {"max.message.bytes": str(LARGEST), "cleanup.policy": "delete", "retention.ms": "604800000"}


@pytest.mark.parametrize(
    ("more", "split", "says"),
    [
        ({}, True, []),
        ({"cleanup.policy": "compact"}, False, []),
        ({"retention.ms": "-1"}, False, []),
        ({"retention.ms": str(SHORTEST_RETENTION * 1000)}, False, []),
        ({"cleanup.policy": "compact", "retention.ms": "1000"}, False, []),
        ({"max.message.bytes": "1048588"}, False, ["takes records of 1048588 bytes"]),
        ({"cleanup.policy": "delete, compact"}, True, ["is compacted"]),
        ({"retention.ms": "3600000"}, False, ["loses events after 1.0 h"]),
        ({"max.message.bytes": "1", "retention.ms": "3600000"}, False, ["takes records of 1 bytes", "loses events"]),
    ],
)
def test_topics_lose_nothing(more: dict[str, str], split: bool, says: list[str]) -> None:
    """Large events are taken, no text is compacted away, and a worker may be away for a day; each remedy is a command."""
    wrong = topic_settings("t", {**SOUND, **more}, largest=LARGEST, split=split)
    assert len(wrong) == len(says)
    for sentence, part in zip(wrong, says, strict=True):
        assert part in sentence
        assert "kafka-configs.sh --alter --topic t --add-config" in sentence


def test_rights_are_all_there() -> None:
    """What is lacking is named with who lacks it; where the broker does not say, nothing is claimed."""
    assert rights("topic t", ["READ", "DESCRIBE"], ["DESCRIBE", "READ", "WRITE"], principal="u") is None
    assert rights("topic t", ["READ"], None, principal="u") is None
    assert rights("topic t", ["READ", "DESCRIBE"], ["DESCRIBE"], principal="u") == (
        "u lacks READ on topic t: kafka-acls.sh --add allows it"
    )
