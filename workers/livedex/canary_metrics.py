"""What a canary measures, and how one document of it fared."""

from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from livedex.errors import LivedexError
from livedex.observe import FRESHNESS_BUCKETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one document fared."""

    at: float  # when it was published, seconds since 1970
    seconds: float  # from then until it was found, or given up
    topic: str
    partition: int | None  # None: Kafka did not say which there are
    collection: str
    token: str | None  # None: Kafka did not take it
    error: LivedexError | None  # why it was not found; None: it was

    @property
    def outcome(self) -> str:
        """As the counter has it."""
        return "found" if self.error is None else "failed"


class CanaryMetrics:
    """By topic: one that fails for ever must not hide behind others that do not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "livedex_canary_seconds", "From a canary document published to found",
            ["topic"], buckets=FRESHNESS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.runs = Counter(
            "livedex_canary_runs", "Canary documents by what became of them", ["topic", "outcome"], registry=registry
        )
        self.last_success = Gauge(
            "livedex_canary_last_success_timestamp_seconds", "When a canary document was found last; 0: none since it began",
            ["topic"], registry=registry,
        )  # fmt: skip
        self.began = Gauge(
            "livedex_canary_began_timestamp_seconds", "Since when this canary publishes there", ["topic"], registry=registry
        )
        self.turn = Gauge(
            "livedex_canary_turn_seconds", "The longest time between two of its documents there", ["topic"], registry=registry
        )
        self._topics: frozenset[str] = frozenset()

    def follow(self, topics: Collection[str], *, turn: float, now: float) -> None:
        """Tell of these topics, and of no other: new ones begin at 0, so that their first document shows as an increase, and of
        those that another canary looks after nothing old is told. `turn` seconds, `now` seconds since 1970.
        """
        for topic in self._topics - set(topics):
            for gauge in (self.last_success, self.began, self.turn):
                gauge.remove(topic)
        for topic in set(topics) - self._topics:
            self.seconds.labels(topic)
            for outcome in ("found", "failed"):
                self.runs.labels(topic, outcome)
            self.last_success.labels(topic).set(0)
            self.began.labels(topic).set(now)
        for topic in topics:
            self.turn.labels(topic).set(turn)
        self._topics = frozenset(topics)

    def note(self, run: Run) -> None:
        """Count a run."""
        self.runs.labels(run.topic, run.outcome).inc()
        if run.error is None:
            self.seconds.labels(run.topic).observe(run.seconds)
            self.last_success.labels(run.topic).set(run.at + run.seconds)
