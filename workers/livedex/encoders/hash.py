"""The encoder for tests: a text's vector is a function of its hash, so equality can be exact and nothing is loaded.

A model named `hash-N` has N dimensions; any other name stands for 384. A token is four characters.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from livedex.encoders.port import Identity, ModelSpec, Vectors, dimension_of, shaped

DIMENSION = 384
MAX_TOKENS = 256
CHARACTERS_PER_TOKEN = 4


class HashEncoder:
    """Deterministic vectors, with the prompts in force as in a real model."""

    def __init__(self, spec: ModelSpec) -> None:
        named = re.fullmatch(r"hash-(\d+)", spec.model)
        self._whole = int(named[1]) if named else DIMENSION
        self.identity = Identity(
            encoder="hash",
            precision="f32",
            model=f"hash-{self._whole}",
            revision="1",
            dimension=dimension_of(self._whole, spec.dimension),
            max_tokens=MAX_TOKENS,
            query_prompt=spec.query_prompt or "",
            document_prompt=spec.document_prompt or "",
        )

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:  # noqa: ARG002
        """Four characters are a token, and two more frame the text."""
        prompt = len(self.identity.document_prompt)
        return [-(-(len(text) + prompt) // CHARACTERS_PER_TOKEN) + 2 for text in texts]

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        del stopped  # it takes no time worth interrupting
        return self._encode(self.identity.document_prompt, texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        return self._encode(self.identity.query_prompt, texts)

    def _encode(self, prompt: str, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self._whole), np.float32)
        for row, text in enumerate(texts):
            digest = hashlib.shake_128((prompt + text).encode()).digest(self._whole)
            vectors[row] = np.frombuffer(digest, np.int8) + 0.5  # never all zero
        return shaped(vectors, self.identity.dimension, normalise=True)
