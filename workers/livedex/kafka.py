"""The way to Kafka: clients with the settings that were measured to be right, and the translation of their errors."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, KafkaTimeoutError, RetriableError, UnknownTopicOrPartitionError, for_code

from livedex import unpacking
from livedex.config import KafkaSettings
from livedex.core.continuity import Topic
from livedex.core.record import Place
from livedex.errors import ConfigError, UnavailableError
from livedex.kafka_link import Link
from livedex.kafka_security import SECRET_FILES, complete, no_answer, refusal

# With another value of these, records could be skipped or read wrongly in silence.
PROTECTED = frozenset({"auto_offset_reset", "enable_auto_commit", "isolation_level", "key_deserializer", "value_deserializer",
                       "partition_assignment_strategy"})  # fmt: skip
C = TypeVar("C", KafkaConsumer, KafkaProducer, KafkaAdminClient)

BOOTSTRAP_TIMEOUT_MS = 5_000  # of a constructor; workers try again
ADMIN_TIMEOUT_MS = 8_000  # how late a network that swallows everything is noticed; the client's default is 30 s
MAX_REQUEST_BYTES = 32 * 2**20  # 10 MiB of text can take three times that in JSON; `livedex apply` lets topics take it


def open_client(kind: type[C], settings: KafkaSettings, client_id: str, **options: Any) -> C:
    """A client of this kind. Of the operator's own options it takes those that it knows, and they win.

    ConfigError when the settings are wrong: by themselves, or by what the brokers answer to them.
    """
    given = _given(settings)
    own = {name: value for name, value in given.items() if name in kind.DEFAULT_CONFIG}
    refused = sorted(PROTECTED & own.keys())
    if refused:
        raise ConfigError(f"the setting kafka.client sets {', '.join(refused)}, on which exactness depends: remove it")
    if kind is KafkaConsumer:
        unpacking.guard()
    link = Link(partial(_refuses, given))
    made = {**_common(settings, client_id), **options, **own, "kafka_client": link.make}
    with _explained(link, settings, given):
        client = kind(**made)
    link.opened()
    return client


def _given(settings: KafkaSettings) -> dict[str, Any]:
    """The operator's options, which some client has."""
    known = {*SECRET_FILES}
    for kind in (KafkaConsumer, KafkaProducer, KafkaAdminClient):
        known |= kind.DEFAULT_CONFIG.keys()
    unknown = [name for name in settings.client if name not in known]
    if unknown:
        raise ConfigError(
            f"the setting kafka.client names {', '.join(unknown)}, which kafka-python does not have: see its manual"
        )
    return complete(settings.client)


def _refuses(given: Mapping[str, Any], failure: Exception) -> bool:
    return refusal([failure], given) is not None


@contextmanager
def _explained(link: Link, settings: KafkaSettings, given: Mapping[str, Any]) -> Iterator[None]:
    """What a constructor raises, as the error of who has to act; and nothing is left of its client."""
    try:
        yield
    except (TypeError, ValueError, AssertionError) as error:  # how the clients refuse their options
        link.close()
        raise ConfigError(f"the kafka client refuses its settings: {error}") from error
    except (KafkaError, OSError) as error:
        link.close()
        why = refusal([*link.failures, error], given)
        if why is not None:
            raise ConfigError(why) from error
        if not isinstance(error, RetriableError | OSError):
            raise
        why = no_answer([error, *link.failures], given)
        raise UnavailableError("kafka", f"kafka at {settings.bootstrap_servers} does not answer: {why}") from error


def _common(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "client_id": client_id,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 1_000,  # the default of 30 s is how late a restarted broker is noticed
        "metadata_max_age_ms": 10_000,  # how late new partitions and topics are noticed
    }


@contextmanager
def translated() -> Iterator[None]:
    """Kafka does not answer, for now -> UnavailableError; other errors pass."""
    try:
        yield
    except RetriableError as error:
        raise UnavailableError("kafka", f"kafka does not answer: {describe(error)}") from error
    except OSError as error:
        raise UnavailableError("kafka", f"kafka does not answer: {error}") from error


@contextmanager
def waited_for() -> Iterator[None]:
    """Of a running worker, whose settings were right: what a broker refuses now, a certificate that ended or a password that
    was changed, may pass -> UnavailableError.
    """
    try:
        yield
    except ConfigError as error:
        raise UnavailableError("kafka", str(error)) from error


def describe(error: KafkaError) -> str:
    """The error in one line, with its class where the text says little."""
    name = type(error).__name__
    says = re.sub(rf"^(\[Error -?\d+\] )?({name}(: |$))*", "", str(error))  # the client repeats the class
    return f"{name}: {says}".rstrip(": ")


def open_admin(settings: KafkaSettings, client_id: str = "livedex-admin") -> KafkaAdminClient:
    """An admin client."""
    return open_client(KafkaAdminClient, settings, client_id, request_timeout_ms=ADMIN_TIMEOUT_MS)


def topic_of(admin: KafkaAdminClient, name: str) -> Topic | None:
    """A topic as Kafka has it now; None when there is none."""
    found = topics_of(admin, [name])
    return found.get(name)


def topics_of(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, Topic]:
    """Those of the topics that Kafka has. UnavailableError when it does not say: only its word that one is not there counts."""
    told = tell_topics(admin, names)
    for topic in told.values():
        if isinstance(topic, UnavailableError):
            raise topic
    return {name: topic for name, topic in told.items() if isinstance(topic, Topic)}


def tell_topics(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, Topic | UnavailableError]:
    """What Kafka says of each topic that it does not say is not there: the topic, or why it does not say what it is."""
    found: dict[str, Topic | UnavailableError] = {}
    for answer in admin.describe_topics(list(names)):
        code = answer["error_code"]
        if code == UnknownTopicOrPartitionError.errno:
            continue
        if code or not answer["partitions"]:
            why = for_code(code).__name__ if code else "it names no partitions"
            found[answer["name"]] = UnavailableError("kafka", f"kafka does not describe topic {answer['name']}: {why}")
            continue
        found[answer["name"]] = Topic(topic_id=str(answer["topic_id"]), partitions=len(answer["partitions"]))
    return found


def retention_of(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, float]:
    """After how many seconds Kafka deletes records, of those of the topics where it does; KafkaError where it does not say."""
    wanted = {"cleanup.policy", "retention.ms"}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(wanted)) for name in names]
    told = admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    found: dict[str, float] = {}
    for name, options in told.items():
        values = {option: options[option]["value"] for option in wanted if option in options}
        after = int(values.get("retention.ms") or -1)
        if "delete" in (values.get("cleanup.policy") or "") and after >= 0:
            found[name] = after / 1000
    return found


def open_producer(settings: KafkaSettings, client_id: str = "livedex-producer") -> KafkaProducer:
    """A producer for change events. It is not idempotent: one record that the broker refuses would end it for good."""
    options = {"enable_idempotence": False, "acks": "all", "max_request_size": MAX_REQUEST_BYTES, "max_block_ms": 10_000,
               "delivery_timeout_ms": 30_000, "compression_type": "gzip", "linger_ms": 0}  # fmt: skip
    return open_client(KafkaProducer, settings, client_id, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnds:
    """How far the log is ahead of given positions, and since when."""

    lag: Mapping[TopicPartition, int]
    oldest: Mapping[TopicPartition, float]  # timestamp of the first record at or after the position, seconds since 1970

    def staleness(self, partition: TopicPartition, now: float) -> float | None:
        """Age in seconds of the oldest record that is not applied; 0 when there is none, None when it is unknown."""
        if self.lag.get(partition) == 0:
            return 0.0
        return max(0.0, now - self.oldest[partition]) if partition in self.oldest else None

    @classmethod
    def ask(cls, settings: KafkaSettings, positions: Mapping[TopicPartition, int], *, patience: float = 2.0) -> Self:
        """Read ends, and one record of each partition that is behind, within `patience` seconds."""
        consumer = _open_looker(settings, "livedex-status", patience, max_poll_records=1)
        try:
            with translated():
                ends = _ends(consumer, positions, patience)
                lag = {partition: max(0, end - positions[partition]) for partition, end in ends.items()}
                behind = {partition: positions[partition] for partition, count in lag.items() if count}
                return cls(lag=lag, oldest=timestamps_at(consumer, behind, patience))
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)


def deleted_since(settings: KafkaSettings, place: Place, key: bytes, *, patience: float) -> bool:
    """Whether the log has a tombstone with this key behind a place, as far as it goes now and is read in `patience` seconds."""
    consumer = _open_looker(settings, "livedex-canary", patience)
    partition, deadline = TopicPartition(place.topic, place.partition), time.monotonic() + patience
    try:
        with translated():
            end = _ends(consumer, [partition], patience).get(partition, 0)
            consumer.assign([partition])
            consumer.seek(partition, place.offset + 1)
            while consumer.position(partition) < end and time.monotonic() < deadline:
                records = consumer.poll(200).get(partition, ())
                if any(record.key == key and record.value is None for record in records):
                    return True
            return False
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)


def _open_looker(settings: KafkaSettings, client_id: str, patience: float, **more: Any) -> KafkaConsumer:
    """A consumer that reads what it is told to, and joins no group."""
    options = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "earliest",
               "bootstrap_timeout_ms": int(patience * 1000), **more}  # fmt: skip
    own = {name: value for name, value in settings.client.items() if name != "group_id"}
    return open_client(KafkaConsumer, settings.model_copy(update={"client": own}), client_id, **options)


def _ends(consumer: KafkaConsumer, partitions: Iterable[TopicPartition], patience: float) -> dict[TopicPartition, int]:
    """Without partitions that are not there, or have no leader."""
    topics = {partition.topic: None for partition in partitions}
    known = {topic: consumer.partitions_for_topic(topic) or set() for topic in topics}
    there = [partition for partition in partitions if partition.partition in known[partition.topic]]
    try:
        return dict(consumer.end_offsets(there, timeout_ms=int(patience * 1000))) if there else {}
    except KeyError:  # of one that has no leader, which the client left out of its own question
        return _ends_apart(consumer, there, patience)


def _ends_apart(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], patience: float) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    each = int(patience * 1000 / len(partitions))
    for partition in partitions:
        with suppress(KeyError, KafkaTimeoutError):
            found |= consumer.end_offsets([partition], timeout_ms=each)
    return found


def timestamps_at(
    consumer: KafkaConsumer, positions: Mapping[TopicPartition, int], patience: float
) -> dict[TopicPartition, float]:
    """When the first record at or after each position was written, in seconds since 1970: of those partitions that give it out
    within `patience` seconds, and whose records can be read.
    """
    found: dict[TopicPartition, float] = {}
    asked = set(positions)
    if asked:
        consumer.assign(list(asked))
    for partition, offset in positions.items():
        consumer.seek(partition, offset)
    deadline = time.monotonic() + patience
    while asked and time.monotonic() < deadline:
        for partition, timestamp in _next_timestamps(consumer).items():
            if timestamp is not None:
                found[partition] = timestamp
            consumer.pause(partition)
            asked.discard(partition)
    return found


def _next_timestamps(consumer: KafkaConsumer) -> dict[TopicPartition, float | None]:
    """Of the partitions that a poll brought records of; None where they cannot be read."""
    try:
        return {partition: records[0].timestamp / 1000 for partition, records in consumer.poll(200).items()}
    except Exception as error:
        # damaged, or larger than what is unpacked: whoever may write a topic must not keep the others' figures away
        frame = unpacking.interrupted(error)
        if frame is None:
            raise
        return {frame.f_locals["self"].topic_partition: None}
