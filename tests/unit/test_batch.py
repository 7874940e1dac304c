"""Polled records are cut into batches by what they cost, and batches that wait are joined by the same measure."""

from collections import deque
from dataclasses import replace

import pytest

from livedex.core.change import Reason, Rejection
from livedex.core.record import Record
from livedex.index.batch import BATCH_BYTES, BATCH_RECORDS, Batch, Work, cut, take_joined
from support.batches import TARGETS, claim_of
from support.records import record

HALF = b"x" * (BATCH_BYTES // 2)


def offsets(*records: Record) -> list[list[int]]:
    """Where the records of each batch stand."""
    return [[one.offset for one in part] for part in cut(records)]


@pytest.mark.parametrize("keys", [[b"a", b"b", b"c"], [None, None, None]], ids=["three documents", "without keys"])
def test_a_batch_holds_so_many_bytes(keys: list[bytes | None]) -> None:
    """Two of more than half of it are too much for one; order and records are kept."""
    text = HALF + b"x"
    assert offsets(*(record(text, key=key, offset=number) for number, key in enumerate(keys))) == [[0], [1], [2]]


def test_waiting_versions_of_a_document_count_once() -> None:
    """Ten of them are one batch, in which the last one wins."""
    assert offsets(*(record(HALF, key=b"a", offset=number) for number in range(10))) == [list(range(10))]


def test_a_small_record_does_not_hide_a_large_one_of_its_document() -> None:
    """A text with a metadata event behind it still costs its text."""
    records = [record(HALF, key=b"a"), record(b"{}", key=b"a", offset=1), record(HALF, key=b"b", offset=2)]
    assert offsets(*records) == [[0, 1], [2]]


def test_a_record_above_the_limit_is_a_batch_of_its_own() -> None:
    """And takes nobody along."""
    big = record(HALF * 3, key=b"b", offset=1)
    assert offsets(record(b"{}", key=b"a"), big, record(b"{}", key=b"c", offset=2)) == [[0], [1], [2]]


def test_waiting_versions_of_a_document_above_the_limit_are_one_batch() -> None:
    """Also while it grows: the largest of them alone would cost as much."""
    assert offsets(*(record(HALF * 3 + b"x" * number, key=b"a", offset=number) for number in range(10))) == [list(range(10))]


def test_a_batch_holds_so_many_records() -> None:
    """However small: one transaction applies them all."""
    records = [record(b"{}", key=None, offset=number) for number in range(BATCH_RECORDS + 1)]
    assert [len(part) for part in cut(tuple(records))] == [BATCH_RECORDS, 1]


# --- joining ----------------------------------------------------------------------------------------------------

CLAIM = claim_of(0)


def batch(*records: Record, end: int | None = None) -> Batch:
    """A batch of the same claim."""
    first = records[0].offset if records else 0
    return Batch(
        claim=CLAIM, targets=TARGETS, records=records, expected_offset=first,
        next_offset=records[-1].offset + 1 if end is None else end, polled_at=float(first),
    )  # fmt: skip


def taken(*batches: Batch) -> list[Batch]:
    """What comes out of the waiting, one after another."""
    waiting = deque(map(Work.of, batches))
    out = []
    while waiting:
        out.append(take_joined(waiting).batch)
    return out


def test_batches_that_wait_become_one_that_stands_for_them() -> None:
    """With all their records, from the start of the first to the end of the last; nobody polled it later than the first."""
    versions = [batch(record(HALF, key=b"a", offset=number)) for number in range(10)]
    (one,) = taken(*versions)
    assert [found.offset for found in one.records] == list(range(10))
    assert (one.expected_offset, one.next_offset, one.polled_at, one.submitted) == (0, 10, 0.0, 10)
    assert one.size == sum(found.size for found in versions)


def test_a_joined_batch_costs_no_more_than_one_that_was_polled() -> None:
    """Documents that are too much for one batch stay apart, and in order."""
    kept = [batch(record(HALF + b"x", key=b"%d" % number, offset=number)) for number in range(3)]
    assert taken(*kept) == kept
    assert [found.submitted for found in taken(batch(record(b"{}", key=b"z")), *kept[1:])] == [2, 1]


def test_what_an_earlier_try_found_at_fault_stays_so() -> None:
    """The offsets of all joined batches are known to be at fault."""
    why = Rejection(reason=Reason.EMBEDDING_FAILED, detail="no")
    first, second = batch(record(b"1")), replace(batch(record(b"2", offset=1)), poisoned={1: why})
    assert [found.poisoned for found in taken(first, second, batch(record(b"3", offset=2)))] == [{1: why}]


def test_a_gap_of_the_log_joins() -> None:
    """Its end is the end."""
    (one,) = taken(batch(record(b"1", offset=4)), replace(batch(end=9), expected_offset=5))
    assert (len(one.records), one.next_offset, one.submitted) == (1, 9, 2)


def test_batches_join_across_a_catalogue_that_was_read_again() -> None:
    """It made other targets of the same generations and encoders."""
    again = replace(batch(record(b"2", offset=1)), targets=tuple(map(replace, TARGETS)))
    (one,) = taken(batch(record(b"1")), again)
    assert (one.next_offset, one.submitted) == (2, 2)


@pytest.mark.parametrize("other", [{"claim": claim_of(0)}, {"targets": (*TARGETS, *TARGETS)}], ids=["claim", "generations"])
def test_only_batches_of_one_claim_and_the_same_generations_are_joined(other: dict[str, object]) -> None:
    """An equal claim is another one."""
    both = [batch(record(b"1")), replace(batch(record(b"2", offset=1)), **other)]  # type: ignore[arg-type]
    assert taken(*both) == both
