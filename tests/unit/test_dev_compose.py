"""ops/compose.yaml is the same stack as the packaged one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

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
    """Ports are published on loopback only, and both services say when they are healthy."""
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]["test"]
