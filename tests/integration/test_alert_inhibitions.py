"""The routes of ops/prometheus in a real Alertmanager: which alert hides which, and what it must not hide."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.alarms import routes
from support.prometheus import Alertmanager, Webhook
from support.waiting import until

INDEX = {"job": "livedex-index", "severity": "page"}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Alertmanager]:
    """With the example's configuration."""
    with Webhook() as webhook, Alertmanager(routes(webhook.url), tmp_path) as running:
        yield running


def alert(name: str, **labels: str) -> dict[str, str]:
    """Labels of an alert of the index workers."""
    return {"alertname": name, **INDEX, **labels}


def shown(manager: Alertmanager, *raised: Mapping[str, str]) -> list[tuple[str, str]]:
    """Which of these alerts somebody hears of: name and topic, in order."""
    manager.raise_alerts(*raised)
    until(lambda: len(manager.alerts()) == len(raised), what="the alerts to be taken")
    heard = [each["labels"] for each in manager.alerts() if not each["status"]["inhibitedBy"]]
    return sorted((labels["alertname"], labels.get("topic", "")) for labels in heard)


def test_a_held_partition_hides_its_own_topic_only(manager: Alertmanager) -> None:
    """A topic of which partitions are held pages once; that another topic is stale is heard all the same."""
    held = alert("LivedexPartitionsHeld", topic="broken", reason="stopped")
    both = [alert("LivedexStale", topic=topic) for topic in ("broken", "docs")]
    assert shown(manager, held, *both) == [("LivedexPartitionsHeld", "broken"), ("LivedexStale", "docs")]


def test_one_worker_that_does_not_poll_hides_no_topic(manager: Alertmanager) -> None:
    """Of several workers one does not poll: what is stale may be the work of another."""
    raised = alert("LivedexWorkerNotPolling", instance="a"), alert("LivedexStale", topic="docs")
    assert shown(manager, *raised) == [("LivedexStale", "docs"), ("LivedexWorkerNotPolling", "")]


def test_no_worker_hides_that_topics_are_stale(manager: Alertmanager) -> None:
    """Without any index worker one page is enough; that Kafka is about to delete what is not indexed is one more."""
    raised = [alert(name, topic="docs") for name in ("LivedexStale", "LivedexRetentionNear", "LivedexRetentionRunsPast")]
    heard = shown(manager, alert("LivedexNoIndexWorker"), *raised)
    assert heard == [("LivedexNoIndexWorker", ""), ("LivedexRetentionNear", "docs"), ("LivedexRetentionRunsPast", "docs")]
