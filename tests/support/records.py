"""Records and changes for tests that need no broker, and the settings of every property test."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings

from livedex.core.change import Change, Op
from livedex.core.record import Place, Record, Version

#: The examples are a function of the test alone, so a failure comes again.
reproducible = settings(
    derandomize=True, print_blob=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)

TIMESTAMP_MS = 1_795_428_000_000
NOON = datetime.fromtimestamp(TIMESTAMP_MS / 1000, UTC)


def record(
    value: dict[str, Any] | bytes | None,
    *,
    key: bytes | None = b"a",
    offset: int = 0,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    timestamp_ms: int = TIMESTAMP_MS,
) -> Record:
    """A record of the topic `t`; a dict becomes JSON."""
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record(topic="t", partition=0, offset=offset, timestamp_ms=timestamp_ms, key=key, value=raw, headers=headers)


def change(
    op: Op, number: int, *, document_id: str = "a", text: str = "", offset: int | None = None, **metadata: Any
) -> Change:
    """A change with the version `number`, at an offset equal to it unless said otherwise."""
    offset = number if offset is None else offset
    return Change(
        place=Place("t", 0, offset),
        document_id=document_id,
        op=op,
        version=Version(0, number, offset),
        event_time=NOON,
        timestamp=NOON,
        title=None,
        text=text,
        metadata=metadata,
    )
