"""Dead letters over HTTP: operators see them all, and replay or discard one where this worker's database role may.

The role livedex_query may not, and that is right for a worker that only searches. Who wants the buttons of the page to work
grants its role livedex_indexer too, knowingly; everybody else uses `livedex dead-letters` where a role of the index worker is.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from livedex.catalogue import Generation
from livedex.config import EmbedderName, Settings
from livedex.database import Connection, query, translated
from livedex.encoders import Encoder
from livedex.errors import ConflictError, LivedexError
from livedex.observe import logger
from livedex.query.access import Caller, ForbiddenError
from livedex.query.active import Encoders

Verb = Literal["replay", "discard"]
_log = logger("letters")


class NoLetterError(LivedexError):
    """There is no such dead letter."""


class LetterDesk:
    """Reads dead letters, and closes them one at a time. Any number of threads may ask."""

    def __init__(self, settings: Settings, pool: ConnectionPool[Connection], encoders: Encoders, *, tokens: bool) -> None:
        """`tokens`: callers are known by them; without, anybody on this machine asks, and nobody may change anything."""
        self._settings = settings
        self._pool = pool
        self._encoders = encoders
        self._tokens = tokens
        self._busy = threading.Lock()

    def list(self, caller: Caller, filters: dict[str, Any]) -> dict[str, Any]:
        """The newest that the filters let pass, and whether this caller could change them here; `why_not`: why it could not."""
        if not caller.operator:
            raise ForbiddenError(f"the token {caller.name} is no operator's: set operator = true for it in the tokens file")
        everything = dict.fromkeys(("ids", "topic", "partition", "document"))
        with translated(), self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            letters = cursor.execute(query("dead_letters", "list_letters"), {**everything, **filters}).fetchall()
        why_not = self._why_not(caller)
        return {"letters": letters, "may_change": why_not is None, "why_not": why_not}

    def change(self, verb: Verb, number: int, caller: Caller) -> dict[str, Any]:
        """What became of an open letter, see dead_letters.Answer. ForbiddenError, NoLetterError, ConflictError."""
        why_not = self._why_not(caller)
        if why_not is not None:
            raise ForbiddenError(why_not)
        from livedex.dead_letters import OPEN, opened  # with all of the index worker, which no search needs

        if not self._busy.acquire(blocking=False):
            raise ConflictError("another dead letter is being replayed or discarded here: try again when it is done")
        try:
            with opened(self._settings, OPEN, open_encoder=self._open) as letters:
                step: Callable[[int], Any] = letters.replay if verb == "replay" else letters.discard
                answer = step(number)
        finally:
            self._busy.release()
        if answer.place is None:
            raise NoLetterError(f"there is no dead letter {number}")
        _log.info("letters.changed", verb=verb, id=number, token=caller.name, result=answer.result)
        return asdict(answer)

    def _why_not(self, caller: Caller) -> str | None:
        """Why this caller cannot change dead letters here, with what would let it; None: it can."""
        if not self._tokens:
            return (
                "dead letters are replayed and discarded here with an operator's token only, and this query worker asks for "
                "none: name a file in LIVEDEX_API_TOKENS_FILE, or use livedex dead-letters"
            )
        if not caller.operator:
            return f"the token {caller.name} is no operator's: set operator = true for it in the tokens file"
        with translated(), self._pool.connection() as connection:
            role, may = connection.execute(query("dead_letters", "may_change_letters")).fetchone() or ("", False)
        if not may:
            return (
                f"{role}, the database role of this query worker, may not change dead letters: use livedex dead-letters where "
                f"the index worker's role is, or grant livedex_indexer to {role}"
            )
        return None

    def _open(self, embedder: EmbedderName, generation: Generation) -> Encoder:
        """The encoder that searches use already, not another copy of the model."""
        del embedder
        return self._encoders.encoder(generation)
