"""Who is at fault where encoder or database fail on a record: the record, or, after many in a row, they themselves."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from livedex.core.change import Change, Reason, Rejection
from livedex.core.fold import DocumentState
from livedex.core.isolate import Streak
from livedex.core.plan import DocumentPlan
from livedex.errors import SystemicError

DETAIL_CHARACTERS = 300  # of an error's message in a dead letter

_NAMES = {"embedder": "the encoder", "postgres": "the database"}


class Blame:
    """Counts the records that one dependency, `embedder` or `postgres`, failed on one after another."""

    def __init__(self, dependency: str, failures_in_a_row: int) -> None:
        self._dependency = dependency
        self._limit = failures_in_a_row
        self._streak = Streak(failures_in_a_row)

    def passed(self) -> None:
        """It took something: what it failed on before was at fault itself."""
        self._streak.passed()

    def at_fault(self, change: Change, error: Exception) -> Rejection:
        """Why a change cannot be indexed; SystemicError when so many cannot that they are not at fault."""
        if self._streak.failed(change.place):
            raise SystemicError(
                self._dependency,
                f"{_NAMES[self._dependency]} failed on {self._limit} records in a row, at last with {type(error).__name__}: "
                "nothing is skipped, and it goes on by itself once that is mended. If really the records are at fault, set "
                "LIVEDEX_FAILURES_IN_A_ROW higher to make them dead letters",
            ) from error
        return Rejection(
            reason=Reason.STORING_FAILED if self._dependency == "postgres" else Reason.EMBEDDING_FAILED,
            detail=detail(error),
            document_id=change.document_id,
            version=change.version,
        )


def detail(error: Exception) -> str:
    """What an error says, as Postgres can keep it."""
    return f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS].replace("\0", "")


def blamed(document: DocumentPlan, failure: Callable[[Sequence[DocumentPlan]], object]) -> Sequence[Change]:
    """Those events of a refused document whose part is refused alone; all where none is."""
    events = document.state.parts
    if len(events) == 1:
        return events
    content, metadata = document.state.content, document.state.metadata
    alone = (
        (content, replace(document, state=DocumentState(content=content, metadata=None))),
        (metadata, replace(document, state=DocumentState(content=None, metadata=metadata), chunks=None)),
    )
    return [change for change, part in alone if change is not None and failure([part]) is not None] or events
