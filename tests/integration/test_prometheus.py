"""The Prometheus and Alertmanager that other tests use are real: they scrape, evaluate, notify and reload."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from support.prometheus import Alertmanager, Prometheus, QueryError, Webhook, program, scrape_config
from support.waiting import until

RULES = {
    "groups": [
        {
            "name": "a group",
            "rules": [
                {"record": "twice", "expr": "2 * level"},
                {"alert": "TooHigh", "expr": "twice > 10", "labels": {"severity": "page"}, "annotations": {"summary": "high"}},
            ],
        }
    ]
}


@pytest.fixture
def level() -> Iterator[tuple[Gauge, str]]:
    """A gauge, and the address where it is served."""
    registry = CollectorRegistry()
    gauge = Gauge("level", "A level", registry=registry)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield gauge, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def notifying(url: str) -> dict[str, Any]:
    """A configuration of Alertmanager that sends everything at once to `url`."""
    route = {"receiver": "all", "group_by": ["alertname"], "group_wait": "100ms", "group_interval": "100ms"}
    return {
        "route": route,
        "receivers": [{"name": "all", "webhook_configs": [{"url": f"{url}/all", "send_resolved": True}]}],
    }


def test_an_alert_goes_all_the_way(level: tuple[Gauge, str], tmp_path: Path) -> None:
    """A target is scraped, rules are evaluated, and an alert that fires and resolves reaches the webhook twice."""
    gauge, address = level
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(RULES))
    with Webhook() as webhook, Alertmanager(notifying(webhook.url), tmp_path) as manager:
        config = scrape_config({"levels": [address]}, rules=[rules], alertmanager=manager.url)
        with Prometheus(config, tmp_path) as prometheus:
            prometheus.wait_for_targets()
            gauge.set(3)
            assert prometheus.wait_for("twice", holds=lambda value: value == 6)[0].labels["job"] == "levels"
            assert webhook.firing() == set()
            before = time.monotonic()
            gauge.set(6)
            until(lambda: webhook.firing() == {"TooHigh"}, what="the alert to fire")
            notice = webhook.of("firing", since=before)[0]
            assert (notice.path, notice.labels["severity"], notice.annotations) == ("/all", "page", {"summary": "high"})
            assert [alert["labels"]["alertname"] for alert in manager.alerts()] == ["TooHigh"]
            assert [alert["state"] for alert in prometheus.alerts()] == ["firing"]
            gauge.set(1)
            until(lambda: not webhook.firing(), what="the alert to resolve")
            assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
            assert len(prometheus.range("level", seconds=5)[0].points) > 1
            with pytest.raises(QueryError, match="parse error"):
                prometheus.query("sum(")


@pytest.mark.accept
def test_a_configuration_can_be_changed(level: tuple[Gauge, str], tmp_path: Path) -> None:
    """Targets that a new configuration names are scraped after a reload."""
    _, address = level
    with Prometheus(scrape_config({}), tmp_path) as prometheus:
        assert prometheus.targets() == []
        prometheus.write(scrape_config({"levels": [address]}))
        prometheus.reload()
        prometheus.wait_for('up{job="levels"}', holds=lambda value: value == 1)


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Debian package a test is skipped with the reason, and fails in continuous integration."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus"):
        program("a-program-that-is-not-there")
    monkeypatch.setitem(os.environ, "CI", "true")
    with pytest.raises(FileNotFoundError, match="apt-get install prometheus"):
        program("a-program-that-is-not-there")
