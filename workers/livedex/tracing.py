"""Traces: spans of what livedex does, continued from those that producers and clients began.

`start` gives a tracer. Where the variables of OpenTelemetry (OTEL_*) name no place to send spans to, or the extra `tracing` is
not installed, it is `Tracer` itself: nothing is recorded, and the contexts that come in still reach the exemplars of metrics.
Otherwise it is the one of `tracing_otel`, which alone knows OpenTelemetry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from livedex import config
from livedex.core.trace_context import TraceContext
from livedex.observe import logger

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | bool]
Say = Callable[[str, str], None]  # (a dotted event, one sentence)

PROTOCOL = "http/protobuf"  # of OTLP: the one that the extra brings
_log = logger("tracing")


class Span:
    """Something that takes time. This one is recorded nowhere: it passes on the context that it continues."""

    recorded = False

    def __init__(self, parent: TraceContext | None = None) -> None:
        self._parent = parent

    @property
    def context(self) -> TraceContext | None:
        """What those have to be given that continue it; None: there is nothing to continue."""
        return self._parent

    def child(self, name: str, *, start: float, end: float, kind: Kind = "internal", attributes: Attributes | None = None,
              failed: str | None = None) -> None:  # fmt: skip
        """A part of it that is over; times in seconds since 1970, `failed` is the class of what went wrong."""

    def note(self, *, name: str | None = None, attributes: Attributes | None = None, failed: str | None = None) -> None:
        """What is known of it only now."""

    def end(self, at: float | None = None) -> None:
        """It is over, now or at a moment in seconds since 1970."""


NOWHERE = Span()
_current: ContextVar[Span] = ContextVar("livedex_span", default=NOWHERE)


class Tracer:
    """Begins spans. This one records none."""

    on = False  # whether spans are recorded, so that nobody has to put together what is not

    def begin(self, name: str, *, kind: Kind = "internal", parent: TraceContext | Span | None = None,
              start: float | None = None, links: Sequence[TraceContext] = (), attributes: Attributes | None = None,
              ) -> Span:  # fmt: skip
        """A span that whoever begins it has to end; without a parent it begins a trace. `start`: seconds since 1970."""
        del name, kind, start, links, attributes
        return Span(parent.context if isinstance(parent, Span) else parent)

    @contextmanager
    def span(self, name: str, *, kind: Kind = "internal", parent: TraceContext | None = None,
             attributes: Attributes | None = None) -> Iterator[Span]:  # fmt: skip
        """A span that lasts as long as the `with`, and is the current one meanwhile: `current`. It is part of the one that is
        current before, unless it has another parent.
        """
        made = self.begin(name, kind=kind, parent=parent or _current.get(), attributes=attributes)
        before = _current.set(made)
        try:
            yield made
        except BaseException as error:
            made.note(failed=type(error).__name__)
            raise
        finally:
            _current.reset(before)
            made.end()

    def close(self) -> None:
        """Send what is recorded, within two seconds."""


OFF = Tracer()


def current() -> TraceContext | None:
    """The context of the span that is current in this thread or task."""
    return _current.get().context


def exemplar(context: TraceContext | None) -> dict[str, str] | None:
    """What leads from a metric to the trace; None where nobody records it."""
    return {"trace_id": context.trace_id} if context is not None and context.sampled else None


def _log_line(event: str, why: str) -> None:
    _log.warning(event, why=why)


def start(service: str, instance: str, say: Say = _log_line) -> Tracer:
    """The tracer that the environment asks for. What is wrong with it is said, and stops nobody."""
    variables = config.opentelemetry()
    refused = refusal(variables)
    if refused is None:
        try:
            from livedex.tracing_otel import OtelTracer

            return OtelTracer(variables, service, instance, say)
        except ImportError:
            refused = "spans are not recorded, because the extra is not installed: pip install livedex[tracing]"
        except Exception as error:  # noqa: BLE001 - whatever OpenTelemetry makes of its variables
            refused = f"spans are not recorded, because OpenTelemetry refuses its settings: {error}"
    if refused:
        say("tracing.off", refused)
    return OFF


def refusal(variables: Mapping[str, str]) -> str | None:
    """Why these variables of OpenTelemetry give no traces; empty where they ask for none, None where they do give some."""
    exporters = variables.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    named = [variables.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT", "").strip() for part in ("TRACES_", "")]
    disabled = variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or not any(named) or exporters == "none":
        return ""
    if "otlp" not in [each.strip() for each in exporters.split(",")]:
        return f"spans are not recorded, because OTEL_TRACES_EXPORTER is {exporters}: only otlp is there"
    protocols = [variables.get(f"OTEL_EXPORTER_OTLP_{part}PROTOCOL", "").strip() for part in ("TRACES_", "")]
    protocol = next(filter(None, protocols), PROTOCOL)
    if protocol != PROTOCOL:
        return (
            f"spans are not recorded, because OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: only {PROTOCOL} is there, "
            "on port 4318 of most collectors"
        )
    return None
