"""Metrics of both workers: all that is promised is there, and says what the servers themselves say."""

import httpx
import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from prometheus_client.parser import text_string_to_metric_families

from livedex.config import KafkaSettings
from livedex.kafka import open_admin
from support.kafka import Log
from support.waiting import until
from support.workers import Process, Workers

# the first rows are those of the contracts; the others are told too
INDEX = {
    "livedex_freshness_seconds", "livedex_embedding_lag_seconds", "livedex_staleness_seconds", "livedex_offset_lag",
    "livedex_stage_seconds", "livedex_events", "livedex_chunks", "livedex_dead_letters_open", "livedex_fenced",
    "livedex_rebalances", "livedex_retries", "livedex_dependency_up", "livedex_build_info",
    "livedex_paused_partitions", "livedex_inflight_bytes", "livedex_clock_skew", "livedex_last_poll_timestamp_seconds",
    "livedex_last_poll_age_seconds",
    "livedex_retained_offsets", "livedex_retention_seconds", "livedex_index_state", "livedex_index_ready",
    "livedex_index_recall", "livedex_unmapped_share", "livedex_documents", "livedex_vectors", "livedex_index_bytes",
    "livedex_table_bytes", "livedex_generation_built_ratio", "livedex_active_generation",
    "livedex_kafka_records_consumed", "livedex_kafka_bytes_consumed", "livedex_kafka_fetch_latency_seconds",
    "livedex_kafka_connections", "livedex_kafka_heartbeat_age_seconds",
    "livedex_pool_connections", "livedex_pool_waiting", "livedex_pool_requests", "livedex_pool_wait_seconds",
    "livedex_pool_errors", "process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds",
}  # fmt: skip
QUERY = {
    "livedex_search_seconds", "livedex_search_stage_seconds", "livedex_search_requests", "livedex_search_waiting",
    "livedex_dependency_up", "livedex_build_info", "livedex_query_cache", "livedex_search_degraded",
    "livedex_active_generation", "livedex_pool_connections", "livedex_pool_waiting", "livedex_pool_requests",
    "livedex_pool_wait_seconds", "livedex_pool_errors", "process_resident_memory_bytes", "process_open_fds",
}  # fmt: skip
NEVER = {"document_id", "document", "doc_key", "id", "offset", "query", "title"}  # labels that would grow with what is kept


def families(worker: Process) -> dict[str, set[str]]:
    """The names of a worker's metrics, with the labels of their series."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(worker.metrics().text):
        found.setdefault(family.name, set()).update(name for sample in family.samples for name in sample.labels)
    return found


def test_all_that_is_promised_is_there(workers: Workers, log: Log) -> None:
    """Both workers tell all their metrics once they have worked, and no label grows with the documents."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    index, serve = workers.start("index", config), workers.start("serve", config)
    for series in ('events_total{collection="default",outcome="dead_letter"}', 'retries_total{dependency="embedder"}'):
        assert f"livedex_{series} 0.0" in index.metrics().text, "what begins with its first event shows no increase"
    for number in range(5):
        place = log.send(topic, {"id": f"d{number}", "text": f"Text {number}."})
    workers.caught_up(topic, {0: place.offset + 1})
    for _ in range(2):
        httpx.get(f"{serve.address}/v1/search", params={"q": "text"}, trust_env=False).raise_for_status()
    until(lambda: index.metrics().value("livedex_documents") == 5, what="the upkeep to have counted")
    ready = {"collection": "default", "state": "ready"}
    until(lambda: index.metrics().value("livedex_index_state", **ready) == 1, timeout=60, what="the index, once all is applied")
    told, asked = families(index), families(serve)
    assert told.keys() >= INDEX, f"not told: {INDEX - told.keys()}"
    assert asked.keys() >= QUERY, f"not told: {QUERY - asked.keys()}"
    assert not NEVER & {label for labels in (*told.values(), *asked.values()) for label in labels}

    metrics = index.metrics()
    assert metrics.value("livedex_vectors", collection="default") == 5
    assert metrics.value("livedex_index_state", collection="default") == 1, "it is in one state"
    assert metrics.value("livedex_table_bytes") == workers.rows("select pg_relation_size('livedex.embedding_1')")[0][0]
    assert metrics.value("livedex_index_bytes") == workers.rows("select pg_relation_size('livedex.embedding_1_hnsw')")[0][0]
    assert metrics.value("livedex_kafka_records_consumed_total") == 5
    assert metrics.value("livedex_kafka_connections") >= 1
    assert 0 <= metrics.value("livedex_kafka_heartbeat_age_seconds") < 5
    assert metrics.value("livedex_pool_connections", pool="index") >= 1
    metrics = serve.metrics()
    assert metrics.value("livedex_query_cache_total", outcome="miss") == 1
    assert metrics.value("livedex_query_cache_total", outcome="hit") == 1
    assert metrics.value("livedex_active_generation", collection="default") == 1


@pytest.mark.accept
def test_what_the_broker_still_keeps(workers: Workers, log: Log, kafka_settings: KafkaSettings) -> None:
    """The distance between the log's start and the progress shrinks when the broker deletes; the time after which it does is
    told for topics where it deletes, as it is changed, and for no others.
    """
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    kafka_admin = open_admin(kafka_settings)
    for number in range(10):
        place = log.send(topic, {"id": f"d{number}", "text": f"Text {number}."})
    index = workers.start("index", config)
    workers.caught_up(topic, {0: place.offset + 1})
    until(lambda: index.metrics().value("livedex_retained_offsets", topic=topic) == 10, what="what is kept")
    set_topic(kafka_admin, topic, {"retention.ms": "7200000", "cleanup.policy": "delete"})
    kafka_admin.delete_records({TopicPartition(topic, 0): 7})
    until(lambda: index.metrics().value("livedex_retained_offsets", topic=topic) == 3, timeout=30, what="less")
    until(lambda: index.metrics().value("livedex_retention_seconds", topic=topic) == 7200, timeout=30, what="2 h")
    set_topic(kafka_admin, topic, {"cleanup.policy": "compact", "retention.ms": "7200000"})
    until(lambda: topic not in retained(index), timeout=30, what="no time after which records are deleted")
    kafka_admin.close()


def set_topic(admin: KafkaAdminClient, topic: str, options: dict[str, str]) -> None:
    """Give a topic these settings."""
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=options)])


def retained(worker: Process) -> str:
    """The lines of the metrics about retention."""
    return "".join(line for line in worker.metrics().text.splitlines() if line.startswith("livedex_retention_seconds{"))


@pytest.mark.accept
def test_several_processes_on_a_host(workers: Workers, log: Log) -> None:
    """Two index workers and a query worker beside each other each tell of their own work, and together of all of it once."""
    topic = log.topic(partitions=4)
    config = workers.config(topic)
    workers.apply(config)
    both = [workers.start("index", config) for _ in range(2)]
    serve = workers.start("serve", config)
    until(lambda: [len(partitions(each)) for each in both] == [2, 2], timeout=30, what="each to have two partitions")
    ends: dict[int, int] = {}
    for number in range(40):
        place = log.send(topic, {"id": f"d{number}", "text": f"Text {number}."}, partition=number % 4)
        ends[place.partition] = place.offset + 1
    workers.caught_up(topic, ends)
    until(lambda: sum(each.metrics().value("livedex_events_total") for each in both) == 40, what="each event once")
    assert all(each.metrics().value("livedex_events_total", outcome="applied") == 20 for each in both)
    assert partitions(both[0]) | partitions(both[1]) == {"0", "1", "2", "3"}
    resident = {each.metrics().value("process_start_time_seconds") for each in (*both, serve)}
    assert len(resident) == 3, "each tells of its own process"
    until(lambda: sum(each.metrics().value("livedex_documents") for each in both) == 40, what="the upkeep's")


def partitions(worker: Process) -> set[str]:
    """The partitions whose lag a worker tells."""
    families = text_string_to_metric_families(worker.metrics().text)
    return {
        sample.labels["partition"] for family in families if family.name == "livedex_offset_lag" for sample in family.samples
    }
