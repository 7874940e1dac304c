"""Which adapter opens a model: the one that is named, or the fastest that is installed and gives torch's vectors."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from livedex.config import EmbedderName, Settings
from livedex.encoders.port import Encoder, ModelSpec
from livedex.encoders.remote import Server
from livedex.errors import ConfigError
from livedex.observe import logger

_INT8: list[EmbedderName] = ["openvino"]
_log = logger("encoder")


def open_encoder(
    embedder: EmbedderName, spec: ModelSpec, *, server: Server | None = None,
    check: Callable[[Encoder], None] = lambda _encoder: None,
) -> Encoder:  # fmt: skip
    """Load the model with the named adapter; `auto` never takes hash. Seconds, and hundreds of MB, for a real one.

    `server` is for http, which `auto` takes where one is set. An adapter that cannot load the model, or that `check` refuses
    (ConfigError), is passed over while there is another.
    """
    if spec.precision == "int8" and embedder not in ("auto", "openvino"):
        raise ConfigError(f'precision int8 is made by openvino, and the embedder is {embedder}: set precision = "auto"')
    *first, last = _INT8 if spec.precision == "int8" else _adapters(embedder, server)
    for name in first:
        try:
            return _checked(_open(name, spec, server), check)
        except ConfigError as error:
            _log.warning("encoder.passed_over", encoder=name, why=str(error))
    return _checked(_open(last, spec, server), check)


def server_of(settings: Settings) -> Server | None:
    """The embedding server that the settings name."""
    if not settings.embedder_url:
        return None
    return Server(
        url=settings.embedder_url,
        token_file=settings.embedder_token_file,
        max_tokens=settings.embedder_max_tokens,
        concurrency=settings.embedder_concurrency,
    )


def _checked(encoder: Encoder, check: Callable[[Encoder], None]) -> Encoder:
    check(encoder)
    return encoder


def _adapters(embedder: EmbedderName, server: Server | None) -> list[EmbedderName]:
    """What to try, best first."""
    if embedder != "auto":
        return [embedder]
    if server is not None:
        return ["http"]
    return ["openvino", "torch"] if find_spec("openvino") and not _has_gpu() else ["torch"]


def _has_gpu() -> bool:
    """Whether torch would run on one; torch itself, which takes seconds to load, is asked only where a driver is there."""
    if not Path("/dev/nvidiactl").exists():
        return False
    import torch

    return torch.cuda.is_available()


def _open(name: EmbedderName, spec: ModelSpec, server: Server | None) -> Encoder:
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
    if server is None:
        raise ConfigError("the embedder is http, but no server is set: set LIVEDEX_EMBEDDER_URL")
    from livedex.encoders.http import HttpEncoder

    return HttpEncoder(spec, server)
