"""ops/helm/livedex: rendered by Helm, each object checked with the schemas of Kubernetes, KEDA and the Prometheus operator."""

import json
from pathlib import Path

import pytest

from livedex.config import load
from livedex.lifecycle import GRACE
from support.deploy import schemas, tools
from support.deploy.chart import CHART, EVERYTHING, containers, manifests, one, rendered

pytestmark = pytest.mark.accept

VARIANTS = {
    "defaults": (),
    "everything": EVERYTHING,
    "bare": ("migrate.enabled=false", "networkPolicy.enabled=false", "keda.enabled=false"),
    "egress is open": ("networkPolicy.to=null",),
    "settings are a secret": ("configSecret=livedex-settings",),
}


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where kubeconform finds the schemas."""
    return schemas.write(tmp_path_factory.mktemp("schemas"))


def check(location: str, text: str, *, code: int = 0) -> list[dict[str, str]]:
    """What kubeconform says of each object."""
    done = tools.run("kubeconform", "-strict", "-output=json", "-verbose", "-schema-location", location, stdin=text, code=code)
    found: list[dict[str, str]] = json.loads(done)["resources"]
    return found


def test_helm_lints_it() -> None:
    """`helm lint --strict` finds nothing wrong, with all that can be switched on."""
    sets = [part for value in EVERYTHING for part in ("--set", value)]
    tools.run("helm", "lint", "--strict", str(CHART), "--kube-version", schemas.VERSION, *sets)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid(location: str, variant: str) -> None:
    """Each object has a schema, keeps to it, and names no field that the API does not know."""
    found = check(location, rendered(*VARIANTS[variant]))
    assert {resource["status"] for resource in found} == {"statusValid"}
    kinds = {resource["kind"] for resource in found}
    assert kinds >= {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"}
    if variant == "everything":
        assert kinds >= {"Job", "ConfigMap", "NetworkPolicy", "ScaledObject", "PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("terminationGracePeriodSeconds: 30", "terminationGracePeriod: 30"),
        ("minReplicaCount: 1", "minReplicaCount: one"),
        ("interval: 15s", "interval: soon"),
        ("maxUnavailable: 1\n", "maxUnavailable: 1\n  maxAvailable: 1\n"),
    ],
)
def test_a_mistake_is_found(location: str, right: str, wrong: str) -> None:
    """The schemas refuse a misspelt field and a value of another type, of Kubernetes and of both operators."""
    text = rendered(*EVERYTHING)
    assert right in text
    found = check(location, text.replace(right, wrong), code=1)
    assert "statusInvalid" in {resource["status"] for resource in found}


def test_no_container_may_more_than_it_needs() -> None:
    """Every pod meets the restricted Pod Security Standard, writes to emptyDirs only, and has no token of the API."""
    found = list(containers(manifests(*EVERYTHING)))
    assert len(found) == 4
    for pod, container in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        own = container["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["cpu"]
        assert container["resources"]["limits"]["memory"]
        written = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written == {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}


def test_secrets_are_named_and_not_contained() -> None:
    """The chart makes no Secret; each database URL comes from a key of its own, and no value may hold one."""
    found = manifests(*EVERYTHING)
    assert not [m for m in found if m["kind"] == "Secret"]
    keys = {}
    for _, container in containers(found):
        (url,) = [variable for variable in container["env"] if variable["name"] == "LIVEDEX_DATABASE_URL"]
        keys[container["name"]] = url["valueFrom"]["secretKeyRef"]["key"]
    assert keys == {"migrate": "migrate", "apply": "migrate", "index": "index", "serve": "serve"}


@pytest.mark.parametrize("component", ["index", "serve"])
def test_a_worker_is_given_time(component: str) -> None:
    """Kubernetes kills no sooner than a worker has ended by itself, the drain included; starting a model may take minutes, and
    liveness asks whether it is alive, not whether Postgres is.
    """
    pod = one(manifests(), "Deployment", component)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    drain = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] > max(10, GRACE) + drain
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


@pytest.mark.parametrize("component", ["index", "serve"])
def test_evictions_take_one_at_a_time(component: str) -> None:
    """The budget selects the pods of its Deployment, and lets a single replica be moved."""
    found = manifests()
    budget, deployment = one(found, "PodDisruptionBudget", component), one(found, "Deployment", component)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["maxUnavailable"] == 1
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_hook_needs_nothing_of_the_release() -> None:
    """What the migration's Job refers to is a hook before it, or exists already."""
    found = manifests(*EVERYTHING)
    job, config = one(found, "Job"), one(found, "ConfigMap", "migrate")
    weight = "helm.sh/hook-weight"
    assert int(config["metadata"]["annotations"][weight]) < int(job["metadata"]["annotations"][weight])
    for manifest in (job, config):
        assert manifest["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    assert {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v} == {config["metadata"]["name"]}


def test_keda_scales_the_index_workers_up_to_their_partitions() -> None:
    """The scaled object leads to the Deployment, which then says no replicas itself, and asks Prometheus for our metrics."""
    found = manifests(*EVERYTHING, "index.partitions=12")
    scaled, deployment = one(found, "ScaledObject")["spec"], one(found, "Deployment", "index")
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert scaled["maxReplicaCount"] == 12
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaled["triggers"]}
    assert queries == {
        "staleness": 'max(livedex_staleness_seconds{namespace="search", job="livedex-index"})',
        "events": 'sum(rate(livedex_events_total{namespace="search", job="livedex-index"}[5m]))',
    }


def test_metrics_that_vanish_scale_nothing_down() -> None:
    """An empty answer of Prometheus is a failure, which the fallback is for, not a backlog of zero."""
    scaled = one(manifests(*EVERYTHING), "ScaledObject")["spec"]
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert [trigger["metadata"]["ignoreNullValues"] for trigger in scaled["triggers"]] == ["false", "false"]


def test_the_settings_are_livedexs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the config map is read by livedex, and each variable of a container is one of its settings."""
    found = manifests()
    path = tmp_path / "livedex.toml"
    path.write_text(one(found, "ConfigMap", "livedex")["data"]["livedex.toml"])
    (tmp_path / "tokens.toml").touch()
    for _, container in containers(found):
        for variable in container["env"]:
            monkeypatch.setenv(variable["name"], variable.get("value", "postgresql://elsewhere/docs"))
    settings = load(path)
    assert (settings.http_port, settings.metrics_port, settings.http_host) == (8080, 9108, "0.0.0.0")
    assert settings.kafka.bootstrap_servers == "kafka:9092"


def test_the_settings_may_be_a_secret() -> None:
    """With configSecret every container reads livedex.toml from there, and no ConfigMap is made."""
    found = manifests("configSecret=livedex-settings")
    assert not [m for m in found if m["kind"] == "ConfigMap"]
    volumes = [volume for pod, _ in containers(found) for volume in pod["volumes"] if volume["name"] == "config"]
    assert {volume["secret"]["secretName"] for volume in volumes} == {"livedex-settings"}


def test_a_model_of_your_own_is_everywhere() -> None:
    """A volume that values name is in every container, the hook's too: `livedex apply` reads the model."""
    found = list(containers(manifests(*EVERYTHING)))
    assert {container["name"] for _, container in found} == {"migrate", "apply", "index", "serve"}
    for pod, container in found:
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]


def test_a_missing_secret_is_said() -> None:
    """Without the name of the secret with the tokens nothing is rendered, nor without that of the canary's."""
    assert rendered("apiTokens.secret=", code=1) == ""
    assert rendered("canary.enabled=true", code=1) == ""
