"""The torch adapter: sentence-transformers, fed with batches of texts of like length."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from livedex.encoders.batching import batches, count_tokens
from livedex.encoders.conversion import facts, tokenizer_of
from livedex.encoders.models import digest_of, find_model
from livedex.encoders.port import EncodingStopped, Identity, ModelSpec, Vectors, dimension_of, shaped
from livedex.errors import ConfigError

TOKENS_PER_BATCH = 2048  # measured best between 512 and 16,384 on a processor: small batches stay in its cache;
GPU_TOKENS_PER_BATCH = 16_384  # and on an H200 between 2,048 and 131,072, for as many chunks as a slice has


class TorchEncoder:
    """A sentence-transformers model on the fastest device that torch finds."""

    def __init__(self, spec: ModelSpec) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call] # it would write between our log lines
        folder = find_model(spec.model)
        try:
            self._model = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a broken folder makes of the library
            message = f"the model in {folder} does not load: {type(error).__name__}: {error}"
            raise ConfigError(message) from error
        self._normalise = spec.normalise
        self._lock = threading.Lock()
        try:
            found = facts(self._model)
            self._tokenizer = tokenizer_of(self._model)
        except (ValueError, AttributeError, TypeError) as error:  # it has no tokenizer, or a slow one
            raise ConfigError(f"the model in {folder} cannot be used: {error}") from error
        self._whole = found.dimension
        self._batch = TOKENS_PER_BATCH if self._model.device.type == "cpu" else GPU_TOKENS_PER_BATCH
        self.identity = Identity(
            encoder="torch",
            precision="f32",
            model=spec.model,
            revision=digest_of(folder),
            dimension=dimension_of(found.dimension, spec.dimension),
            max_tokens=found.max_tokens,
            query_prompt=found.query_prompt if spec.query_prompt is None else spec.query_prompt,
            document_prompt=found.document_prompt if spec.document_prompt is None else spec.document_prompt,
        )

    def count_tokens(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> list[int]:  # noqa: ARG002
        """See Encoder."""
        return count_tokens(self._tokenizer, [self.identity.document_prompt + text for text in texts])

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        return self._encode(self._model.encode_document, self.identity.document_prompt, texts, stopped)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        return self._encode(self._model.encode_query, self.identity.query_prompt, texts, lambda: False)

    def _encode(self, encode: Callable[..., Any], prompt: str, texts: Sequence[str], stopped: Callable[[], bool]) -> Vectors:
        vectors = np.empty((len(texts), self._whole), np.float32)
        for batch in batches(self.count_tokens(texts), self._batch):
            if stopped():
                raise EncodingStopped
            with self._lock:
                vectors[batch] = encode(
                    [texts[index] for index in batch],
                    prompt=prompt,  # "" too: it switches the model's own prompt off
                    batch_size=len(batch),
                    normalize_embeddings=False,
                    show_progress_bar=False,
                )
        return shaped(vectors, self.identity.dimension, normalise=self._normalise)
