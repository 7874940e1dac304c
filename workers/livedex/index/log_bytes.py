"""The bytes that a fetch brought: which batches are sound, what is damaged, and where the log goes on behind that. Pure.

A batch's checksum covers its body and most of its head, but neither its first offset, its length nor its format. So nothing in
the head of a damaged batch is believed alone: where the next sound batch begins counts more, then what two fields agree on.
"""

import struct
import zlib
from dataclasses import dataclass

from kafka.record.util import calc_crc32c

_OVERHEAD = 12  # bytes of the first offset and of the length, which counts from there
_CHECKED_FROM = 21  # the checksum, in the 4 bytes before, is of everything from here on
_MAGIC = 16  # where the format stands
_HEAD = struct.Struct(">qiibIhiqqqhii")  # as format 2 has it, to the number of records
_LEGACY = 14  # what the older formats have at least behind the overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Bytes that are no sound batch."""

    offset: int  # of the first record in them, as far as that can be known
    next_offset: int  # never beyond the first record of the next sound batch
    timestamp_ms: int  # -1: unknown
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What may be read of a fetch: the bytes from `start` to `end`, all sound."""

    start: int
    end: int
    damage: Damage | None = None  # what stands at the position; then there is nothing to read
    doubt: bool = False  # another fetch of the same may tell more
    cut: bool = False  # it has to be larger for that


@dataclass(frozen=True, slots=True)
class _Batch:
    start: int  # byte
    end: int
    first: int  # offset
    last: int


def inspect(content: bytes, position: int, end_offset: int, *, sure: bool = False) -> Inspected:
    """Look over what a fetch from `position` on brought, of a log that then reached to `end_offset`.

    In doubt there is neither damage nor anything to read, unless the caller is `sure` that no other fetch will tell more.
    """
    start = _before(content, position, end_offset)
    found = _sound(content, start)
    if found is None and start and (start == len(content) or (not sure and _is_cut(content, start))):
        return Inspected(start=start, end=start, doubt=True, cut=True)
    misplaced = found is not None and _misplaced(content, found, position, end_offset)
    # The broker notes the log's end before it reads: what was just appended lies beyond it, this once.
    if misplaced and not sure:
        return Inspected(start=start, end=start, doubt=True)
    if found is None or misplaced:
        return Inspected(start=start, end=start, damage=_damage(content, start, position, end_offset))
    while (following := _sound(content, found.end)) is not None and following.first > found.last:
        if _misplaced(content, following, found.last + 1, end_offset):
            break
        found = following
    return Inspected(start=start, end=found.end)


def _before(content: bytes, position: int, end_offset: int) -> int:
    """Where that begins which is at the position or behind it. A broker that believes a damaged head gives out its batch again
    and again before what was asked for.
    """
    at = 0
    while at < len(content):
        found = _sound(content, at)
        if found is None:
            behind = _next_sound(content, at, -1, end_offset)
            if behind is None or behind.first > position:
                break
            at = behind.start
        elif found.last < position:
            at = found.end
        else:
            break
    return at


def _sound(content: bytes, at: int) -> _Batch | None:
    """The whole batch that begins at this byte, if its checksum matches."""
    if at + _OVERHEAD + _LEGACY > len(content):
        return None
    first, length = struct.unpack_from(">qi", content, at)
    end = at + _OVERHEAD + length
    if length < _LEGACY or end > len(content) or first < 0:
        return None
    magic = content[at + _MAGIC]
    if magic == 2 and end - at >= _HEAD.size:
        head = _HEAD.unpack_from(content, at)
        checked = calc_crc32c(memoryview(content)[at + _CHECKED_FROM : end])
        return _Batch(at, end, first, first + head[6]) if head[4] == checked and head[6] >= 0 else None
    if magic < 2:  # their checksum is of everything from the format on
        checksum = struct.unpack_from(">I", content, at + _OVERHEAD)[0]
        return _Batch(at, end, first, first) if checksum == zlib.crc32(memoryview(content)[at + _MAGIC : end]) else None
    return None


def _is_cut(content: bytes, at: int) -> bool:
    """Whether a batch goes on behind the end of the fetch, by what its length says."""
    left = len(content) - at
    return left < _OVERHEAD or _OVERHEAD + struct.unpack_from(">i", content, at + 8)[0] > left


def _misplaced(content: bytes, found: _Batch, expected: int, end_offset: int) -> bool:
    """Whether the first offset is damaged, which no checksum covers: the batch reaches beyond the log, or behind a gap into its
    neighbour.
    """
    if found.last >= end_offset:
        return True
    following = _sound(content, found.end) if found.first > expected else None
    return following is not None and expected < following.first <= found.last


def _next_sound(content: bytes, at: int, above: int, end_offset: int) -> _Batch | None:
    """The next sound batch whose first offset is above `above`: where the length says, or wherever there is one."""
    declared = _declared_end(content, at)
    found = None if declared is None else _sound(content, declared)
    if found is not None and above < found.first <= end_offset:
        return found
    place = content.find(b"\x02", at + 1 + _MAGIC)
    while place >= 0:
        first = struct.unpack_from(">q", content, place - _MAGIC)[0]
        found = _sound(content, place - _MAGIC) if above < first <= end_offset else None
        if found is not None:
            return found
        place = content.find(b"\x02", place + 1)
    return None


def _declared_end(content: bytes, at: int) -> int | None:
    """Where the batch ends by what its length says, if that is possible."""
    if len(content) - at < _OVERHEAD:
        return None
    length = struct.unpack_from(">i", content, at + 8)[0]
    return at + _OVERHEAD + length if length >= _LEGACY and at + _OVERHEAD + length <= len(content) else None


def _damage(content: bytes, at: int, position: int, end_offset: int) -> Damage:
    behind = _next_sound(content, at, position, end_offset)
    end, next_offset = (behind.start, behind.first) if behind is not None else _cut_off(content, at, position, end_offset)
    head = _HEAD.unpack_from(content, at) if len(content) - at >= _HEAD.size else None
    if next_offset is None:
        next_offset = position + 1 if head is None else _likely_next(head, end - at, position, end_offset)
    return Damage(
        offset=head[0] if head is not None and position <= head[0] < next_offset else position,
        next_offset=next_offset,
        timestamp_ms=head[8] if head is not None and head[8] > 0 else -1,
        raw=content[at:end],
    )


def _cut_off(content: bytes, at: int, position: int, end_offset: int) -> tuple[int, int | None]:
    """Where damage ends behind which there is no whole batch, and where to go on if the head of the next one is there: its rest
    is behind the end of the fetch.
    """
    end = _declared_end(content, at)
    if end is not None and len(content) - end > _MAGIC and content[end + _MAGIC] == 2:
        first = struct.unpack_from(">q", content, end)[0]
        if position < first <= end_offset:
            return end, first
    return len(content), None


def _likely_next(head: tuple[int, ...], size: int, position: int, end_offset: int) -> int:
    """Where to go on when nothing behind the damage is in sight. Too low a guess costs a dead letter more, too high a one loses
    records: of all that is known the lowest counts, and one offset is always passed.
    """
    records = min(head[6] + 1, head[12])  # by its last offset, and by its count: of two that differ one is damaged
    if not 0 < records <= size:
        return position + 1
    return max(position + 1, min(head[0] + records, position + records, end_offset))
