"""What is a trace context in the headers of a record or request, and what is nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedex.core.trace_context import MAX_BYTES, TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()

MALFORMED = {
    "nothing": b"",
    "null": None,
    "too short": PARENT[:-1],
    "too long": PARENT + b"0",
    "more fields than version 00 has": PARENT + b"-00",
    "a trace id of zeros": PARENT.replace(TRACE.encode(), b"0" * 32),
    "a span id of zeros": PARENT.replace(SPAN.encode(), b"0" * 16),
    "capital letters": PARENT.upper(),
    "no hex digit": PARENT.replace(b"4bf9", b"4bg9"),
    "no ASCII": PARENT.replace(b"4bf9", b"\xff\xfe\x80\x81"),
    "other digits": PARENT.replace(b"4bf9", "\u0664\u0665".encode()),
    "blanks around": b" " + PARENT + b" ",
    "a line break behind": PARENT + b"\n",
    "the version that there never will be": b"ff" + PARENT[2:],
    "no version": PARENT[3:],
    "underscores": PARENT.replace(b"-", b"_"),
    "huge": b"01" + PARENT[2:] + b"-" + b"a" * 2**20,
    "NUL bytes": b"\x00" * 55,
}


def test_a_context_is_read_and_written_alike() -> None:
    """Ids, the sampled flag and the state come out as they went in."""
    headers = [("other", b"x"), ("traceparent", PARENT), ("tracestate", b"a=1,b@c=2")]
    context = TraceContext.of(headers)
    assert context == TraceContext(TRACE, SPAN, sampled=True, state="a=1,b@c=2")
    assert TraceContext.of(context.headers) == context
    assert context.headers == (("traceparent", PARENT), ("tracestate", b"a=1,b@c=2"))


@pytest.mark.parametrize(("flags", "sampled"), [(b"00", False), (b"01", True), (b"02", False), (b"03", True), (b"ff", True)])
def test_one_bit_says_whether_it_is_recorded(flags: bytes, *, sampled: bool) -> None:
    """Other flags may be set or not."""
    context = TraceContext.of([("traceparent", PARENT[:-2] + flags)])
    assert context is not None
    assert context.sampled is sampled


def test_later_versions_are_read_as_far_as_they_are_known() -> None:
    """A version after 00 may have more fields, behind another dash."""
    for more in (b"", b"-", b"-what-comes-later"):
        assert TraceContext.of([("traceparent", b"cc" + PARENT[2:] + more)]) == TraceContext(TRACE, SPAN, sampled=True)
    assert TraceContext.of([("traceparent", b"cc" + PARENT[2:] + b"more")]) is None


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_nothing(value: bytes | None) -> None:
    """It never raises."""
    assert TraceContext.of([("traceparent", value)]) is None


def test_two_contexts_are_none() -> None:
    """Which of two is meant cannot be known, even where they are equal."""
    assert TraceContext.of([("traceparent", PARENT), ("traceparent", PARENT)]) is None
    assert TraceContext.of([]) is None
    assert TraceContext.of([("Traceparent", PARENT), ("tracestate", b"a=1")]) is None


@pytest.mark.parametrize("state", [b"a" * (MAX_BYTES + 1), b"a=\xff", b"a=1\n", None])
def test_a_bad_state_is_left_out_and_the_context_stays(state: bytes | None) -> None:
    """The state belongs to tracing systems; without it the trace still goes on."""
    assert TraceContext.of([("traceparent", PARENT), ("tracestate", state)]) == TraceContext(TRACE, SPAN, sampled=True)


def test_several_states_are_one_list() -> None:
    """As RFC 9110 has it of headers."""
    context = TraceContext.of([("tracestate", b"a=1"), ("traceparent", PARENT), ("tracestate", b"b=2")])
    assert context is not None
    assert context.state == "a=1,b=2"


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.none() | st.binary(max_size=80)), max_size=4))
def test_whatever_the_headers_are_nothing_is_raised(headers: list[tuple[str, bytes | None]]) -> None:
    """And what is taken for a context can be passed on."""
    context = TraceContext.of(headers)
    assert context is None or TraceContext.of(context.headers) == context


@given(st.binary(max_size=55), st.integers(0, 55))
def test_a_damaged_context_is_read_wholly_or_not_at_all(damage: bytes, at: int) -> None:
    """Overwritten bytes give another valid context, or none."""
    value = PARENT[:at] + damage + PARENT[at + len(damage) :]
    context = TraceContext.of([("traceparent", value)])
    assert context is None or (len(context.trace_id), len(context.span_id)) == (32, 16)
