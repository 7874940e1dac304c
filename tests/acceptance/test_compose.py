"""ops/compose.yaml, loaded by the library that `docker compose` loads it with."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.deploy import tools

pytestmark = pytest.mark.accept

COMPOSE = Path(__file__).parents[2] / "ops" / "compose.yaml"


def project(*profiles: str) -> dict[str, Any]:
    """The services that `up` would start."""
    found: dict[str, dict[str, Any]] = json.loads(tools.run("compose", str(COMPOSE), *profiles))
    return found["services"]


@pytest.mark.parametrize(
    ("profiles", "started"),
    [
        ((), {"kafka", "postgres"}),
        (("workers",), {"kafka", "postgres", "migrate", "apply", "index", "serve"}),
        (("monitoring",), {"kafka", "postgres", "prometheus", "alertmanager", "grafana"}),
    ],
)
def test_compose_starts_what_is_asked_for(profiles: tuple[str, ...], started: set[str]) -> None:
    """The file keeps to the specification, and each profile adds its services."""
    assert set(project(*profiles)) == started


def test_the_image_is_built_of_this_repository() -> None:
    """Every worker has the same image, whose Dockerfile is there."""
    services = project("workers")
    builds = [services[name]["build"] for name in ("migrate", "apply", "index", "serve")]
    assert all(build == builds[0] for build in builds)
    assert Path(builds[0]["context"]) == COMPOSE.parents[1]
    assert (Path(builds[0]["context"]) / builds[0]["dockerfile"]).is_file()


def test_a_mistake_is_found(tmp_path: Path) -> None:
    """A key that compose does not know is refused."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("    stop_grace_period: 30s\n", "    stop_grace: 30s\n"))
    assert tools.run("compose", str(wrong), code=1) == ""
