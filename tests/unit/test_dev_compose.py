"""ops/compose.yaml is the same stack as the packaged one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from livedex.config import PREFIX, Settings
from livedex.dev import jars, kafka, postgres

OWN = {
    "KAFKA_LISTENERS",
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_CONTROLLER_QUORUM_VOTERS",
    "KAFKA_LOG_DIRS",
    "KAFKA_HEAP_OPTS",
}
COMPOSE = Path(__file__).parents[2] / "ops" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the file."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded["services"]


def test_versions_agree(services: dict[str, Any]) -> None:
    """Both ways to a stack start the same broker and the same pgvector on the same Postgres."""
    assert services["kafka"]["image"] == f"apache/kafka:{jars.KAFKA_VERSION}"
    assert services["postgres"]["image"] == "pgvector/pgvector:0.8.5-pg18"


def test_broker_settings_agree(services: dict[str, Any]) -> None:
    """The container has the settings of the packaged broker, and of its own only addresses, folder and memory."""
    expected = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.SETTINGS.items()}
    actual = services["kafka"]["environment"]
    assert {name: value for name, value in actual.items() if name not in OWN} == expected


def test_database_settings_agree(services: dict[str, Any]) -> None:
    """Every setting and the locale of the packaged server are the container's."""
    server = services["postgres"]
    assert server["command"] == ["postgres", *(f"--{name}={value}" for name, value in postgres.SETTINGS.items())]
    assert server["environment"]["POSTGRES_INITDB_ARGS"].split() == list(postgres.INITDB_ARGUMENTS)


def test_nothing_is_reachable_from_elsewhere(services: dict[str, Any]) -> None:
    """Ports are published on loopback only, and what shares this machine's network listens there only."""
    for name, service in services.items():
        assert ("ports" in service) != (service.get("network_mode") == "host"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    for name in ("migrate", "apply", "index", "serve"):
        assert services[name]["environment"]["LIVEDEX_HTTP_HOST"] == "127.0.0.1"
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert {"--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="} < set(services["alertmanager"]["command"])
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_services_say_when_they_are_healthy(services: dict[str, Any]) -> None:
    """Each has a check, and a worker's asks at its own port: they share a network, and would vouch for each other."""
    checked = {name: service["healthcheck"]["test"] for name, service in services.items() if "healthcheck" in service}
    assert checked.keys() == services.keys() - {"migrate", "apply"}
    defaults = {name: str(field.default) for name, field in Settings.model_fields.items()}
    for worker, setting in (("index", "metrics_port"), ("serve", "http_port")):
        port = {**defaults, **_given(services[worker])}[setting]
        assert checked[worker] == ["CMD", "python", "-I", "/opt/livedex/healthy.py", port]


def test_without_a_profile_it_is_the_stack_alone(services: dict[str, Any]) -> None:
    """`docker compose up` starts Kafka and Postgres; the workers and the monitoring are asked for."""
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert [name for name, chosen in profiles.items() if not chosen] == ["kafka", "postgres"]
    assert {name for name, chosen in profiles.items() if chosen == ["monitoring"]} == {"prometheus", "alertmanager", "grafana"}


def test_the_workers_find_the_stack(services: dict[str, Any]) -> None:
    """Their addresses are the published ones, and their settings are livedex's."""
    told = services["index"]["environment"]
    published = {service: services[service]["ports"][0].rpartition(":")[0] for service in ("kafka", "postgres")}
    assert told["LIVEDEX_KAFKA_BOOTSTRAP_SERVERS"] == published["kafka"]
    assert f"@{published['postgres']}/" in told["LIVEDEX_DATABASE_URL"]
    names = {name.removeprefix(PREFIX).lower() for name in told} - {"kafka_bootstrap_servers"}
    assert names <= set(Settings.model_fields)


def test_the_alerts_find_a_canary(services: dict[str, Any]) -> None:
    """Where Prometheus has the rules of the canary, one runs: the index worker's, which asks the query worker beside it."""
    rules = yaml.safe_load((COMPOSE.parent / "prometheus" / "prometheus.example.yml").read_text(encoding="utf-8"))["rule_files"]
    assert "livedex.canary.yml" in rules
    serve = {**{name: field.default for name, field in Settings.model_fields.items()}, **_given(services["serve"])}
    assert _given(services["index"])["canary_url"] == f"http://{serve['http_host']}:{serve['http_port']}"


def _given(service: dict[str, Any]) -> dict[str, str]:
    return {name.removeprefix(PREFIX).lower(): value for name, value in service["environment"].items()}


def test_what_is_mounted_is_there(services: dict[str, Any]) -> None:
    """Each folder of this repository that a container sees exists, and it cannot change it."""
    seen = [volume for service in services.values() for volume in service.get("volumes", ()) if volume.startswith("./")]
    assert len(seen) == 4
    for volume in seen:
        source, _, options = volume.split(":")
        assert (COMPOSE.parent / source).is_dir(), source
        assert options == "ro"
