"""Which adapter opens a model: the one that is named, or the fastest that is installed and gives torch's vectors."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from livedex.config import EmbedderName
from livedex.encoders.port import Encoder, ModelSpec
from livedex.errors import ConfigError
from livedex.observe import logger

_log = logger("encoder")


def open_encoder(
    embedder: EmbedderName, spec: ModelSpec, *, check: Callable[[Encoder], None] = lambda _encoder: None
) -> Encoder:
    """Load the model with the named adapter; `auto` never takes hash. Seconds, and hundreds of MB, for a real one.

    An adapter that cannot load the model, or that `check` refuses (ConfigError), is passed over while there is another.
    """
    *first, last = _adapters(embedder)
    for name in first:
        try:
            return _checked(_open(name, spec), check)
        except ConfigError as error:
            _log.warning("encoder.passed_over", encoder=name, why=str(error))
    return _checked(_open(last, spec), check)


def _checked(encoder: Encoder, check: Callable[[Encoder], None]) -> Encoder:
    check(encoder)
    return encoder


def _adapters(embedder: EmbedderName) -> list[EmbedderName]:
    """What to try, best first."""
    if embedder != "auto":
        return [embedder]
    return ["openvino", "torch"] if find_spec("openvino") and not _has_gpu() else ["torch"]


def _has_gpu() -> bool:
    """Whether torch would run on one; torch itself, which takes seconds to load, is asked only where a driver is there."""
    if not Path("/dev/nvidiactl").exists():
        return False
    import torch

    return torch.cuda.is_available()


def _open(name: EmbedderName, spec: ModelSpec) -> Encoder:
    if name == "torch":
        from livedex.encoders.torch import TorchEncoder

        return TorchEncoder(spec)
    if name == "openvino":
        if not find_spec("openvino"):
            raise ConfigError(
                "the embedder openvino is not installed: pip install 'livedex[openvino]', or set LIVEDEX_EMBEDDER=auto"
            )
        from livedex.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(spec)
    if name == "hash":
        from livedex.encoders.hash import HashEncoder

        return HashEncoder(spec)
    raise ConfigError(f"the embedder {name} is not available in this version: set LIVEDEX_EMBEDDER to auto, torch or openvino")
