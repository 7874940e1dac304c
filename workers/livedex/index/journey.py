"""The way of a batch from its polls through the stages, noted for its traces. It belongs to its batch, and goes with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from livedex.core.trace_context import TraceContext
from livedex.tracing import NOWHERE, Span


@dataclass(frozen=True, slots=True)
class Poll:
    """When the records before an offset were polled."""

    next_offset: int
    start: float  # seconds since 1970
    end: float


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that the batch was in."""

    name: str
    start: float  # seconds since 1970
    end: float
    failed: str | None  # the class of the error


@dataclass(slots=True)
class Journey:
    """Where a batch was so far, and the span that covers it."""

    polls: tuple[Poll, ...] = ()  # in order; none of a batch that no poll brought
    steps: list[Step] = field(default_factory=list)
    span: Span = NOWHERE
    context: TraceContext | None = None  # to look at where one stands for all of the batch

    @classmethod
    def joined(cls, journeys: "Iterable[Journey]") -> "Journey":
        """That of batches which become one before their first stage."""
        return cls(polls=tuple(poll for journey in journeys for poll in journey.polls))

    def note(self, name: str, start: float, end: float, failed: str | None) -> None:
        """It was in this stage, from one moment to another in seconds since 1970."""
        self.steps.append(Step(name, start, end, failed))

    def poll_of(self, offset: int) -> Poll | None:
        """The poll that brought a record."""
        return next((poll for poll in self.polls if offset < poll.next_offset), None)
