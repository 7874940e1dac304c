"""Whether an encoder gives the vectors of the one that made a generation is tried, not believed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from livedex.catalogue import Generation
from livedex.core.change import VersionMode
from livedex.core.chunking import ChunkingSpec
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.encoders.probe import TOLERANCE, agreement, probe, to_bytes, to_vectors
from livedex.errors import ConfigError

ENCODER = HashEncoder(ModelSpec(model="hash-64"))


class Remote(HashEncoder):
    """As if it were behind an address."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.identity = replace(self.identity, encoder="http")


def turned(vectors: Vectors, cosine: float) -> Vectors:
    """Unit vectors at this cosine to these unit vectors."""
    aside = np.roll(vectors, 1, axis=1)
    aside -= (aside * vectors).sum(axis=1, keepdims=True) * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosine * vectors + np.sqrt(1 - cosine**2) * aside, np.float32)


def generation(kept: Vectors | None) -> Generation:
    """One whose encoder gave these vectors for the probe's texts."""
    return Generation(
        generation_id=1, collection_id=1, collection="docs", version_mode=VersionMode.LOG, chunking_id=1, spec=ChunkingSpec(),
        text_config="simple", metric="cosine", storage="halfvec", identity=replace(ENCODER.identity, encoder="openvino"),
        probe=None if kept is None else to_bytes(kept),
    )  # fmt: skip


def test_a_probe_is_kept_bit_by_bit() -> None:
    """What comes back is what was made."""
    made = probe(ENCODER)
    assert np.array_equal(to_vectors(to_bytes(made), 64), made)


@pytest.mark.parametrize("cosine", [0.5, 0.999, 0.9999, 0.99999])
def test_agreement_is_the_smallest_cosine(cosine: float) -> None:
    """One text that is off counts, however well the others agree."""
    made = probe(ENCODER)
    other = made.copy()
    other[3] = turned(made, cosine)[3]
    assert agreement(other, made) == pytest.approx(cosine, abs=1e-6)


def test_vectors_of_another_length_do_not_agree() -> None:
    """Where vectors are not normalised, their length ranks documents too."""
    made = probe(ENCODER)
    assert agreement(made * np.float32(1.1), made) < TOLERANCE
    assert agreement(made[:, :-1], made) == 0.0


def test_a_server_must_show_that_its_vectors_are_the_same() -> None:
    """Its model's files are not seen, so a generation that kept no probe takes none."""
    remote: Any = Remote(ModelSpec(model="hash-64"))
    with pytest.raises(ConfigError, match=r"kept no vectors .*: set LIVEDEX_EMBEDDER=openvino"):
        generation(None).check_probe(remote)
    generation(probe(ENCODER)).check_probe(remote)


def test_another_adapter_is_welcome_while_its_vectors_are_the_same() -> None:
    """Just inside the tolerance it may write to the generation, just outside it may not; without a probe all may."""
    made = probe(ENCODER)
    generation(turned(made, 1 - (1 - TOLERANCE) * 0.9)).check_probe(ENCODER)
    generation(None).check_probe(ENCODER)
    with pytest.raises(
        ConfigError, match=r"was written by openvino \(f32\), and hash \(f32\) gives other vectors: cosine 0\.999"
    ):
        generation(turned(made, 1 - (1 - TOLERANCE) * 1.5)).check_probe(ENCODER)
