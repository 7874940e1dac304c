"""Dead letters as Postgres keeps them: read one with its record, and close it in the transaction that makes it searchable."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from psycopg.rows import dict_row

from livedex import catalogue
from livedex.catalogue import Live
from livedex.core.change import Rejection
from livedex.core.plan import BatchPlan, DocumentResult
from livedex.core.record import Record
from livedex.database import query
from livedex.errors import ConflictError
from livedex.index.applying import Claim, Keys, apply_documents, dead_letter, fenced_by
from livedex.index.store import Store


class State(StrEnum):
    """Where a dead letter stands."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, and what its source is now."""

    number: int
    record: Record
    document_id: str | None
    reason: str
    attempts: int
    state: State
    epoch: int  # of the source when the record was read
    source_epoch: int  # of the source now
    collection_id: int

    @property
    def claim(self) -> Claim:
        """The record's place and epoch, for what asks for a claim. It is nobody's: the progress does not move."""
        record = self.record
        return Claim(
            topic=record.topic, partition=record.partition, owner_epoch=0, next_offset=record.offset, epoch=self.epoch
        )  # fmt: skip


class LetterStore(Store):
    """The store of the index worker, and the dead letters that it left.

    What closes a letter raises ConflictError, and writes nothing, when the letter is not any more what it was when it was read.
    """

    def letter(self, number: int) -> Letter | None:
        """The letter as it is now; None: there is none."""
        with self._connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(query("dead_letters", "read_letter"), {"id": number}).fetchone()
        if row is None:
            return None
        record = Record(
            topic=row["topic"],
            partition=row["partition"],
            offset=row["offset"],
            timestamp_ms=_milliseconds(row["timestamp"]),
            key=row["key"],
            value=row["value"],
            headers=_headers(row["headers"]),
        )
        return Letter(
            number=number,
            record=record,
            document_id=row["document_id"],
            reason=row["reason"],
            attempts=row["attempts"],
            state=State(row["state"]),
            epoch=row["epoch"],
            source_epoch=row["source_epoch"],
            collection_id=row["collection_id"],
        )

    def replay(self, letter: Letter, live: Live, plan: BatchPlan, keys: Keys) -> dict[str, DocumentResult]:
        """Make the letter's record searchable as far as the version fence lets it pass, and the letter replayed."""
        shared = {"key": catalogue.COLLECTION_LOCK, "collection_id": live[0].collection_id}
        expected = {"id": letter.number, "state": letter.state, "epoch": letter.epoch, **fenced_by(live)}
        with self._connection() as connection, connection.transaction():
            connection.execute(query("index", "share_collection"), shared)
            if connection.execute(query("dead_letters", "lock_letter"), expected).fetchone() != (True,):
                raise _changed(letter)
            results = apply_documents(connection, live, letter.claim, plan, keys) if plan.documents else {}
            connection.execute(query("dead_letters", "close_letter"), {**expected, "becomes": State.REPLAYED})
        return results

    def fail(self, letter: Letter, rejection: Rejection) -> int:
        """Note that the record cannot be indexed yet; how often that was tried by now."""
        failed = dead_letter(letter.record, rejection, letter.claim)
        with self._connection() as connection:
            arguments = {**failed, "id": letter.number, "state": letter.state}
            row = connection.execute(query("dead_letters", "fail_letter"), arguments).fetchone()
        if row is None:
            raise _changed(letter)
        return int(row[0])

    def discard(self, letter: Letter) -> None:
        """Give the record up."""
        arguments = {"id": letter.number, "state": letter.state, "becomes": State.DISCARDED}
        with self._connection() as connection:
            if connection.execute(query("dead_letters", "close_letter"), arguments).rowcount != 1:
                raise _changed(letter)


def _changed(letter: Letter) -> ConflictError:
    return ConflictError(
        f"dead letter {letter.number}, its source or its collection's generation was changed by somebody else meanwhile: "
        "nothing was done with it, try again"
    )


def _milliseconds(timestamp: datetime) -> int:
    return round(timestamp.timestamp() * 1000)


def _headers(parts: list[bytes | None]) -> tuple[tuple[str, bytes | None], ...]:
    names, values = parts[::2], parts[1::2]
    return tuple((_name(name), value) for name, value in zip(names, values, strict=True))


def _name(raw: bytes | None) -> str:
    assert raw is not None  # only a header's value may be null
    return raw.decode(errors="surrogateescape")
