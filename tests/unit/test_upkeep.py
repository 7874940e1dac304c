"""What the upkeep does next, from what was measured."""

from dataclasses import replace

import pytest

from livedex.core.upkeep import (
    IndexFacts,
    Pace,
    Setback,
    Step,
    build_memory,
    caught_up,
    count_due,
    dead_share,
    excess,
    next_step,
    probe_due,
    sweep_due,
)

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


def test_the_dead_share_is_that_of_all_rows() -> None:
    """Of a hundred rows, twenty dead are a fifth; nothing dead is nothing, whatever is left."""
    assert dead_share(20, 80) == 0.2
    assert dead_share(0, 0) == 0.0
    assert dead_share(5, 0) == 1.0


def test_what_takes_long_to_count_is_counted_rarely() -> None:
    """A quick count comes at each measurement; one that takes five seconds takes a hundredth of the time."""
    pace = Pace(measure=30.0, count_share=0.01)
    assert not count_due(29.0, 0.01, pace)
    assert count_due(30.0, 0.01, pace)
    assert not count_due(499.0, 5.0, pace)
    assert count_due(500.0, 5.0, pace)


def test_an_index_is_rebuilt_before_autovacuum_takes_the_dead_out_of_it() -> None:
    """The share from which on autovacuum comes, which is of the live rows, leaves room for a rebuild."""
    pace = Pace()
    assert pace.vacuum_dead / (1 + pace.vacuum_dead) > 2 * pace.most_dead


@pytest.mark.parametrize(
    ("since_last", "age", "judged", "due"),
    [
        (None, None, False, True),
        (599, 7200, True, False),
        (600, 7200, True, True),
        (59, 7200, False, False),
        (60, 7200, False, True),
        (59, 58, True, True),
        (59, None, True, False),
    ],
)
def test_a_probe_comes_in_its_turn(since_last: float | None, age: float | None, *, judged: bool, due: bool) -> None:
    """An index that was built since is probed at once; one of which nothing is known yet more often."""
    assert probe_due(since_last, age=age, judged=judged, pace=Pace()) is due


def test_the_excess_is_what_has_to_go() -> None:
    """Without it the unmapped are as large a share as they may be, and no larger; a smaller share and few vectors have none."""
    pace = Pace(most_unmapped=0.2, early_from=1000)
    gone = excess(1000, 0.5, pace)
    assert (500 - gone) / (1000 - gone) <= 0.2 < (500 - gone + 1) / (1000 - gone + 1)
    assert excess(1000, 0.2, pace) == excess(1000, 0.0, pace) == excess(999, 0.9, pace) == 0


def test_a_build_gets_the_memory_that_it_needs() -> None:
    """As measured for each row, and a little more: a table's rows are known by its size."""
    assert 1481 * 100_000 < build_memory(100_000 * (768 + 44), dimension=384, storage="halfvec") < 1.2 * 1481 * 100_000
    assert 2254 * 100_000 < build_memory(100_000 * (1536 + 44), dimension=384, storage="vector") < 1.2 * 2254 * 100_000
    assert build_memory(0, dimension=384, storage="halfvec") == 0


def test_a_build_that_fails_is_tried_again_after_pauses_that_double() -> None:
    """Up to the longest."""
    pace = Pace(build_pause=60, longest_pause=200)
    found = [Setback.after(None, why="it fails", starved=False, now=1000.0, pace=pace)]
    for _ in range(3):
        found.append(Setback.after(found[-1], why="it fails", starved=False, now=1000.0, pace=pace))
    assert [one.until - 1000.0 for one in found] == [60, 120, 200, 200]
    assert not found[-1].serial


def test_a_build_without_room_is_tried_again_at_once_by_one_process() -> None:
    """Once: when that has no room either, it waits like any other, and stays with one process."""
    first = Setback.after(None, why="no room", starved=True, now=1000.0, pace=Pace())
    assert (first.serial, first.until) == (True, 1000.0)
    second = Setback.after(first, why="no room", starved=True, now=1000.0, pace=Pace())
    assert (second.serial, second.until) == (True, 1060.0)
    assert Setback.after(second, why="another", starved=False, now=1000.0, pace=Pace()).serial


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
