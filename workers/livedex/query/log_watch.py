"""How far the log is ahead of the index, for people who look at it: Kafka is asked rarely, and only while somebody looks."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livedex.config import KafkaSettings
from livedex.database import first_line

if TYPE_CHECKING:
    from kafka import TopicPartition

    from livedex.kafka import LogEnds

LOOK_EVERY = 4.0  # seconds between looks at the log, however many ask
KEPT = 10.0  # seconds that a look is told of: until the next has ended, where somebody keeps asking
NO_KAFKA = "this query worker knows no Kafka: set LIVEDEX_KAFKA_BOOTSTRAP_SERVERS for it too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the last look at the log gave."""

    at: float  # time.time() when it ended
    ends: "LogEnds | None" = None  # None: there is no answer, `problem` says why
    problem: str | None = None


class LogWatch:
    """Looks at the log in a thread of its own, so that nobody waits for Kafka."""

    def __init__(self, settings: KafkaSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        # the default address is a guess: a worker that needs no Kafka must not knock at it for ever
        self._known = "bootstrap_servers" in settings.model_fields_set
        self._clock = clock
        self._lock = threading.Lock()
        self._looking = False
        self._last: Look | None = None

    def ends(self, positions: Mapping["TopicPartition", int]) -> Look | None:
        """The last look, None while there is none of the last seconds. A new one begins when the last is old.

        Nobody may have asked for hours: what was true then must not be taken for what is.
        """
        if not self._known:
            return Look(at=self._clock(), problem=NO_KAFKA)
        with self._lock:
            age = self._clock() - self._last.at if self._last is not None else math.inf
            if age > LOOK_EVERY and not self._looking:
                self._looking = True
                threading.Thread(target=self._look, args=(dict(positions),), name="log-watch", daemon=True).start()
            return self._last if age <= KEPT else None

    def _look(self, positions: Mapping["TopicPartition", int]) -> None:
        from livedex.kafka import LogEnds

        try:
            ends = LogEnds.ask(self._settings, positions)
            found = Look(at=self._clock(), ends=ends)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, it is told to who looks
            found = Look(at=self._clock(), problem=first_line(error))
        with self._lock:
            self._last, self._looking = found, False
