"""The canary: a small document that goes the way of every change, and the search that finds it. Its time is the true one, from
published to found.

It is published to a partition of a topic that users' documents come from. So the worker that owns the partition reads it,
embeds it, stages it into the users' tables and vector index, and applies it with their documents; and it is looked for over
HTTP, by a search like theirs in the same index. A collection of its own would be simpler to hide, but has another partition,
owner, model and index: it would be found while the users' documents are stuck.

No reader sees it: whatever has an id below CANARY_PREFIX is left out of searches, views and counts by the SQL functions
themselves, before any limit, except where a search says with the header CANARY_HEADER that it is a canary's. The record that
writes it has that header too; without it such an id is refused, so that no user's document disappears by its name.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, UnknownTopicOrPartitionError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from livedex import client, events
from livedex.api_token import read_token
from livedex.config import KafkaSettings
from livedex.core.canary import WORD_BITS, Probe, turn
from livedex.core.change import CANARY_HEADER
from livedex.core.record import Place
from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError
from livedex.kafka import describe, open_admin, open_producer, topics_of, translated
from livedex.lifecycle import Stop
from livedex.observe import FRESHNESS_BUCKETS

SLICE = 5.0  # seconds of one request, so that a stop is heard
PAUSE = 0.25  # seconds between two searches that found nothing
CLEAR = 2.0  # seconds that the deletion of its documents may take
K = 10

Sources = Mapping[str, str]  # the collection that each topic feeds


class CanaryMetrics:
    """What a canary measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "livedex_canary_seconds", "From a canary document published to found", buckets=FRESHNESS_BUCKETS, registry=registry
        )
        self.runs = Counter("livedex_canary_runs", "Canary documents by what became of them", ["outcome"], registry=registry)
        self.last_success = Gauge(
            "livedex_canary_last_success_timestamp_seconds", "When a canary document was found last", registry=registry
        )
        for outcome in ("found", "failed"):
            self.runs.labels(outcome)

    def note(self, run: "Run") -> None:
        """Count a run."""
        self.runs.labels(run.outcome).inc()
        if run.error is None:
            self.seconds.observe(run.seconds)
            self.last_success.set(run.at + run.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one document fared."""

    at: float  # when it was published, seconds since 1970
    seconds: float  # from then until it was found, or given up
    topic: str | None  # None: it is not known where it could have been published
    partition: int | None
    collection: str | None
    token: str | None  # None: Kafka did not take it
    error: LivedexError | None  # why it was not found; None: it was

    @property
    def outcome(self) -> str:
        """As the counter has it."""
        return "found" if self.error is None else "failed"


class _Sent:
    """A document on its way."""

    def __init__(self) -> None:
        self.at, self.began = time.time(), time.monotonic()
        self.topic: str | None = None
        self.partition: int | None = None
        self.token: str | None = None
        self.applied = False  # its event, as a query worker said

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Canary:
    """Publishes and looks, one document at a time; for one thread. Opens what it needs when it needs it."""

    def __init__(
        self, kafka: KafkaSettings, *, url: str, token_file: Path | None, who: str, timeout: float, metrics: CanaryMetrics,
        stop: Stop,
    ) -> None:  # fmt: skip
        self._kafka = kafka
        self._url = url
        self._token_file = token_file
        self._who = who
        self._timeout = timeout  # seconds from published to found, at most
        self._metrics = metrics
        self._stop = stop
        self._admin: KafkaAdminClient | None = None
        self._producer: KafkaProducer | None = None
        self._http = httpx.Client(verify=httpx.create_ssl_context(), trust_env=False, headers={CANARY_HEADER: "1"})
        self._left: dict[tuple[str, int], Probe] = {}  # the documents that are there because of it

    def count_partitions(self, topics: Sources) -> dict[str, int]:
        """How many partitions each topic has. UnavailableError, or ConfigError when there is no topic."""
        if not topics:
            raise ConfigError("there is no topic that a canary could be published to: run livedex apply")
        with _explained(", ".join(sorted(topics))):
            self._admin = self._admin or open_admin(self._kafka, "livedex-canary")
            found = topics_of(self._admin, topics)
        missing = sorted(topics.keys() - found.keys())
        if missing:
            raise ConfigError(f"kafka lacks the topic {', '.join(missing)}: run livedex apply")
        return {name: topic.partitions for name, topic in found.items()}

    def run(self, sources: Sources, number: int) -> Run | None:
        """Publish to the partition whose turn it is, and look until the document is found or the time is over. None when the
        stop came first.
        """
        sent = _Sent()
        error: LivedexError | None = None
        try:
            sent.topic, sent.partition = turn(number, self.count_partitions(sources))
            self._send_and_find(sent, sources[sent.topic])
        except _StoppedError:
            return None
        except UsageError as refused:  # it is this code that asked
            error = ConfigError(f"the query worker refuses the canary's search: {refused}")
        except LivedexError as failed:
            error = failed
        run = Run(
            at=sent.at, seconds=sent.seconds, topic=sent.topic, partition=sent.partition, token=sent.token, error=error,
            collection=sources.get(sent.topic or ""),
        )  # fmt: skip
        self._metrics.note(run)
        return run

    def _send_and_find(self, sent: _Sent, collection: str) -> None:
        """Where the event was applied and nothing is found, another canary that ended took it away: once more then."""
        assert sent.topic is not None
        assert sent.partition is not None
        for last in (False, True):
            probe = Probe.made(self._who, sent.partition, now=time.time(), chance=secrets.randbits(WORD_BITS))
            sent.at, sent.began, sent.applied = time.time(), time.monotonic(), False
            sent.token = str(self._publish(sent.topic, probe))
            if self._find(probe, sent, collection, patient=last):
                return

    def _publish(self, topic: str, probe: Probe) -> Place:
        self._left[topic, probe.partition] = probe
        event = events.upsert(probe.document_id, probe.text, **probe.fields)
        with _explained(topic):
            future = self._opened().send(
                topic, key=event.key.encode(), value=event.value, partition=probe.partition, headers=[(CANARY_HEADER, b"1")]
            )
            found = future.get(timeout=self._timeout)
        return Place(found.topic, found.partition, found.offset)

    def _opened(self) -> KafkaProducer:
        self._producer = self._producer or open_producer(self._kafka, "livedex-canary")
        return self._producer

    def _find(self, probe: Probe, sent: _Sent, collection: str, *, patient: bool) -> bool:
        """True once the document is found. False when its event was applied and it is not there, unless `patient`: then it is
        looked for as long as there is time. Raises what is the matter when that is over.
        """
        error: LivedexError | None = None
        while not self._stop.asked:
            left = self._timeout - sent.seconds
            if left <= 0:
                raise self._gave_up(sent, error)
            try:
                hits = client.search(
                    probe.text, url=self._url, token=read_token(self._token_file), k=K, collection=collection, after=sent.token,
                    timeout=min(left, SLICE), http=self._http,
                )  # fmt: skip
            except TimedOutError:
                continue
            except UnavailableError as failed:
                error = failed
            else:
                error, sent.applied = None, True
                if probe.seen_in((hit.document_id, hit.metadata) for hit in hits):
                    return True
                if not patient:
                    return False
            self._stop.wait(PAUSE)
        raise _StoppedError

    def _gave_up(self, sent: _Sent, error: LivedexError | None) -> LivedexError:
        if error is not None:
            return error
        if sent.applied:
            return TimedOutError(
                f"the event {sent.token} was applied, but no search found its document within {self._timeout:g} s: livedex "
                "dead-letters list, and livedex status, say why"
            )
        return TimedOutError(
            f"the event {sent.token} was not searchable within {self._timeout:g} s: livedex status shows the lag"
        )

    def close(self) -> None:
        """Delete the documents that are left, as far as Kafka takes it now, and let go of everything."""
        self._http.close()
        if self._admin is not None:
            self._admin.close()
        if self._producer is None:
            return
        try:
            for (topic, partition), probe in self._left.items():
                event = events.deletion(probe.document_id, int(time.time() * 1e6))
                headers = [*event.headers, (CANARY_HEADER, b"1")]
                self._producer.send(topic, key=event.key.encode(), value=None, partition=partition, headers=headers)
            self._producer.flush(timeout=CLEAR)
        except KafkaError:
            pass  # they stay, unseen, until the next canary replaces them
        self._producer.close(timeout=CLEAR)


class _StoppedError(Exception):
    """The stop came first."""


@contextmanager
def _explained(topics: str) -> Iterator[None]:
    """Kafka's errors as livedex's, with the topic that they are about."""
    try:
        with translated():
            yield
    except UnavailableError as error:
        if isinstance(error.__cause__, UnknownTopicOrPartitionError):
            raise ConfigError(f"kafka lacks the topic {topics}, or its partition: run livedex apply") from error
        raise
    except KafkaError as error:
        raise ConfigError(f"kafka refuses the canary in {topics}: {describe(error)}") from error


def rounds(canary: Canary, sources: Callable[[], Sources], *, every: float, stop: Stop) -> Iterator[Run]:
    """A run each `every` seconds, or when the one before has ended, until the stop."""
    number, due = 0, time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + every, time.monotonic())
        run = canary.run(sources(), number)
        if run is not None:
            yield run
        number += 1
