"""Workers that die, or are told to end, at the worst moments: nothing is lost, nothing is done twice."""

import pytest

from support.faults.arena import Arena


@pytest.mark.scenario(1, seconds=15)
def test_01_killed_between_embedding_and_the_transaction(arena: Arena) -> None:
    """A worker that dies with a batch staged and not applied leaves the fold to the next one, which embeds none of what was
    staged again.
    """
    arena.load(400)
    doomed = arena.worker(at=["staged:3=kill"], wait=False)
    arena.killed_itself(doomed)
    unmapped = "select count(*) from livedex.chunk where chunk_key not in (select chunk_key from livedex.document_chunk)"
    assert arena.rows(unmapped)[0][0] > 0, "it must die with chunks that no document has"
    arena.worker()
    arena.verify(arena.settle())
