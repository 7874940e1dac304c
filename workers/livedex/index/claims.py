"""Taking a partition over: in the database first, which fences whoever wrote before, and never from a log that is not the one
that the index was made from.
"""

from kafka import TopicPartition

from livedex.core.continuity import broken_log
from livedex.index.applying import Claim
from livedex.index.refusals import FencedError, SourceStoppedError
from livedex.index.source import KafkaSource
from livedex.index.store import Store


class Claims:
    """Claims partitions for one worker, and begins to read them."""

    def __init__(self, source: KafkaSource, store: Store, owner: str) -> None:
        self._source = source
        self._store = store
        self._owner = owner

    def take(self, partition: TopicPartition) -> tuple[Claim, int]:
        """Claim a partition and read it from the stored progress on; the claim, and where the log ends.

        Raises SourceStoppedError when its source is stopped, or has to be and is now.
        """
        topic, number = partition
        found, start = self._source.topic(topic), self._source.start_of(partition)
        claim = self._store.claim(topic, number, found=found, start=start, owner=self._owner)
        end = self._source.last_of(partition)  # asked after the progress, which may not be beyond it
        why = broken_log(topic, number, next_offset=claim.next_offset, start=start, end=end)
        if why is not None:
            if not self._store.stop_claimed_source(claim, why):
                raise FencedError(f"{topic}[{number}] was claimed by another, or reset, before its source could be stopped")
            raise SourceStoppedError(why)
        self._source.begin(partition, claim.next_offset)
        return claim, end
