"""Records, places and their tokens."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedex.core.record import Place, Record
from support.records import record, reproducible


@settings(reproducible)
@given(st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True), st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1))
def test_a_token_names_its_place(topic: str, partition: int, offset: int) -> None:
    """What is printed is read back."""
    place = Place(topic, partition, offset)
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize(
    "token",
    [
        *[
            "",
            "t",
            "t:0",
            ":0:1",
            "t::1",
            "t:0:",
            "t:0:1:",
            "t:0:-1",
            "t:-1:0",
            "t:0:1.0",
            "t:0:x",
            "t:0: 1",
            "t:0:1 ",
            "t:0:1\n",
        ],
        *["t:0:+1", "t:0:1_0", "t:0:٣", "t:0:²", "a:b:0:1", "t:1000000000:0", f"t:0:{10**18}", f"t:0:{'9' * 5000}"],
    ],
)
def test_what_is_no_token_is_no_place(token: str) -> None:
    """Nothing raises, and no number is beyond what Postgres can compare."""
    assert Place.parse(token) is None


@settings(reproducible)
@given(st.text(max_size=12))
def test_any_text_is_a_place_or_none(token: str) -> None:
    """Whatever is pasted; what is read has a topic and natural numbers."""
    place = Place.parse(token)
    assert place is None or (place.topic and place.partition >= 0 and place.offset >= 0)


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_795_428_000_250, datetime(2026, 11, 23, 10, 0, 0, 250_000, tzinfo=UTC)),
        (-1, datetime(1970, 1, 1, tzinfo=UTC)),
        (-(2**63), datetime(1970, 1, 1, tzinfo=UTC)),
        (2**63 - 1, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_any_timestamp_is_a_time(milliseconds: int, expected: datetime) -> None:
    """Kafka's timestamp is whatever the producer sent; none at all is -1."""
    assert record(None, timestamp_ms=milliseconds).timestamp == expected


def test_the_size_counts_key_value_and_headers() -> None:
    """A null counts as nothing."""
    assert record(b"12345", key=b"123", headers=(("ab", b"c"), ("d", None))).size == 12
    assert Record(topic="t", partition=0, offset=0, timestamp_ms=0, key=None, value=None).size == 0
