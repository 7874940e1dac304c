"""Who may connect to whom in the chart of ops/helm/livedex, and what watches it: monitors, rules, canary, traces."""

import json

import pytest
import yaml

from livedex.config import load
from support.deploy.chart import CHART, EVERYTHING, containers, egress, ingress, manifests, one, rendered

pytestmark = pytest.mark.accept

CANARY = ("canary.enabled=true", "canary.token.secret=livedex-canary")


def test_the_rules_are_those_of_the_project() -> None:
    """Each file of rules in ops/prometheus becomes a PrometheusRule with its groups, and monitors name the jobs as they do."""
    found = manifests(*EVERYTHING)
    files = sorted((CHART.parents[1] / "prometheus").glob("livedex.*.yml"))
    assert files
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    made = [m for m in found if m["kind"] == "PrometheusRule"]
    assert [group for rule in made for group in rule["spec"]["groups"]] == groups
    jobs = [m["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"] for m in found if m["kind"] == "PodMonitor"]
    assert jobs == ["livedex-index", "livedex-serve"]


@pytest.mark.parametrize("component", ["index", "serve"])
def test_prometheus_is_let_in(component: str) -> None:
    """With monitoring the policies of both workers name the namespace of Prometheus, besides whom metricsFrom names."""
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observing"}}}
    named = ("monitoring.enabled=true", "monitoring.namespace=observing")
    assert prometheus in ingress(manifests(*named), component)
    agent = {"podSelector": {"matchLabels": {"app": "agent"}}}
    both = ingress(manifests(*named, "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=agent"), component)
    assert prometheus in both
    assert agent in both


def test_prometheus_is_not_locked_out_unnoticed() -> None:
    """Monitoring behind a policy that lets nobody read metrics is refused; naming somebody either way will do, or no policy."""
    assert rendered("monitoring.enabled=true", code=1) == ""
    for remedy in ("networkPolicy.metricsFrom[0].podSelector.matchLabels.app=agent", "networkPolicy.enabled=false"):
        assert "kind: PodMonitor" in rendered("monitoring.enabled=true", remedy)


def test_rules_of_a_canary_come_with_a_canary() -> None:
    """Nobody is told that a canary is absent where the chart starts none."""
    monitored = ("monitoring.enabled=true", "monitoring.namespace=monitoring")
    without, with_one = (
        {m["metadata"]["name"] for m in manifests(*values) if m["kind"] == "PrometheusRule"}
        for values in (monitored, (*monitored, *CANARY))
    )
    assert with_one - without == {"docs-livedex-canary"}
    assert without


def test_the_canary_is_the_index_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only their container is told of it, by settings of livedex, and only there the token is mounted, at the path of these."""
    found = manifests(*CANARY)
    service = one(found, "Service", "serve")
    told = {container["name"]: container for _, container in containers(found) if "CANARY" in json.dumps(container)}
    assert told.keys() == {"index"}
    mounted = {container["name"] for _, container in containers(found) if "canary-token" in json.dumps(container)}
    assert mounted == {"index"}
    for variable in told["index"]["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "postgresql://elsewhere/docs"))
    monkeypatch.setenv("LIVEDEX_CONFIG", "")
    settings = load()
    assert settings.canary_url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert settings.api_token_file is not None
    (folder,) = [mount["mountPath"] for mount in told["index"]["volumeMounts"] if mount["name"] == "canary-token"]
    assert str(settings.api_token_file.parent) == folder


def test_the_canary_gets_through() -> None:
    """The policies let index workers reach query workers at the port of their container, also where others may not search."""
    found = manifests(*CANARY, "networkPolicy.searchFrom[0].podSelector.matchLabels.app=web")
    serve, index = (one(found, "Deployment", name)["spec"] for name in ("serve", "index"))
    (port,) = serve["template"]["spec"]["containers"][0]["ports"]
    (way,) = [rule for rule in egress(found, "index") if "to" in rule]
    assert way["to"] == [{"podSelector": serve["selector"]}]
    assert way["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    assert {"podSelector": index["selector"]} in ingress(found, "serve")
    assert not [rule for rule in egress(manifests(), "index") if "to" in rule]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.monitoring:4318", 4318), ("http://collector/otlp", 80), ("https://traces.example", 443)],
)
def test_spans_get_through(endpoint: str, port: int) -> None:
    """Both workers know the collector and may reach its port; the hook has nothing to do with it."""
    found = manifests(f"tracing.endpoint={endpoint}")
    told = {
        container["name"]: variable["value"]
        for _, container in containers(found)
        for variable in container["env"]
        if variable["name"].startswith("OTEL_")
    }
    assert told == {"index": endpoint, "serve": endpoint}
    for component, opened in (("index", True), ("serve", True), ("migrate", False)):
        assert ({"ports": [{"port": port, "protocol": "TCP"}]} in egress(found, component)) is opened
