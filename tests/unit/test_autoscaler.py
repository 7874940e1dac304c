"""The autoscaler's arithmetic, by examples whose answers follow from the documentation of Kubernetes."""

import pytest

from support.deploy.autoscaler import Autoscaler, Rules

SOON = Rules(window=0, pods=100, period=1)


def scaler(*, up: Rules = SOON, down: Rules = SOON, most: int = 10) -> Autoscaler:
    """One that is between 1 and `most`."""
    return Autoscaler(least=1, most=most, up=up, down=down)


@pytest.mark.parametrize(
    ("current", "value", "expected"),
    [
        (1, 0, 1),  # never below the least
        (1, 15, 1),
        (1, 16, 1),  # within a tenth of what one replica is to have
        (1, 16.6, 2),
        (2, 30, 2),
        (2, 31, 2),
        (2, 46, 4),
        (4, 0, 1),
        (4, 1e9, 10),  # never above the most
    ],
)
def test_one_replica_for_each_started_target(current: int, value: float, expected: int) -> None:
    """The replicas are the value over the target, rounded up, and stay where that is within the tolerance."""
    assert scaler().replicas(current, {15: value}, now=0) == expected


def test_the_metric_that_wants_most_decides() -> None:
    """Of several triggers the highest counts."""
    assert scaler().replicas(1, {15: 0, 50: 140}, now=0) == 3


def test_a_short_peak_starts_nobody() -> None:
    """Up only as far as the lowest recommendation of the window."""
    slow = scaler(up=Rules(window=30, pods=100, period=1))
    found = [slow.replicas(1, {15: value}, now=now) for now, value in [(0, 0), (15, 60), (29, 60), (31, 45), (60, 45)]]
    assert found == [1, 1, 1, 3, 3]


def test_workers_stay_while_they_were_needed_lately() -> None:
    """Down only as far as the highest recommendation of the window."""
    slow = scaler(down=Rules(window=600, pods=100, period=1))
    assert slow.replicas(4, {15: 60}, now=0) == 4
    assert slow.replicas(4, {15: 0}, now=599) == 4
    assert slow.replicas(4, {15: 0}, now=601) == 1


def test_changes_are_limited_in_each_period() -> None:
    """No more than so many pods come or go in a period, both counted from how many there were when it began."""
    limited = scaler(up=Rules(window=0, pods=2, period=60), down=Rules(window=0, pods=1, period=300))
    assert limited.replicas(1, {15: 150}, now=0) == 3
    assert limited.replicas(3, {15: 150}, now=30) == 3
    assert limited.replicas(3, {15: 150}, now=61) == 5
    assert limited.replicas(5, {15: 0}, now=400) == 4
    assert limited.replicas(4, {15: 0}, now=500) == 4
    assert limited.replicas(4, {15: 0}, now=701) == 3
