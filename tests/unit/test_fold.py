"""The laws of the fold: what is kept of a document does not depend on repetition, batches or, in source mode, order."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.core.change import Change, Op, VersionMode, decode
from livedex.core.fold import DocumentState, coalesce, fence, fold
from livedex.core.record import Record, Version
from support import fold as independent
from support.records import change, record, reproducible

UPSERT, DELETE, METADATA = Op.UPSERT, Op.DELETE, Op.METADATA


def folded(*changes: Change) -> DocumentState:
    """The state of one document after these, in this order."""
    return coalesce(changes)["a"]


def version(part: Change | None) -> Version | None:
    """Of one part of a state."""
    return part.version if part else None


def numbers(state: DocumentState) -> tuple[int | None, int | None]:
    """Of content and metadata."""
    content, metadata = version(state.content), version(state.metadata)
    return content.number if content else None, metadata.number if metadata else None


def applied(stored: dict[str, DocumentState], batch: list[Change]) -> dict[str, DocumentState]:
    """What the database holds after a batch: what the fence lets through replaces what is there, part by part."""
    after = dict(stored)
    for document_id, state in coalesce(batch).items():
        before = stored.get(document_id, DocumentState(content=None, metadata=None))
        newer = fence(state, version(before.content), version(before.metadata))
        if newer is not None:
            after[document_id] = DocumentState(
                content=newer.content or before.content, metadata=newer.metadata or before.metadata
            )
    return after


# --- laws -------------------------------------------------------------------------------------------------------

drafts = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([UPSERT, UPSERT, DELETE, METADATA]), st.integers(0, 6)),
    min_size=1,
    max_size=14,
)


def log_of(drafts: list[tuple[str, Op, int]]) -> list[Change]:
    """The drafts as the changes of a log, each with a text and metadata of its own."""
    return [
        change(op, number, document_id=document_id, offset=offset, text=f"text {offset}", n=offset)
        for offset, (document_id, op, number) in enumerate(drafts)
    ]


@settings(reproducible, max_examples=200)
@given(drafts, st.data())
def test_folding_again_changes_nothing(drafts: list[tuple[str, Op, int]], data: st.DataObject) -> None:
    """Idempotent: events that come again, anywhere, any number of times, leave the state as it is."""
    changes = log_of(drafts)
    states = coalesce(changes)
    again = data.draw(st.lists(st.sampled_from(changes), max_size=20))
    assert coalesce([*changes, *again]) == states
    for one in again:
        assert fold(states[one.document_id], one) == states[one.document_id]


@settings(reproducible, max_examples=300)
@given(drafts, st.data())
def test_order_and_batches_do_not_matter(drafts: list[tuple[str, Op, int]], data: st.DataObject) -> None:
    """Any permutation, cut into any batches with repetitions in them, ends in the state of the log read once, in order."""
    changes = log_of(drafts)
    expected = coalesce(changes)
    order = data.draw(st.permutations(changes)) + data.draw(st.lists(st.sampled_from(changes), max_size=6))
    assert coalesce(order) == expected
    stored: dict[str, DocumentState] = {}
    while order:
        size = data.draw(st.integers(1, len(order)))
        stored, order = applied(stored, order[:size]), order[size:]
    assert stored == expected


@settings(reproducible, max_examples=200)
@given(drafts, st.randoms(use_true_random=False))
def test_a_producers_order_does_not_depend_on_the_logs(drafts: list[tuple[str, Op, int]], random: Any) -> None:
    """Events that reach the log in another order, and so get other offsets, make the same documents when versions differ."""
    numbered = [(document_id, op, number) for number, (document_id, op, _) in enumerate(drafts)]
    states = []
    for _ in range(2):
        log = [change(op, n, document_id=name, offset=at, text=f"v{n}", n=n) for at, (name, op, n) in enumerate(numbered)]
        states.append({name: (numbers(s), s.visible, s.metadata_value) for name, s in coalesce(log).items()})
        random.shuffle(numbered)
    assert states[0] == states[1]


@settings(reproducible, max_examples=300)
@given(drafts, st.sampled_from(VersionMode))
def test_an_independent_fold_agrees(drafts: list[tuple[str, Op, int]], mode: VersionMode) -> None:
    """The documents that readers see are those of a fold that was written apart, over the raw records, in both modes."""
    log = [_raw(at, *draft) for at, draft in enumerate(drafts)]
    decoded = [decode(one, mode=mode, epoch=0) for one in log]
    states = coalesce(one for one in decoded if isinstance(one, Change))
    visible = {name: state for name, state in states.items() if state.visible}
    expected = independent.fold(log, numbered_by=mode)
    assert {name: (s.content and s.content.text, s.metadata_value) for name, s in visible.items()} == {
        name: (document.text, document.metadata) for name, document in expected.items()
    }


def _raw(offset: int, document_id: str, op: Op, number: int) -> Record:
    if op is DELETE and offset % 2:
        return record(None, key=document_id.encode(), offset=offset, headers=(("livedex-version", str(number).encode()),))
    event = {"op": op, "version": number, "text": f"text {offset}", "metadata": {"n": offset}}
    return record(json.dumps(event).encode(), key=document_id.encode(), offset=offset)


stored_versions = st.none() | st.builds(Version, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


@settings(reproducible, max_examples=500)
@given(drafts, stored_versions, stored_versions)
def test_the_fence_drops_what_sql_refuses(
    drafts: list[tuple[str, Op, int]], content: Version | None, metadata: Version | None
) -> None:
    """Postgres compares versions as arrays, nothing counting as {}: a part passes exactly when its array is greater."""
    state = next(iter(coalesce(log_of(drafts)).values()))
    kept = fence(state, content, metadata)
    passes = {
        "content": state.content is not None and list(state.content.version) > list(content or ()),
        "metadata": state.metadata is not None and list(state.metadata.version) > list(metadata or ()),
    }
    assert (kept is None) is not any(passes.values())
    if kept is not None:
        assert kept.content is (state.content if passes["content"] else None)
        assert kept.metadata is (state.metadata if passes["metadata"] else None)


# --- the table of the design ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "content", "metadata"),
    [(UPSERT, "replaced", "replaced"), (DELETE, "deleted", "empty"), (METADATA, "unchanged", "replaced")],
)
def test_a_newer_event(op: Op, content: str, metadata: str) -> None:
    """What an event that is newer than both parts does to each."""
    state = folded(change(UPSERT, 1, text="old", n=1), change(op, 2, text="new", n=2))
    assert state.content
    found = "deleted" if state.content.op is DELETE else {"old": "unchanged", "new": "replaced"}[state.content.text]
    assert found == content
    assert state.visible is (op is not DELETE)
    assert {1: "unchanged", 2: "replaced", None: "empty"}[state.metadata_value.get("n")] == metadata


@pytest.mark.parametrize("op", list(Op))
def test_an_older_event_changes_nothing(op: Op) -> None:
    """Nor does an equal one."""
    state = folded(change(UPSERT, 2, text="new", n=2))
    assert fold(state, change(op, 1, text="old", n=1)) == state
    assert fold(state, change(op, 2, text="old", n=1)) == state


@pytest.mark.parametrize("order", [(7, 9, 8), (9, 7, 8), (8, 9, 7), (9, 8, 7), (7, 8, 9), (8, 7, 9)])
def test_a_late_upsert_wins_the_content_only(order: tuple[int, ...]) -> None:
    """Upsert 7, metadata 9, late upsert 8: content 8 with metadata 9, in any order of arrival."""
    events = {7: change(UPSERT, 7, text="seven", n=7), 8: change(UPSERT, 8, text="eight", n=8), 9: change(METADATA, 9, n=9)}
    state = folded(*(events[number] for number in order))
    assert numbers(state) == (8, 9)
    assert state.content is events[8]
    assert state.metadata_value == {"n": 9}
    assert state.newest is events[9]
    assert state.winners == {events[8].place, events[9].place}


def test_metadata_may_come_before_its_document() -> None:
    """It is kept, unseen, until a document comes; one that is older still completes it."""
    early = folded(change(METADATA, 5, n=5))
    assert (early.visible, early.content, early.metadata_value) == (False, None, {"n": 5})
    complete = fold(early, change(UPSERT, 3, text="late", n=3))
    assert (complete.visible, numbers(complete), complete.metadata_value) == (True, (3, 5), {"n": 5})
    assert complete.newest.version.number == 5


def test_a_deleted_document_stays_deleted() -> None:
    """A late upsert does not bring it back, newer metadata neither; a newer upsert does, without the old metadata."""
    gone = folded(change(UPSERT, 1, n=1), change(DELETE, 5))
    assert fold(gone, change(UPSERT, 4, text="late", n=4)) == gone
    described = fold(gone, change(METADATA, 7, n=7))
    assert (described.visible, described.metadata_value) == (False, {"n": 7})
    back = fold(described, change(UPSERT, 6, text="back", n=6))
    assert (back.visible, back.metadata_value, numbers(back)) == (True, {"n": 7}, (6, 7))
    assert not gone.visible
    assert gone.metadata_value == {}


def test_a_delete_between_content_and_metadata() -> None:
    """Each part is compared with its own version: metadata 9 outlives a late delete 8, the content does not."""
    state = folded(change(UPSERT, 7, n=7), change(METADATA, 9, n=9), change(DELETE, 8))
    assert (state.visible, numbers(state), state.metadata_value) == (False, (8, 9), {"n": 9})


def test_a_raised_epoch_outranks_every_number() -> None:
    """After a reset of the source, numbers begin again; the offset decides between equal numbers."""
    old = change(UPSERT, 2**63 - 1, text="old")
    new = replace(old, version=Version(1, 0, 0), text="new")
    assert folded(old, new).content is folded(new, old).content is new
    first, second = change(UPSERT, 4, offset=10), change(UPSERT, 4, offset=11)
    assert folded(second, first).content is second
