"""What the upkeep does next, from what was measured."""

from dataclasses import replace

import pytest

from livedex.core.upkeep import IndexFacts, Pace, Step, caught_up, dead_share, next_step, sweep_due

PACE = Pace(build_rows=100, rebuild=3600, most_dead=0.2, low_recall=0.9, recall_loss=0.05)
NONE_YET = IndexFacts(wanted=True, ready=False, left_over=False, in_work=False, rows=99)
READY = IndexFacts(wanted=True, ready=True, left_over=False, in_work=False, age=7200)


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (NONE_YET, Step.ASK_LOG),
        (replace(NONE_YET, caught_up=False), Step.NOTHING),
        (replace(NONE_YET, caught_up=True), Step.BUILD),
        (replace(NONE_YET, rows=100), Step.BUILD),
        (replace(NONE_YET, rows=100, caught_up=False), Step.BUILD),
        (replace(NONE_YET, rows=0, caught_up=True), Step.NOTHING),
        (replace(NONE_YET, rows=100, wanted=False), Step.NOTHING),
        (replace(NONE_YET, rows=100, left_over=True), Step.DROP),
        (replace(NONE_YET, rows=100, left_over=True, in_work=True), Step.NOTHING),
        (replace(NONE_YET, rows=100, in_work=True), Step.NOTHING),
        (READY, Step.NOTHING),
        (replace(READY, left_over=True), Step.DROP),
        (replace(READY, dead_share=0.21), Step.REBUILD),
        (replace(READY, dead_share=0.21, age=None), Step.REBUILD),
        (replace(READY, dead_share=0.21, age=3599), Step.NOTHING),
        (replace(READY, dead_share=0.21, in_work=True), Step.NOTHING),
        (replace(READY, dead_share=0.2), Step.NOTHING),
        (replace(READY, recall=0.89, first_recall=0.99), Step.REBUILD),
        (replace(READY, recall=0.91, first_recall=0.99), Step.NOTHING),
        (replace(READY, recall=0.80, first_recall=0.84), Step.NOTHING),
        (replace(READY, recall=0.80, first_recall=0.99, age=3599), Step.NOTHING),
    ],
)
def test_the_next_step_follows_from_the_facts(facts: IndexFacts, step: Step) -> None:
    """An index is built when there is much or nothing more to come, mended when interrupted, rebuilt when aged."""
    assert next_step(facts, PACE) is step


def test_no_step_but_a_rebuild_touches_a_valid_index() -> None:
    """Whatever is measured: with a valid index and nothing left over, there is nothing to drop and nothing to build."""
    for rows in (0, 100):
        for caught in (None, False, True):
            for dead in (0.0, 1.0):
                found = next_step(replace(READY, rows=rows, caught_up=caught, dead_share=dead), PACE)
                assert found in (Step.NOTHING, Step.REBUILD)


def test_the_dead_share_counts_what_was_deleted_since_the_build() -> None:
    """Of a hundred vectors in the index, twenty deleted are a fifth; nothing deleted is nothing, whatever is left."""
    assert dead_share(20, 80) == 0.2
    assert dead_share(0, 0) == 0.0
    assert dead_share(5, 0) == 1.0


@pytest.mark.parametrize(
    ("since_last", "grace", "unmapped", "due"),
    [
        (600, 86400, 0.0, True),
        (599, 86400, 0.0, False),
        (60, 86400, 0.21, True),
        (59, 86400, 0.21, False),
        (60, 86400, 0.2, False),
        (10, 1, 0.0, True),
        (9, 1, 0.9, False),
        (36, 360, 0.0, True),
        (35, 360, 0.0, False),
        (float("inf"), 86400, 0.0, True),
    ],
)
def test_the_sweep_comes_in_its_turn_or_early(since_last: float, grace: float, unmapped: float, *, due: bool) -> None:
    """A tenth of the grace lies between two sweeps, within bounds; a large unmapped share does not wait so long."""
    assert sweep_due(since_last, grace=grace, unmapped=unmapped, pace=Pace()) is due


def test_caught_up_means_every_partition_and_known_ends() -> None:
    """A partition that is behind, one that nobody read yet, and unknown ends are not caught up."""
    ends = {("t", 0): 5, ("t", 1): 3}
    assert caught_up({("t", 0): 5, ("t", 1): 4}, ends)
    assert not caught_up({("t", 0): 4, ("t", 1): 3}, ends)
    assert not caught_up({("t", 0): 5}, ends)
    assert caught_up({("t", 0): 5}, {("t", 0): 5, ("t", 1): 0})
    assert not caught_up({("t", 0): 5}, {})
