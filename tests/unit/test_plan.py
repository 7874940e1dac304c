"""What a batch means: each event has one outcome, the fence's refusals cost nothing, poison lets older events through."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.core.change import Change, Op, Reason, Rejection, VersionMode
from livedex.core.chunking import Chunk
from livedex.core.plan import (
    BatchPlan,
    DocumentResult,
    Outcome,
    Reading,
    StoredVersions,
    next_offset,
    outcomes,
    plan,
    read,
)
from livedex.core.record import Place, Record, Version
from support.records import change, record, reproducible

UPSERT, DELETE, METADATA = Op.UPSERT, Op.DELETE, Op.METADATA
ALL_NEW = DocumentResult(content_accepted=True, metadata_accepted=True, content_changed=True, metadata_changed=True)
POISON = Rejection(reason=Reason.EMBEDDING_FAILED, detail="the model chokes")


def chunks_of(one: Change) -> dict[int, tuple[Chunk, ...]]:
    """Two chunks in chunking 1, the second the same in every document, and one of both in chunking 2."""
    first, second, both = (
        Chunk(text=text, context="", digest=text.encode()) for text in (one.text, "shared", f"{one.text} shared")
    )
    return {1: (first, second), 2: (both,)}


def planned(*changes: Change, stored: Mapping[str, StoredVersions] | None = None) -> BatchPlan:
    """The plan of these changes."""
    return plan(Reading(changes=changes, rejected=()), stored or {}, chunks_of)


def stored(content: int | None, metadata: int | None) -> dict[str, StoredVersions]:
    """What the database has of document `a`."""
    return {
        "a": StoredVersions(
            content=None if content is None else Version(0, content, content),
            metadata=None if metadata is None else Version(0, metadata, metadata),
        )
    }


def offsets(ended: list[tuple[Change, Outcome]]) -> dict[int, Outcome]:
    """Outcomes by offset; an event that has two fails."""
    assert len({one.place for one, _ in ended}) == len(ended)
    return {one.place.offset: outcome for one, outcome in ended}


# --- outcomes ---------------------------------------------------------------------------------------------------

drafts = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([*Op, UPSERT]), st.integers(0, 5), st.booleans()), min_size=1, max_size=12
)
stored_documents = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        StoredVersions,
        content=st.none() | st.builds(Version, st.just(0), st.integers(0, 5), st.integers(0, 12)),
        metadata=st.none() | st.builds(Version, st.just(0), st.integers(0, 5), st.integers(0, 12)),
    ),
)
results = st.builds(
    DocumentResult,
    content_accepted=st.booleans(), metadata_accepted=st.booleans(),
    content_changed=st.booleans(), metadata_changed=st.booleans(),
)  # fmt: skip


@settings(reproducible, max_examples=400)
@given(drafts, stored_documents, st.dictionaries(st.sampled_from("abc"), results))
def test_every_event_ends_exactly_once(
    drafts: list[tuple[str, Op, int, bool]], known: dict[str, StoredVersions], answers: dict[str, DocumentResult]
) -> None:
    """Whatever is stored and whatever the apply answers, outcomes and dead letters are the batch's records, each once."""
    records = [_raw(at, *draft) for at, draft in enumerate(drafts)]
    reading = read(records, mode=VersionMode.SOURCE, epoch=0)
    made = plan(reading, known, chunks_of)
    ended = [one.place for one, _ in outcomes(made, answers)] + [one.place for one, _ in made.rejected]
    assert Counter(ended) == Counter(one.place for one in records)
    assert {document.document_id for document in made.documents} <= {draft[0] for draft in drafts}


def _raw(offset: int, document_id: str, op: Op, number: int, broken: bool) -> Record:  # noqa: FBT001, RUF100
    fields = {} if broken else {"version": number}
    return record({"op": op, "text": f"text {offset}", **fields}, key=document_id.encode(), offset=offset)


def test_events_of_one_batch_are_folded() -> None:
    """What the newest events replace is superseded, and neither chunked nor written."""
    made = planned(change(UPSERT, 1, text="one"), change(UPSERT, 3, text="three"), change(UPSERT, 2, text="two"))
    assert offsets(outcomes(made, {"a": ALL_NEW})) == {1: "superseded", 2: "superseded", 3: "applied"}
    assert set(made.chunks(1)) == {b"three", b"shared"}


def test_two_events_may_share_a_document() -> None:
    """An upsert and newer metadata are both applied, each by its own part's result."""
    made = planned(change(UPSERT, 7, text="x"), change(METADATA, 9, n=9))
    same_content = DocumentResult(content_accepted=True, metadata_accepted=True, content_changed=False, metadata_changed=True)
    assert offsets(outcomes(made, {"a": ALL_NEW})) == {7: "applied", 9: "applied"}
    assert offsets(outcomes(made, {"a": same_content})) == {7: "unchanged", 9: "applied"}


@pytest.mark.parametrize(
    ("content", "metadata", "expected"),
    [
        ((True, True), (True, True), "applied"),
        ((True, True), (True, False), "applied"),
        ((True, False), (True, True), "applied"),
        ((True, False), (True, False), "unchanged"),
        ((False, False), (True, False), "unchanged"),
        ((True, False), (False, True), "unchanged"),
        ((False, True), (False, True), "stale"),
    ],
)
def test_an_upsert_ends_as_its_parts_do(content: tuple[bool, bool], metadata: tuple[bool, bool], expected: str) -> None:
    """Applied when a part that the fence took changed, unchanged when none did, stale when none was taken."""
    result = DocumentResult(
        content_accepted=content[0], content_changed=content[1], metadata_accepted=metadata[0], metadata_changed=metadata[1]
    )
    assert offsets(outcomes(planned(change(UPSERT, 1, text="x")), {"a": result})) == {1: expected}


def test_a_document_that_the_fence_refuses_is_stale() -> None:
    """The apply statement has no row for it: another topic of the collection was faster."""
    assert offsets(outcomes(planned(change(UPSERT, 1, text="x")), {})) == {1: "stale"}


def test_stale_events_cost_nothing() -> None:
    """What the stored versions already refuse is settled in the plan: no document, no chunk."""
    made = planned(change(UPSERT, 4, text="x"), change(METADATA, 5), stored=stored(8, 9))
    assert (made.documents, made.chunks(1)) == ((), {})
    assert offsets(outcomes(made, {})) == {4: "stale", 5: "stale"}


def test_a_late_upsert_brings_its_content_only() -> None:
    """Stored content 7 and metadata 9, upsert 8: the content is planned, the metadata is not."""
    late = change(UPSERT, 8, text="eight")
    (document,) = planned(late, stored=stored(7, 9)).documents
    assert (document.state.content, document.state.metadata) == (late, None)
    assert document.chunks == chunks_of(late)


def test_metadata_touches_no_chunk() -> None:
    """Chunks stay for a metadata event (None), and go for a delete (empty)."""
    assert [document.chunks for document in planned(change(METADATA, 1)).documents] == [None]
    assert [document.chunks for document in planned(change(DELETE, 1)).documents] == [{}]
    late = planned(change(UPSERT, 3, text="x"), change(METADATA, 9), stored=stored(5, 5))
    assert [document.chunks for document in late.documents] == [None]


def test_equal_chunks_are_planned_once() -> None:
    """Across the documents of a batch, by digest, in each chunking."""
    made = planned(change(UPSERT, 1, text="x"), change(UPSERT, 2, document_id="b", text="y"))
    assert set(made.chunks(1)) == {b"x", b"y", b"shared"}
    assert set(made.chunks(2)) == {b"x shared", b"y shared"}
    assert made.documents[0].chunks_in(3) == ()


# --- poison -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(VersionMode))
def test_poison_lets_the_older_event_through(mode: VersionMode) -> None:
    """The batch is folded again without the poisoned newest event: the older good one is applied, both are passed."""
    records = [record({"text": text, "version": at}, offset=at) for at, text in enumerate(["old", "good", "poison"])]
    reading = read(records, mode=mode, epoch=0, poisoned={2: POISON})
    made = plan(reading, {}, chunks_of)
    assert set(made.chunks(1)) == {b"good", b"shared"}
    assert offsets(outcomes(made, {"a": ALL_NEW})) == {0: "superseded", 1: "applied"}
    assert made.rejected == ((records[2], POISON),)
    assert next_offset(records) == 3


def test_poison_does_not_let_a_stale_event_through() -> None:
    """Without the poisoned event, what is left is compared with the stored versions as ever."""
    records = [record({"text": "old"}, offset=4), record({"text": "poison"}, offset=6)]
    made = plan(read(records, mode=VersionMode.LOG, epoch=0, poisoned={6: POISON}), stored(5, 5), chunks_of)
    assert (made.documents, offsets(outcomes(made, {}))) == ((), {4: "stale"})


def test_reading_parts_changes_from_rejections() -> None:
    """In order, with the version's epoch and mode; a broken record does not keep its neighbours from being read."""
    records = [record({"text": ""}, offset=0), record(b"{", offset=1), record({"text": ""}, offset=2)]
    reading = read(records, mode=VersionMode.LOG, epoch=4)
    assert [one.version for one in reading.changes] == [(4, 0, 0), (4, 2, 2)]
    assert [(one.place, rejection.reason) for one, rejection in reading.rejected] == [(Place("t", 0, 1), Reason.INVALID_JSON)]


def test_progress_follows_offsets_not_counts() -> None:
    """Compaction and transactions leave gaps in the log."""
    assert next_offset([record(None, offset=3), record(None, offset=7)]) == 8
    assert next_offset([record(None, offset=0)]) == 1
