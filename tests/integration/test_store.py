"""The fenced apply, statement by statement, on a real Postgres."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from livedex.catalogue import Generation, Live
from livedex.core.change import Change, Op
from livedex.core.chunking import Chunk, chunk
from livedex.core.continuity import Topic
from livedex.core.fold import DocumentState
from livedex.core.plan import BatchPlan, DocumentPlan
from livedex.core.record import Place, Version
from livedex.database import open_pool
from livedex.encoders import Encoder, ModelSpec, open_encoder
from livedex.errors import ConflictError, UnavailableError
from livedex.index.applying import Advance, Claim, Keys, merged
from livedex.index.refusals import FencedError
from livedex.index.store import Store
from support.workers import Workers

TOPIC = "documents"
FOUND = Topic(topic_id="6a2f41a3-c54c-fce8-32d2-0324e1c32e22", partitions=1)


@pytest.fixture
def store(workers: Workers, tmp_path: Path) -> Iterator[Store]:
    """A store on an empty collection."""
    config = workers.config(TOPIC)
    done = workers.run("apply", "--no-create-topics", config=config)
    assert done.returncode == 0, done.stderr
    own = Store(open_pool(workers.database_url, size=4, name="test"))
    yield own
    own.close()


@pytest.fixture
def encoder() -> Encoder:
    """The hash encoder."""
    return open_encoder("hash", ModelSpec(model="hash-384"))


def generation(store: Store) -> Generation:
    """The only one."""
    return live(store)[0]


def live(store: Store) -> Live:
    """The generations that are written."""
    return next(iter(store.catalogue()[1].values()))


def plan_of(store: Store, encoder: Encoder, offset: int, text: str, document_id: str = "a") -> BatchPlan:
    """The plan of a batch with one upsert."""
    place = Place(TOPIC, 0, offset)
    from datetime import UTC, datetime

    now = datetime(2026, 1, 1, tzinfo=UTC)
    change = Change(
        place=place, document_id=document_id, op=Op.UPSERT, version=Version(0, offset, offset), event_time=now, timestamp=now,
        text=text,
    )  # fmt: skip
    chunks = chunk(
        text, title=None, markdown=True, spec=generation(store).spec, count_tokens=encoder.count_tokens, max_tokens=256
    )
    state = DocumentState(content=change, metadata=change)
    document = DocumentPlan(document_id=document_id, state=state, chunks={generation(store).chunking_id: chunks})
    return BatchPlan(documents=(document,), settled=(), rejected=())


def chunks_of(plan: BatchPlan) -> dict[bytes, Chunk]:
    """The plan's chunks in the only chunking."""
    return plan.chunks(1)


def stage(store: Store, encoder: Encoder, plan: BatchPlan) -> Keys:
    """Stage the plan's chunks."""
    chunks = list(chunks_of(plan).values())
    vectors = encoder.encode_documents([found.embedded_text for found in chunks])
    made = generation(store)
    staged = store.stage(made, chunks, {found.digest: vectors[row] for row, found in enumerate(chunks)})
    return {made.generation_id: staged}


def many_sentences(count: int) -> str:
    """A text in which no sentence comes twice."""
    return " ".join(f"Sentence {number} is like no other one in this long text." for number in range(count))


def gives_up_statements_of_more_rows_than(limit: int) -> list[str]:
    """Statements that make Postgres as slow as if so many vectors took all the time that a statement has."""
    return refusing(f"(select count(*) from new) > {limit}")


def refusing(condition: str) -> list[str]:
    """Statements that make Postgres give up an insert of vectors on this condition, as at the statement timeout."""
    function = f"""create function slow() returns trigger language plpgsql as $$ begin
      if {condition} then raise exception 'canceling statement due to statement timeout' using errcode = '57014'; end if;
      return null; end $$"""
    trigger = """create trigger slow after insert on livedex.embedding_1 referencing new table as new for each statement
      execute function slow()"""
    return [function, trigger]


def advance(claim: Claim, start: int, end: int) -> Advance:
    """A step of progress."""
    return Advance(claim=claim, expected_offset=start, next_offset=end, event_time=None)


def test_a_worker_that_lost_the_partition_cannot_write(store: Store, encoder: Encoder, workers: Workers) -> None:
    """After another claim, an apply under the old one changes nothing, its progress included."""
    old = store.claim(TOPIC, 0, found=FOUND, start=0, owner="old")
    new = store.claim(TOPIC, 0, found=FOUND, start=0, owner="new")
    plan = plan_of(store, encoder, 0, "Some text.")
    keys = stage(store, encoder, plan)
    with pytest.raises(FencedError):
        store.apply(live(store), advance(old, 0, 1), plan, keys)
    assert workers.rows("select count(*) from livedex.document") == [(0,)]
    assert workers.rows("select next_offset, owner from livedex.progress") == [(0, "new")]
    store.apply(live(store), advance(new, 0, 1), plan, keys)
    assert workers.rows("select document_id from livedex.documents") == [("a",)]


def test_only_the_source_that_was_judged_is_stopped(store: Store, workers: Workers) -> None:
    """A reset, or another claim, between the look and the stop saves it."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="old")
    seen = store.catalogue()[0][TOPIC]
    workers.execute("update livedex.source set epoch = epoch + 1")
    store.claim(TOPIC, 0, found=FOUND, start=0, owner="new")
    store.stop_source(seen, "what was seen")
    assert not store.stop_claimed_source(claim, "what was seen")
    assert workers.rows("select state, reason from livedex.source") == [("live", None)]
    store.stop_source(store.catalogue()[0][TOPIC], "what is")
    assert workers.rows("select state, reason from livedex.source") == [("stopped", "what is")]


def test_a_claim_stops_its_source(store: Store, workers: Workers) -> None:
    """As long as it is in force."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    assert store.stop_claimed_source(claim, "the log was cut off")
    assert workers.rows("select state, reason from livedex.source") == [("stopped", "the log was cut off")]


def test_a_batch_is_applied_once(store: Store, encoder: Encoder, workers: Workers) -> None:
    """The same batch again, and one that leaves a gap, are refused by the progress."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    plan = plan_of(store, encoder, 0, "Some text.")
    keys = stage(store, encoder, plan)
    store.apply(live(store), advance(claim, 0, 1), plan, keys)
    for start, end in ((0, 1), (2, 3)):
        with pytest.raises(FencedError):
            store.apply(live(store), advance(claim, start, end), plan, keys)
    assert workers.rows("select next_offset from livedex.progress") == [(1,)]


def test_what_is_staged_is_invisible_and_idempotent(store: Store, encoder: Encoder, workers: Workers) -> None:
    """Staging twice stores each chunk once, gives the same keys, and shows nothing to readers."""
    plan = plan_of(store, encoder, 0, "A sentence like this one. " * 400)
    assert stage(store, encoder, plan) == stage(store, encoder, plan)
    assert workers.rows("select count(*) from livedex.chunk") == [(len(chunks_of(plan)),)]
    assert workers.rows("select count(*) from livedex.embedding_1") == [(len(chunks_of(plan)),)]
    assert workers.rows("select count(*) from livedex.chunks") == [(0,)]
    assert store.known_chunks(generation(store), chunks_of(plan)) == stage(store, encoder, plan)[1]


def test_many_chunks_are_staged_where_inserts_are_slow(store: Store, encoder: Encoder, workers: Workers) -> None:
    """A document of more rows than Postgres inserts within the statement timeout is staged all the same."""
    workers.execute(*gives_up_statements_of_more_rows_than(600))
    plan = plan_of(store, encoder, 0, many_sentences(20_000))
    assert len(chunks_of(plan)) > 2 * 600, "one transaction for each connection must be too much"
    assert stage(store, encoder, plan)[1].keys() == chunks_of(plan).keys()


def test_what_was_staged_before_a_failure_stays(store: Store, encoder: Encoder, workers: Workers) -> None:
    """When an insert of many is given up, the ones before it are found by their digests."""
    plan = plan_of(store, encoder, 0, many_sentences(20_000))
    last = max(chunks_of(plan)).hex()
    workers.execute(
        *refusing(f"exists (select from new n join livedex.chunk c using (chunk_key) where c.digest = '\\x{last}')")
    )
    with pytest.raises(UnavailableError, match="gave a statement up"):
        stage(store, encoder, plan)
    known = store.known_chunks(generation(store), chunks_of(plan))
    assert len(chunks_of(plan)) > 1500
    assert 0 < len(chunks_of(plan)) - len(known) <= 500


def test_staging_nothing_does_nothing(store: Store) -> None:
    """As for a document whose chunks are all known, when the one at fault in its batch is looked for."""
    assert store.stage(generation(store), [], {}) == {}


def test_a_chunk_that_staging_did_not_find_is_planned_again(store: Store, encoder: Encoder, workers: Workers) -> None:
    """Where the collector was faster, another transaction was in the way: no defect, and nothing is written."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    plan = plan_of(store, encoder, 0, "Some text.")
    with pytest.raises(ConflictError, match="planning the batch again"):
        store.apply(live(store), advance(claim, 0, 1), plan, {})
    assert workers.rows("select next_offset from livedex.progress") == [(0,)]
    assert workers.rows("select count(*) from livedex.document") == [(0,)]


def test_an_older_version_is_refused_and_the_progress_moves(store: Store, encoder: Encoder, workers: Workers) -> None:
    """The version fence holds in SQL too: an older event gives no result and changes no row but the progress."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    newer, older = plan_of(store, encoder, 5, "The newer text."), plan_of(store, encoder, 4, "The older text.")
    keys = merged(stage(store, encoder, newer), stage(store, encoder, older))
    assert set(store.apply(live(store), advance(claim, 0, 6), newer, keys)) == {"a"}
    assert store.apply(live(store), advance(claim, 6, 7), older, keys) == {}
    assert workers.rows("select text from livedex.chunks") == [("The newer text.",)]
    assert workers.rows("select next_offset from livedex.progress") == [(7,)]


def test_the_parts_of_a_document_are_fenced_apart_in_sql(store: Store, encoder: Encoder, workers: Workers) -> None:
    """Where only one part of an event is newer than what another worker stored meanwhile, only that part is taken."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    newer, older = plan_of(store, encoder, 5, "The newer text."), plan_of(store, encoder, 3, "The older text.")
    keys = merged(stage(store, encoder, newer), stage(store, encoder, older))
    content = newer.documents[0].state.content
    assert content is not None
    only_content = replace(newer.documents[0], state=DocumentState(content=content, metadata=None))
    store.apply(live(store), advance(claim, 0, 6), replace(newer, documents=(only_content,)), keys)
    parts = "select content_version, metadata_version, deleted from livedex.document"
    assert workers.rows(parts) == [([0, 5, 5], None, False)]

    gone = replace(content, op=Op.DELETE, version=Version(0, 4, 4))
    late = replace(older.documents[0], state=DocumentState(content=gone, metadata=gone), chunks={})
    result = store.apply(live(store), advance(claim, 6, 7), replace(older, documents=(late,)), keys)["a"]
    assert (result.content_accepted, result.metadata_accepted) == (False, True)
    assert workers.rows(parts) == [([0, 5, 5], [0, 4, 4], False)]
    assert workers.rows("select text from livedex.chunks") == [("The newer text.",)]


def test_an_edit_writes_only_the_places_that_changed(store: Store, encoder: Encoder, workers: Workers) -> None:
    """Of a document with many chunks, the map's unchanged rows stay the same rows."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    sentences = [f"This is the sentence with number {number}." for number in range(200)]
    first = plan_of(store, encoder, 0, " ".join(sentences))
    store.apply(live(store), advance(claim, 0, 1), first, stage(store, encoder, first))
    places = "select ordinal, xmin::text from livedex.document_chunk order by ordinal"
    before = dict(workers.rows(places))
    sentences[-1] = "The end is another."
    second = plan_of(store, encoder, 1, " ".join(sentences))
    store.apply(live(store), advance(claim, 1, 2), second, stage(store, encoder, second))
    after = dict(workers.rows(places))
    changed = {ordinal for ordinal in before if after.get(ordinal) != before[ordinal]}
    assert changed <= {len(before) - 2, len(before) - 1}
    assert changed


def test_a_chunk_collected_meanwhile_is_noticed(store: Store, encoder: Encoder, workers: Workers) -> None:
    """When a staged chunk is deleted before the apply, the apply fails as something to be tried again, and writes nothing."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    plan = plan_of(store, encoder, 0, "Some text.")
    keys = stage(store, encoder, plan)
    workers.rows("delete from livedex.chunk returning 1")
    with pytest.raises(ConflictError, match="planning the batch again"):
        store.apply(live(store), advance(claim, 0, 1), plan, keys)
    assert workers.rows("select next_offset from livedex.progress") == [(0,)]


def test_a_chunk_collected_while_it_is_staged_is_noticed(store: Store, encoder: Encoder, workers: Workers) -> None:
    """When a chunk is deleted before its vector refers to it, staging fails as something to be tried again, with no document at
    fault.
    """
    with workers.connect() as connection:
        connection.execute(
            "create function livedex.collect() returns trigger language plpgsql as "
            "'begin delete from livedex.chunk; return new; end'"
        )
        connection.execute(
            f"create trigger collect before insert on livedex.{generation(store).embeddings} "
            "for each row execute function livedex.collect()"
        )
    with pytest.raises(ConflictError, match="another transaction deleted"):
        stage(store, encoder, plan_of(store, encoder, 0, "Some text."))


def test_the_answer_says_what_changed(store: Store, encoder: Encoder) -> None:
    """A newer version with the same text and metadata is accepted and changes nothing."""
    claim = store.claim(TOPIC, 0, found=FOUND, start=0, owner="me")
    for offset, changed in ((0, True), (1, False)):
        plan = plan_of(store, encoder, offset, "The same text.")
        result = store.apply(live(store), advance(claim, offset, offset + 1), plan, stage(store, encoder, plan))["a"]
        assert (result.content_accepted, result.metadata_accepted) == (True, True)
        assert (result.content_changed, result.metadata_changed) == (changed, changed)
