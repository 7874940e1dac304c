"""The files that a stopped broker keeps a partition in: what stands where, and how to damage it.

A batch begins with its first offset (8 bytes), its length from byte 12 on (4), an epoch (4), the format (1), the checksum (4)
of everything from byte 21 on, and flags (2) whose last three bits say the codec.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import crc32c

from support.faults.broker import FaultBroker

_HEAD, _CHECKED_FROM, _FLAGS = 12, 21, 21
LENGTH, FORMAT, LAST_OFFSET = 8, 16, 23  # the last offset is relative to the first
NO_CODEC = 7  # of which nobody has heard


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch in its file."""

    path: Path
    start: int  # byte
    length: int
    first_offset: int
    last_offset: int

    def corrupt(self) -> None:
        """Flip one bit in the last byte: the checksum does not match any more."""
        self._write(self.length - 1, bytes([self._read()[-1] ^ 1]))

    def flip(self, field: int, bit: int, size: int = 4) -> None:
        """Flip one bit, counted from the lowest, of a field of its head that has `size` bytes."""
        place = field + size - 1 - bit // 8
        self._write(place, bytes([self._read()[place] ^ 1 << bit % 8]))

    def recode(self, codec: int) -> None:
        """Name another codec, with a checksum that matches."""
        content = bytearray(self._read())
        flags = struct.unpack_from(">H", content, _FLAGS)[0]
        struct.pack_into(">H", content, _FLAGS, flags & ~7 | codec)
        struct.pack_into(">I", content, _CHECKED_FROM - 4, crc32c.crc32c(bytes(content[_CHECKED_FROM:])))
        self._write(0, bytes(content))

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    def _write(self, place: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.start + place)
            file.write(content)


def batches(own: FaultBroker, topic: str, partition: int) -> Iterator[Stored]:
    """All batches of a partition, in order."""
    for path in sorted((own.data / f"{topic}-{partition}").glob("*.log")):
        content, start = path.read_bytes(), 0
        while start + LAST_OFFSET + 4 <= len(content):
            first, length = struct.unpack_from(">qi", content, start)
            last = struct.unpack_from(">i", content, start + LAST_OFFSET)[0]
            yield Stored(path, start, _HEAD + length, first, first + last)
            start += _HEAD + length


def batch_of(own: FaultBroker, topic: str, partition: int, offset: int) -> Stored:
    """The batch that has this offset."""
    return next(stored for stored in batches(own, topic, partition) if stored.first_offset <= offset <= stored.last_offset)
