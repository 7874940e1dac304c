"""What livedex needs of Kafka: that it answers, its topics with their settings, and the right to read them."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import AuthorizationError, KafkaError

from livedex.catalogue import Source
from livedex.config import GROUP, KafkaSettings
from livedex.core import health_rules
from livedex.core.change import VersionMode
from livedex.core.continuity import broken_log, broken_topic
from livedex.errors import ConfigError
from livedex.kafka import MAX_REQUEST_BYTES, describe, open_admin, open_client, timestamps_at, topics_of, translated

PATIENCE = 3.0  # seconds for the newest records
TOPIC_RIGHTS, GROUP_RIGHTS = ("READ", "DESCRIBE"), ("READ",)


class KafkaChecks:
    """For one run of the doctor. Errors: ConfigError says what to do, UnavailableError that Kafka does not answer."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin: KafkaAdminClient | None = None

    def close(self) -> None:
        """Let go of it."""
        if self._admin is not None:
            self._admin.close()

    @property
    def admin(self) -> KafkaAdminClient:
        """The connection."""
        self._admin = self._admin or open_admin(self._settings, "livedex-doctor")
        return self._admin

    def answers(self) -> str:
        """Kafka answers."""
        with translated():
            brokers = len(self.admin.describe_cluster()["brokers"])
        return f"{self._settings.bootstrap_servers} answers, brokers: {brokers}"

    def topics(
        self, sources: Mapping[str, Source], modes: Mapping[str, VersionMode], progress: Mapping[TopicPartition, int]
    ) -> str:
        """The topics are there, the ones that the index was made from, with everything that it needs next."""
        if not sources:
            raise ConfigError("no source: run livedex apply")
        with translated():
            found = topics_of(self.admin, sources)
        missing = sorted(sources.keys() - found.keys())
        if missing:
            raise ConfigError(f"kafka lacks {', '.join(missing)}: run livedex apply")
        wrong = [
            *(f"{name} is stopped: {source.reason}" for name, source in sources.items() if source.state == "stopped"),
            *(why for name, source in sources.items() if (why := broken_topic(source.known(modes[name]), found[name]))),
            *self._logs({partition: at for partition, at in progress.items() if partition.topic in sources}),
        ]
        if wrong:
            raise ConfigError("; ".join(dict.fromkeys(wrong)))
        return ", ".join(sorted(found))

    def _logs(self, progress: Mapping[TopicPartition, int]) -> list[str]:
        if not progress:
            return []
        with translated():
            first = self.admin.list_partition_offsets(dict.fromkeys(progress, OffsetSpec.EARLIEST))
            last = self.admin.list_partition_offsets(dict.fromkeys(progress, OffsetSpec.LATEST))
        judged = (
            broken_log(
                partition.topic, partition.partition, next_offset=at, start=first[partition].offset, end=last[partition].offset
            )
            for partition, at in progress.items()
        )
        return [why for why in judged if why is not None]

    def settings_of(self, topics: Mapping[str, Source], split: Collection[str]) -> str:
        """Size of records, cleanup and retention lose nothing; `split` as in health_rules."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
        try:
            with translated():
                found = self.admin.describe_configs(resources, config_filter="all").get("topic", {})
        except AuthorizationError:
            raise ConfigError("kafka does not show the topics' settings: allow DESCRIBE_CONFIGS on them") from None
        wrong = [
            sentence
            for name in topics
            for sentence in health_rules.topic_settings(
                name, _values(found.get(name, {})), largest=MAX_REQUEST_BYTES, split=name in split
            )
        ]
        if wrong:
            raise ConfigError("; ".join(wrong))
        return "size of records, cleanup and retention are right"

    def rights(self, topics: Mapping[str, Source]) -> str:
        """The user may read the topics in the consumer group. Where brokers ask nobody for rights, everything is allowed."""
        user = str(self._settings.client.get("sasl_plain_username") or "this user")
        group = str(self._settings.client.get("group_id") or GROUP)
        with translated():
            described = {row["name"]: row for row in self.admin.describe_topics(list(topics))}
            groups = self._group(group)
        wrong = [
            health_rules.rights(f"topic {name}", TOPIC_RIGHTS, _granted(described.get(name)), principal=user) for name in topics
        ]
        wrong.append(health_rules.rights(f"group {group}", GROUP_RIGHTS, groups, principal=user))
        found = [sentence for sentence in wrong if sentence is not None]
        if found:
            raise ConfigError("; ".join(found))
        return f"{user} may read {', '.join(sorted(topics)) or 'topics'} in the group {group}"

    def _group(self, group: str) -> list[str] | None:
        try:
            row = self.admin.describe_groups([group])[group]
        except AuthorizationError:
            return []
        if row["error"] is not None and "AuthorizationFailed" in row["error"]:
            return []
        granted: list[str] | None = row["authorized_operations"]
        return granted  # None of a group that is not there yet

    def clock_ahead(self) -> float | None:
        """Seconds by which the clock of Kafka's controller is ahead of this one; None where this user may not ask."""
        before = time.time()
        try:
            with translated():
                quorum = self.admin.describe_metadata_quorum()
        except KafkaError:
            return None
        now = (before + time.time()) / 2
        partition = quorum["topics"][0]["partitions"][0]
        told = [voter for voter in partition["current_voters"] if voter["replica_id"] == partition["leader_id"]]
        milliseconds = told[0].get("last_caught_up_timestamp", -1) if told else -1
        return milliseconds / 1000 - now if milliseconds > 0 else None

    def newest(self, topics: Mapping[str, Source]) -> dict[str, float]:
        """How many seconds after now the newest record of each topic is; negative: before. Those that have one."""
        options = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "latest", "max_poll_records": 1}
        own = {name: value for name, value in self._settings.client.items() if name != "group_id"}
        settings = self._settings.model_copy(update={"client": own})
        consumer = open_client(KafkaConsumer, settings, "livedex-doctor", **options)
        try:
            with translated():
                return _newest(consumer, list(topics))
        except AuthorizationError as error:
            raise ConfigError(f"kafka does not let this user read: {describe(error)}: allow READ on the topics") from None
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)

    def disks(self) -> dict[str, tuple[int, int]]:
        """(free, all) bytes of the brokers' disks, as far as they tell."""
        try:
            with translated():
                told = self.admin.describe_log_dirs({})
        except KafkaError:
            return {}
        return {
            f"broker {row['broker']}": (folder["usable_bytes"], folder["total_bytes"])
            for row in told
            for folder in row["log_dirs"]
            if folder.get("total_bytes", -1) > 0
        }


def _values(told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: str(entry["value"]) for name, entry in told.items() if entry.get("value") is not None}


def _granted(row: Mapping[str, Any] | None) -> list[str] | None:
    if row is None:
        return None
    if row["error_code"]:
        return []
    granted: list[str] | None = row.get("authorized_operations")
    return granted


def _newest(consumer: KafkaConsumer, topics: list[str]) -> dict[str, float]:
    partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()]
    begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    newest = {partition: ends[partition] - 1 for partition in partitions if ends[partition] > begins[partition]}
    found: dict[str, float] = {}
    now = time.time()
    for partition, timestamp in timestamps_at(consumer, newest, PATIENCE).items():
        ahead = timestamp - now
        found[partition.topic] = max(ahead, found.get(partition.topic, ahead))
    return found
