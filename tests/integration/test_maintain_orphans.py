"""The collector on a real Postgres: what no document has goes after the grace, what a document has never does."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from livedex.config import KafkaSettings
from livedex.core.canary import Probe
from livedex.core.change import Change, Op
from livedex.core.chunking import chunk
from livedex.core.continuity import Topic
from livedex.core.fold import DocumentState
from livedex.core.plan import BatchPlan, DocumentPlan
from livedex.core.record import Place, Version
from livedex.core.upkeep import LEAST_GRACE
from livedex.database import open_pool
from livedex.encoders import ModelSpec, open_encoder
from livedex.errors import ConflictError
from livedex.index.app import IndexApp
from livedex.index.applying import Advance, Keys, apply_documents
from livedex.index.maintain_orphans import collect_batch, sweep, sweep_slice
from livedex.index.maintain_session import UpkeepSession
from livedex.index.store import Store
from livedex.lifecycle import Stop
from support.kafka import Log
from support.synthetic import connection_to, create_collection, fill
from support.upkeep import FAST, documents, looked, upkeep
from support.waiting import until
from support.workers import Workers

FOUND = Topic(topic_id="6a2f41a3-c54c-fce8-32d2-0324e1c32e22", partitions=1)
EVERYTHING = {"after": 0, "upto": 10**9}
ORPHANS = "select count(*) from livedex.chunk_orphan"
CHUNKS = "select count(*) from livedex.chunk"


class Bench:
    """A collection with one topic, a store on it and a collector's session, whose steps a test takes one by one."""

    def __init__(self, url: str) -> None:
        self.stop = Stop()
        self.connection = connection_to(url)
        self.generation = create_collection(self.connection, "default", model="hash-8", orphan_grace="0s")
        self.connection.execute("insert into livedex.source (topic, collection_id) values ('t', 1)")
        self.store = Store(open_pool(url, size=4, name="test"))
        self.encoder = open_encoder("hash", ModelSpec(model="hash-8"))
        self.claim = self.store.claim("t", 0, found=FOUND, start=0, owner="me")
        self.session = UpkeepSession(url, "test", self.stop)

    def close(self) -> None:
        """Let go of all."""
        self.session.close()
        self.store.close()
        self.connection.close()

    def one(self, statement: str) -> object:
        """The value that a query gives."""
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return row[0]

    def grace(self, interval: str) -> None:
        """Set the collection's."""
        self.connection.execute("update livedex.collection set orphan_grace = %s", (interval,))

    def stage(self, offset: int, text: str) -> tuple[BatchPlan, Keys]:
        """An upsert of document a, planned and staged."""
        now = datetime(2026, 1, 1, tzinfo=UTC)
        change = Change(
            place=Place("t", 0, offset), document_id="a", op=Op.UPSERT, version=Version(0, offset, offset), event_time=now,
            timestamp=now, text=text,
        )  # fmt: skip
        count = self.encoder.count_tokens
        chunks = chunk(text, title=None, markdown=True, spec=self.generation.spec, count_tokens=count, max_tokens=256)
        state = DocumentState(content=change, metadata=change)
        document = DocumentPlan(document_id="a", state=state, chunks={self.generation.chunking_id: chunks})
        plan = BatchPlan(documents=(document,), settled=(), rejected=())
        found = list(plan.chunks(self.generation.chunking_id).values())
        vectors = self.encoder.encode_documents([one.embedded_text for one in found])
        staged = self.store.stage(self.generation, found, {one.digest: vectors[row] for row, one in enumerate(found)})
        return plan, {self.generation.generation_id: staged}

    def apply(self, offset: int, plan: BatchPlan, keys: Keys) -> None:
        """Make it visible."""
        advance = Advance(claim=self.claim, expected_offset=offset, next_offset=offset + 1, event_time=None)
        self.store.apply((self.generation,), advance, plan, keys)

    def upsert(self, offset: int, text: str) -> None:
        """All of it."""
        self.apply(offset, *self.stage(offset, text))

    def sweep(self) -> int:
        """One sweep."""
        return sweep(self.session, FAST, self.stop)


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """See Bench."""
    own = Bench(database_url)
    yield own
    own.close()


def test_an_orphan_goes_with_its_vector_after_the_grace(bench: Bench) -> None:
    """What an edit left is noted at once, deleted once it was an orphan for the grace, and counted; nothing else goes."""
    bench.grace("1 hour")
    bench.upsert(0, "The first text.")
    bench.upsert(1, "The second text.")
    assert bench.sweep() == 0
    assert bench.sweep() == 0
    assert (bench.one(CHUNKS), bench.one(ORPHANS)) == (2, 1)
    bench.connection.execute("update livedex.chunk_orphan set since = now() - interval '59 minutes'")
    assert bench.sweep() == 0
    bench.connection.execute("insert into livedex.upkeep (generation_id, worker) values (1, 'me')")
    bench.connection.execute("update livedex.chunk_orphan set since = now() - interval '61 minutes'")
    assert bench.sweep() == 1
    assert bench.connection.execute("select text from livedex.chunk").fetchall() == [("The second text.",)]
    assert bench.one("select count(*) from livedex.embedding_1") == 1
    assert bench.one(ORPHANS) == 0
    assert bench.one("select deleted from livedex.upkeep") == 1


def test_what_comes_back_is_no_orphan_any_more(bench: Bench) -> None:
    """A text that returns within the grace keeps its chunk, and begins a new grace when it leaves again."""
    bench.grace("1 hour")
    bench.upsert(0, "The first text.")
    bench.upsert(1, "The second text.")
    bench.sweep()
    bench.connection.execute("update livedex.chunk_orphan set since = now() - interval '2 hours'")
    bench.upsert(2, "The first text.")
    assert bench.sweep() == 0
    assert bench.connection.execute(
        "select c.text from livedex.chunk_orphan join livedex.chunk c using (chunk_key)"
    ).fetchall() == [("The second text.",)]
    assert bench.one("select since > now() - interval '1 minute' from livedex.chunk_orphan") is True


def test_a_text_that_comes_and_goes_between_two_sweeps_begins_a_new_grace(bench: Bench) -> None:
    """The batch that refers to a chunk again forgets that it was an orphan, so that the next sweep counts from the new end."""
    bench.grace("1 hour")
    bench.upsert(0, "The first text.")
    bench.upsert(1, "The second text.")
    bench.sweep()
    bench.connection.execute("update livedex.chunk_orphan set since = now() - interval '59 minutes'")
    bench.upsert(2, "The first text.")
    assert bench.one(ORPHANS) == 0
    bench.upsert(3, "The second text.")
    bench.sweep()
    assert bench.one("select since > now() - interval '1 minute' from livedex.chunk_orphan") is True


def test_a_sweep_comes_to_every_chunk(bench: Bench) -> None:
    """However small the slices and the batches are, and however many chunks: none is left out, none is taken that is mapped."""
    fill(bench.connection, bench.generation, documents(100, 8))
    bench.connection.execute("delete from livedex.document_chunk where doc_key % 3 = 0")
    pace = replace(FAST, slice=7, batch=3)
    assert sweep(bench.session, pace, bench.stop) == 0
    assert sweep(bench.session, pace, bench.stop) == 33
    assert bench.one(CHUNKS) == 67
    assert bench.one(ORPHANS) == 0
    assert bench.one("select count(*) from livedex.document_chunk join livedex.embedding_1 using (chunk_key)") == 67


def test_what_is_staged_survives_the_sweep_that_sees_it_first(bench: Bench) -> None:
    """Staged chunks of a batch in flight are orphans, and not even without any grace does the sweep take them that sees them
    first; with a grace none does.
    """
    plan, keys = bench.stage(0, "A text.")
    assert bench.sweep() == 0
    bench.grace("1 minute")
    for _ in range(3):
        assert bench.sweep() == 0
    bench.apply(0, plan, keys)
    bench.sweep()
    assert bench.one(ORPHANS) == 0


def test_what_is_staged_for_a_batch_that_takes_its_time_is_held(bench: Bench) -> None:
    """Its grace begins anew each time that it is told, so that a batch may take longer than the grace; what nobody holds
    goes.
    """
    bench.grace("1 minute")
    bench.stage(0, "A text of nobody.")
    plan, keys = bench.stage(0, "A text.")
    assert bench.sweep() == 0
    for _ in range(2):
        bench.connection.execute("update livedex.chunk_orphan set since = since - interval '59 s'")
        bench.store.hold(keys)
    assert bench.sweep() == 1
    bench.apply(0, plan, keys)
    assert bench.connection.execute("select text from livedex.chunks").fetchall() == [("A text.",)]


def test_a_hold_writes_only_what_has_aged(bench: Bench) -> None:
    """A large document is held again and again, and a grace is long."""
    bench.grace("1 day")
    written = "select xmin::text from livedex.chunk_orphan"
    _, keys = bench.stage(0, "A text.")
    assert bench.sweep() == 0  # which notes it
    before = bench.one(written)
    bench.store.hold(keys)
    assert bench.one(written) == before
    bench.connection.execute("update livedex.chunk_orphan set since = since - make_interval(secs => %s)", (LEAST_GRACE / 4,))
    before = bench.one(written)
    bench.store.hold(keys)
    assert bench.one(written) != before


def test_what_a_canary_left_goes_before_the_grace_of_users_chunks(bench: Bench) -> None:
    """Its orphan is kept for the least grace only, as nothing like it comes again; a user's stays, and what is mapped."""
    bench.grace("1 day")
    canary = [Probe.made("index", 0, now=1.0, chance=chance).text for chance in range(2)]
    for offset, text in enumerate(["A text.", canary[0], canary[1]]):
        bench.upsert(offset, text)
    pace = replace(FAST, least_grace=60.0)
    for _ in range(3):
        assert sweep(bench.session, pace, bench.stop) == 0, "it may be staged for a batch in flight"
    assert bench.one(ORPHANS) == 2
    bench.connection.execute("update livedex.chunk_orphan set since = since - interval '61 s'")
    assert sweep(bench.session, pace, bench.stop) == 1
    left = bench.connection.execute("select text from livedex.chunk order by 1").fetchall()
    assert left == [("A text.",), (canary[1],)]
    bench.grace("1 s")
    bench.connection.execute("update livedex.chunk_orphan set since = since - interval '2 s'")
    assert sweep(bench.session, pace, bench.stop) == 1, "a grace that is shorter counts for all"


def test_a_batch_that_comes_after_the_collector_is_planned_again(bench: Bench) -> None:
    """While the collector deletes a chunk, a batch that refers to it waits, then has to be planned again, and passes."""
    plan, keys = bench.stage(0, "A text.")
    sweep_slice(bench.session, 0, 10**9, FAST, bench.stop)
    failures: list[Exception] = []

    def apply() -> None:
        try:
            bench.apply(0, plan, keys)
        except ConflictError as error:
            failures.append(error)

    thread = threading.Thread(target=apply, daemon=True)
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%document_chunk%'"
    with bench.session.transaction():
        assert collect_batch(bench.session, "lock_expired", {**EVERYTHING, "least": 0, "most": 10}) == (1, 1)
        thread.start()
        until(lambda: bench.one(waiting) == 1, what="the batch to wait for the collector")
    thread.join(timeout=10)
    assert "planning the batch again" in str(failures)
    bench.upsert(0, "A text.")
    assert bench.one("select count(*) from livedex.chunks") == 1


def test_a_batch_that_comes_before_the_collector_keeps_its_chunk(bench: Bench) -> None:
    """While a batch that refers to a chunk is not committed, the collector passes the chunk by, waits for nobody, and deletes
    the others; when it is committed, the chunk is no orphan.
    """
    bench.stage(0, "Another text.")
    plan, keys = bench.stage(0, "A text.")
    sweep_slice(bench.session, 0, 10**9, FAST, bench.stop)
    with connection_to(bench.connection.info.dsn + f" password={bench.connection.info.password}") as other:
        with other.transaction():
            apply_documents(other, (bench.generation,), bench.claim, plan, keys)
            assert bench.sweep() == 1
        assert bench.sweep() == 0
    assert (bench.one(CHUNKS), bench.one(ORPHANS)) == (1, 0)
    assert bench.one("select count(*) from livedex.chunks") == 1


def test_a_batch_that_commits_between_the_collectors_statements_keeps_its_chunk(bench: Bench) -> None:
    """A chunk that was an orphan when it was locked, and that a batch of the moment before refers to, is seen and stays."""
    plan, keys = bench.stage(0, "A text.")
    sweep_slice(bench.session, 0, 10**9, FAST, bench.stop)
    bench.apply(0, plan, keys)
    assert bench.session.value("collect", {"keys": list(keys[bench.generation.generation_id].values())}) == 0
    assert bench.one("select count(*) from livedex.chunks") == 1


def test_a_slice_ends_whatever_comes_to_be_mapped_under_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole batch of expired orphans that documents have again since the slice began is passed by, and the slice ends."""
    fill(bench.connection, bench.generation, documents(10, 8))
    bench.connection.execute(
        "insert into livedex.chunk_orphan (chunk_key, since) select chunk_key, '-infinity' from livedex.chunk"
    )
    plain, asked = bench.session.rows, []

    def rows(name: str, *arguments: Any) -> list[dict[str, Any]]:
        asked.append(name)
        if len(asked) > 3:
            bench.stop.ask("it does not end")
        return plain(name, *arguments)

    monkeypatch.setattr(bench.session, "rows", rows)
    monkeypatch.setattr(
        bench.session, "execute", lambda *_, **__: 0
    )  # the documents are seen by no statement but the collector's
    sweep_slice(bench.session, 0, 10**9, replace(FAST, batch=5), bench.stop)
    assert asked == ["lock_expired"]
    assert bench.one(CHUNKS) == 10


def test_a_revert_within_the_grace_embeds_nothing(workers: Workers, log: Log) -> None:
    """A text that comes back finds all its chunks, and they are no orphans any more."""
    topic = log.topic()
    config = workers.config(topic, orphan_grace="1h")
    workers.apply(config)
    app = IndexApp(workers.settings(config), pace=FAST)
    texts = [" ".join(f"Sentence {number} of version {version}." for number in range(100)) for version in (1, 2)]

    def embedded(text: str) -> float:
        counter = app.metrics.chunks.labels("default", "embedded")._value
        before: float = counter.get()
        place = log.send(topic, {"id": "a", "text": text})
        workers.caught_up(topic, {0: place.offset + 1})
        until(lambda: app.metrics.events.labels("default", "applied")._value.get() == place.offset + 1, what="the count")
        return float(counter.get()) - before

    with workers.in_thread(app):
        first = embedded(texts[0])
        assert first > 3
        assert embedded(texts[1]) > 3
        until(lambda: workers.rows(ORPHANS) == [(int(first),)], what="the orphans to be noted")
        assert embedded(texts[0]) == 0
        until(
            lambda: (
                workers.rows("select count(*) from livedex.chunk_orphan join livedex.document_chunk using (chunk_key)")
                == [(0,)]
            ),
            what="the orphans to be forgotten",
        )


def test_texts_that_come_and_go_under_the_collector_stay_whole(workers: Workers, log: Log) -> None:
    """Without any grace, and a collector that never rests, documents that change between two texts all the time end with the
    text of their last event, and every chunk that a document has is there with its vector.
    """
    topic = log.topic()
    config = workers.config(topic, orphan_grace="0s")
    workers.apply(config)
    app = IndexApp(workers.settings(config), pace=replace(FAST, look=0.0, shortest_sweep=0.0, longest_sweep=0.0, probe=1e9))
    with workers.in_thread(app):
        for turn in range(60):
            for name in ("a", "b", "c"):
                place = log.send(topic, {"id": name, "text": f"The text {turn % 2}, of {name} and of nobody else."})
        workers.caught_up(topic, {0: place.offset + 1})
    texts = workers.rows("select document_id, text from livedex.chunks order by document_id")
    assert texts == [(name, f"The text 1, of {name} and of nobody else.") for name in ("a", "b", "c")]
    assert workers.rows("select count(*) from livedex.document_chunk join livedex.embedding_1 using (chunk_key)") == [(3,)]


def test_a_large_unmapped_share_is_swept_early(database_url: str, kafka_settings: KafkaSettings, bench: Bench) -> None:
    """The next sweep is an hour away; when more than the allowed share of the vectors is of no document, it comes at once."""
    fill(bench.connection, bench.generation, documents(100, 8))
    slow = replace(FAST, shortest_sweep=3600.0, longest_sweep=3600.0, most_unmapped=0.2)
    with upkeep(database_url, kafka_settings, slow) as maintainer:
        looked(maintainer)
        bench.connection.execute("delete from livedex.document_chunk where doc_key <= 20")
        looked(maintainer)
        assert bench.one(ORPHANS) == 0
        bench.connection.execute("delete from livedex.document_chunk where doc_key <= 30")
        until(lambda: bench.one(CHUNKS) == 70, what="the early sweeps")
        share = maintainer._gauges.metrics.unmapped_share.labels("default")._value
        until(lambda: share.get() == 0.0, what="the gauge")


def test_an_index_of_which_much_is_dead_is_rebuilt(database_url: str, kafka_settings: KafkaSettings, bench: Bench) -> None:
    """Once more than the allowed share of the indexed vectors was collected the index is rebuilt, and the count begins anew."""
    fill(bench.connection, bench.generation, documents(300, 8))
    file = "select pg_relation_filenode('livedex.embedding_1_hnsw')"
    before = bench.one(file)
    with upkeep(database_url, kafka_settings, replace(FAST, most_dead=0.2)) as maintainer:
        bench.connection.execute("delete from livedex.document_chunk where doc_key <= 50")
        until(lambda: bench.one(CHUNKS) == 250, what="fifty to be collected")
        looked(maintainer)
        assert bench.one(file) == before
        bench.connection.execute("delete from livedex.document_chunk where doc_key <= 100")
        until(lambda: bench.one(file) != before, what="the index to be another")
        until(lambda: bench.one("select deleted from livedex.upkeep") == 0, what="the count to begin anew")
        until(
            lambda: bench.one("select vacuum_count from pg_stat_user_tables where relname = 'embedding_1'") == 1,
            what="the vacuum",
        )
        looked(maintainer)
    assert bench.connection.execute("select name, valid from livedex.vector_indexes").fetchall() == [("embedding_1_hnsw", True)]


def test_an_index_that_finds_less_than_it_did_is_rebuilt(
    database_url: str, kafka_settings: KafkaSettings, bench: Bench
) -> None:
    """An index that lacks half of the rows, as after damage, fails the probe, is rebuilt, and finds everything again."""
    bench.grace("1 hour")  # none of the rows that it lacks is collected
    fill(bench.connection, bench.generation, documents(300, 8))
    recall = "select recall from livedex.upkeep"
    with upkeep(database_url, kafka_settings, replace(FAST, rebuild=3600.0)) as maintainer:
        until(lambda: bench.connection.execute(recall).fetchone() == (1.0,), what="the first probe")
        bench.connection.execute("update livedex.upkeep set built_at = now()")  # so that it is not rebuilt yet
        registry = maintainer._gauges.metrics.registry

        def told() -> float:
            return registry.get_sample_value("livedex_index_recall", {"collection": "default"}) or 0.0

        until(lambda: told() == 1.0, what="the gauge")
        damage = "update pg_index set indisready = %s where indexrelid = 'livedex.embedding_1_hnsw'::regclass"
        bench.connection.execute(damage, (False,))
        double(bench)
        bench.connection.execute(damage, (True,))
        until(lambda: 0.0 < told() < 0.9, what="a probe that misses many")
        before = bench.one("select pg_relation_filenode('livedex.embedding_1_hnsw')")
        bench.connection.execute("update livedex.upkeep set built_at = now() - interval '2 hours'")
        until(lambda: bench.one("select pg_relation_filenode('livedex.embedding_1_hnsw')") != before, what="the rebuild")
        until(lambda: told() == 1.0, what="a probe that finds everything")


def double(bench: Bench) -> None:
    """Insert every vector once more, for a chunk of its own."""
    bench.connection.execute(
        "with made as (insert into livedex.chunk (collection_id, digest, context, text, tsv)"
        " select 1, sha256(n::text::bytea), '', n::text, '' from generate_series(1, 300) n returning chunk_key)"
        " insert into livedex.embedding_1 (chunk_key, embedding)"
        " select m.chunk_key, e.embedding from (select chunk_key, row_number() over () as n from made) m"
        " join (select embedding, row_number() over (order by chunk_key) as n from livedex.embedding_1) e using (n)"
    )
