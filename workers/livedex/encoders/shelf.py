"""Opened encoders, each once however many generations are made with its model."""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from livedex.config import EmbedderName
from livedex.encoders.port import Encoder, Identity, ModelSpec


class Made(Protocol):
    """What is made with an encoder: a generation of a collection."""

    @property
    def identity(self) -> Identity:
        """The encoder that it was made with."""
        ...

    @property
    def model_spec(self) -> ModelSpec:
        """What to open to get it."""
        ...

    def check(self, encoder: Encoder) -> None:
        """ConfigError unless it was made with this encoder."""
        ...


M = TypeVar("M", bound=Made)


class Shelf(Generic[M]):
    """One thread opens; what it was given may be used by any."""

    def __init__(self, embedder: EmbedderName, open_checked: Callable[[EmbedderName, M], Encoder]) -> None:
        self._embedder = embedder
        self._open_checked = open_checked
        self._opened: dict[tuple[str, ModelSpec], Encoder] = {}

    def open(self, made: M) -> Encoder:
        """Its encoder, checked to be the one that it was made with. The first of a model loads it: seconds."""
        encoder = self._opened.get(_key(made))
        if encoder is None:
            encoder = self._opened[_key(made)] = self._open_checked(self._embedder, made)
        else:
            made.check(encoder)  # another generation may pin another revision of the model
        return encoder

    def keep(self, used: Iterable[M]) -> None:
        """Let go of the models that none of these is made with."""
        wanted = set(map(_key, used))
        self._opened = {key: encoder for key, encoder in self._opened.items() if key in wanted}


def _key(made: Made) -> tuple[str, ModelSpec]:
    return made.identity.encoder, made.model_spec
