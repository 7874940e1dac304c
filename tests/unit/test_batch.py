"""Polled records are cut into batches by what they cost."""

import pytest

from livedex.core.record import Record
from livedex.index.batch import BATCH_BYTES, cut
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
