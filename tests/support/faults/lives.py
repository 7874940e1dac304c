"""Judges an index by the documents that readers see, where the log does not say all: after a reset, and after compaction.

A log that was made anew says nothing of the documents before it, one that was compacted nothing of what was deleted long ago:
their tombstones may be in the index, or not.
"""

from collections.abc import Sequence

from livedex.core.record import Record
from support.faults import oracle
from support.faults.arena import Arena
from support.faults.oracle import Folded
from support.faults.snapshot import take

SHOWN = 5  # contradictions in one message


def shows_the_fold(arena: Arena, records: Sequence[Record], *, epoch: int = 0) -> None:
    """I5: readers see the documents that the fold of this log has, with their texts, versions and vectors, and no others."""
    found = take(arena.world.direct.database_url)
    good = [record for record in records if not oracle.is_poison(record)]
    folded = oracle.fold(oracle.parse(record, numbered_by=arena.versions, epoch=epoch) for record in good)
    expected = {name: document for name, document in folded.items() if document.text is not None}
    shown = {name: found.documents[name] for name in found.visible}
    wrong = [
        *found.faults,
        *(_difference(name, expected.get(name), shown.get(name)) for name in expected.keys() | shown.keys()),
    ]
    told = list(filter(None, wrong))
    assert not told, (
        f"I5 the index is not the fold of the log: {len(told)} contradictions, the first: {'; '.join(told[:SHOWN])}"
    )


def _difference(name: str, expected: Folded | None, shown: Folded | None) -> str:
    if expected == shown:
        return ""
    if expected is None or shown is None:
        return f"{name} is {'missing' if shown is None else 'there, and the log has no such document'}"
    return f"{name} is {str(shown)[:200]}, the log says {str(expected)[:200]}"
