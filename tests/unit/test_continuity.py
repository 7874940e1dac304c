"""A log is continued only while it is the one that the index was made from; every other answer names the remedy."""

import pytest

from livedex.core.change import VersionMode
from livedex.core.continuity import KnownTopic, Topic, broken_log, broken_topic

OLD, NEW = "6a2f41a3-c54c-fce8-32d2-0324e1c32e22", "aa2f41a3-c54c-fce8-32d2-0324e1c32e22"


def known(topic_id: str | None = OLD, partitions: int | None = 2, mode: VersionMode = VersionMode.LOG) -> KnownTopic:
    """What the index remembers."""
    return KnownTopic(name="docs", topic_id=topic_id, partitions=partitions, version_mode=mode)


@pytest.mark.parametrize(
    ("remembered", "found"),
    [
        (known(), Topic(topic_id=OLD, partitions=2)),
        (known(topic_id=None, partitions=None), Topic(topic_id=NEW, partitions=9)),
        (known(topic_id=None, partitions=None), None),
        (known(mode=VersionMode.SOURCE), Topic(topic_id=OLD, partitions=3)),
    ],
    ids=["the same", "never read", "not made yet", "partitions added where producers count"],
)
def test_a_topic_that_is_what_it_was_goes_on(remembered: KnownTopic, found: Topic | None) -> None:
    """So does one that was never read, and one that grew where offsets do not order events."""
    assert broken_topic(remembered, found) is None


@pytest.mark.parametrize("mode", VersionMode)
@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "does not exist any more"), (Topic(topic_id=NEW, partitions=2), "deleted and made anew")],
    ids=["gone", "another"],
)
def test_another_topic_of_the_name_stops_the_source(mode: VersionMode, found: Topic | None, words: str) -> None:
    """Whoever numbers the versions."""
    why = broken_topic(known(mode=mode), found) or ""
    assert words in why
    assert "livedex source reset docs" in why


def test_partitions_added_stop_a_source_that_is_ordered_by_offsets() -> None:
    """The reason says how many there are and were."""
    why = broken_topic(known(), Topic(topic_id=OLD, partitions=3)) or ""
    assert "has 3 partitions, the index was made from 2" in why
    assert "livedex source reset docs" in why


@pytest.mark.parametrize(
    ("next_offset", "words"),
    [(4, "begins at offset 5, and the index stands at 4"), (5, None), (9, None), (10, None), (11, "ends at offset 10")],
)
def test_the_position_must_be_in_the_log(next_offset: int, words: str | None) -> None:
    """Its end included, where the next event will be."""
    why = broken_log("docs", 1, next_offset=next_offset, start=5, end=10)
    assert (why is None) is (words is None)
    assert words is None or (words in (why or "") and "docs[1]" in (why or "") and "livedex source reset docs" in (why or ""))
