"""Keeps the vector index of a generation: builds it behind the rows, mends what was interrupted, rebuilds what aged."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from livedex.core.upkeep import IndexFacts, Pace, Step, caught_up, dead_share, next_step
from livedex.index.maintain_session import Kept, UpkeepSession
from livedex.observe import logger

Ends = dict[tuple[str, int], int]
_log = logger("upkeep")


def keep_index(
    session: UpkeepSession, kept: Kept, *, vectors: float, ends_of: Callable[[Collection[str]], Ends], pace: Pace
) -> None:
    """Do what the generation's index needs now, however long it takes. `vectors`: about how many it has; `ends_of`: where the
    log of these topics ends, empty when nobody knows. ConfigError when the session may not.
    """
    if kept.wanted:
        session.as_owner()  # who may not says so before there is anything to do
    facts = _facts(session, kept, vectors, pace)
    step = next_step(facts, pace)
    if step is Step.ASK_LOG:
        facts = replace(facts, caught_up=_caught_up(session, kept, ends_of))
        step = next_step(facts, pace)
    if step is not Step.NOTHING:
        _ACTIONS[step](session, kept)


def _facts(session: UpkeepSession, kept: Kept, vectors: float, pace: Pace) -> IndexFacts:
    rows = 0
    if kept.ready is None and kept.wanted:
        rows = session.value("count_rows", {"most": pace.build_rows}, embeddings=kept.embeddings)
    return IndexFacts(
        wanted=kept.wanted,
        ready=kept.ready is not None,
        left_over=bool(kept.left_over),
        in_work=kept.in_work,
        rows=rows,
        dead_share=dead_share(kept.deleted, vectors),
        recall=kept.recall,
        first_recall=kept.first_recall,
        age=kept.age,
    )


def _caught_up(session: UpkeepSession, kept: Kept, ends_of: Callable[[Collection[str]], Ends]) -> bool:
    rows = session.rows("positions", {"collection_id": kept.collection_id})
    topics = {row["topic"] for row in rows}
    positions = {(row["topic"], row["partition"]): row["next_offset"] for row in rows if row["partition"] is not None}
    return not topics or caught_up(positions, ends_of(topics))


def _drop(session: UpkeepSession, kept: Kept) -> None:
    for name in kept.left_over:
        _log.warning("upkeep.index_left_over", collection=kept.collection, index=name, why="its build was interrupted")
        session.at_length("drop_index", index=name)


def _build(session: UpkeepSession, kept: Kept) -> None:
    _log.info("upkeep.index_building", collection=kept.collection, index=kept.index)
    session.at_length("build_index", index=kept.index, embeddings=kept.embeddings, operators=kept.operators)
    session.execute("note_built", {"generation_id": kept.generation_id})
    _log.info("upkeep.index_built", collection=kept.collection, index=kept.index)


def _rebuild(session: UpkeepSession, kept: Kept) -> None:
    """First the index, which is faster than a vacuum that takes the dead rows out of it, then the vacuum."""
    assert kept.ready is not None
    _log.info("upkeep.index_rebuilding", collection=kept.collection, index=kept.ready, deleted=kept.deleted, recall=kept.recall)
    session.at_length("rebuild_index", index=kept.ready)
    session.execute("note_built", {"generation_id": kept.generation_id})
    session.at_length("vacuum", embeddings=kept.embeddings)
    _log.info("upkeep.index_rebuilt", collection=kept.collection, index=kept.ready)


_ACTIONS: Mapping[Step, Callable[[UpkeepSession, Kept], None]] = {
    Step.DROP: _drop,
    Step.BUILD: _build,
    Step.REBUILD: _rebuild,
}
