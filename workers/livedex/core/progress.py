"""How far a partition is: what is polled, what is applied, and how old the oldest event is that is not."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class PartitionProgress:
    """Progress of one partition as its owner knows it. Offsets rise; times are seconds since 1970."""

    next_offset: int | None = None  # everything before it is applied; None: the database was not asked yet
    end_offset: int = 0  # the log's end as last heard of
    stalled_since: float | None = None  # nobody reads the partition since then
    behind_since: float | None = None  # the log is known to have more than was read since then
    unseen_since: float | None = None  # nobody could look where the log ends since then: it may have more
    _waiting: deque[tuple[int, float]] = field(default_factory=deque)  # (last offset, oldest timestamp) of each batch

    def polled(self, first_offset: int, last_offset: int, oldest_timestamp: float) -> None:
        """A batch was read. Reading it again, after it was dropped, does not make its events younger."""
        if not self._waiting or first_offset > self._waiting[-1][0]:
            self._waiting.append((last_offset, oldest_timestamp))
        elif last_offset > self._waiting[-1][0]:
            self._waiting[-1] = (last_offset, min(self._waiting[-1][1], oldest_timestamp))

    def applied(self, next_offset: int) -> None:
        """Everything before `next_offset` is searchable, or a dead letter."""
        self.next_offset = next_offset
        while self._waiting and self._waiting[0][0] < next_offset:
            self._waiting.popleft()

    def claimed(self, next_offset: int) -> None:
        """The database said where to read on."""
        self.applied(next_offset)
        self.stalled_since = None

    def stalled(self, now: float) -> None:
        """Nobody reads the partition until the next claim."""
        self.stalled_since = self.stalled_since or now

    def saw_end(self, end_offset: int, now: float) -> None:
        """Somebody looked where the log ends."""
        self.unseen_since = None
        if self.next_offset is not None and self.lag(end_offset):
            self.behind_since = self.behind_since or now
        else:
            self.behind_since = None

    def lost_sight(self, since: float) -> None:
        """Nobody can look where the log ends; the last one could before `since`."""
        self.unseen_since = self.unseen_since or since

    def lag(self, end_offset: int) -> int:
        """Offsets between the log's end, as somebody else or the last fetch saw it, and the progress."""
        return max(0, max(end_offset, self.end_offset) - (self.next_offset or 0))

    def staleness(self, now: float, end_offset: int) -> float:
        """Seconds since the oldest event that was read and is not applied; 0 when there is none. Events that nobody read yet
        count from the moment when the reading ended, or when they were seen to be there; while nobody can look, there may be
        some. Any thread may ask.
        """
        oldest = [timestamp for _, timestamp in tuple(self._waiting)]  # a copy in one step: the owner changes it meanwhile
        if not oldest:
            behind = self.next_offset is None or self.lag(end_offset) > 0
            since = (self.unseen_since, *((self.stalled_since, self.behind_since) if behind else ()))
            oldest = [moment for moment in since if moment is not None]
        return max(0.0, now - min(oldest, default=now))
