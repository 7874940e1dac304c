"""What is read of a fetch whose bytes are damaged, whatever the damage: nothing good is passed over, and nothing raises."""

import struct

import pytest
from kafka.record import MemoryRecordsBuilder

from livedex.index.log_bytes import inspect

EPOCH, FORMAT, LAST_OFFSET, COUNT = 12, 16, 23, 57  # bytes of a batch's head
BASE_OFFSET = range(8)
UNCHECKED = {*BASE_OFFSET, *range(EPOCH, FORMAT)}  # what the checksum does not cover, and no other field tells


def batch(first: int, records: int, size: int = 8) -> bytes:
    """A batch as a broker keeps it."""
    made = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2**20)
    for number in range(records):
        made.append(1_700_000_000_000, b"k", bytes([65 + number]) * size)
    made.close()
    content = bytearray(made.buffer())
    struct.pack_into(">q", content, 0, first)
    return bytes(content)


BEFORE, MIDDLE, AFTER = batch(0, 3), batch(3, 4), batch(7, 2)
LOG = BEFORE + MIDDLE + AFTER
END = 9
BITS = range(len(MIDDLE) * 8)


def flipped(content: bytes, bit: int) -> bytes:
    """With one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_sound_fetch_is_given_out_whole() -> None:
    """Nothing is found where nothing is damaged, also when the last batch is cut off or the position is inside a batch."""
    assert inspect(LOG, 0, END).end == len(LOG)
    assert inspect(LOG[:-1], 0, END).end == len(BEFORE + MIDDLE)
    found = inspect(LOG, 4, END)
    assert (LOG[found.start : found.end], found.damage, found.doubt) == (MIDDLE + AFTER, None, False)


def test_any_flipped_bit_leaves_the_neighbours_alone() -> None:
    """A batch before the damaged one is given out, the damaged one is kept with all its bytes, and reading goes on at the first
    record behind it.
    """
    for bit in BITS:
        damaged = flipped(MIDDLE, bit)
        assert inspect(BEFORE + damaged + AFTER, 0, END).end >= len(BEFORE), bit
        damage = inspect(damaged + AFTER, 3, END, sure=True).damage
        if damage is None:
            assert bit // 8 in UNCHECKED, bit
        else:
            assert (damage.next_offset, damage.raw) == (7, damaged), bit
            assert 3 <= damage.offset < 7, bit


def test_the_last_batch_of_a_fetch_is_never_passed_by_more_than_it_holds() -> None:
    """With nothing behind it to compare it with, a damaged batch is passed up to its end at most, by one offset at least."""
    for bit in BITS:
        damaged = flipped(MIDDLE, bit)
        damage = inspect(damaged, 3, 1_000, sure=True).damage
        if damage is None:
            assert bit // 8 in UNCHECKED, bit
        else:
            assert 3 < damage.next_offset <= 7, bit
            assert damage.raw == damaged, bit


@pytest.mark.parametrize("field", [LAST_OFFSET, COUNT])
@pytest.mark.parametrize("value", [0, 1, 200, 2**31 - 1, -1])
def test_of_two_fields_that_differ_the_lower_one_counts(field: int, value: int) -> None:
    """A last offset, or a number of records, that is damaged cannot carry the reader past the batch."""
    content = bytearray(MIDDLE)
    struct.pack_into(">i", content, field, value)
    damage = inspect(bytes(content), 3, 1_000).damage
    assert damage is not None
    assert 3 < damage.next_offset <= 7


def test_a_damaged_batch_before_the_position_is_passed() -> None:
    """A broker that believes a damaged last offset gives the batch out again before what was asked for: it counts once."""
    log = flipped(MIDDLE, (LAST_OFFSET + 2) * 8) + AFTER
    found = inspect(log, 7, END)
    assert (log[found.start : found.end], found.damage) == (AFTER, None)


def test_a_fetch_that_ends_before_the_position_has_to_be_larger() -> None:
    """When what was asked for is cut off behind a damaged batch, a larger fetch is asked for, not a dead letter."""
    log = flipped(MIDDLE, (LAST_OFFSET + 2) * 8) + batch(7, 1) + batch(8, 1)[:-1]
    found = inspect(log, 8, END)
    assert (found.start, found.damage, found.cut) == (found.end, None, True)
    assert inspect(BEFORE, 3, END, sure=True).damage is None, "where there are no bytes there is no damage"


def test_a_cut_head_behind_a_damaged_batch_says_where_to_go_on() -> None:
    """Offsets that compaction took from the end of a damaged batch are passed, as far as the head of the next one is there."""
    log = flipped(MIDDLE, len(MIDDLE) * 8 - 1) + batch(20, 1)[:30]
    damage = inspect(log, 3, 30).damage
    assert damage is not None
    assert damage.next_offset == 20


@pytest.mark.parametrize("first", [2**40, 50, 1_000 - 3])
def test_a_first_offset_beyond_the_log_is_damage(first: int) -> None:
    """A batch whose checksum matches and whose records would lie beyond the log, or in the next batch, is not believed; at
    first it may have been appended after the log's end was noted.
    """
    log = struct.pack(">q", first) + MIDDLE[8:] + batch(52, 9)
    assert inspect(BEFORE + log, 0, 1_000).end == len(BEFORE)
    found = inspect(log, 3, 1_000)
    assert (found.doubt, found.start) == (True, found.end)
    damage = inspect(log, 3, 1_000, sure=True).damage
    assert damage is not None
    assert (damage.offset, damage.next_offset, damage.raw[8:]) == (first if first < 52 else 3, 52, MIDDLE[8:])


def test_a_first_offset_beyond_the_log_is_damage_with_nothing_behind_it_too() -> None:
    """The last batch of a fetch is not believed either when its records would lie beyond the log."""
    damage = inspect(struct.pack(">q", 2**40) + MIDDLE[8:], 3, 7, sure=True).damage
    assert damage is not None
    assert (damage.offset, damage.next_offset) == (3, 7)


@pytest.mark.parametrize("content", [b"\0", b"\0" * 12, b"\0" * 61, b"\xff" * 200, b"\x02" * 5_000, MIDDLE[:40]])
def test_bytes_that_are_no_batch_at_all_are_passed_by_one_offset(content: bytes) -> None:
    """Whatever stands there, the reader gets on, and not further than it can know."""
    found = inspect(content, 3, 1_000, sure=True)
    assert found.damage is not None
    assert (found.damage.offset, found.damage.next_offset, found.damage.raw) == (3, 4, content)


def test_of_the_older_formats_the_checksum_counts_too() -> None:
    """A record of format 1 is sound, and with a flipped bit it is not."""
    made = MemoryRecordsBuilder(magic=1, compression_type=0, batch_size=2**20, offset=3)
    made.append(1_700_000_000_000, b"k", b"value")
    made.close()
    content = bytes(made.buffer())
    assert inspect(content + AFTER, 3, END).end == len(content + AFTER)
    damage = inspect(flipped(content, len(content) * 8 - 1) + AFTER, 3, END).damage
    assert damage is not None
    assert damage.next_offset == 7
