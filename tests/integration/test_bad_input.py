"""Every kind of record that cannot be indexed: its neighbours are applied, it keeps its bytes, and the progress moves on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from livedex.dev.stack import Addresses
from livedex.index.app import IndexApp
from support.database import fresh_database
from support.encoders import MARK, open_failing
from support.kafka import Log
from support.waiting import until
from support.workers import Metrics, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A record that must become a dead letter."""

    reason: str
    value: bytes | None
    key: bytes | None = b"bad"


def event(**fields: Any) -> bytes:
    """An upsert with one thing wrong."""
    return json.dumps({"id": "bad", "version": 2, "text": "A text.", **fields}).encode()


RECORDS = [
    Bad(reason="invalid-utf8", value=b'{"id": "bad", "version": 2, "text": "\xff"}'),
    Bad(reason="invalid-utf8", value=event(id=None), key=b"\xff\xfe"),
    Bad(reason="invalid-json", value=b'{"id": "bad", "version": 2, "text": '),
    Bad(reason="invalid-json", value=b""),
    Bad(reason="invalid-json", value=b'{"id": "bad", "version": 2, "text": "x", "metadata": {"n": NaN}}'),
    Bad(reason="schema", value=b"[]"),
    Bad(reason="schema", value=event(text=7)),
    Bad(reason="schema", value=event(op="replace")),
    Bad(reason="schema", value=event(time="yesterday")),
    Bad(reason="missing-id", value=event(id=None), key=None),
    Bad(reason="id-mismatch", value=event(id="another")),
    Bad(reason="missing-version", value=event(version=None)),
    Bad(reason="missing-version", value=None),
    Bad(reason="too-large", value=event(text="ü" * (5 * 2**20 + 1))),
    Bad(reason="nul-character", value=event(text="a\0b")),
    Bad(reason="nul-character", value=event(metadata={"a": ["\0"]})),
    Bad(reason="lone-surrogate", value=event(text="\ud800")),
    Bad(reason="nesting", value=b'{"id": "bad", "version": 2, "text": "x", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    Bad(reason="embedding-failed", value=event(text=f"First. {MARK}.")),
]


@pytest.fixture(scope="module")
def running(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workers, Log, str]]:
    """A worker whose encoder fails on a marked text, on a collection that takes versions from its source."""
    from livedex.config import KafkaSettings

    settings = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    folder: Path = tmp_path_factory.mktemp("bad-input")
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(settings) as log:
        topic = log.topic()
        config = workers.config(topic, versions="source")
        workers.apply(config)
        with workers.in_thread(IndexApp(workers.settings(config), open_encoder=open_failing)):
            yield workers, log, topic


@pytest.mark.parametrize("bad", RECORDS, ids=[f"{number}-{bad.reason}" for number, bad in enumerate(RECORDS)])
def test_a_record_that_cannot_be_indexed_is_isolated(running: tuple[Workers, Log, str], bad: Bad, request: Any) -> None:
    """The neighbours of a bad record become searchable, and it becomes one dead letter with its exact bytes."""
    workers, log, topic = running
    before, after = f"before {request.node.name}", f"after {request.node.name}"
    sent = [
        log.post(topic, {"id": before, "version": 1, "text": f"Text of {before}."}),
        log.post(topic, bad.value, key=bad.key, headers=[("origin", b"\x00\xff"), ("origin", b"again")]),
        log.post(topic, {"id": after, "version": 1, "text": f"Text of {after}."}),
    ]
    places = [place() for place in sent]
    workers.caught_up(topic, {0: places[2].offset + 1})
    found = workers.rows("select document_id from livedex.documents where document_id = any(%s)", [before, after])
    assert sorted(found) == [(after,), (before,)]
    statement = 'select reason, key, value, headers, state from livedex.dead_letter where "offset" = %s'
    headers = [b"origin", b"\x00\xff", b"origin", b"again"]
    assert workers.rows(statement, places[1].offset) == [(bad.reason, bad.key, bad.value, headers, "open")]


def test_an_older_good_version_is_applied_when_the_newest_cannot_be_embedded(running: tuple[Workers, Log, str]) -> None:
    """Of two versions in one batch, of which the newer fails in the encoder, the older becomes searchable."""
    workers, log, topic = running
    posts = [
        log.post(topic, {"id": "twice", "version": 1, "text": "The good version."}),
        log.post(topic, {"id": "twice", "version": 2, "text": f"{MARK}."}),
        log.post(topic, {"id": "neighbour", "version": 1, "text": "The neighbour."}),
    ]
    places = [post() for post in posts]
    workers.caught_up(topic, {0: places[-1].offset + 1})
    texts = workers.rows("select document_id, text from livedex.chunks where document_id in ('twice', 'neighbour')")
    assert sorted(texts) == [("neighbour", "The neighbour."), ("twice", "The good version.")]
    pending = workers.rows("select pending_reason from livedex.documents where document_id = 'twice'")
    assert pending == [("embedding-failed",)]


def test_of_two_versions_in_one_batch_the_good_one_is_applied(workers: Workers, log: Log) -> None:
    """What waits for the worker comes in one batch: its newest version fails in the encoder, the older one is applied, and the
    metrics count each event and each run of the model once.
    """
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    log.send(topic, {"id": "twice", "text": "The good version."})
    log.send(topic, {"id": "twice", "text": f"{MARK}."})
    log.send(topic, {"id": "neighbour", "text": "The neighbour."})
    app = IndexApp(workers.settings(config), open_encoder=open_failing)
    with workers.in_thread(app) as address:
        workers.caught_up(topic, {0: 3})
        metrics = until(lambda: counted(address, events=3), what="three events to be counted")
    assert metrics is not None
    texts = workers.rows("select document_id, text from livedex.chunks")
    assert sorted(texts) == [("neighbour", "The neighbour."), ("twice", "The good version.")]
    assert metrics.value("livedex_events_total", outcome="applied") == 2
    assert metrics.value("livedex_events_total", outcome="dead_letter") == 1
    assert metrics.value("livedex_stage_seconds_count", stage="apply") == 1, "it must have been one batch"
    assert metrics.value("livedex_chunks_total", outcome="embedded") == 2
    assert metrics.value("livedex_chunks_total", outcome="reused") == 0


def counted(address: str, *, events: int) -> Metrics | None:
    """The metrics, once they count so many events."""
    metrics = Metrics(httpx.get(f"{address}/metrics", trust_env=False).text)
    return metrics if metrics.value("livedex_events_total") == events else None


def test_dead_letters_are_counted_by_reason(running: tuple[Workers, Log, str]) -> None:
    """Each rejected record adds one to its reason, and the view shows it to readers."""
    workers, log, topic = running
    count = "select count(*) from livedex.dead_letters where reason = 'missing-id' and state = 'open'"
    before = workers.rows(count)[0][0]
    place = log.send(topic, {"text": "Whose?"}, key=b"")
    workers.caught_up(topic, {0: place.offset + 1})
    assert workers.rows(count) == [(before + 1,)]
