"""Whatever bytes a record has, reading it gives a change or a reason, in bounded time, and never an exception."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

from livedex.core.change import MAX_NESTING, Change, Rejection, VersionMode, decode
from livedex.core.record import Record

INPUTS = 1_000_000
SOME = 60_000  # in an ordinary run
SLOWEST = 5.0  # seconds that one small record may take: far above any pause of the machine, far below a hang
MODES = (VersionMode.LOG, VersionMode.SOURCE)
SEEDS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"text": "A text."}',
    b'{"op": "delete", "id": "a", "version": 1}',
    b'{"op": "metadata", "id": "a", "metadata": {"a": [1, 2.5e3, true, null, {"b": "c"}]}}',
    b'{"op": "upsert", "id": "a", "version": 42, "time": "2026-11-23T10:00:60+01:00", "title": "T", "text": "T\\u0041"}',
    b'{"text": "T", "version": 1, "format": "markdown", "metadata": {"lang": "en"}}',
    '{"text": "é 索引 🙂", "id": "ï"}'.encode(),
    b"\x00\x00\x00\x00\x07{}",  # framed by a schema registry
]
TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\u0000", b"\\ud800", b"\\udc00", b"\xff", b"\xed\xa0\x80", b"\x00", b"NaN",
    b"-Infinity", b"1e999", b"9" * 5000, b"[" * (MAX_NESTING + 2), b'{"a":' * 2000, b"true", b"null", b'"text"', b'"id"',
    b'"op"', b'"version"', b'"time"', b'"metadata"', b'"title"', b'"format"',
    b"18446744073709551616", b"-1", b"1.5", b" ", b"\n", b"\\",
    b"9999-12-31T23:59:60Z", b"0000-00-00T00:00:00Z", b"\xef\xbb\xbf", b"//", b"'",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63, 10**400, "", "a", "\0", "\ud800", "x" * 600, [], {}, [[]], {"a": {"b": []}}, "delete",
    "2026-11-23T10:00:00Z", "10000-01-01T00:00:00Z", "text",
]  # fmt: skip
FIELDS = ["op", "id", "version", "time", "title", "text", "format", "metadata", "more", ""]
KEYS = [None, None, None, b"", b"a", b"a", b"a", b"\xff", b"x" * 513, "é".encode(), b"\x00"]
HEADERS: list[tuple[tuple[str, bytes | None], ...]] = [
    (), (("livedex-version", b"7"),), (("livedex-version", None),), (("livedex-version", b"\xff"), ("x", b"y")),
    (("livedex-version", b"9" * 30),),
]  # fmt: skip


def mangled(choose: random.Random) -> bytes:
    """Bytes near a valid event: a seed, cut, spliced and flipped."""
    value = bytearray(choose.choice(SEEDS))
    for _ in range(choose.randrange(1, 6)):
        place = choose.randrange(len(value) + 1)
        match choose.randrange(4):
            case 0:
                value[place:place] = choose.choice(TOKENS)
            case 1:
                del value[place : place + choose.randrange(1, 8)]
            case 2:
                value[place : place + 1] = bytes([choose.randrange(256)])
            case _:
                value[place:] = choose.choice(SEEDS)[choose.randrange(4) :]
    return bytes(value)


def misshapen(choose: random.Random) -> bytes:
    """JSON of a valid event, of which some fields have any types."""
    event: dict[str, Any] = {"id": "a", "text": "T", "version": 3, "time": "2026-11-23T10:00:00Z", "metadata": {"n": [1]}}
    event |= {field: choose.choice(VALUES) for field in choose.sample(FIELDS, choose.randrange(4))}
    return json.dumps(event, ensure_ascii=choose.random() < 0.5).encode("utf-8", "surrogatepass")


def records(seed: int, count: int) -> Iterator[Record]:
    """Records of every kind, the same for the same seed."""
    choose = random.Random(seed)
    for offset in range(count):
        kind = choose.random()
        value = None if kind < 0.02 else choose.randbytes(choose.randrange(40)) if kind < 0.1 else (
            mangled(choose) if kind < 0.6 else misshapen(choose)
        )  # fmt: skip
        yield Record(
            topic="t", partition=0, offset=offset, timestamp_ms=choose.choice([-1, 0, 1_764_000_000_000, 2**62]),
            key=choose.choice(KEYS), value=value, headers=choose.choice(HEADERS),
        )  # fmt: skip


def test_no_bytes_are_too_strange(seed: int, full: bool) -> None:
    """A million records (fewer in an ordinary run) give a change that can be stored, or a rejection with a reason and a detail
    that can be stored.
    """
    count = INPUTS if full else SOME
    changes = 0
    for record in records(seed, count):
        began = time.monotonic()
        found = decode(record, mode=MODES[record.offset % 2], epoch=0)
        assert time.monotonic() - began < SLOWEST, record
        if isinstance(found, Change):
            changes += 1
            for text in (found.document_id, found.title or "", found.text, json.dumps(found.metadata)):
                text.encode()
                assert "\0" not in text, record
        else:
            assert isinstance(found, Rejection), record
            assert found.detail.encode(), record
            assert "\0" not in f"{found.detail}{found.document_id or ''}", record
    assert 0.02 < changes / count < 0.9, "the inputs must be near the border of what is valid"
