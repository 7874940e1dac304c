"""ops/docker/Dockerfile: read by BuildKit, and its steps run for real on a copy of this machine's root."""

import sysconfig
from pathlib import Path

import pytest

import livedex
from support.deploy import image
from support.deploy.image import Image

pytestmark = pytest.mark.accept

SITE = f"/opt/livedex/lib/python{sysconfig.get_python_version()}/site-packages"
# The torch of the package index is built for CUDA, whose libraries the image does not have: those of this environment are lent.
CUDA = {path: f"{SITE}/{path.name}" for path in [Path(sysconfig.get_path("purelib")) / "nvidia"] if path.is_dir()}
ENCODE = """
import numpy
from livedex.encoders import ModelSpec, open_encoder
encoder = open_encoder("auto", ModelSpec(model="all-MiniLM-L6-v2"))
print(encoder.identity.encoder, numpy.round(numpy.linalg.norm(encoder.encode_documents(["apples"])), 3))
"""


@pytest.fixture(scope="module", params=["torch", "openvino"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image with either encoder. The index of torch for processors has no mirror in many places: torch is the other one."""
    if reason := image.impossible():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(f"image-{request.param}")
    return Image(folder, {"ENCODER": request.param, "TORCH_BACKEND": ""}).build()


def test_buildkit_has_nothing_to_say() -> None:
    """The linter of `docker build --check` finds nothing."""
    assert image.read()["Warnings"] == []


def test_the_steps_make_a_livedex(made: Image) -> None:
    """The image's entry point runs as its user, who is nobody else and may write nothing but the cache."""
    assert made.run(*made.entrypoint, "--version").strip() == livedex.__version__
    assert (made.run("id", "-u").strip(), made.run("id", "-g").strip()) == ("10001", "10001")
    made.run("sh", "-c", "touch /var/cache/livedex/there")
    written = made.run("sh", "-c", "find /opt/livedex /usr/local -writable -not -type l 2>/dev/null | head -3")
    assert written == "", "the user must not be able to change the program"


def test_a_new_version_is_a_small_layer(made: Image) -> None:
    """What is copied after the dependencies is livedex alone, and nothing of it is among them."""
    assert 0.5e6 < made.size("/own", stage="build")["/own"] < 20e6
    assert made.size(f"{SITE}/livedex", stage="deps") == {f"{SITE}/livedex": 0}


def test_spans_can_be_sent(made: Image) -> None:
    """It has what the extra `tracing` asks for."""
    made.run("python", "-c", "from livedex import tracing_otel; import opentelemetry.exporter.otlp.proto.http.trace_exporter")


def test_nothing_builds_in_it(made: Image) -> None:
    """There is no pip in the environment, and no uv."""
    made.run("python", "-c", "import numpy")
    made.run("python", "-c", "import pip", code=1)
    assert made.run("sh", "-c", "ls /opt/livedex/bin | grep -E '^(pip|uv)[0-9.]*$' || true") == ""


def test_without_a_worker_it_is_not_healthy(made: Image) -> None:
    """The HEALTHCHECK fails where nobody answers, and it is there."""
    made.run(*made.health, code=1)


def test_the_model_is_in_the_image(made: Image) -> None:
    """A text is embedded by the encoder that was chosen, without a hub; OpenVINO's conversion goes into the cache folder."""
    if not CUDA:
        pytest.skip("this environment's torch has no CUDA libraries to lend")
    encoder, norm = made.run("python", "-c", ENCODE, lent=CUDA).split()[-2:]
    assert (encoder, norm) == (made.arguments["ENCODER"], "1.0")


def test_what_it_weighs(made: Image) -> None:
    """Without torch, whose own index is not everywhere, livedex adds less than 0.7 GB, and with OpenVINO less than 1 GB."""
    whole = made.size("/opt/livedex")["/opt/livedex"]
    torch = made.size(f"{SITE}/torch")[f"{SITE}/torch"]
    encoder, rest = made.arguments["ENCODER"], whole - torch
    print(f"{encoder}: {rest / 1e6:.0f} MB without torch, torch of the package index {torch / 1e6:.0f} MB")  # noqa: T201
    assert rest < {"torch": 0.7e9, "openvino": 1.0e9}[encoder]
