"""The chart in ops/helm/livedex, rendered by Helm as release `docs` in the namespace `search`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from support.deploy import schemas, tools

CHART = Path(__file__).parents[3] / "ops" / "helm" / "livedex"
EVERYTHING = (
    "keda.enabled=true", "keda.eventsPerWorker=50", "keda.authenticationRef=prometheus", "monitoring.enabled=true",
    "monitoring.namespace=monitoring", "monitoring.labels.release=kube-prometheus",
    "secretFiles[0].name=kafka-tls", "secretFiles[0].secret=kafka-tls",
    "imagePullSecrets[0].name=registry", "index.priorityClassName=high", "serve.nodeSelector.disk=ssd",
    "env[0].name=LIVEDEX_EMBEDDER_URL", "env[0].value=http://tei:8080",
    "networkPolicy.searchFrom[0].podSelector.matchLabels.app=web", "canary.enabled=true", "canary.token.secret=livedex-canary",
    "extraVolumes[0].name=models", "extraVolumes[0].persistentVolumeClaim.claimName=models",
    "extraVolumeMounts[0].name=models", "extraVolumeMounts[0].mountPath=/models", "extraVolumeMounts[0].readOnly=true",
    "tracing.endpoint=http://collector.monitoring:4318",
)  # fmt: skip
Manifest = dict[str, Any]


def rendered(*values: str, code: int = 0) -> str:
    """What Helm makes of the chart with these values."""
    sets = [part for value in values for part in ("--set", value)]
    arguments = ("template", "docs", str(CHART), "--namespace", "search", "--kube-version", schemas.VERSION, *sets)
    return tools.run("helm", *arguments, code=code)


def manifests(*values: str) -> list[Manifest]:
    """The objects of it."""
    return [found for found in yaml.safe_load_all(rendered(*values)) if found]


def one(found: Sequence[Manifest], kind: str, ends: str = "") -> Manifest:
    """The object of a kind whose name ends so."""
    (chosen,) = [m for m in found if m["kind"] == kind and m["metadata"]["name"].endswith(ends)]
    return chosen


def containers(found: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each container of each pod, with the pod's spec."""
    for manifest in found:
        if manifest["kind"] in ("Deployment", "Job"):
            pod = manifest["spec"]["template"]["spec"]
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                yield pod, container


def ingress(found: Sequence[Manifest], component: str) -> list[Any]:
    """Who may connect to a worker."""
    (rule,) = one(found, "NetworkPolicy", component)["spec"]["ingress"]
    peers: list[Any] = rule["from"]
    return peers


def egress(found: Sequence[Manifest], component: str) -> list[Any]:
    """Where a worker may connect to."""
    rules: list[Any] = one(found, "NetworkPolicy", component)["spec"]["egress"]
    return rules
