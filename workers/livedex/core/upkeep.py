"""What the upkeep of a collection does next, from what was measured: building and rebuilding its vector index, collecting
chunks that nothing refers to.
"""

from dataclasses import dataclass
from enum import StrEnum

UPKEEP_LOCK = 0x6C69766575706B  # "liveupk": the key of the advisory lock by which the one worker is elected


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often, how much at once, and from which measure on. Times in seconds."""

    look: float = 5.0  # between looks at the indexes; and how late a worker takes over from one that ended
    build_rows: int = 20_000  # vectors from which on an index is built, however much is still to come
    measure: float = 30.0  # between measurements of the unmapped share
    most_unmapped: float = 0.2  # share from which on the sweep does not wait for its turn
    early_sweep: float = 60.0  # and how long it waits then since the last
    shortest_sweep: float = 10.0  # between sweeps otherwise: a tenth of the grace, within these bounds
    longest_sweep: float = 600.0
    slice: int = 5_000  # chunks that one statement of the sweep looks at
    batch: int = 500  # chunks that one transaction deletes
    probe: float = 600.0  # between recall probes
    probe_queries: int = 50
    probe_budget: float = 5.0  # of a probe's time: comparing all of a million vectors takes about one
    rebuild: float = 6 * 3600.0  # between two rebuilds of an index
    most_dead: float = 0.2  # share of dead rows from which on an index is rebuilt: faster than vacuuming them out of it
    low_recall: float = 0.9  # an index that finds fewer of the nearest is rebuilt,
    recall_loss: float = 0.05  # if it found so many more when it was new: some vectors are hard for any index


class Step(StrEnum):
    """What an index needs next."""

    NOTHING = "nothing"
    ASK_LOG = "ask_log"  # find out whether the collection is caught up, and decide again
    DROP = "drop"  # what an interrupted build left
    BUILD = "build"
    REBUILD = "rebuild"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """What was measured of the vector index of a generation."""

    wanted: bool  # False: the generation's index method is none
    ready: bool  # there is a valid one
    left_over: bool  # there is an invalid one
    in_work: bool  # another session builds, rebuilds, drops or vacuums there at the moment
    rows: int = 0  # vectors, counted up to Pace.build_rows while there is no index
    caught_up: bool | None = None  # whether everything in the log is indexed; None: nobody asked
    dead_share: float = 0.0  # vectors deleted since the index was built, of those and what is left
    recall: float | None = None  # of the last probe; None: there was none since the index was built
    first_recall: float | None = None  # of the first one since then
    age: float | None = None  # seconds since it was built; None: nobody knows


def next_step(facts: IndexFacts, pace: Pace) -> Step:
    """What the index needs next. A valid index is never dropped, and nobody else's work is disturbed."""
    if facts.in_work:
        return Step.NOTHING
    if facts.left_over:
        return Step.DROP
    if facts.ready:
        return Step.REBUILD if _aged(facts, pace) else Step.NOTHING
    if not facts.wanted or facts.rows == 0:
        return Step.NOTHING
    if facts.rows >= pace.build_rows or facts.caught_up:
        return Step.BUILD
    return Step.ASK_LOG if facts.caught_up is None else Step.NOTHING


def _aged(facts: IndexFacts, pace: Pace) -> bool:
    if facts.age is not None and facts.age < pace.rebuild:
        return False
    lost = (facts.first_recall or 0.0) - pace.recall_loss
    worse = facts.recall is not None and facts.recall < pace.low_recall and facts.recall < lost
    return worse or facts.dead_share > pace.most_dead


def dead_share(deleted: int, left: float) -> float:
    """The share of dead rows in an index, of which so many were deleted since it was built, and so many are left."""
    return deleted / (deleted + left) if deleted else 0.0


def sweep_due(since_last: float, *, grace: float, unmapped: float, pace: Pace) -> bool:
    """Whether to look for orphans now. `grace` is the shortest of all collections, `unmapped` the largest share."""
    regular = min(pace.longest_sweep, max(pace.shortest_sweep, grace / 10))
    return since_last >= (min(regular, pace.early_sweep) if unmapped > pace.most_unmapped else regular)


def caught_up(positions: dict[tuple[str, int], int], ends: dict[tuple[str, int], int]) -> bool:
    """Whether every partition of the log is applied up to its end. Both by topic and partition; no ends, no answer: False."""
    return bool(ends) and all(positions.get(place, 0) >= end for place, end in ends.items())
