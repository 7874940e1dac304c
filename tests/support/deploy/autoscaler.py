"""How many workers Kubernetes would run: the arithmetic of the horizontal pod autoscaler that KEDA sets up, without a cluster.

KEDA gives each trigger to the autoscaler as an external metric with a target average value. What follows is the Go code of
k8s.io/kubernetes v1.36.3, pkg/controller/podautoscaler: GetExternalPerPodMetricReplicas in replica_calculator.go, and
stabilizeRecommendationWithBehaviors, convertDesiredReplicasWithBehaviorRate, calculateScaleUpLimitWithScalingRules and
calculateScaleDownLimitWithBehaviors in horizontal.go, with policies in pods.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How fast one direction goes: `pods` in `period` seconds, after `window` seconds in which nothing spoke against it."""

    window: float
    pods: int
    period: float


@dataclass(slots=True, kw_only=True)
class Autoscaler:
    """Between `least` and `most` replicas; times are seconds of whatever clock the caller has."""

    least: int
    most: int
    up: Rules
    down: Rules
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)  # when, and by how many

    def replicas(self, current: int, metrics: Mapping[float, float], *, now: float) -> int:
        """How many there should be, and remembered as done. `metrics` are values by the value that one replica is to have."""
        wished = max(_wished(current, value, target) for target, value in metrics.items())
        wished = min(max(wished, self.least), self.most)
        chosen = self._limited(current, self._stabilized(current, wished, now), now)
        if chosen != current:
            self._changes.append((now, chosen - current))
        return chosen

    def _stabilized(self, current: int, wished: int, now: float) -> int:
        """Up as far as the least that was recommended in the window of `up`, down as far as the most in that of `down`."""
        recent = self._recommended
        least = min([wished, *(value for when, value in recent if when > now - self.up.window)])
        most = max([wished, *(value for when, value in recent if when > now - self.down.window)])
        horizon = now - max(self.up.window, self.down.window)
        self._recommended = [*((when, value) for when, value in recent if when > horizon), (now, wished)]
        return min(max(current, least), most)

    def _limited(self, current: int, wished: int, now: float) -> int:
        if wished > current:
            limit = self._before(current, self.up.period, now) + self.up.pods
            return min(wished, max(limit, current))
        if wished < current:
            limit = self._before(current, self.down.period, now) - self.down.pods
            return max(wished, min(limit, current))
        return current

    def _before(self, current: int, period: float, now: float) -> int:
        """How many there were when the period began."""
        return current - sum(change for when, change in self._changes if when > now - period)


def _wished(current: int, value: float, target: float) -> int:
    ratio = value / (target * current)
    return current if 1 - TOLERANCE <= ratio <= 1 + TOLERANCE else math.ceil(value / target)
