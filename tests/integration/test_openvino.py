"""The OpenVINO adapter gives torch's vectors, and is passed over where it does not."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from livedex.config import DEFAULT_MODEL
from livedex.encoders import Encoder, ModelSpec, open_encoder, openvino
from livedex.encoders.converted import cache_dir, converted
from livedex.encoders.models import digest_of, find_model
from livedex.encoders.openvino import OpenVinoEncoder
from livedex.encoders.openvino_streams import Inputs
from livedex.encoders.port import EncodingStopped, Vectors
from livedex.encoders.probe import TOLERANCE, agreement, cosines
from livedex.errors import ConfigError
from livedex.resources import processors
from support.streams import paragraphs

pytestmark = pytest.mark.model
SPEC = ModelSpec(model=DEFAULT_MODEL)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """The default model on OpenVINO."""
    return _opened("openvino")


@pytest.fixture(scope="module")
def reference() -> Encoder:
    """The default model on torch."""
    return _opened("torch")


def _opened(name: str) -> Encoder:
    try:
        return open_encoder("openvino" if name == "openvino" else "torch", SPEC)
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the converted model, to spoil."""
    folder = find_model(DEFAULT_MODEL)
    shared = converted(folder, digest_of(folder)).folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(shared, cache_dir() / shared.name)
    return cache_dir()


def test_it_gives_the_vectors_of_torch(encoder: Encoder, reference: Encoder) -> None:
    """For texts of every length, in several scripts, longer ones than the model reads too, as documents and as queries."""
    texts = ["a", "Zürich 東京 مرحبا", "word " * 400, *paragraphs(seed=3, count=40)]
    for method in ("encode_documents", "encode_queries"):
        found, expected = (getattr(one, method)(texts) for one in (encoder, reference))
        assert agreement(found, expected) >= TOLERANCE
    assert encoder.count_tokens(texts) == reference.count_tokens(texts)


def test_it_says_what_torch_says_of_the_model(encoder: Encoder, reference: Encoder) -> None:
    """Dimension, window, prompts and revision are the model's, not the adapter's."""
    found, expected = encoder.identity, reference.identity
    assert (found.encoder, expected.encoder) == ("openvino", "torch")
    for what in ("model", "revision", "dimension", "max_tokens", "query_prompt", "document_prompt"):
        assert getattr(found, what) == getattr(expected, what)


def test_the_vector_of_a_text_does_not_depend_on_its_company(encoder: Encoder) -> None:
    """Alone and padded among others it is the same, within the tolerance."""
    texts = paragraphs(seed=5, count=30)
    together = encoder.encode_documents(texts)
    alone = np.concatenate([encoder.encode_documents([text]) for text in texts])
    assert agreement(together, alone) >= TOLERANCE


def test_streams_give_the_vectors_of_torch_too(reference: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many cores there are, and however many texts."""
    monkeypatch.setattr(openvino, "LEAST_TOKENS", 0)
    encoder = _opened("openvino")
    for texts in (["a"], ["Zürich 東京 مرحبا", "word " * 400], paragraphs(seed=7, count=30)):
        assert agreement(encoder.encode_documents(texts), reference.encode_documents(texts)) >= TOLERANCE
    assert isinstance(encoder, OpenVinoEncoder)
    assert (encoder._streams is None) == (processors() == 1)


def test_only_many_documents_are_encoded_in_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever searches must not wait until the graph is compiled once more; of one core nothing is to be had."""
    for cores in (4, 1):
        monkeypatch.setattr(openvino, "processors", lambda cores=cores: cores)
        encoder = _opened("openvino")
        assert isinstance(encoder, OpenVinoEncoder)
        texts = ["word " * 200] * (4 * cores)
        encoder.encode_queries(texts)
        encoder.encode_documents(texts[:1])
        assert encoder._streams is None
        encoder.encode_documents(texts)
        assert (encoder._streams is None) == (cores == 1)


class Broken:
    """Streams that do not work, or give other vectors."""

    raises: ClassVar = True
    opened: ClassVar = 0

    def __init__(self, *_: object) -> None:
        Broken.opened += 1
        if Broken.raises:
            raise RuntimeError("no room")

    def outputs(self, batches: Iterable[Inputs]) -> Iterator[Vectors]:
        """Ones."""
        yield from (np.ones((len(batch["input_ids"]), 384), np.float32) for batch in batches)


@pytest.mark.parametrize("raises", [True, False])
def test_streams_that_do_not_work_are_not_used(
    reference: Encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raises: bool
) -> None:
    """No text is blamed for it: one batch is encoded after another, and that is said once."""
    monkeypatch.setattr(openvino, "Streams", Broken)
    monkeypatch.setattr(openvino, "processors", lambda: 2)
    monkeypatch.setattr(Broken, "raises", raises)
    monkeypatch.setattr(Broken, "opened", 0)
    encoder, texts = _opened("openvino"), paragraphs(seed=8, count=40)
    for _ in range(2):
        assert agreement(encoder.encode_documents(texts), reference.encode_documents(texts)) >= TOLERANCE
    assert Broken.opened == 1
    said = capsys.readouterr().out
    assert said.count("encoder.no_streams") == 1
    assert ("RuntimeError" if raises else "they give other vectors: cosine") in said


def test_it_stops_between_two_batches(encoder: Encoder) -> None:
    """A worker that is told to stop does not wait for thousands of texts."""
    answers = iter([False, True])
    with pytest.raises(EncodingStopped):
        encoder.encode_documents(paragraphs(seed=1, count=60), stopped=lambda: next(answers))


def test_no_text_makes_no_vector(encoder: Encoder) -> None:
    """The shape is kept all the same."""
    assert encoder.encode_documents([]).shape == (0, encoder.identity.dimension)


@pytest.mark.accept
def test_where_its_vectors_are_others_it_is_refused(encoder: Encoder, own_cache: Path) -> None:
    """By name with an error that says what to set; `auto` takes torch instead."""
    del encoder
    for reference in own_cache.glob("*/reference.npy"):
        vectors = np.load(reference)
        np.save(reference, np.roll(vectors, 1, axis=1))
    with pytest.raises(ConfigError, match=r"gives other vectors on openvino than on torch.*LIVEDEX_EMBEDDER=torch"):
        open_encoder("openvino", SPEC)
    assert open_encoder("auto", SPEC).identity.encoder == "torch"


def test_int8_is_taken_only_where_it_is_asked_for(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what it loses; its vectors are near torch's but not within the tolerance; company changes them by less."""
    if find_spec("nncf") is None:
        pytest.skip("nncf is not installed")
    small = open_encoder("auto", replace(SPEC, precision="int8"))
    assert (small.identity.encoder, small.identity.precision) == ("openvino", "int8")
    assert "encoder.lossy" in capsys.readouterr().out
    texts = paragraphs(seed=9, count=20)
    together, alone = small.encode_documents(texts), np.concatenate([small.encode_documents([text]) for text in texts])
    assert 0.98 < cosines(together, encoder.encode_documents(texts)).mean() < TOLERANCE
    assert agreement(together, alone) > 0.999
    with pytest.raises(
        ConfigError, match='precision int8 is made by openvino, and the embedder is torch: set precision = "auto"'
    ):
        open_encoder("torch", replace(SPEC, precision="int8"))


def test_auto_takes_it(encoder: Encoder) -> None:
    """It is the fastest that is installed."""
    del encoder
    assert open_encoder("auto", SPEC).identity.encoder == "openvino"


@pytest.mark.accept
def test_a_model_that_cannot_be_converted_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing in the cache."""
    broken = tmp_path / "broken"
    shutil.copytree(find_model(DEFAULT_MODEL), broken)
    (broken / "config.json").write_text("{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"cannot be converted for openvino: .*: set LIVEDEX_EMBEDDER=torch") as caught:
        open_encoder("openvino", ModelSpec(model=str(broken)))
    assert "\n" not in str(caught.value)
    assert not list(cache_dir().iterdir())


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable to set."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(ConfigError, match=r"cannot write the cache .*: set XDG_CACHE_HOME to a folder"):
        open_encoder("openvino", SPEC)
