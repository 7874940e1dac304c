"""The index worker on a real broker and a real Postgres: what each kind of event does, and who may write."""

import json
from typing import Any

import httpx
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from support.kafka import Log
from support.waiting import until
from support.workers import Workers

VISIBLE = "select document_id, title, metadata from livedex.documents order by document_id"


def test_the_life_of_a_document(workers: Workers, log: Log) -> None:
    """A document appears, changes, gets other metadata, disappears by either kind of delete, and comes back."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)

    def after(event: dict[str, Any] | None, key: str = "a") -> list[tuple[Any, ...]]:
        place = log.send(topic, event, key=key)
        workers.caught_up(topic, {0: place.offset + 1})
        return workers.rows(VISIBLE)

    assert after({"id": "a", "title": "A", "text": "One. Two.", "metadata": {"n": 1}}) == [("a", "A", {"n": 1})]
    assert workers.rows("select text, start_char, end_char from livedex.chunks") == [("One. Two.", 0, 9)]
    assert after({"op": "upsert", "text": "Three."}) == [("a", None, {})]
    assert workers.rows("select text from livedex.chunks") == [("Three.",)]
    assert after({"op": "metadata", "metadata": {"n": 2}}) == [("a", None, {"n": 2})]
    assert after({"op": "delete"}) == []
    assert workers.rows("select text from livedex.chunks") == []
    assert after({"text": "Four."}) == [("a", None, {})]
    assert after(None) == []
    assert after({"text": ""}) == [("a", None, {})]
    assert workers.rows("select text from livedex.chunks") == []
    assert workers.rows('select version, topic, partition, "offset" from livedex.documents') == [(6, topic, 0, 6)]
    until(lambda: worker.metrics().value("livedex_events_total", outcome="applied") == 7, what="seven events to be counted")
    assert worker.metrics().value("livedex_freshness_seconds_count", op="delete") == 2


def test_late_events_complete_what_newer_ones_left_open(workers: Workers, log: Log) -> None:
    """With versions from the source, an older event never overwrites a newer one, and content and metadata are fenced apart."""
    topic = log.topic()
    config = workers.config(topic, versions="source")
    workers.apply(config)
    worker = workers.start("index", config)

    def after(event: dict[str, Any]) -> list[tuple[Any, ...]]:
        place = log.send(topic, event)
        workers.caught_up(topic, {0: place.offset + 1})
        return workers.rows(VISIBLE)

    assert after({"id": "a", "op": "metadata", "version": 9, "metadata": {"of": 9}}) == []
    assert after({"id": "a", "version": 7, "text": "Seven.", "title": "7", "metadata": {"of": 7}}) == [("a", "7", {"of": 9})]
    assert after({"id": "a", "version": 8, "text": "Eight.", "title": "8", "metadata": {"of": 8}}) == [("a", "8", {"of": 9})]
    assert after({"id": "a", "version": 6, "op": "delete"}) == [("a", "8", {"of": 9})]
    assert after({"id": "a", "version": 12, "op": "delete"}) == []
    assert after({"id": "a", "version": 11, "text": "Eleven."}) == []
    assert after({"id": "a", "version": 13, "text": "Thirteen."}) == [("a", None, {})]
    assert workers.rows("select version from livedex.documents") == [(13,)]
    until(lambda: worker.metrics().value("livedex_events_total", outcome="stale") == 2, what="two stale events")


def test_a_small_edit_embeds_one_or_two_chunks(workers: Workers, log: Log) -> None:
    """One changed sentence in a long document is paid for with one or two chunks, also by a worker that never saw the document
    before, and a moved document with none.
    """
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)
    sentences = [f"Sentence {number} of this long document is not like any other." for number in range(400)]

    def embedded(name: str) -> float:
        before = worker.metrics().value("livedex_chunks_total", outcome="embedded")
        place = log.send(topic, {"id": name, "text": " ".join(sentences)})
        workers.caught_up(topic, {0: place.offset + 1})
        return worker.metrics().value("livedex_chunks_total", outcome="embedded") - before

    assert embedded("a") > 20
    sentences[200] = "This one is new."
    assert 1 <= embedded("a") <= 2
    assert embedded("moved") == 0
    assert worker.stop() == 0
    worker = workers.start("index", config)
    sentences[300] = "So is this one."
    assert 1 <= embedded("a") <= 2


def test_the_first_start_begins_where_the_log_begins(workers: Workers, log: Log, kafka_settings: Any) -> None:
    """A topic whose oldest records are gone already is read from its first record, when nothing was ever applied."""
    topic = log.topic()
    for number in range(3):
        log.send(topic, {"id": str(number), "text": f"Text {number}."})
    admin = KafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap_servers)
    admin.delete_records({TopicPartition(topic, 0): 2})
    admin.close()
    config = workers.config(topic)
    workers.apply(config)
    workers.start("index", config)
    workers.caught_up(topic, {0: 3})
    assert workers.rows(VISIBLE) == [("2", None, {})]


def test_two_workers_share_the_partitions_and_survive_each_other(workers: Workers, log: Log) -> None:
    """Two workers own different partitions; when one is killed, the other takes over, and everything is applied once."""
    topic = log.topic(2)
    config = workers.config(topic)
    workers.apply(config)
    first, second = workers.start("index", config), workers.start("index", config)
    owners = "select count(distinct owner) from livedex.progress where topic = %s"
    until(lambda: workers.rows(owners, topic) == [(2,)], what="each worker to own a partition")
    ends: dict[int, int] = {}
    for number in range(40):
        if number == 20:
            first.kill()
        place = log.send(topic, {"id": str(number), "text": f"Text {number}."})
        ends[place.partition] = place.offset + 1
    workers.caught_up(topic, ends)
    assert workers.rows("select count(*) from livedex.documents") == [(40,)]
    assert workers.rows(owners, topic) == [(1,)]
    assert second.stop() == 0


def test_a_source_added_later_is_followed_without_a_restart(workers: Workers, log: Log) -> None:
    """What `livedex apply` adds while the worker runs is indexed by it."""
    first, second = log.topic(), log.topic()
    config = workers.config(first)
    workers.apply(config)
    workers.start("index", config)
    more = config.read_text() + f'[collections.more]\n[sources."{second}"]\ncollection = "more"\n'
    config.write_text(more)
    workers.apply(config)
    place = log.send(second, {"id": "a", "text": "A text."})
    workers.caught_up(second, {0: place.offset + 1})
    assert workers.rows("select collection, document_id from livedex.documents") == [("more", "a")]


def test_progress_is_told_to_kafka(workers: Workers, log: Log, kafka_settings: Any) -> None:
    """The group's committed offsets follow the progress, for lag exporters and autoscalers."""
    topic = log.topic()
    config = workers.config(topic, group=f"group.{topic}")
    workers.apply(config)
    worker = workers.start("index", config)
    log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {0: 1})
    assert worker.stop() == 0
    admin = KafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap_servers)
    committed = admin.list_group_offsets({f"group.{topic}": None})
    admin.close()
    assert committed[f"group.{topic}"][TopicPartition(topic, 0)].offset == 1


def test_a_document_of_the_largest_size_is_indexed(workers: Workers, log: Log) -> None:
    """Exactly 10 MiB of text is taken, and its chunks are its text."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)
    text = ("A line of a very long document, which says the same again and again.\n" * 150_000)[: 10 * 2**20]
    place = log.send(topic, json.dumps({"text": text}).encode(), key="large")
    workers.caught_up(topic, {0: place.offset + 1})
    parts = workers.rows("select text from livedex.chunks order by ordinal")
    assert "".join(part[0] for part in parts) == text
    assert worker.stop() == 0


def test_the_worker_shows_its_health(workers: Workers, log: Log) -> None:
    """Alive, ready, and every metric of the contract has a series once something happened."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    worker = workers.start("index", config)
    log.send(topic, {"id": "a", "text": "A text."})
    workers.caught_up(topic, {0: 1})
    assert httpx.get(f"{worker.address}/healthz", trust_env=False).json() == {"status": "alive"}
    assert httpx.get(f"{worker.address}/readyz", trust_env=False).json() == {"status": "ready", "waiting_for": []}
    until(lambda: "livedex_dead_letters_open{" in worker.metrics().text, what="the first look at the dead letters")
    text = worker.metrics().text
    for name in (
        "livedex_freshness_seconds_bucket", "livedex_embedding_lag_seconds_bucket", "livedex_staleness_seconds",
        "livedex_offset_lag", "livedex_stage_seconds_bucket", "livedex_events_total", "livedex_chunks_total",
        "livedex_dead_letters_open", "livedex_fenced_total", "livedex_rebalances_total", "livedex_dependency_up",
        "livedex_build_info",
    ):  # fmt: skip
        assert f"\n{name}" in text, name
    assert worker.metrics().value("livedex_offset_lag", topic=topic, partition="0") == 0
    assert worker.log().count("A text.") == 0, "no document text in the log"
