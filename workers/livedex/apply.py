"""`livedex apply`: makes collections, sources and missing topics what the settings say. Plans first, then acts; idempotent."""

from collections.abc import Mapping

from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from livedex import catalogue
from livedex.apply_collection import Step, collection_steps, wanted
from livedex.catalogue import Live, Source
from livedex.config import Settings
from livedex.database import Connection, query, translated
from livedex.errors import ConfigError
from livedex.kafka import MAX_REQUEST_BYTES, describe, open_admin
from livedex.kafka import translated as kafka_translated


def plan(settings: Settings, connection: Connection, *, topics: bool) -> list[Step]:
    """What is to be done, in order; ConfigError for what must not be. Loads the models that the settings name."""
    sources, live = catalogue.sources(connection), catalogue.live(connection)
    present = {of[0].collection: of for of in live.values()}
    steps: list[Step] = []
    for name in settings.collections:
        steps += collection_steps(connection, wanted(settings, connection, name), present.get(name, ()))
    for topic, source in settings.sources.items():
        steps += _source_steps(connection, topic, sources.get(topic), present, source.collection)
    _one_source_for_offsets(settings, sources, {collection_id: of[0].collection for collection_id, of in live.items()})
    return steps + (_topic_steps(settings) if topics else [])


def _source_steps(
    connection: Connection, topic: str, present: Source | None,
    collections: Mapping[str, Live], collection: str,
) -> list[Step]:  # fmt: skip
    if present is None:

        def follow() -> None:
            connection.execute(query("apply", "create_source"), {"topic": topic, "collection": collection})

        return [Step(say=f"follow topic {topic} into collection {collection}", do=follow)]
    followed = collections.get(collection)
    if followed is None or followed[0].collection_id != present.collection_id:
        raise ConfigError(f"topic {topic} feeds another collection than {collection}: a source cannot move, use another topic")
    return []


def _one_source_for_offsets(settings: Settings, sources: dict[str, Source], names: dict[int, str]) -> None:
    feeds: dict[str, set[str]] = {}
    for topic, source in settings.sources.items():
        feeds.setdefault(source.collection, set()).add(topic)
    for topic, present in sources.items():
        feeds.setdefault(names[present.collection_id], set()).add(topic)
    for name, topics in feeds.items():
        wanted = settings.collections.get(name)
        if len(topics) > 1 and wanted is not None and wanted.versions == "log":
            raise ConfigError(
                f"collection {name} takes versions from the log and would follow {', '.join(sorted(topics))}: offsets of "
                'different topics do not compare. Keep one source, or set versions = "source" and send versions'
            )


def _topic_steps(settings: Settings) -> list[Step]:
    admin = open_admin(settings.kafka)
    try:
        with kafka_translated():
            present = set(admin.list_topics())
    finally:
        admin.close()
    return [
        _topic_step(settings, topic, source.partitions) for topic, source in settings.sources.items() if topic not in present
    ]


def _topic_step(settings: Settings, topic: str, partitions: int) -> Step:
    def create() -> None:
        admin = open_admin(settings.kafka)
        try:
            with kafka_translated():
                admin.create_topics([_new_topic(topic, partitions)], timeout_ms=10_000)
                admin.wait_for_topics([topic], timeout_ms=10_000)
        except TopicAlreadyExistsError:
            pass
        except KafkaError as error:
            raise ConfigError(f"kafka refuses to create topic {topic}: {describe(error)}") from error
        finally:
            admin.close()

    return Step(say=f"create topic {topic} with {partitions} partitions", do=create)


def _new_topic(topic: str, partitions: int) -> NewTopic:
    return NewTopic(
        topic,
        num_partitions=partitions,
        replication_factor=-1,  # the broker's default
        topic_configs={"max.message.bytes": str(MAX_REQUEST_BYTES)},
    )


def run(steps: list[Step]) -> None:
    """Do the steps, in order."""
    for step in steps:
        with translated():
            step.do()
