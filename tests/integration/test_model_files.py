"""Folders of models that carry code: none of it runs, in whatever file it is."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from livedex.encoders import ModelSpec
from livedex.encoders.openvino import OpenVinoEncoder
from livedex.encoders.torch import TorchEncoder
from livedex.errors import ConfigError
from support.tiny_models import symmetric

TOUCH = "import pathlib; pathlib.Path({!r}).touch()"


class Payload:
    """What unpickling runs."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """See pickle."""
        return exec, (self.code,)


def pickled_weights(folder: Path, code: str) -> None:
    """Weights as a pickle, in place of safetensors."""
    for path in folder.rglob("*.safetensors"):
        path.with_name("pytorch_model.bin").write_bytes(pickle.dumps({"weights": Payload(code)}))
        path.unlink()


def code_beside_the_modules(folder: Path, code: str) -> None:
    """A module of the pipeline whose class is in a file of the folder."""
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "beside.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "beside.py").write_text(f"{code}\nclass Module: ...\n")


def code_of_the_architecture(folder: Path, code: str) -> None:
    """A transformer whose classes are in a file of the folder."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "beside", "auto_map": {"AutoConfig": "beside.Config", "AutoModel": "beside.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "beside.py").write_text(f"{code}\nclass Config: ...\nclass Model: ...\n")


@pytest.mark.accept
@pytest.mark.parametrize("encoder", [TorchEncoder, OpenVinoEncoder], ids=["torch", "openvino"])
@pytest.mark.parametrize("bring", [pickled_weights, code_beside_the_modules, code_of_the_architecture])
def test_code_of_a_model_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    bring: Callable[[Path, str], None], encoder: Callable[[ModelSpec], object],
) -> None:  # fmt: skip
    """The model is refused, and nothing of the folder was run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran, folder = tmp_path / "ran", symmetric(tmp_path / "model")
    bring(folder, TOUCH.format(str(ran)))
    with pytest.raises(ConfigError, match=r"the model in .*model"):
        encoder(ModelSpec(model=str(folder)))
    assert not ran.exists()


def test_the_payload_would_run(tmp_path: Path) -> None:
    """Where pickles are trusted: else the test above could not fail."""
    pickle.loads(pickle.dumps(Payload(TOUCH.format(str(tmp_path / "ran")))))
    assert (tmp_path / "ran").exists()
