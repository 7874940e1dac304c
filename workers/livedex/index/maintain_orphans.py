"""The collector: notes since when chunks are orphans, forgets those that are referred to again, deletes those past the grace.

It sweeps over all chunks in the order of their keys, in slices, each a few short statements. A batch that comes to refer to a
chunk meanwhile is either seen, or its foreign key fails and it is planned again: nothing that is referred to is ever deleted.
"""

from typing import Any

from livedex.core.upkeep import Pace
from livedex.errors import ConflictError
from livedex.index.maintain_session import UpkeepSession
from livedex.index.refusals import judged
from livedex.lifecycle import Stop

TRIES = 3  # of a slice that another transaction is in the way of; the next sweep comes to it again


def sweep(session: UpkeepSession, pace: Pace, stop: Stop) -> int:
    """Look at every chunk once; how many were deleted. A stop ends it early."""
    after, gone = 0, 0
    while not stop.asked:
        upto = session.value("end_of_slice", {"after": after, "size": pace.slice})
        if upto is None:
            break
        gone += _patiently(session, after, upto, pace, stop)
        after = upto
    return gone


def _patiently(session: UpkeepSession, after: int, upto: int, pace: Pace, stop: Stop) -> int:
    for attempt in range(TRIES):
        try:
            with judged():
                return sweep_slice(session, after, upto, pace, stop)
        except ConflictError:
            stop.wait(0.1 * (attempt + 1))
    return 0


def sweep_slice(session: UpkeepSession, after: int, upto: int, pace: Pace, stop: Stop) -> int:
    """The chunks with keys above `after`, up to `upto`. What is an orphan for the first time is deleted by no sweep before the
    next, however short the grace is: it may be staged for a batch that refers to it in a moment.
    """
    place = {"after": after, "upto": upto}
    session.execute("forget_orphans", place)
    gone = 0
    while not stop.asked:
        found, deleted = collect_batch(session, "lock_expired", {**place, "least": pace.least_grace, "most": pace.batch})
        gone += deleted
        if found < pace.batch:
            break
    session.execute("note_orphans", place, planned_anew=True)
    return gone


def collect_oldest(session: UpkeepSession, collection_id: int, surplus: int, pace: Pace, stop: Stop) -> int:
    """Delete up to so many orphans of a collection, the oldest first, before their grace is over; how many were deleted."""
    gone = 0
    while gone < surplus and not stop.asked:
        most = min(pace.batch, surplus - gone)
        wanted = {"collection_id": collection_id, "least": pace.least_grace, "most": most}
        with judged():
            found, deleted = collect_batch(session, "lock_oldest", wanted)
        gone += deleted
        if found < most or not deleted:
            break
    return gone


def collect_batch(session: UpkeepSession, choice: str, arguments: dict[str, Any]) -> tuple[int, int]:
    """One transaction of the collector: (orphans that the query `choice` finds, of which so many were deleted)."""
    with session.transaction():
        keys = [row["chunk_key"] for row in session.rows(choice, arguments)]
        return len(keys), session.value("collect", {"keys": keys}) if keys else 0
