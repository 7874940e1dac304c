"""The pipeline's promises, with steps in memory: order, one end for each batch, and nothing after a failure."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from livedex.core.upkeep import HOLD_EVERY
from livedex.index.applying import Claim, Keys, merged
from livedex.index.batch import BATCH_BYTES, Applied, Batch, Dropped, End, Work
from livedex.index.pipeline import Ownership, Pipeline
from livedex.index.spans import Spans
from livedex.index.stages import Stages
from livedex.observe import IndexMetrics
from livedex.tracing import OFF
from support.batches import TARGETS, claim_of
from support.records import record
from support.waiting import until

STEPS = ("plan", "embed", "stage", "apply")
LARGE = b"x" * BATCH_BYTES


class Steps:
    """Steps that only note who passed. `at` a step a batch may be given something to do, by its first offset."""

    def __init__(self) -> None:
        self.passed: list[tuple[str, int, int]] = []  # (step, partition, first offset), when the step is done
        self.at: dict[tuple[str, int], Callable[[], object]] = {}
        self.slices = 1  # in which each batch is embedded
        self.lookups: list[set[bytes]] = []  # of which chunks each applied batch has keys
        self.held: list[set[int]] = []  # keys that the collector was kept from

    def step(self, name: str, work: Work) -> Work:
        """Do what was asked for, then note it."""
        first = work.batch.records[0]
        self.at.get((name, first.offset), lambda: None)()
        self.passed.append((name, work.batch.claim.partition, first.offset))
        return work

    def plan(self, work: Work) -> Work:
        """See Stages."""
        return self.step("plan", work)

    def embed(self, work: Work, keep: Callable[[Work], Work]) -> Work:
        """See Stages."""
        for number in range(self.slices):
            work = keep(work) if work.vectors else work
            self.at.get((f"slice {number}", work.batch.records[0].offset), lambda: None)()
            work = replace(work, vectors={b"%d" % number: np.zeros(4, np.float32)})
        return self.step("embed", work)

    def stage(self, work: Work) -> Work:
        """See Stages."""
        made = {digest: int(digest) for digest in work.vectors}
        return replace(self.step("stage", work), keys=merged(work.keys, {1: made}), vectors={})

    def hold(self, keys: Keys) -> None:
        """See Stages."""
        self.held.append(set(keys.get(1, {}).values()))
        self.at.get(("hold", len(self.held)), lambda: None)()

    def apply(self, work: Work) -> Applied:
        """See Stages."""
        self.step("apply", work)
        self.lookups.append(set(work.keys.get(1, {})))
        return Applied(batch=work.batch, outcomes=[], rejected=(), reused=0, applied_at=0.0)

    def offsets(self, step: str, partition: int = 0) -> list[int]:
        """The first offsets that passed a step, in order."""
        return [offset for name, at, offset in self.passed if (name, at) == (step, partition)]


class Run:
    """A pipeline at work over these steps."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.ownership = Ownership()
        self.metrics = IndexMetrics()
        self.now = 0.0
        spans = Spans(OFF, self.metrics, "group")
        self.pipeline = Pipeline(cast("Stages", self.steps), self.ownership, spans, clock=lambda: self.now)
        self.ends: list[End] = []

    def submit(self, claim: Claim, offset: int) -> Batch:
        """A batch of one record."""
        batch = batch_of(claim, offset)
        self.pipeline.submit(batch)
        return batch

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def until_ended(self, count: int) -> list[End]:
        """All ends, once there are so many."""

        def all_ended() -> bool:
            self.ends += self.pipeline.ended()
            return len(self.ends) >= count

        until(all_ended, timeout=10, what=f"the end of {count} batches")
        return self.ends


@pytest.fixture
def run() -> Run:
    """One whose threads run."""
    made = Run()
    made.pipeline.start()
    return made


def batch_of(claim: Claim, offset: int) -> Batch:
    """One record at this offset, so large that nothing joins it."""
    return Batch(
        claim=claim, targets=TARGETS, records=(record(LARGE, key=b"%d" % offset, offset=offset),),
        expected_offset=offset, next_offset=offset + 1, polled_at=0.0,
    )  # fmt: skip


def fail() -> None:
    """What a step does that fails."""
    raise RuntimeError("the database is gone")


def test_batches_of_a_partition_stay_in_order(run: Run) -> None:
    """Each batch passes all four steps, each step sees the batches of a partition in order, and each ends applied once."""
    claims = [claim_of(0), claim_of(1)]
    for claim in claims:
        run.ownership.take(claim)
    batches = [run.submit(claims[number % 2], number) for number in range(40)]
    ends = run.until_ended(40)
    assert Counter(id(end.batch) for end in ends) == Counter(id(batch) for batch in batches)
    assert all(isinstance(end, Applied) for end in ends)
    for step in STEPS:
        assert run.steps.offsets(step, 0) == list(range(0, 40, 2))
        assert run.steps.offsets(step, 1) == list(range(1, 40, 2))


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_batch_takes_those_behind_it_along(run: Run, step: str) -> None:
    """It disowns the claim at once, wherever it fails: no later batch of the claim reaches apply; each ends once, and only
    the one that failed says why. Other partitions go on.
    """
    failing, other = claim_of(0), claim_of(1)
    run.ownership.take(failing)
    run.ownership.take(other)
    run.steps.at[step, 10] = fail
    for offset in range(5):
        run.submit(failing, 10 + offset)
        run.submit(other, 20 + offset)
    ends = run.until_ended(10)
    dropped = {end.batch.expected_offset: end.error for end in ends if isinstance(end, Dropped)}
    assert dropped.keys() == {10, 11, 12, 13, 14}
    assert isinstance(dropped.pop(10), RuntimeError)
    assert set(dropped.values()) == {None}
    assert run.steps.offsets("apply", 0) == []
    assert run.steps.offsets("apply", 1) == [20, 21, 22, 23, 24]
    assert not run.ownership.holds(failing)
    assert run.ownership.holds(other)
    assert len(ends) == 10


def test_the_claim_is_gone_before_the_end_is_told(run: Run) -> None:
    """A batch that waits in front of apply is dropped although nobody has read the failure yet."""
    claim = claim_of(0)
    run.ownership.take(claim)
    behind = threading.Event()

    def fail_once_the_next_is_staged() -> None:
        behind.wait(10)
        fail()

    run.steps.at["apply", 1] = fail_once_the_next_is_staged
    run.submit(claim, 1)
    run.submit(claim, 2)
    until(lambda: run.steps.offsets("stage") == [1, 2], timeout=10, what="the second batch to wait for apply")
    behind.set()
    ends = run.until_ended(2)
    assert run.steps.offsets("apply") == []
    assert [(end.batch.expected_offset, isinstance(end, Dropped)) for end in ends] == [(1, True), (2, True)]


def test_batches_of_a_new_claim_pass_behind_dropped_ones(run: Run) -> None:
    """The partition is claimed again while batches of the old claim are still queued: these end dropped, the new ones not."""
    old, new = claim_of(0, 1), claim_of(0, 2)
    run.ownership.take(old)
    waiting = threading.Event()
    run.steps.at["plan", 1] = lambda: waiting.wait(10)
    run.submit(old, 1)
    run.submit(old, 2)
    run.ownership.drop("t", 0)
    run.ownership.take(new)
    run.submit(new, 1)
    waiting.set()
    ends = run.until_ended(3)
    assert [(end.batch.claim.owner_epoch, isinstance(end, Applied)) for end in ends] == [(1, False), (1, False), (2, True)]
    assert all(end.error is None for end in ends if isinstance(end, Dropped))


def test_every_step_is_timed(run: Run) -> None:
    """One observation a batch and step, failures included; dropped batches are not work."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.at["embed", 2] = fail
    first = run.submit(claim, 1)
    run.until_ended(1)
    run.submit(claim, 2)
    run.submit(claim, 3)
    run.until_ended(3)
    assert run.ends[0].batch is first
    counted = {step: run.metrics.registry.get_sample_value("livedex_stage_seconds_count", {"stage": step}) for step in STEPS}
    assert counted == {"plan": 2, "embed": 2, "stage": 1, "apply": 1}


# --- waiting ----------------------------------------------------------------------------------------------------


def test_what_waits_for_the_encoder_is_planned_as_one(run: Run) -> None:
    """Versions of a document that come while the encoder is busy join, and their end is told once for all of them."""
    claim, go_on = claim_of(0), threading.Event()
    run.ownership.take(claim)
    run.steps.at["embed", 0] = lambda: go_on.wait(10)
    run.submit(claim, 0)
    until(lambda: run.steps.offsets("plan") == [0], timeout=10, what="the first to be in work")
    for offset in range(1, 10):
        run.pipeline.submit(replace(batch_of(claim, offset), records=(record(LARGE, key=b"1", offset=offset),)))
    go_on.set()
    ends = run.until_ended(2)
    assert [(end.batch.expected_offset, end.batch.next_offset, end.batch.submitted) for end in ends] == [(0, 1, 1), (1, 10, 9)]
    assert run.steps.offsets("embed") == [0, 1]


def test_another_partition_waits_for_the_batch_in_work_only(run: Run) -> None:
    """However much of a hot one came first."""
    hot, calm, go_on = claim_of(0), claim_of(1), threading.Event()
    run.ownership.take(hot)
    run.ownership.take(calm)
    run.steps.at["embed", 0] = lambda: go_on.wait(10)
    for offset in range(5):
        run.submit(hot, offset)
    until(lambda: run.steps.offsets("plan") == [0], timeout=10, what="the first to be in work")
    run.submit(calm, 100)
    go_on.set()
    run.until_ended(6)
    assert [offset for name, _, offset in run.steps.passed if name == "embed"][:2] == [0, 100]


# --- large batches ----------------------------------------------------------------------------------------------


def test_slices_are_staged_ahead_and_applied_as_one(run: Run) -> None:
    """Each slice passes the stage step, in order with the batches; one apply has the keys of all."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.slices = 3
    run.submit(claim, 1)
    run.submit(claim, 2)
    ends = run.until_ended(2)
    assert all(isinstance(end, Applied) for end in ends)
    assert sorted(run.steps.offsets("stage")) == [1, 1, 1, 2, 2, 2]
    assert run.steps.offsets("apply") == [1, 2]
    assert run.steps.lookups == [{b"0", b"1", b"2"}] * 2


def test_a_large_batch_makes_no_other_partition_wait_for_all_of_it(run: Run) -> None:
    """Between two of its slices a batch of each of them comes first; its own partition keeps its order."""
    large, small = claim_of(0), claim_of(1)
    for claim in (large, small):
        run.ownership.take(claim)
    run.steps.slices = 4
    went_on = threading.Event()
    run.steps.at["slice 0", 1] = lambda: went_on.wait(10) and None
    run.submit(large, 1)
    run.submit(large, 2)
    run.submit(small, 1)
    went_on.set()
    run.until_ended(3)
    assert run.steps.passed.index(("apply", 1, 1)) < run.steps.passed.index(("embed", 0, 1))
    assert run.steps.offsets("apply", 0) == [1, 2]


def test_the_encoder_is_one_slice_ahead_at_most(run: Run) -> None:
    """While the first slice is being staged the second is encoded, and waits to be taken."""
    claim, encoded, go_on = claim_of(0), threading.Event(), threading.Event()
    run.ownership.take(claim)
    run.steps.slices = 3
    run.steps.at["slice 1", 1] = encoded.set
    third: list[str] = []
    run.steps.at["slice 2", 1] = lambda: third.append("encoded")
    run.steps.at["stage", 1] = lambda: go_on.wait(10)
    run.submit(claim, 1)
    assert encoded.wait(10), "the second slice must not wait for the first"
    assert third == []
    assert run.steps.offsets("stage") == []
    go_on.set()
    run.until_ended(1)
    assert third == ["encoded"]


def test_a_slice_that_cannot_be_staged_ends_its_batch_once(run: Run) -> None:
    """With the reason, and before anything else of the batch is encoded than the slice in work."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.slices = 5
    run.steps.at["stage", 1] = fail
    third: list[str] = []
    run.steps.at["slice 2", 1] = lambda: third.append("encoded")
    batch = run.submit(claim, 1)
    (end,) = run.until_ended(1)
    assert isinstance(end, Dropped)
    assert isinstance(end.error, RuntimeError)
    assert end.batch is batch
    assert third == []
    assert not run.ownership.holds(claim)


def test_a_lost_partition_stops_between_two_slices(run: Run) -> None:
    """What is left of its batch is not encoded, and the batch ends without a reason: nothing failed."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.slices = 5
    run.steps.at["slice 1", 1] = lambda: run.ownership.drop("t", 0)
    third: list[str] = []
    run.steps.at["slice 2", 1] = lambda: third.append("encoded")
    run.submit(claim, 1)
    (end,) = run.until_ended(1)
    assert (isinstance(end, Dropped), end.error if isinstance(end, Dropped) else end) == (True, None)
    assert third == []


def test_what_is_staged_of_a_batch_in_work_is_held(run: Run) -> None:
    """From time to time, and not at each slice, the collector is kept from all that is staged by then."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.slices = 6
    run.steps.at["slice 3", 1] = lambda: run.pass_by(HOLD_EVERY)
    run.submit(claim, 1)
    run.until_ended(1)
    (held,) = run.steps.held
    assert held >= {0, 1, 2}


def test_what_is_staged_of_a_batch_that_stands_still_is_held(run: Run) -> None:
    """While a batch of another partition goes first, that of both."""
    large, other = claim_of(0), claim_of(1)
    for claim in (large, other):
        run.ownership.take(claim)
    run.steps.slices = 3
    came = threading.Event()
    run.steps.at["slice 0", 1] = lambda: came.wait(10)
    run.steps.at["slice 1", 2] = lambda: run.pass_by(HOLD_EVERY)
    held: list[int] = []
    run.steps.at["embed", 2] = lambda: held.append(len(run.steps.held))
    run.submit(large, 1)
    run.submit(other, 2)
    came.set()
    run.until_ended(2)
    assert held == [2]


def test_a_hold_that_fails_drops_no_batch(run: Run) -> None:
    """Foreign keys see what the collector took; whichever batch happens to hold is not to pay for it."""
    claim = claim_of(0)
    run.ownership.take(claim)
    run.steps.slices = 6
    run.steps.at["slice 3", 1] = lambda: run.pass_by(HOLD_EVERY)
    run.steps.at["hold", 1] = fail
    run.submit(claim, 1)
    (end,) = run.until_ended(1)
    assert isinstance(end, Applied)
    assert len(run.steps.held) == 1, "it is tried again when the next is due, and not at each slice"


# --- ownership --------------------------------------------------------------------------------------------------


def test_only_the_very_claim_is_held() -> None:
    """An equal claim is another one: every claim raises the owner epoch, and so is its own."""
    ownership = Ownership()
    old, new = claim_of(0, 1), claim_of(0, 2)
    assert not ownership.holds(old)
    ownership.take(old)
    assert (ownership.holds(old), ownership.held("t", 0), ownership.held("t", 1)) == (True, old, None)
    ownership.take(new)
    assert (ownership.holds(old), ownership.holds(new)) == (False, True)


def test_disowning_an_old_claim_leaves_the_new_one() -> None:
    """A late failure of the claim before does not cost the partition, but losing the partition drops any claim."""
    ownership = Ownership()
    old, new = claim_of(0, 1), claim_of(0, 2)
    ownership.take(new)
    ownership.disown(old)
    assert ownership.holds(new)
    ownership.disown(new)
    assert ownership.held("t", 0) is None
    ownership.take(new)
    ownership.drop("t", 0)
    ownership.drop("t", 0)
    ownership.disown(new)
    assert ownership.held("t", 0) is None
