"""W3C Trace Context: what the headers `traceparent` and `tracestate` say, of Kafka records and of HTTP requests.

Anybody may write them, so what is not exactly of their form is nothing at all, and never an error of what it came with.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_BYTES = 512  # of a header: later versions of the standard may append fields, and 512 is what tracestate is propagated up to

_NOTHING = re.compile(rb"0+")
_TRACEPARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span that somebody began, here or elsewhere."""

    trace_id: str  # 32 hex digits, not all 0
    span_id: str  # 16 hex digits, not all 0
    sampled: bool  # whether whoever began it records it
    state: str = ""  # of tracestate, as it came: for tracing systems, passed on unread

    @classmethod
    def of(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self | None:
        """The context that these headers carry; None when there is none, when it is malformed, and when there are several."""
        parents, states = [], []
        for name, value in headers:
            if name == TRACEPARENT:
                parents.append(value)
            elif name == TRACESTATE:
                states.append(value or b"")
        return cls._parse(parents[0], b",".join(states)) if len(parents) == 1 else None

    @classmethod
    def _parse(cls, parent: bytes | None, state: bytes) -> Self | None:
        found = _TRACEPARENT.fullmatch(parent) if parent is not None and len(parent) <= MAX_BYTES else None
        if found is None or found["version"] == b"ff" or (found["version"] == b"00" and found["more"] is not None):
            return None
        if _NOTHING.fullmatch(found["trace_id"]) or _NOTHING.fullmatch(found["span_id"]):
            return None
        kept = state if len(state) <= MAX_BYTES and _PRINTABLE.fullmatch(state) else b""
        return cls(found["trace_id"].decode(), found["span_id"].decode(), bool(int(found["flags"], 16) & 1), kept.decode())

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The headers that carry it."""
        parent = f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}".encode()
        return ((TRACEPARENT, parent), *([(TRACESTATE, self.state.encode())] if self.state else []))
