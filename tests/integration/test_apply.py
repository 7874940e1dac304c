"""`livedex apply`: makes what the settings say, twice the same, and refuses what would spoil a collection."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from livedex import apply
from livedex.config import KafkaSettings, Settings, load
from livedex.database import Connection, connect
from livedex.errors import ConfigError, UsageError
from livedex.kafka import open_admin
from support.kafka import Log
from support.workers import Workers


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A database and a broker, to apply settings to."""

    connection: Connection
    kafka: KafkaSettings
    url: str

    def settings(self, collections: dict[str, Any], sources: dict[str, str] | None = None, **more: Any) -> Settings:
        """Settings with these collections, and topics that feed them."""
        fed = {topic: {"collection": collection} for topic, collection in (sources or {}).items()}
        return Settings(kafka=self.kafka, database_url=self.url, embedder="hash", collections=collections, sources=fed, **more)

    def plan(self, *arguments: Any, topics: bool = False, **more: Any) -> list[str]:
        """What would be done."""
        return [step.say for step in apply.plan(self.settings(*arguments, **more), self.connection, topics=topics)]

    def apply(self, *arguments: Any, topics: bool = False, **more: Any) -> None:
        """Do it."""
        apply.run(apply.plan(self.settings(*arguments, **more), self.connection, topics=topics))

    def refused(self, message: str, *arguments: Any, **more: Any) -> None:
        """Applying these settings is an error with this message, and changes nothing."""
        before = self.state()
        with pytest.raises(ConfigError, match=message):
            self.apply(*arguments, **more)
        assert self.state() == before

    def state(self) -> list[tuple[Any, ...]]:
        """Collections, generations, chunkings, sources and vector tables."""
        return [
            row
            for statement in (
                "select name, version_mode, orphan_grace, active_generation from livedex.collection order by 1",
                "select generation_id, model, metric, storage, state, chunking_id from livedex.generation order by 1",
                "select chunking_id, parameters, text_config::text from livedex.chunking order by 1",
                "select topic, collection_id from livedex.source order by 1",
                "select tablename, '' from pg_tables where tablename like 'embedding%' order by 1",
            )
            for row in self.connection.execute(statement).fetchall()
        ]

    def add_document(self, collection: str) -> None:
        """A document in a collection, here a tombstone: its chunks may come back."""
        statement = """
            insert into livedex.document (collection_id, document_id, content_version, deleted, event_time,
                                          topic, partition, "offset")
            select collection_id, 'a', '{0,0,0}', true, now(), 't', 0, 0 from livedex.collection where name = %s"""
        assert self.connection.execute(statement, (collection,)).rowcount == 1

    def one(self, statement: str) -> Any:
        """The only value that a query answers."""
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def place(database_url: str, kafka_settings: KafkaSettings) -> Iterator[Provisioned]:
    """An empty, migrated database."""
    with connect(database_url) as connection:
        yield Provisioned(connection, kafka_settings, database_url)


def test_a_collection_is_made_with_all_that_search_needs(place: Provisioned) -> None:
    """Collection, chunking, generation, table of vectors, and source; a second run has nothing to do."""
    collections = {
        "docs": {"model": "hash-24", "metric": "dot", "storage": "vector", "text_config": "german", "context": "headings"}
    }
    assert len(place.plan(collections, {"t": "docs"})) == 2
    assert place.state() == []
    place.apply(collections, {"t": "docs"})
    assert place.plan(collections, {"t": "docs"}) == []
    statement = """
        select (c.name, c.version_mode, g.model, g.encoder, g.dimension, g.metric, g.storage, k.text_config, s.topic)::text
          from livedex.collection c join livedex.generation g on g.generation_id = c.active_generation
          join livedex.chunking k using (chunking_id) join livedex.source s on s.collection_id = c.collection_id"""
    assert place.one(statement) == "(docs,log,hash-24,hash,24,dot,vector,german,t)"
    column = "from pg_attribute where attrelid = 'livedex.embedding_1'::regclass and attname = 'embedding'"
    assert place.one(f"select format_type(atttypid, atttypmod) {column}") == "vector(24)"


def test_a_new_generation_has_no_index_yet(place: Provisioned) -> None:
    """The upkeep builds it behind the rows; until then there is only the key's."""
    place.apply({"docs": {"model": "hash-8"}})
    assert place.one("select string_agg(indexname, ' ') from pg_indexes where tablename = 'embedding_1'") == "embedding_1_pkey"


def test_a_topic_is_made_for_large_messages(place: Provisioned, log: Log) -> None:
    """A missing topic gets the partitions of the settings and takes messages of 32 MiB; one that is there is left alone."""
    present = log.topic(partitions=2)
    topic = f"{present}.new"
    log.forget(topic)
    sources = {topic: {"collection": "docs", "partitions": 5}, present: {"collection": "other", "partitions": 7}}
    settings = Settings(kafka=place.kafka, embedder="hash", collections={"docs": {}, "other": {}}, sources=sources)
    steps = apply.plan(settings, place.connection, topics=True)
    assert [step.say for step in steps if "create topic" in step.say] == [f"create topic {topic} with 5 partitions"]
    apply.run(steps)
    assert apply.plan(settings, place.connection, topics=True) == []
    admin = open_admin(place.kafka)
    try:
        found = {described["name"]: len(described["partitions"]) for described in admin.describe_topics([topic, present])}
        config = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
    finally:
        admin.close()
    assert found == {topic: 5, present: 2}
    assert "33554432" in config


def test_dry_run_prints_the_plan_and_changes_nothing(workers: Workers, log: Log, place: Provisioned) -> None:
    """The plan goes to stdout; neither collection nor topic is made."""
    topic = f"{log.topic()}.dry"
    done = workers.run("apply", "--dry-run", config=workers.config(topic))
    assert done.returncode == 0
    plan = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in plan] == [
        "create collection default", f"follow topic {topic} into collection default", f"create topic {topic} with 3 partitions",
    ]  # fmt: skip
    assert place.state() == []
    assert topic not in topics(place)


def test_topics_can_be_left_to_their_owners(workers: Workers, log: Log, place: Provisioned) -> None:
    """--no-create-topics makes everything but the topic, without asking Kafka, and then says that all is as it should be."""
    topic = f"{log.topic()}.theirs"
    config = workers.config(topic)
    done = workers.run("apply", "--no-create-topics", config=config, LIVEDEX_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert done.returncode == 0
    assert topic not in topics(place)
    assert place.one("select topic from livedex.source") == topic
    again = workers.run("apply", "--no-create-topics", config=config)
    assert (again.returncode, again.stdout) == (0, "")
    assert "everything is as the settings say" in again.stderr


def topics(place: Provisioned) -> list[str]:
    """The broker's topics."""
    admin = open_admin(place.kafka)
    try:
        return list(admin.list_topics())
    finally:
        admin.close()


def test_the_built_in_default_is_one_collection_with_one_topic(place: Provisioned) -> None:
    """Without a settings file there is the collection `default`, fed by livedex.documents."""
    steps = apply.plan(Settings(embedder="hash"), place.connection, topics=False)
    assert [step.say.split(" (")[0] for step in steps] == [
        "create collection default", "follow topic livedex.documents into collection default",
    ]  # fmt: skip


def test_a_second_source_needs_versions_of_its_own(place: Provisioned) -> None:
    """In log mode a collection has one source, and one that the settings no longer name counts; in source mode any number."""
    place.refused("would follow t1, t2: offsets", {"docs": {}}, {"t1": "docs", "t2": "docs"})
    place.apply({"docs": {}}, {"t1": "docs"})
    place.refused("would follow t1, t2: offsets", {"docs": {}}, {"t2": "docs"})
    place.apply({"numbered": {"versions": "source"}}, {"t3": "numbered", "t4": "numbered"})
    assert place.one("select count(*) from livedex.source") == 3


CHANGES = [
    ({"model": "hash-16"}, "model from 'hash-8' to 'hash-16'"),
    ({"metric": "l2"}, "metric from 'cosine' to 'l2'"),
    ({"storage": "vector"}, "storage from 'halfvec' to 'vector'"),
    ({"context": "none"}, "chunking from"),
    ({"text_config": "simple"}, "text_config from 'english' to 'simple'"),
    ({"query_prompt": "query: "}, "query_prompt from '' to 'query: '"),
    ({"document_prompt": "text: "}, "document_prompt from '' to 'text: '"),
    ({"versions": "source"}, "versions from 'log' to 'source'"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_shapes_the_index_is_changed_beside_it_once_there_are_documents(
    place: Provisioned, change: dict[str, str], message: str
) -> None:
    """A change of the model or the chunking is made while the collection has no documents; afterwards it begins a generation
    beside the active one, or is refused where no generation can differ in it.
    """
    first = {"docs": {"model": "hash-8"}}
    second = {"docs": {"model": "hash-8", **change}}
    place.apply(first)
    assert [message in say for say in place.plan(second)] == [True]
    place.apply(second)
    assert place.plan(second) == []
    states = "select string_agg(state, ' ' order by generation_id) from livedex.generation"
    assert place.one(states) == "retired active"
    place.apply(first)
    place.add_document("docs")
    assert place.plan(first) == []
    if change.keys() & {"text_config", "versions"}:
        place.refused(f"has documents and would change {message}", second)
        assert place.one(states) == "retired retired active"
        return
    place.apply(second)
    assert place.one(states) == "retired retired active building"
    assert place.one("select active_generation from livedex.collection") == 3
    assert place.plan(second) == []


def test_two_names_of_one_text_configuration_are_no_change(place: Provisioned) -> None:
    """`pg_catalog.english` is `english`."""
    place.apply({"docs": {}})
    assert place.plan({"docs": {"text_config": "pg_catalog.english"}}) == []


def test_the_grace_of_orphans_can_be_changed_at_any_time(place: Provisioned) -> None:
    """It concerns the collector only."""
    place.apply({"docs": {}})
    place.add_document("docs")
    place.apply({"docs": {"orphan_grace": "90m"}})
    assert place.one("select orphan_grace from livedex.collection") == timedelta(minutes=90)
    assert place.plan({"docs": {"orphan_grace": "90m"}}) == []


def test_a_reranker_can_be_set_at_any_time(place: Provisioned) -> None:
    """Nothing is embedded anew for it."""
    place.apply({"docs": {}})
    place.add_document("docs")
    place.apply({"docs": {"reranker": "some-cross-encoder"}})
    assert place.one("select reranker from livedex.collection") == "some-cross-encoder"
    assert place.plan({"docs": {"reranker": "some-cross-encoder"}}) == []
    assert place.one("select count(*) from livedex.generation") == 1


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        ({"text_config": "klingon"}, "text_config 'klingon' of collection docs is no text search configuration"),
        ({"text_config": "english'; drop schema livedex; --"}, "is no text search configuration"),
        ({"text_config": ""}, "is no text search configuration"),
        ({"text_config": "nowhere.english"}, "is no text search configuration"),
        ({"text_config": "a.b.c.d"}, "is no text search configuration"),
        ({"storage": "bit", "metric": "dot"}, "storage bit with metric dot: signs compare directions only"),
        ({"model": "hash-4001", "storage": "bit"}, "4001 dimensions, storage bit indexes at most 4000: set dimension"),
        ({"model": "hash-16", "dimension": 17}, "has 16 dimensions, and dimension = 17 asks for more"),
        ({"model": "hash-4001"}, "4001 dimensions, storage halfvec indexes at most 4000"),
        ({"model": "hash-2001", "storage": "vector"}, "2001 dimensions, storage vector indexes at most 2000"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(place: Provisioned, collection: dict[str, Any], message: str) -> None:
    """The error names the collection and what of it is wrong; nothing is left behind."""
    place.refused(message, {"docs": collection})


@pytest.mark.parametrize("name", ["no spaces", "", "-x", "x" * 101, "a/b", "ü"])
def test_names_have_a_form_that_addresses_and_metrics_can_carry(workers: Workers, tmp_path: Path, name: str) -> None:
    """A collection or topic of another name is a usage error before anything is touched."""
    for section, fields in (("collections", ""), ("sources", 'collection = "default"')):
        if (section, name) == ("sources", "-x"):
            continue  # a topic may be called so
        path = tmp_path / f"{section}.toml"
        path.write_text(f"[{section}.{json.dumps(name if section == 'collections' else name * 3)}]\n{fields}\n")
        with pytest.raises(UsageError, match=f"{section}.*should match pattern"):
            load(path)


def test_a_topic_that_kafka_refuses_is_no_outage(place: Provisioned) -> None:
    """Trying again would not help: the error says what Kafka said."""
    settings = place.settings({"docs": {}}, {"..": "docs"})
    with pytest.raises(ConfigError, match=r"kafka refuses to create topic \.\."):
        apply.run(apply.plan(settings, place.connection, topics=True))


def test_a_source_cannot_move(place: Provisioned) -> None:
    """A topic feeds the collection that it fed first."""
    place.apply({"docs": {}, "other": {}}, {"t": "docs"})
    place.refused("topic t feeds another collection than other", {"docs": {}, "other": {}}, {"t": "other"})
    place.refused("topic t feeds another collection than third", {"third": {}}, {"t": "third"})


def test_what_the_settings_no_longer_name_stays(place: Provisioned) -> None:
    """Apply adds and changes; it never removes a collection or a source."""
    place.apply({"docs": {}, "other": {}}, {"t": "docs"})
    before = place.state()
    assert place.plan({"other": {}}) == []
    place.apply({"other": {}})
    assert place.state() == before


def test_a_failure_leaves_no_half_collection(place: Provisioned) -> None:
    """A collection is made in one transaction."""
    place.connection.execute("create table livedex.embedding_1 ()")
    with pytest.raises(Exception, match="embedding_1"):
        place.apply({"docs": {}})
    assert place.one("select count(*) from livedex.collection") == 0
    assert place.one("select count(*) from livedex.chunking") == 0
