"""`livedex doctor` on systems that are really broken: each check fails where it should, says what to do, and alone."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from livedex.config import KafkaSettings
from livedex.index.app import IndexApp
from livedex.kafka import open_admin
from support.database import login_role
from support.kafka import Log
from support.terminal import Terminal
from support.workers import Workers, free_port

CHECKS = ["kafka", "postgres", "topics", "settings", "rights", "pgvector", "migrations", "roles", "permissions", "buffers",
          "texts", "clock", "disk", "model"]  # fmt: skip


class Patient:
    """A topic with its collection, and the doctor."""

    def __init__(self, workers: Workers, log: Log, livedex: Callable[[Path], Terminal]) -> None:
        self.workers, self.log = workers, log
        self.topic = log.topic()
        self.config = workers.config(self.topic, model="hash-16")
        workers.apply(self.config)
        self._livedex = livedex(self.config)

    def examined(self, **environment: str) -> dict[str, str]:
        """What the checks that failed say."""
        done = self._livedex("doctor", "--json", **environment)
        found = json.loads(done.out[done.out.index("{\n") :])
        failed = {row["check"]: row["says"] for row in found["checks"] if not row["ok"]}
        assert (found["ok"], done.code) == (not failed, int(bool(failed)))
        self.checks = [row["check"] for row in found["checks"]]
        return failed

    def fails(self, check: str, **environment: str) -> str:
        """What the only check that fails says."""
        failed = self.examined(**environment)
        assert failed.keys() == {check}, failed
        return failed[check]

    def apply(self, *events: dict[str, Any]) -> None:
        """Have these in the index."""
        places = [self.log.send(self.topic, event) for event in events]
        with self.workers.in_thread(IndexApp(self.workers.settings(self.config))):
            self.workers.caught_up(self.topic, {place.partition: place.offset + 1 for place in places})


@pytest.fixture
def patient(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Patient:
    """In order, until a test breaks it."""

    def livedex(config: Path) -> Terminal:
        inherited = workers.environment(config)
        own = {name: value for name, value in inherited.items() if name.startswith("LIVEDEX_")}
        return Terminal({**own, "COLUMNS": "400"}, monkeypatch, capsys)

    return Patient(workers, log, livedex)


def configure(kafka: KafkaSettings, topic: str, **settings: str) -> None:
    """Change a topic's settings."""
    admin = open_admin(kafka)
    try:
        wanted = {name.replace("_", "."): value for name, value in settings.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    finally:
        admin.close()


def test_what_is_in_order_is_so(patient: Patient) -> None:
    """Every check is made, and none fails."""
    assert patient.examined() == {}
    assert patient.checks == CHECKS


def test_without_kafka_postgres_is_examined_and_the_other_way_round(patient: Patient) -> None:
    """What can be asked is; what cannot is one line."""
    nowhere = f"127.0.0.1:{free_port()}"
    assert "does not answer" in patient.fails("kafka", LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=nowhere)
    assert patient.checks == [check for check in CHECKS if check not in ("topics", "settings", "rights")]
    assert "does not answer" in patient.fails("postgres", LIVEDEX_DATABASE_URL=f"postgresql://{nowhere}/absent")
    assert patient.checks == ["kafka", "postgres", "topics", "settings", "rights", "clock", "disk"]


def test_topics_that_lose_something(patient: Patient, kafka_settings: KafkaSettings) -> None:
    """One that takes no large event and forgets too soon, and one that is compacted where metadata came later than texts."""
    configure(kafka_settings, patient.topic, max_message_bytes="1000000", retention_ms="3600000")
    said = patient.fails("settings")
    assert f"{patient.topic} takes records of 1000000 bytes" in said
    assert "loses events after 1.0 h" in said
    configure(kafka_settings, patient.topic, max_message_bytes=str(32 * 2**20), retention_ms="-1", cleanup_policy="compact")
    patient.apply({"id": "a", "text": "A text."})
    assert patient.examined() == {}
    patient.apply({"id": "a", "op": "metadata", "metadata": {"b": 1}})
    assert "is compacted" in patient.fails("settings")


def test_a_log_that_lost_what_was_not_read(patient: Patient, kafka_settings: KafkaSettings) -> None:
    """Records that are gone before the index had them."""
    patient.apply({"id": "a", "text": "A text."})
    places = [patient.log.send(patient.topic, {"id": "a", "text": f"Text {number}."}) for number in range(3)]
    admin = open_admin(kafka_settings)
    try:
        admin.delete_records({TopicPartition(patient.topic, 0): places[-1].offset})
    finally:
        admin.close()
    assert "the events between are gone" in patient.fails("topics")


def test_a_topic_that_was_made_anew_and_one_that_is_gone(patient: Patient, kafka_settings: KafkaSettings) -> None:
    """By the topic's own number; with the remedy."""
    patient.apply({"id": "a", "text": "A text."})
    admin = open_admin(kafka_settings)
    try:
        admin.delete_topics([patient.topic])
        gone = patient.examined()
        assert "run livedex apply" in gone["topics"]
        options = {"max.message.bytes": str(32 * 2**20)}
        admin.create_topics([NewTopic(patient.topic, num_partitions=1, replication_factor=1, topic_configs=options)])
        admin.wait_for_topics([patient.topic])
    finally:
        admin.close()
    said = patient.fails("topics")
    assert "was deleted and made anew" in said
    assert f"livedex source reset {patient.topic}" in said


def test_clocks_that_are_wrong(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer's an hour ahead; this machine's an hour behind Postgres's and Kafka's."""
    patient.log.send(patient.topic, {"id": "a", "text": "A text."}, timestamp_ms=int((time.time() + 1800) * 1000))
    assert f"records are from the future, in {patient.topic}" in patient.fails("clock")
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() - 3600)
        said = patient.fails("clock")
    assert "the database's clock is 3600" in said or "the database's clock is 3599" in said
    assert "kafka's clock is 3" in said
    assert "synchronise them" in said


def test_a_pgvector_that_is_too_old(patient: Patient) -> None:
    """As the database says which it has."""
    patient.workers.execute(
        "set allow_system_table_mods = on", "update pg_extension set extversion = '0.7.0' where extname = 'vector'"
    )
    assert "pgvector is 0.7.0, livedex needs 0.8.0" in patient.examined()["pgvector"]


def test_a_database_of_another_version(patient: Patient) -> None:
    """A migration that this livedex does not know."""
    patient.workers.execute("insert into livedex.schema_migration (version, sha256) values ('0099_post_future', 'x')")
    assert "update livedex" in patient.fails("migrations")


@pytest.mark.parametrize(
    ("group", "taken", "says"),
    [
        (
            "livedex_indexer",
            "insert on livedex.document from livedex_indexer",
            "lacks insert on livedex.document, which livedex index",
        ),
        (
            "livedex_query",
            "select on livedex.embedding_1 from livedex_query",
            "lacks select on livedex.embedding_1, which livedex serve",
        ),
        (
            "livedex_query",
            "execute on function livedex.is_searchable from livedex_query",
            "lacks execute on livedex.is_searchable",
        ),
    ],
)
def test_a_right_that_was_taken_away(patient: Patient, group: str, taken: str, says: str) -> None:
    """It is named with the worker that needs it."""
    with login_role(patient.workers.database_url, group) as (_, url):
        assert patient.examined(LIVEDEX_DATABASE_URL=url) == {}
        patient.workers.execute(f"revoke {taken}")
        assert says in patient.fails("permissions", LIVEDEX_DATABASE_URL=url)


def test_a_grant_to_a_role_that_is_gone(patient: Patient) -> None:
    """It stands for nobody, or for somebody else of the same name."""
    with login_role(patient.workers.database_url) as (name, _):
        patient.workers.execute(f"insert into livedex.collection_access (collection_id, role) values (1, '{name}')")
        assert patient.examined() == {}
    assert f"livedex revoke default {name}" in patient.fails("roles")


def test_a_model_that_is_not_here(patient: Patient) -> None:
    """An encoder that is not the one of the collection's vectors."""
    assert "LIVEDEX_EMBEDDER=hash" in patient.fails("model", LIVEDEX_EMBEDDER="torch")


def test_it_is_told_to_people_too(patient: Patient) -> None:
    """A line for each check, the failures with what to do."""
    done = patient._livedex("doctor")
    assert [line.split()[:2] for line in done.out.splitlines()] == [["ok", check] for check in CHECKS]
