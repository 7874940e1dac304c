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

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from livedex import client, events
from livedex.api_token import read_token
from livedex.canary_metrics import CanaryMetrics, Run
from livedex.config import KafkaSettings
from livedex.core.canary import WORD_BITS, Probe, turn
from livedex.core.change import CANARY_HEADER
from livedex.core.record import Place
from livedex.errors import ConfigError, LivedexError, TimedOutError, UnavailableError, UsageError
from livedex.kafka import deleted_since, describe, open_admin, open_producer, topics_of, translated
from livedex.lifecycle import Stop

SLICE = 5.0  # seconds of one request, so that a stop is heard
PAUSE = 0.25  # seconds between two searches that found nothing
MISSES = 2  # searches that did not find what was applied, before the log is asked whether it was deleted
CLEAR = 2.0  # seconds that the deletion of its documents may take
LOOK = 5.0  # seconds between looks for a topic to publish to, while there is none
K = 10

Sources = Mapping[str, str]  # the collection that each topic feeds


class _Sent:
    """A document on its way."""

    def __init__(self, topic: str, collection: str) -> None:
        self.at, self.began = time.time(), time.monotonic()
        self.topic, self.collection = topic, collection
        self.partition: int | None = None
        self.place: Place | None = None
        self.applied = False  # its event, as a query worker said

    @property
    def token(self) -> str | None:
        return None if self.place is None else str(self.place)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def ended(self, error: LivedexError | None) -> Run:
        """As it is now."""
        return Run(
            at=self.at, seconds=self.seconds, topic=self.topic, partition=self.partition, collection=self.collection,
            token=self.token, error=error,
        )  # fmt: skip


class Canary:
    """Publishes and looks, one document at a time; for one thread. Opens what it needs when it needs it."""

    def __init__(
        self, kafka: KafkaSettings, *, url: str, token_file: Path | None, who: str, every: float, timeout: float,
        metrics: CanaryMetrics, stop: Stop,
    ) -> None:  # fmt: skip
        self._kafka = kafka
        self._url = url
        self._token_file = token_file
        self._who = who
        self._every = every  # seconds between two documents
        self._timeout = timeout  # seconds from published to found, at most
        self._metrics = metrics
        self._stop = stop
        self._admin: KafkaAdminClient | None = None
        self._producer: KafkaProducer | None = None
        self._http = httpx.Client(verify=httpx.create_ssl_context(), trust_env=False, headers={CANARY_HEADER: "1"})
        self._left: dict[tuple[str, int], Probe] = {}  # the documents that are there because of it

    def follow(self, sources: Sources) -> None:
        """Its metrics tell of these topics from now on. Where there is none, another canary goes on, whose documents are not
        deleted.
        """
        self._metrics.follow(sources, turn=len(sources) * max(self._every, self._timeout), now=time.time())
        if not sources:
            self._left.clear()

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each topic has. UnavailableError, or ConfigError when there is no topic."""
        wanted = set(topics)
        with _explained(", ".join(sorted(wanted))):
            self._admin = self._admin or open_admin(self._kafka, "livedex-canary")
            found = topics_of(self._admin, wanted)
        missing = sorted(wanted - found.keys())
        if missing:
            raise ConfigError(f"kafka lacks the topic {', '.join(missing)}: run livedex apply")
        return {name: topic.partitions for name, topic in found.items()}

    def run(self, sources: Sources, number: int) -> Run | None:
        """Publish to the partition whose turn it is, and look until the document is found or the time is over. None when the
        stop came first, or there is nowhere to publish to.
        """
        if not sources:
            return None
        topic, lap = turn(number, sources)
        sent = _Sent(topic, sources[topic])
        error: LivedexError | None = None
        try:
            self._send_and_find(sent, lap)
        except _StoppedError:
            return None
        except UsageError as refused:  # it is this code that asked
            error = ConfigError(f"the query worker refuses the canary's search: {refused}")
        except LivedexError as failed:
            error = failed
        except Exception:  # a defect of the canary: nothing was found
            self._metrics.runs.labels(topic, "failed").inc()
            raise
        run = sent.ended(error)
        self._metrics.note(run)
        return run

    def _send_and_find(self, sent: _Sent, lap: int) -> None:
        """Once more where another canary that ended deleted the document of its place. The time goes on from when the first was
        published.
        """
        sent.partition = lap % self.count_partitions([sent.topic])[sent.topic]
        sent.at, sent.began = time.time(), time.monotonic()
        for last in (False, True):
            probe = Probe.made(self._who, sent.partition, now=time.time(), chance=secrets.randbits(WORD_BITS))
            sent.place, sent.applied = None, False
            sent.place = self._publish(sent.topic, probe)
            if self._find(probe, sent, last=last):
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

    def _find(self, probe: Probe, sent: _Sent, *, last: bool) -> bool:
        """True once the document is found. False when it was applied and is not there because it was deleted, as the log says,
        unless it is the `last`. Otherwise it is looked for as long as there is time: what a search misses is there for nobody.
        Raises what is the matter when the time is over.
        """
        error: LivedexError | None = None
        misses = 0
        while not self._stop.asked:
            left = self._timeout - sent.seconds
            if left <= 0:
                raise self._gave_up(sent, error)
            try:
                found = self._looked(probe, sent, min(left, SLICE))
            except TimedOutError:
                continue
            except UnavailableError as failed:
                error = failed
            else:
                error, sent.applied, misses = None, True, misses + 1
                if found:
                    return True
                if misses == MISSES and not last and self._deleted(probe, sent, min(left, SLICE)):
                    return False
            self._stop.wait(PAUSE)
        raise _StoppedError

    def _looked(self, probe: Probe, sent: _Sent, timeout: float) -> bool:
        """Whether a search finds it, once its event was applied."""
        hits = client.search(
            probe.text, url=self._url, token=read_token(self._token_file), k=K, collection=sent.collection, after=sent.token,
            timeout=timeout, http=self._http,
        )  # fmt: skip
        assert sent.place is not None
        return probe.seen_in(((hit.document_id, hit.metadata, hit.version) for hit in hits), sent.place.offset)

    def _deleted(self, probe: Probe, sent: _Sent, timeout: float) -> bool:
        """Whether the log says so; who may not read it does not know."""
        assert sent.place is not None
        try:
            return deleted_since(self._kafka, sent.place, probe.document_id.encode(), patience=timeout)
        except (LivedexError, KafkaError):
            return False

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


def rounds(
    canary: Canary, sources: Callable[[], Sources], *, every: float, stop: Stop, settle: float = 0.0,
    numbers: Iterable[int] | None = None,
) -> Iterator[Run]:  # fmt: skip
    """A run each `every` seconds, or when the one before has ended, until the stop, or for these `numbers` only. The first
    comes `settle` seconds after there is a source; while there is none, it is looked for.
    """
    upcoming = itertools.count() if numbers is None else iter(numbers)
    due, idle = time.monotonic(), settle > 0
    while not stop.wait(max(0.0, due - time.monotonic())):
        topics = sources()
        canary.follow(topics)
        if idle or not topics:
            idle = not topics and settle > 0
            due = time.monotonic() + (settle if topics else min(LOOK, every))
            continue
        number = next(upcoming, None)
        if number is None:
            return
        due = max(due + every, time.monotonic())
        run = canary.run(topics, number)
        if run is not None:
            yield run
