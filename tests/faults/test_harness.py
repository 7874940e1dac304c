"""The harness itself: its faults do what they say, and its verdict sees what is wrong."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from livedex.core.change import Rejection, VersionMode, decode
from livedex.core.record import Record
from support.faults import broker, checks, oracle, snapshot
from support.faults.arena import Arena
from support.faults.audit import DocumentChange
from support.faults.poison import poisons
from support.faults.proxy import Proxy
from support.faults.script import Mix, Script
from support.faults.texts import torn
from support.kafka import Log
from support.waiting import until


@pytest.fixture
def proxied(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before Postgres, and the URL through it."""
    parts = urlsplit(database_url)
    assert parts.port
    with Proxy(parts.port) as proxy:
        yield proxy, parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}").geturl()


def test_a_cut_reply_leaves_the_commit_in_the_database(proxied: tuple[Proxy, str], database_url: str) -> None:
    """The client loses its connection at COMMIT, and what it wrote is there; transactions without the marked table pass, also
    where the statement was prepared long before.
    """
    proxy, url = proxied
    with psycopg.connect(database_url, autocommit=True) as direct:
        direct.execute("create table marked (n int)")
        direct.execute("create table other (n int)")
        proxy.cut_reply_of(b"COMMIT", after=b"into marked", times=1)
        with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
            for number in range(3):
                with connection.transaction():
                    connection.execute("insert into other values (%s)", (number,))
            with pytest.raises(psycopg.OperationalError), connection.transaction():
                connection.execute("insert into marked values (%s)", (1,))
        with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
            for number in (2, 3):
                with connection.transaction():
                    connection.execute("insert into marked values (%s)", (number,))
        assert proxy.cut_replies == 1
        assert direct.execute("select array_agg(n order by n) from marked").fetchall() == [([1, 2, 3],)]


def test_a_proxy_cuts_and_holds(proxied: tuple[Proxy, str]) -> None:
    """A cut proxy refuses, a black hole takes connections and answers nothing until it heals, and resets end connections."""
    proxy, url = proxied
    proxy.cut()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url, connect_timeout=5)
    proxy.heal()
    with psycopg.connect(url, autocommit=True) as connection:
        proxy.blackhole(to_server=False)
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(url, connect_timeout=2)
        proxy.heal()
        assert connection.execute("select 1").fetchall() == [(1,)]
        proxy.set(resets=1.0)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 2")


def test_a_broker_behind_a_proxy_is_reached_both_ways(tmp_path: Path) -> None:
    """Clients that bootstrap at the proxy stay behind it; the harness's own do not notice when it is cut."""
    with (
        broker.behind_proxy(tmp_path, log_segment_bytes=str(2**20)) as behind,
        Log(behind.broker.settings) as direct,
        Log(behind.broker.settings.model_copy(update={"bootstrap_servers": behind.bootstrap_servers})) as through,
    ):
        topic = direct.topic()
        through.send(topic, {"id": "a", "text": "behind"})
        behind.proxy.cut()
        direct.send(topic, {"id": "b", "text": "before"})
        post = through.post(topic, {"id": "c", "text": "late"})
        behind.proxy.heal()
        post()
        assert [json.loads(record.value or b"")["id"] for record in direct.records(topic)] == ["a", "b", "c"]


@pytest.mark.parametrize("mode", ["log", "source"])
def test_poison_is_what_it_says(mode: str) -> None:
    """Each sort of poison is rejected for its own reason, and every other event of a script is good."""
    for sort in poisons("doc/1", numbered_by=mode):
        record = Record(topic="t", partition=0, offset=0, timestamp_ms=0, key=sort.key, value=sort.value)
        found = decode(record, mode=VersionMode(mode), epoch=0)
        assert isinstance(found, Rejection), sort
        assert found.reason == sort.reason
    for offset, event in enumerate(Script(seed=1, numbered_by=mode).events(500)):
        record = Record(topic="t", partition=0, offset=offset, timestamp_ms=0, key=event.key, value=event.value,
                        headers=event.headers)  # fmt: skip
        assert isinstance(decode(record, mode=VersionMode(mode), epoch=0), Rejection) is oracle.is_poison(record), event


def test_a_seed_repeats_its_script() -> None:
    """The same seed makes the same bytes, another one others."""
    made = [list(Script(seed=seed, numbered_by="source").events(200)) for seed in (5, 5, 6)]
    assert made[0] == made[1] != made[2]


def test_a_torn_document_is_seen() -> None:
    """Whole documents pass; a mixed, a missing and a doubled paragraph do not."""
    whole = ["[a#1 1/2] one. [a#1 2/2]", "[a#1 0/2]"]
    assert torn("a", whole[1], whole[:1]) is None
    assert torn("a", "[a#3 0/0]", ()) is None
    for title, chunks in (
        ("[a#2 0/2]", whole[:1]), ("[a#1 0/2]", ["[a#1 1/2]"]), ("[a#1 0/2]", ["[a#1 1/2]", "[a#2 2/2]"]),
        ("[a#1 0/2]", whole[:1] * 2), (None, whole[:1]), ("[b#1 0/2]", ["[b#1 1/2] [b#1 2/2]"]),
    ):  # fmt: skip
        assert torn("a", title, chunks), (title, chunks)


ONE = "(select min(doc_key) from livedex.document_chunk)"
DAMAGES = [  # each with what is said of it
    (f"update livedex.document set title = 'other' where doc_key = {ONE}", "title"),
    (f"delete from livedex.document_chunk where ordinal = 0 and doc_key = {ONE}", "has a gap|text is"),
    ("update livedex.embedding_1 set embedding = (select avg(embedding) from livedex.embedding_1)", "vector of another text"),
    ("delete from livedex.document where deleted", "is missing"),
    ("update livedex.source_progress set next_offset = next_offset - 20 where partition = 0", "the log says"),
]
LOST_LETTERS = [
    "update livedex.dead_letter set value = 'x' where id = (select min(id) from livedex.dead_letter)",
    "update livedex.dead_letter set attempts = 2 where id = (select min(id) from livedex.dead_letter)",
    "delete from livedex.dead_letter where id = (select min(id) from livedex.dead_letter)",
]


def test_damage_is_seen(open_arena: Callable[..., Arena], monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is sound passes, and damage to documents, chunks, vectors, dead letters and progress is named."""
    arena = open_arena(mix=Mix(delete=0.3))  # with fewer, there may be no deleted document in the end
    arena.load(200)
    arena.worker(wait=False)
    records = arena.settle()
    arena.verify(records)
    arena.reader.stop()  # it would see the damage too
    monkeypatch.setattr(checks, "SHOWN", 10**6)
    for damage in LOST_LETTERS:
        assert arena.rows(damage + " returning 1"), f"there was nothing to damage: {damage}"
        with pytest.raises(AssertionError, match="I8"):
            checks.every_offset_once(snapshot.take(arena.world.direct.database_url), records)
    for damage, said in DAMAGES:
        assert arena.rows(damage + " returning 1"), f"there was nothing to damage: {damage}"
        with pytest.raises(AssertionError, match=said):
            checks.fold_equality(snapshot.take(arena.world.direct.database_url), records, numbered_by="log")


SOUND = DocumentChange(
    seq=1, txid=1, op="UPDATE", document_id="a", content_version=(0, 5, 5), metadata_version=(0, 5, 5), deleted=False,
    title="t", metadata={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"content_version": (0, 4, 4)}, "content_version of a fell"),
        ({"metadata_version": (0, 4, 9)}, "metadata_version of a fell"),
        ({}, "was written again"),
        ({"metadata_version": (0, 6, 6), "title": "other"}, "the content of a changed without its version"),
        ({"metadata_version": (0, 6, 6), "deleted": True}, "the content of a changed without its version"),
        ({"content_version": (0, 6, 6), "metadata": {"n": 1}}, "the metadata of a changed without its version"),
        ({"op": "DELETE"}, "was deleted, and its versions with it"),
    ],
)
def test_a_version_that_does_not_rise_is_seen(after: dict[str, Any], said: str) -> None:
    """In the history of a document's row, statement by statement."""
    checks.versions_rise([SOUND, replace(SOUND, seq=2, content_version=(0, 6, 6), title="other")])
    with pytest.raises(AssertionError, match=f"I3 .*{said}"):
        checks.versions_rise([SOUND, replace(SOUND, seq=2, **after)])


def test_what_is_missing_or_counted_twice_is_seen() -> None:
    """Records that the broker acknowledged and has not, and events that no worker counted, or two."""
    record = Record(topic="t", partition=0, offset=3, timestamp_ms=0, key=b"a", value=b"{}")
    checks.acknowledged_is_there([record.place], [record])
    with pytest.raises(AssertionError, match=r"acknowledged records are not in the log.*t:0:3"):
        checks.acknowledged_is_there([record.place], [])
    checks.counted_once(1, [record])
    for counted in (0, 2):
        with pytest.raises(AssertionError, match="I8 the workers counted"):
            checks.counted_once(counted, [record])


def test_an_unknown_removal_is_an_error(open_arena: Callable[..., Arena]) -> None:
    """A worker does not start without a protection that nobody knows: it would prove nothing."""
    worker = open_arena(without=["gravity"]).worker(wait=False)
    until(lambda: worker.popen.poll() is not None, what="the worker to end")
    assert "gravity" in worker.log()
