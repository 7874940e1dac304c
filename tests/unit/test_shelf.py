"""Encoders are opened once for each model, and checked for each generation."""

from dataclasses import dataclass

import pytest

from livedex.config import EmbedderName
from livedex.encoders import Encoder, Identity, ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.shelf import Shelf
from livedex.errors import ConfigError


@dataclass(frozen=True)
class Generation:
    """As much of a generation as matters here."""

    model: str = "hash-4"
    revision: str = "1"
    normalise: bool = True
    probe: bytes | None = None

    @property
    def model_spec(self) -> ModelSpec:
        """What to open."""
        return ModelSpec(model=self.model, normalise=self.normalise)

    @property
    def identity(self) -> Identity:
        """What was opened when it was made."""
        return HashEncoder(self.model_spec).identity

    def check(self, encoder: Encoder) -> None:
        """Only the revision counts here."""
        if encoder.identity.revision != self.revision:
            raise ConfigError("another revision")

    def check_probe(self, encoder: Encoder) -> None:
        """One of two probes fits."""
        del encoder
        if self.probe == b"other":
            raise ConfigError("other vectors")


class Opener:
    """Opens hash encoders, and counts."""

    def __init__(self) -> None:
        self.opened: list[ModelSpec] = []

    def __call__(self, embedder: EmbedderName, made: Generation) -> Encoder:
        """For Shelf."""
        assert embedder == "hash"
        self.opened.append(made.model_spec)
        encoder = HashEncoder(made.model_spec)
        made.check(encoder)
        return encoder


def test_generations_of_one_model_share_its_encoder() -> None:
    """Ten of them open it once; another model, and other vectors of the same model, are opened too."""
    opener = Opener()
    shelf = Shelf("hash", opener)
    first = shelf.open(Generation())
    assert all(shelf.open(Generation()) is first for _ in range(9))
    assert shelf.open(Generation(model="hash-8")) is not first
    assert shelf.open(Generation(normalise=False)) is not first
    assert len(opener.opened) == 3


def test_each_generation_is_checked() -> None:
    """A generation that pins another revision of a model that is open already is refused."""
    shelf = Shelf("hash", Opener())
    shelf.open(Generation())
    with pytest.raises(ConfigError, match="another revision"):
        shelf.open(Generation(revision="2"))


def test_the_probe_of_each_generation_is_run() -> None:
    """An encoder that is open already is tried for a generation that kept other vectors, which refuses it."""
    shelf = Shelf("hash", Opener())
    shelf.open(Generation())
    with pytest.raises(ConfigError, match="other vectors"):
        shelf.open(Generation(probe=b"other"))
    shelf.open(Generation(probe=b"same"))


def test_what_was_refused_is_opened_again() -> None:
    """An encoder that was not the right one is not kept."""
    opener = Opener()
    shelf = Shelf("hash", opener)
    for _ in range(2):
        with pytest.raises(ConfigError, match="another revision"):
            shelf.open(Generation(revision="2"))
    shelf.open(Generation())
    assert len(opener.opened) == 3


def test_what_is_not_used_any_more_is_let_go() -> None:
    """It would be opened again; the rest stays open."""
    opener = Opener()
    shelf = Shelf("hash", opener)
    kept, dropped = Generation(), Generation(model="hash-8")
    encoder = shelf.open(kept)
    shelf.open(dropped)
    shelf.keep([kept])
    assert shelf.open(kept) is encoder
    shelf.open(dropped)
    assert len(opener.opened) == 3
