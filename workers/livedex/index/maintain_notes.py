"""What fails in the upkeep, from both of its threads: said once in the log, and kept for `livedex status`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from livedex.database import translated
from livedex.errors import LivedexError
from livedex.index.maintain_session import UpkeepSession
from livedex.index.refusals import judged
from livedex.lifecycle import Stop
from livedex.observe import logger

_log = logger("upkeep")


class Notes:
    """For any thread."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._failing: dict[tuple[int | None, str], str] = {}  # by generation, None: of all, and what fails

    def problem(self, generation_id: int) -> str | None:
        """What is in the way of the upkeep of a generation."""
        with self._lock:
            found = [why for (number, _), why in self._failing.items() if number == generation_id]
        return "; ".join(dict.fromkeys(found)) or None

    @contextmanager
    def noting(self, what: str, generation_id: int | None = None, session: UpkeepSession | None = None) -> Iterator[None]:
        """Note what fails inside, and go on with what comes next; but without its connection nothing of a `session` goes on."""
        try:
            with translated(), judged():
                yield
        except Exception as error:
            if session is not None and session.broken:
                raise
            if not self._stop.asked:  # which cancels what runs
                self._failed((generation_id, what), error)
        else:
            self._passed((generation_id, what))

    def _failed(self, what: tuple[int | None, str], error: Exception) -> None:
        why = str(error) if isinstance(error, LivedexError) else f"{type(error).__name__}, which livedex did not expect"
        with self._lock:
            known = self._failing.get(what) == why
            self._failing[what] = why
        if not known:
            _log.warning("upkeep.fails", what=what[1], why=why)

    def _passed(self, what: tuple[int | None, str]) -> None:
        with self._lock:
            failed = self._failing.pop(what, None) is not None
        if failed:
            _log.info("upkeep.works", what=what[1])
