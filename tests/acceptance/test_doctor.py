"""`livedex doctor` on servers of its own: a broker that asks for rights, and a small Postgres without room and roles."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, NewTopic, ResourcePattern, ResourceType
from kafka.errors import KafkaError

from livedex.config import GROUP, KafkaSettings
from livedex.dev import kafka as broker
from livedex.dev.kafka import Kafka
from livedex.dev.stack import Addresses
from livedex.kafka import MAX_REQUEST_BYTES, open_admin
from support.database import url_of
from support.faults.disk import small_disk
from support.faults.servers import server
from support.waiting import until
from support.workers import Workers

pytestmark = pytest.mark.accept
TOPIC = "guarded.documents"
JAAS = "org.apache.kafka.common.security.plain.PlainLoginModule required "
USERS = {"admin": "of-the-admin", "reader": "of-the-reader"}
GUARDED = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": JAAS
    + f'username="admin" password="{USERS["admin"]}" '
    + " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    + ";",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",  # anonymous: the controller's own connections
}


def settings_of(kafka: Kafka, user: str) -> KafkaSettings:
    """How a user reaches the broker."""
    client = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": user,
              "sasl_plain_password": USERS[user]}  # fmt: skip
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, client=client)


@contextmanager
def guarded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kafka]:
    """A broker where users log in, and may do what they are allowed to."""
    monkeypatch.setattr(broker, "SETTINGS", {**broker.SETTINGS, **GUARDED})
    kafka = Kafka(directory=folder, port=broker.free_port())
    kafka.start()

    def answers() -> bool:
        try:
            admin = open_admin(settings_of(kafka, "admin"))
        except (KafkaError, OSError):
            return False
        except Exception as error:
            if "does not answer" in str(error):
                return False
            raise
        admin.close()
        return True

    try:
        until(answers, timeout=120, what="the broker to answer")
        yield kafka
    finally:
        kafka.stop()


def examined(workers: Workers, config: Path, bootstrap_servers: str | None = None) -> dict[str, str]:
    """What the checks that failed say."""
    servers = bootstrap_servers or workers.stack.kafka_bootstrap_servers
    done = workers.run("doctor", "--json", config=config, LIVEDEX_KAFKA_BOOTSTRAP_SERVERS=servers)
    found = json.loads(done.stdout)
    assert done.returncode == int(not found["ok"]), done.stderr
    return {row["check"]: row["says"] for row in found["checks"] if not row["ok"]}


def allow(kafka: Kafka, kind: ResourceType, name: str, *operations: ACLOperation) -> None:
    """Let the reader do this."""
    admin = open_admin(settings_of(kafka, "admin"))
    try:
        for operation in operations:
            rule = ACL(principal="User:reader", host="*", operation=operation, permission_type=ACLPermissionType.ALLOW,
                       resource_pattern=ResourcePattern(kind, name))  # fmt: skip
            admin.create_acls([rule])
    finally:
        admin.close()


def test_rights_that_kafka_does_not_give(workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until this user may read topic and group, the check says what is lacking; with just that everything is in order."""
    with guarded(tmp_path / "guarded", monkeypatch) as kafka:
        admin = open_admin(settings_of(kafka, "admin"))
        options = {"max.message.bytes": str(MAX_REQUEST_BYTES)}
        admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1, topic_configs=options)])
        admin.close()
        config = workers.config(TOPIC, group=GROUP, client=settings_of(kafka, "reader").client, model="hash-16")
        with workers.connect() as connection:
            from livedex import apply

            apply.run(apply.plan(workers.settings(config), connection, topics=False))
        own = kafka.bootstrap_servers
        nothing = examined(workers, config, own)
        assert {"topics", "rights"} <= nothing.keys(), nothing
        allow(kafka, ResourceType.TOPIC, TOPIC, ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS)
        described = until(lambda: settled(examined(workers, config, own), "topics"), timeout=60, what="the right to describe")
        assert f"reader lacks READ on topic {TOPIC}" in described["rights"]
        assert f"reader lacks READ on group {GROUP}" in described["rights"]
        allow(kafka, ResourceType.TOPIC, TOPIC, ACLOperation.READ)
        allow(kafka, ResourceType.GROUP, GROUP, ACLOperation.READ)
        until(lambda: not examined(workers, config, own), timeout=60, what="everything to be in order")


def settled(failed: dict[str, str], check: str) -> dict[str, str]:
    """What fails, once this check does not any more: brokers take a right over a moment later."""
    return failed if check not in failed else {}


def test_a_small_postgres_without_room_and_roles(stack: Addresses, tmp_path: Path) -> None:
    """Buffers, disk and roles are told with what to do."""
    folder = tmp_path / "disk"
    with small_disk(folder, "900m"), server(folder / "postgres") as own:
        own.stop()
        own.up()  # with the small buffers
        own.execute("create database small")
        with Workers(stack, url_of(own.url, "small"), tmp_path) as workers:
            topic = "absent.documents"
            config = workers.config(topic, model="hash-16")
            assert workers.run("migrate", config=config).returncode == 0
            failed = examined(workers, config)
            assert failed["buffers"] == "shared_buffers is 128 MB: set at least 512 MB"
            assert "the disk of postgres has" in failed["disk"]
            assert "roles" not in failed
            workers.execute("revoke livedex_search from livedex_query")
            assert "GRANT livedex_search TO livedex_query" in examined(workers, config)["roles"]
            workers.execute("alter role livedex_search rename to other")
            assert "the server has no role livedex_search" in examined(workers, config)["roles"]
