"""`livedex apply`: makes collections, sources and missing topics what the settings say. Plans first, then acts; idempotent.

A collection that has documents keeps its model, chunking and metric: changing them would mix vectors that do not compare.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError
from psycopg import errors
from psycopg.types.json import Jsonb

from livedex import catalogue
from livedex.catalogue import Generation, Source
from livedex.config import CollectionSettings, Settings
from livedex.core.chunking import ChunkingSpec
from livedex.database import Connection, query, translated
from livedex.encoders import Encoder, ModelSpec, open_encoder, server_of
from livedex.encoders.probe import probe, to_bytes
from livedex.errors import ConfigError
from livedex.kafka import MAX_REQUEST_BYTES, describe, open_admin
from livedex.kafka import translated as kafka_translated

MAX_INDEXED_DIMENSION = {"halfvec": 4000, "vector": 2000}  # pgvector's limits for HNSW


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between what is and what the settings say, and how it is removed."""

    say: str
    do: Callable[[], None] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A collection as the settings say, its model opened."""

    name: str
    settings: CollectionSettings
    text_config: str  # as Postgres writes it
    encoder: Encoder

    @property
    def spec(self) -> ChunkingSpec:
        """How its documents are cut."""
        return ChunkingSpec(context=self.settings.context)

    def differences(self, generation: Generation) -> list[str]:
        """What of the generation is not as wanted, in words."""
        wanted, pinned = self.encoder.identity, generation.identity
        pairs = {
            "model": (pinned.model, wanted.model),
            "revision of the model": (pinned.revision, wanted.revision),
            "encoder": (pinned.encoder, wanted.encoder),
            "query_prompt": (pinned.query_prompt, wanted.query_prompt),
            "document_prompt": (pinned.document_prompt, wanted.document_prompt),
            "precision": (generation.precision, self.settings.precision),
            "metric": (generation.metric, self.settings.metric),
            "storage": (generation.storage, self.settings.storage),
            "text_config": (generation.text_config, self.text_config),
            "chunking": (generation.spec, self.spec),
        }
        # torch and its like give the same vectors; hash gives others under any name
        if "hash" not in (pinned.encoder, wanted.encoder):
            del pairs["encoder"]
        if "http" in (pinned.encoder, wanted.encoder):  # a server does not show its model's files
            del pairs["revision of the model"]
        return [f"{name} from {old!r} to {new!r}" for name, (old, new) in pairs.items() if old != new]


def plan(settings: Settings, connection: Connection, *, topics: bool) -> list[Step]:
    """What is to be done, in order; ConfigError for what must not be. Loads the models that the settings name."""
    sources, generations = catalogue.sources(connection), catalogue.generations(connection)
    present = {generation.collection: generation for generation in generations.values()}
    steps: list[Step] = []
    for name, collection in settings.collections.items():
        text_config = _text_config(connection, name, collection.text_config)
        wanted = Wanted(name=name, settings=collection, text_config=text_config, encoder=_open(settings, name, collection))
        steps += _collection_steps(connection, wanted, present.get(name))
    for topic, source in settings.sources.items():
        steps += _source_steps(connection, topic, sources.get(topic), present, source.collection)
    _one_source_for_offsets(settings, sources, {g.collection_id: g.collection for g in generations.values()})
    return steps + (_topic_steps(settings) if topics else [])


def _text_config(connection: Connection, collection: str, name: str) -> str:
    """The text search configuration of this name, as Postgres writes it."""
    try:
        row = connection.execute("select %s::regconfig::text", (name,)).fetchone()
    except (errors.UndefinedObject, errors.InvalidName, errors.InvalidSchemaName, errors.SyntaxError) as error:
        raise ConfigError(
            f"text_config {name!r} of collection {collection} is no text search configuration of this Postgres: "
            "psql's \\dF lists them; simple works for any language"
        ) from error
    assert row is not None
    return str(row[0])


def _open(settings: Settings, name: str, collection: CollectionSettings) -> Encoder:
    if collection.storage == "bit" or collection.reranker:
        what = "storage bit" if collection.storage == "bit" else "a reranker"
        raise ConfigError(f"collection {name} asks for {what}, which this version does not have: remove the setting")
    encoder = open_encoder(
        settings.embedder,
        ModelSpec(
            model=collection.model or settings.model,
            query_prompt=collection.query_prompt,
            document_prompt=collection.document_prompt,
            normalise=collection.metric == "cosine",
            precision=collection.precision,
        ),
        server=server_of(settings),
    )
    prompt, window = encoder.count_tokens([""])[0], encoder.identity.max_tokens
    if prompt > window // 2:
        raise ConfigError(
            f"the document_prompt of collection {name} takes {prompt} of the {window} tokens that its model reads: shorten it"
        )
    dimension, limit = encoder.identity.dimension, MAX_INDEXED_DIMENSION[collection.storage]
    if dimension > limit:
        raise ConfigError(
            f"the model of collection {name} has {dimension} dimensions, storage {collection.storage} indexes at most {limit}: "
            "choose storage halfvec or a smaller model"
        )
    return encoder


def _collection_steps(connection: Connection, wanted: Wanted, present: Generation | None) -> list[Step]:
    if present is None:
        return [Step(say=f"create collection {wanted.name} {_describe(wanted)}", do=lambda: _create(connection, wanted))]
    steps = [_update_step(connection, wanted, present)] if _settings_differ(connection, wanted) else []
    differences = wanted.differences(present)
    if present.version_mode != wanted.settings.versions:
        differences.append(f"versions from {present.version_mode.value!r} to {wanted.settings.versions!r}")
    if not differences:
        return steps
    changes = ", ".join(differences)
    if _has_documents(connection, present.collection_id):
        raise ConfigError(
            f"collection {wanted.name} has documents and would change {changes}: this version cannot change that in place; "
            "make a collection of another name with a source of its own, or keep the setting"
        )
    return [*steps, Step(say=f"change {changes} of the empty collection {wanted.name}",
                         do=lambda: _recreate(connection, wanted, present))]  # fmt: skip


def _describe(wanted: Wanted) -> str:
    identity = wanted.encoder.identity
    return f"(model {identity.model}, {identity.dimension} dimensions, {wanted.settings.metric}, {wanted.settings.storage})"


def _settings_differ(connection: Connection, wanted: Wanted) -> bool:
    row = connection.execute("select orphan_grace from livedex.collection where name = %s", (wanted.name,)).fetchone()
    return row is not None and row[0] != wanted.settings.orphan_grace


def _update_step(connection: Connection, wanted: Wanted, present: Generation) -> Step:
    def update() -> None:
        connection.execute(
            "update livedex.collection set orphan_grace = %s where collection_id = %s",
            (wanted.settings.orphan_grace, present.collection_id),
        )

    return Step(say=f"set orphan_grace of collection {wanted.name} to {wanted.settings.orphan_grace}", do=update)


def _has_documents(connection: Connection, collection_id: int) -> bool:
    statement = "select exists (select from livedex.document where collection_id = %s)"
    return connection.execute(statement, (collection_id,)).fetchone() == (True,)


def _create(connection: Connection, wanted: Wanted) -> None:
    with connection.transaction():
        arguments = {
            "name": wanted.name,
            "version_mode": wanted.settings.versions,
            "orphan_grace": wanted.settings.orphan_grace,
        }
        _create_generation(connection, wanted, _returned(connection, "create_collection", arguments))


def _recreate(connection: Connection, wanted: Wanted, present: Generation) -> None:
    """A new generation in the place of one that holds nothing yet."""
    with connection.transaction():
        lock = {"key": catalogue.COLLECTION_LOCK, "collection_id": present.collection_id}
        connection.execute(query("apply", "keep_collection"), lock)
        if _has_documents(connection, present.collection_id):
            raise ConfigError(f"collection {wanted.name} got its first documents meanwhile: run livedex apply again")
        connection.execute(query("apply", "retire_generation"), {"generation_id": present.generation_id})
        connection.execute(query("apply", "drop_embeddings", embeddings=present.embeddings))
        _create_generation(connection, wanted, present.collection_id)
        connection.execute(
            "update livedex.collection set version_mode = %s where collection_id = %s",
            (wanted.settings.versions, present.collection_id),
        )


def _create_generation(connection: Connection, wanted: Wanted, collection_id: int) -> None:
    identity = wanted.encoder.identity
    arguments: dict[str, Any] = {
        "collection_id": collection_id,
        "parameters": Jsonb(asdict(wanted.spec)),
        "text_config": wanted.text_config,
        "metric": wanted.settings.metric,
        "storage": wanted.settings.storage,
        **asdict(identity),
        # the hash encoder is the same everywhere
        "probe": None if identity.encoder == "hash" else to_bytes(probe(wanted.encoder)),
    }
    arguments["chunking_id"] = _returned(connection, "create_chunking", arguments)
    arguments["generation_id"] = _returned(connection, "create_generation", arguments)
    connection.execute(query("apply", "activate_generation"), arguments)


def _returned(connection: Connection, name: str, arguments: dict[str, Any]) -> int:
    """The id that an insert gives back."""
    row = connection.execute(query("apply", name), arguments).fetchone()
    assert row is not None
    return int(row[0])


def _source_steps(
    connection: Connection, topic: str, present: Source | None,
    collections: dict[str, Generation], collection: str,
) -> list[Step]:  # fmt: skip
    if present is None:

        def follow() -> None:
            connection.execute(query("apply", "create_source"), {"topic": topic, "collection": collection})

        return [Step(say=f"follow topic {topic} into collection {collection}", do=follow)]
    followed = collections.get(collection)
    if followed is None or followed.collection_id != present.collection_id:
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
