"""What a compressed batch may unpack to."""

import gzip

import pytest
import snappy  # type: ignore[import-untyped]
from kafka import codec
from kafka.record import default_records, legacy_records

from livedex import unpacking
from livedex.unpacking import TooLargeError, guard

CODECS = {
    "gzip": (codec.gzip_encode, unpacking._gzip),
    "lz4": (codec.lz4_encode, unpacking._lz4),
    "zstd": (codec.zstd_encode, unpacking._zstd),
    "snappy": (codec.snappy_encode, unpacking._snappy),
    "plain snappy": (lambda content: codec.snappy_encode(content, xerial_compatible=False), unpacking._snappy),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [1, 70_000, 3 * 2**20])
def test_what_is_small_enough_is_what_was_packed(name: str, size: int) -> None:
    """Byte for byte, whatever the codec."""
    pack, unpack = CODECS[name]
    content = bytes(number % 251 for number in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    assert unpack(pack(content)) == content


@pytest.mark.parametrize("name", CODECS)
def test_what_would_be_larger_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is there."""
    pack, unpack = CODECS[name]
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2 * 2**20)
    assert len(unpack(pack(bytes(2 * 2**20)))) == 2 * 2**20
    with pytest.raises(TooLargeError, match="unpacked it would have more than 2097152 bytes"):
        unpack(pack(bytes(2 * 2**20 + 1)))


def test_a_stream_of_several_members_is_refused_by_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would be small enough."""
    members = gzip.compress(bytes(2**20)) * 3
    assert len(unpacking._gzip(members)) == 3 * 2**20
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2 * 2**20)
    with pytest.raises(TooLargeError):
        unpacking._gzip(members)


@pytest.mark.parametrize("name", sorted(CODECS.keys() - {"zstd"}))
def test_what_is_cut_off_is_no_content(name: str) -> None:
    """An error, as of the client's own functions, and never a part of it. Of zstd the broker's checksum has told before."""
    pack, unpack = CODECS[name]
    packed = pack(bytes(range(256)) * 400)
    with pytest.raises((EOFError, RuntimeError, snappy.UncompressError)):  # each codec has its own
        unpack(packed[: len(packed) // 2])


def test_the_client_unpacks_so() -> None:
    """Whoever renews the client finds out whether it still looks there."""
    guard()
    assert default_records.gzip_decode is unpacking._gzip
    assert default_records.zstd_decode is unpacking._zstd
    assert default_records.lz4_decode is unpacking._lz4
    assert default_records.snappy_decode is unpacking._snappy
    assert legacy_records.gzip_decode is unpacking._gzip
    assert legacy_records.snappy_decode is unpacking._snappy
    assert legacy_records.lz4_decode is unpacking._lz4
    assert legacy_records.lz4_decode_old_kafka.__globals__["lz4_decode"] is unpacking._lz4
