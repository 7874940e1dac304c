"""docs/metrics.md says name, type and labels of every metric, as the workers serve them."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from livedex.canary_metrics import CanaryMetrics
from livedex.collectors import KafkaClientCollector, PoolCollector
from livedex.observe import IndexMetrics, QueryMetrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
Told = dict[str, tuple[str, tuple[str, ...]]]  # by name: type, labels


def written() -> Told:
    """What the page says."""
    found: Told = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `livedex_"):
            names, kind, labels, meaning = (cell.strip() for cell in line.strip("|").split("|"))
            assert meaning, line
            for name in re.findall(r"`(livedex_\w+)`", names):
                assert name not in found, f"{name} is there twice"
                found[name] = kind, tuple(filter(None, labels.split(", ")))
    return found


def served() -> Told:
    """What the workers and the canary serve."""
    made = (IndexMetrics(), QueryMetrics(), CanaryMetrics(CollectorRegistry()))
    metrics = [each for of in made for each in vars(of).values() if isinstance(each, MetricWrapperBase)]
    collected = [*PoolCollector().collect(), *KafkaClientCollector().collect()]  # read when they are asked for
    own = {str(each._name): (str(each._type), tuple(map(str, each._labelnames))) for each in metrics}
    found = own | {each.name: (each.type, labels_of(each)) for each in collected}
    return {name + "_total" * (kind == "counter"): (kind, labels) for name, (kind, labels) in found.items()}


def labels_of(metric: Metric) -> tuple[str, ...]:
    """Those of a family that has no samples yet."""
    return tuple(getattr(metric, "_labelnames", ()))


def test_the_page_is_right() -> None:
    """Each metric is there once, with its type and its labels, and none that is not served."""
    page, there = written(), served()
    assert page.keys() == there.keys()
    assert {name: each for name, each in page.items() if each != there[name]} == {}
