"""Whether a log is still the one that the index was made from, and still has what the index needs next.

The answers are why a source must stop, in words for its operator, or None. `livedex source reset` is the remedy of all.
"""

from dataclasses import dataclass

from livedex.core.change import VersionMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as Kafka has it now."""

    topic_id: str  # a UUID: a topic that is deleted and made again gets another
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTopic:
    """A topic as the index remembers it; None: it was not read yet."""

    name: str
    topic_id: str | None
    partitions: int | None
    version_mode: VersionMode


def broken_topic(known: KnownTopic, found: Topic | None) -> str | None:
    """Judge the topic itself; `found` is None when Kafka has no topic of this name."""
    reset = f"livedex source reset {known.name}"
    if known.topic_id is None:
        return None
    if found is None:
        return f"topic {known.name} does not exist any more: make it anew, publish all documents in it, then run {reset}"
    if found.topic_id != known.topic_id:
        return (
            f"topic {known.name} was deleted and made anew, so that offsets have lost their meaning: "
            f"publish all documents in it, then run {reset}"
        )
    if known.version_mode is VersionMode.LOG and known.partitions is not None and found.partitions > known.partitions:
        return (
            f"topic {known.name} has {found.partitions} partitions, the index was made from {known.partitions}: keys moved, "
            f"and offsets of two partitions do not compare. Delete the topic, make it anew, publish all documents in it, "
            f"then run {reset}"
        )
    return None


def broken_log(topic: str, partition: int, *, next_offset: int, start: int, end: int) -> str | None:
    """Judge a partition's log, which has the offsets from `start` to before `end`, asked after `next_offset` was."""
    if next_offset < start:
        problem = f"begins at offset {start}, and the index stands at {next_offset}: the events between are gone"
    elif next_offset > end:
        problem = f"ends at offset {end}, and the index stands at {next_offset}: the log was cut off"
    else:
        return None
    return f"the log of {topic}[{partition}] {problem}. Publish all documents again, then run livedex source reset {topic}"
