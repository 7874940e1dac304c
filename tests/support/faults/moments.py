"""Moments in a worker's life at which a test lets something happen to it: exact, where a timed signal would only be likely."""

import functools
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
_FORM = re.compile(r"(?P<point>\w+)(?::(?P<number>\d+))?=(?P<action>\w+)")


@dataclass(slots=True)
class _Moment:
    """The n-th time that a point is reached."""

    number: int
    signal: signal.Signals
    reached: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self) -> None:
        with self.lock:
            self.reached += 1
            due = self.reached == self.number
        if due:
            # to this thread: if another one takes it, this one goes on for a moment, into a transaction
            signal.pthread_kill(threading.get_ident(), self.signal)


def arm(text: str) -> None:
    """`POINT[:N]=ACTION`: at the N-th time (from 1) that the point is reached."""
    parts = _FORM.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no moment, expected POINT[:N]=ACTION")
    POINTS[parts["point"]](_Moment(int(parts["number"] or 1), ACTIONS[parts["action"]]))


def _after(owner: Any, name: str, moment: _Moment, *, when: Callable[..., bool] = lambda *_: True) -> None:
    """Reach the moment each time that a function has returned."""
    old = getattr(owner, name)

    @functools.wraps(old)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = old(*arguments, **named)
        if when(result, *arguments):
            moment.pass_by()
        return result

    setattr(owner, name, wrapped)


def _before(owner: Any, name: str, moment: _Moment, *, when: Callable[..., bool] = lambda *_: True) -> None:
    """Reach the moment each time that a function is called."""
    old = getattr(owner, name)

    @functools.wraps(old)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            moment.pass_by()
        return old(*arguments, **named)

    setattr(owner, name, wrapped)


def _planned(moment: _Moment) -> None:
    from livedex.index.stages import Stages

    _after(Stages, "plan", moment)


def _embedded(moment: _Moment) -> None:
    """Vectors of a batch are made, nothing of them is written."""
    from livedex.index.stages import Stages

    _after(Stages, "embed", moment, when=lambda work, *_: bool(work.vectors))


def _staging(moment: _Moment) -> None:
    """Chunks and vectors are inserted, and the transaction that did it is open."""
    from livedex.index import store

    _after(store, "query", moment, when=lambda _statement, _file, name: name == "staged_keys")


def _staged(moment: _Moment) -> None:
    """Chunks and vectors of a batch are written, and nobody sees them."""
    from livedex.index.stages import Stages

    _after(Stages, "stage", moment)


def _applying(moment: _Moment) -> None:
    """The worker still thinks that it owns the partition, and is about to ask the database."""
    from livedex.index.store import Store

    _before(Store, "apply", moment)


def _locked(moment: _Moment) -> None:
    """The apply transaction holds the row of the progress."""
    from livedex.index import store

    _after(store, "move_progress", moment)


def _applied(moment: _Moment) -> None:
    """Postgres has committed, and nobody else knows it: not Kafka, not the worker's loop."""
    from livedex.index.stages import Stages

    _after(Stages, "apply", moment)


def _assigned(moment: _Moment) -> None:
    """The group has given partitions, the listener has not paused or moved them. An assignment of nothing does not count."""
    from livedex.index.source import KafkaSource

    _before(KafkaSource, "on_partitions_assigned", moment, when=lambda _self, assigned: bool(assigned))


def _claimed(moment: _Moment) -> None:
    """The database has given the partition, the consumer has not been moved to its offset."""
    from livedex.index.store import Store

    _after(Store, "claim", moment)


POINTS: dict[str, Callable[[_Moment], None]] = {
    "planned": _planned,
    "embedded": _embedded,
    "staging": _staging,
    "staged": _staged,
    "applying": _applying,
    "locked": _locked,
    "applied": _applied,
    "assigned": _assigned,
    "claimed": _claimed,
}
