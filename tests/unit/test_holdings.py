"""What a worker does with its partitions when their source was stopped, or reset."""

from dataclasses import replace
from typing import Any

import pytest
from kafka import TopicPartition
from prometheus_client import Gauge

from livedex.catalogue import Source
from livedex.errors import UnavailableError
from livedex.index.holdings import Holdings
from livedex.index.partition import Hold
from livedex.index.pipeline import Ownership
from livedex.lifecycle import Health
from livedex.observe import IndexMetrics

PLACE = TopicPartition("t", 0)
LIVE = Source(topic="t", collection_id=1, epoch=0, state="live", reason=None, topic_id=None, partitions=None)
STOPPED = replace(LIVE, state="stopped", reason="the log was cut off")


class Reader:
    """As much of the client as is asked here: it lets go of a partition."""

    def release(self, partition: TopicPartition) -> None:
        """See KafkaSource."""


def held(hold: Hold) -> Holdings:
    """Holdings with one partition, held for this reason."""
    unused: Any = None
    reader: Any = Reader()
    metrics = IndexMetrics()
    health = Health(Gauge("up", "", ["dependency"], registry=None), "kafka", "embedder")
    own = Holdings(
        source=reader, claims=unused, ownership=Ownership(), metrics=metrics, health=health, jitter=lambda: 0.0
    )  # fmt: skip
    own.changed([PLACE], [])
    if hold is Hold.STOPPED:
        own.leave(PLACE, "the log was cut off")
    return own


def test_who_has_nothing_left_that_waited_for_the_encoder_does_not_wait_for_it() -> None:
    """The partition went to another worker: whether the encoder is back is told there."""
    own = held(Hold.CLAIM)
    health = own._health
    health.down("embedder", UnavailableError("embedder", "it does not answer"))
    own.partitions[PLACE].held(Hold.EMBEDDER, 0.0, due=None)
    own.changed([TopicPartition("t", 1)], [])
    assert "embedder" in health.waiting_for
    own.changed([], [PLACE])
    assert "embedder" not in health.waiting_for


@pytest.mark.parametrize(
    ("hold", "before", "now", "expected"),
    [
        (Hold.CLAIM, LIVE, STOPPED, Hold.STOPPED),
        (Hold.STOPPED, STOPPED, STOPPED, Hold.STOPPED),
        (Hold.STOPPED, STOPPED, replace(LIVE, state="rebuilding"), Hold.CLAIM),
        (Hold.STOPPED, STOPPED, LIVE, Hold.CLAIM),
        (Hold.STOPPED, STOPPED, replace(LIVE, epoch=1), Hold.CLAIM),
    ],
    ids=["stopped", "stays stopped", "rebuilding", "rebuilt since the last look", "a new epoch"],
)
def test_a_partition_follows_its_source(hold: Hold, before: Source, now: Source, expected: Hold) -> None:
    """It is left when the source stops, and claimed again after a reset, also one that was over before anybody looked."""
    own = held(hold)
    own.follow({"t": before}, {"t": now})
    found = own.partitions[PLACE]
    assert found.hold is expected
    assert (found.due is None) is (expected is Hold.STOPPED)
