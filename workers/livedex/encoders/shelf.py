"""Opened encoders, each once however many generations are made with its model and as many of its dimensions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from livedex.config import EmbedderName
from livedex.encoders.port import Encoder, Identity, ModelSpec, Vectors


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

    @property
    def probe(self) -> bytes | None:
        """The vectors that this encoder gave for a few texts."""
        ...

    def check(self, encoder: Encoder) -> None:
        """ConfigError unless it was made with this encoder."""
        ...

    def check_probe(self, encoder: Encoder) -> None:
        """ConfigError unless this encoder gives the vectors of `probe`: it is run."""
        ...


M = TypeVar("M", bound=Made)


class Shelf(Generic[M]):
    """One thread opens; what it was given may be used by any."""

    def __init__(self, embedder: EmbedderName, open_checked: Callable[[EmbedderName, M], Encoder]) -> None:
        self._embedder = embedder
        self._open_checked = open_checked
        self._opened: dict[tuple[str, ModelSpec], Encoder] = {}
        self._agreed: set[tuple[tuple[str, ModelSpec], bytes | None]] = set()  # probes that were run with what is open

    def open(self, made: M) -> Encoder:
        """Its encoder, checked to be the one that it was made with. The first of a model loads it: seconds."""
        key = _key(made)
        encoder = self._opened.get(key)
        if encoder is None:
            encoder = self._opened[key] = self._open_checked(self._embedder, made)
        else:
            made.check(encoder)  # another generation may pin another revision of the model
            if (key, made.probe) not in self._agreed:
                made.check_probe(encoder)
        self._agreed.add((key, made.probe))
        return encoder

    def keep(self, used: Iterable[M]) -> None:
        """Let go of the models that none of these is made with."""
        wanted = set(map(_key, used))
        self._opened = {key: encoder for key, encoder in self._opened.items() if key in wanted}
        self._agreed = {(key, probe) for key, probe in self._agreed if key in wanted}


def _key(made: Made) -> tuple[str, ModelSpec]:
    return made.identity.encoder, made.model_spec


class Later(Generic[M]):
    """An encoder that is opened when it is first asked something: what needs no vector loads no model."""

    def __init__(self, shelf: Shelf[M], made: M) -> None:
        self._shelf = shelf
        self._made = made

    @property
    def identity(self) -> Identity:
        """See Encoder."""
        return self._made.identity

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:
        """See Encoder."""
        return self._shelf.open(self._made).count_tokens(texts, stopped=stopped)

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        return self._shelf.open(self._made).encode_documents(texts, stopped=stopped)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        return self._shelf.open(self._made).encode_queries(texts)
