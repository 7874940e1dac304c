"""Bounds what a compressed batch of the log may unpack to: a broker limits its compressed bytes only, and 32 MiB of gzip can be
32 GiB. The client (3.0.12) unpacks without a limit, by functions that it imports by name: the version is pinned, and tests with
such batches watch. What is too large is a batch that cannot be read: to the index worker a dead letter, to others unknown.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from types import FrameType, ModuleType

from kafka import codec
from kafka.codec import snappy_decode
from kafka.record import default_records, legacy_records

# Of one batch, unpacked. Producers bound a batch before it is packed, livedex's own to an eighth of this (MAX_REQUEST_BYTES).
MOST_BYTES = 256 * 2**20
PIECE = 2**20  # bytes that are unpacked at a time
_XERIAL = b"\x82SNAPPY\x00"


class TooLargeError(Exception):
    """A batch unpacks to more than MOST_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"unpacked it would have more than {MOST_BYTES} bytes: let its producer send smaller batches")


def guard() -> None:
    """Let the client unpack with a limit, in all its consumers of this process."""
    # codec too: `lz4_decode_old_kafka`, for logs of 0.8 and 0.9, unpacks by the function of that module
    modules: tuple[ModuleType, ...] = (codec, default_records, legacy_records)
    for module in modules:
        for name, bounded in _BOUNDED.items():
            if hasattr(module, name):
                setattr(module, name, bounded)


def interrupted(error: BaseException) -> FrameType | None:
    """Where the client took the records of a partition apart, of an error of `poll`; None when the error is about something
    else. Its `self` is what was fetched of the partition, its `batch` the batch of the log.

    Who polls on must pause or leave that partition: the client (3.0.12) would ask what it has used up for ever.
    """
    trace, found = error.__traceback__, None
    while trace is not None:
        found = trace.tb_frame if trace.tb_frame.f_code.co_name == "_unpack_records" else found
        trace = trace.tb_next
    return found


def _joined(pieces: Iterator[bytes]) -> bytes:
    """The whole; TooLargeError as soon as there is too much of it."""
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise TooLargeError
    return b"".join(found)


def _gzip(payload: bytes) -> bytes:
    return _joined(_gzip_pieces(bytes(payload)))


def _gzip_pieces(rest: bytes) -> Iterator[bytes]:
    while rest:  # a stream may have several members
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not (piece := member.decompress(rest, PIECE)) and not member.eof:
                raise EOFError("the stream ends in the middle")
            yield piece
            rest = member.unconsumed_tail
        rest = member.unused_data.lstrip(b"\0")


def _lz4(payload: bytes) -> bytes:
    return _joined(_lz4_pieces(payload))


def _lz4_pieces(payload: bytes) -> Iterator[bytes]:
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

    frame = LZ4FrameDecompressor()
    while not frame.eof:
        if not (piece := frame.decompress(payload, max_length=PIECE)) and not frame.eof:
            raise EOFError("the frame ends in the middle")
        yield piece
        payload = b""


def _zstd(payload: bytes) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(BytesIO(payload), read_across_frames=True) as reader:
        return _joined(iter(lambda: reader.read(PIECE), b""))


def _snappy(payload: bytes) -> bytes:
    if sum(_snappy_sizes(payload)) > MOST_BYTES:
        raise TooLargeError
    return bytes(snappy_decode(payload))


def _snappy_sizes(payload: bytes) -> Iterator[int]:
    """What the blocks say that they unpack to; the library holds them to it."""
    if not payload.startswith(_XERIAL):
        yield _varint(payload)
        return
    at = 16
    while at + 4 <= len(payload):
        (size,) = struct.unpack_from("!i", payload, at)
        yield _varint(payload[at + 4 : at + 9])
        at += 4 + max(0, size)


def _varint(content: bytes) -> int:
    value = 0
    for place, byte in enumerate(content[:5]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return value


_BOUNDED: dict[str, Callable[[bytes], bytes]] = {
    "gzip_decode": _gzip, "lz4_decode": _lz4, "zstd_decode": _zstd, "snappy_decode": _snappy,
}  # fmt: skip
