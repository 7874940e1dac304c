"""What the upkeep of a collection does next, from what was measured: building and rebuilding its vector index, collecting
chunks that nothing refers to.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

UPKEEP_LOCK = 0x6C69766575706B  # "liveupk": the key of the advisory lock by which the one worker is elected
LEAST_GRACE = 300.0  # seconds of a longer grace that an orphan keeps in any case: a slice of a batch is embedded in less
HOLD_EVERY = 10.0  # seconds after which the grace of what is staged for a batch begins anew; a collection's own may be short
ROW_BYTES = 44  # of the table of vectors beside the vector: its head, the key, the place in the page
ELEMENT_BYTES = 720  # that a build takes beside the vector; measured: 1,481 of a halfvec(384), 2,254 of a vector(384)
SPARE = 1.1


class IndexState(StrEnum):
    """Of a vector index: searches use one that is ready, and compare all vectors otherwise."""

    NONE = "none"
    BUILDING = "building"
    READY = "ready"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often, how much at once, and from which measure on. Times in seconds."""

    look: float = 5.0  # between looks at the indexes; and how late a worker takes over from one that ended
    build_rows: int = 20_000  # vectors from which on an index is built, however much is still to come
    measure: float = 30.0  # between measurements of the unmapped share
    count_share: float = 0.01  # of the time, that may go into counting for the gauges
    count_limit: float = 30.0  # for one count; of a table where it takes longer there is none
    most_unmapped: float = 0.2  # share above which the sweep does not wait for its turn, and the oldest orphans go early
    early_from: int = 20_000  # vectors; where there are fewer, comparing some in vain costs less than embedding them again
    least_grace: float = LEAST_GRACE  # of which every orphan has this much, if it has as long: it may be staged for a batch
    early_sweep: float = 60.0  # and how long it waits then since the last
    shortest_sweep: float = 10.0  # between sweeps otherwise: a tenth of the grace, within these bounds
    longest_sweep: float = 600.0
    slice: int = 5_000  # chunks that one statement of the sweep looks at
    batch: int = 500  # chunks that one transaction deletes
    probe: float = 600.0  # between recall probes
    probe_queries: int = 50
    probe_budget: float = 5.0  # of a probe's time: comparing all of a million vectors takes about one
    probe_limit: float = 30.0  # for a probe; one that takes longer has no answer
    first_probe: float = 60.0  # between probes of an index of which nothing is known yet
    least_queries: int = 30  # from which a recall is told, over as many probes as it takes: of fewer it is noise
    retire: float = 10.0  # from the drop of a generation until its tables go: longer than a batch or a search is under way
    rebuild: float = 6 * 3600.0  # between two rebuilds of an index
    build_pause: float = 60.0  # before a build that failed is tried again; doubled each time, up to
    longest_pause: float = 3600.0
    most_dead: float = 0.05  # share of dead rows from which on an index is rebuilt: faster than vacuuming them out of it,
    vacuum_dead: float = 0.2  # for which autovacuum comes later, and only where rebuilding does not keep up
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
    filling: bool = False  # it is built beside the active one, and lacks documents
    ready: bool  # there is a valid one
    left_over: bool  # there is an invalid one
    in_work: bool  # another session builds, rebuilds, drops or vacuums there at the moment
    rows: int = 0  # vectors, counted up to Pace.build_rows while there is no index
    caught_up: bool | None = None  # whether everything in the log is indexed; None: nobody asked
    dead_share: float = 0.0  # of the rows that the index has
    recall: float | None = None  # of the last probes; None: too few since the index was built
    first_recall: float | None = None  # of the first ones since then
    age: float | None = None  # seconds since it was built; None: nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A build that failed. Times in seconds of the caller's clock."""

    why: str
    failures: int  # in a row
    until: float  # when it is tried again
    serial: bool  # and then by one process, which needs no shared memory

    @classmethod
    def after(cls, before: "Setback | None", *, why: str, starved: bool, now: float, pace: Pace) -> "Setback":
        """What follows from a failure after `before`. `starved`: the server had no room. The first time for want of it the
        build is tried again at once, without parallel workers; otherwise after pauses that double.
        """
        serial = starved or (before is not None and before.serial)
        if serial and (before is None or not before.serial):
            return cls(why=why, failures=before.failures if before else 0, until=now, serial=True)
        failures = 1 + (before.failures if before else 0)
        pause = min(pace.longest_pause, pace.build_pause * 2.0 ** min(failures - 1, 30))
        return cls(why=why, failures=failures, until=now + pause, serial=serial)


def build_memory(table_bytes: int, *, dimension: int, storage: str) -> int:
    """Bytes in which an index over a table of so many bytes is built at once. By the table's size, because nobody counted its
    rows: it is the most that they can be.
    """
    stored = dimension * (4 if storage == "vector" else 2)
    indexed = -(-dimension // 8) if storage == "bit" else stored
    rows = table_bytes // (stored + ROW_BYTES)
    return int(SPARE * rows * (indexed + ELEMENT_BYTES))


def next_step(facts: IndexFacts, pace: Pace) -> Step:
    """What the index needs next. A valid index is never dropped, and nobody else's work is disturbed."""
    if facts.in_work:
        return Step.NOTHING
    if facts.left_over:
        return Step.DROP
    if facts.ready:
        return Step.REBUILD if _aged(facts, pace) else Step.NOTHING
    if not facts.wanted or facts.filling or facts.rows == 0:
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


def dead_share(dead: int, live: int) -> float:
    """The share of dead rows."""
    return dead / (dead + live) if dead else 0.0


def probe_due(since_last: float | None, *, age: float | None, judged: bool, pace: Pace) -> bool:
    """Whether to probe an index now: `since_last` the last time, None if never. `judged`: its recall is known already."""
    if since_last is None or (age is not None and age < since_last):  # another index
        return True
    return since_last >= (pace.probe if judged else min(pace.first_probe, pace.probe))


def count_due(since_last: float, took: float, pace: Pace) -> bool:
    """Whether to count documents again, so many seconds after the last count began, which took `took`."""
    return since_last >= max(pace.measure, took / pace.count_share)


def excess(vectors: float, unmapped: float, pace: Pace) -> int:
    """How many unmapped of so many vectors have to go until their share is as large as it may be. None of a few vectors."""
    most = pace.most_unmapped
    if vectors < pace.early_from:
        return 0
    return max(0, ceil((unmapped - most) * vectors / (1.0 - most)))


def sweep_due(since_last: float, *, grace: float, unmapped: float, pace: Pace) -> bool:
    """Whether to look for orphans now. `grace` is the shortest of all collections, `unmapped` the largest share."""
    regular = min(pace.longest_sweep, max(pace.shortest_sweep, grace / 10))
    return since_last >= (min(regular, pace.early_sweep) if unmapped > pace.most_unmapped else regular)


def caught_up(positions: dict[tuple[str, int], int], ends: dict[tuple[str, int], int]) -> bool:
    """Whether every partition of the log is applied up to its end. Both by topic and partition; no ends, no answer: False."""
    return bool(ends) and all(positions.get(place, 0) >= end for place, end in ends.items())
