"""A text to the chunks of a generation, and these to their vectors, for batches and for what is built behind them."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Target
from livedex.core.chunking import Chunk, chunk
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConfigError, SystemicError, UnavailableError

NOT_THE_TEXT = (UnavailableError, EncodingStopped, SystemicError, ConfigError)  # what an encoder raises whatever the text is


def cut(text: str, *, title: str | None, markdown: bool, target: Target, stopped: Callable[[], bool]) -> tuple[Chunk, ...]:
    """The chunks of a text. Raises what the tokenizer raises, EncodingStopped soon after `stopped()` became true."""
    return chunk(
        text,
        title=title,
        markdown=markdown,
        spec=target.generation.spec,
        count_tokens=partial(target.encoder.count_tokens, stopped=stopped),
        max_tokens=target.generation.identity.max_tokens,
    )


def encode(target: Target, chunks: Mapping[bytes, Chunk], stopped: Callable[[], bool]) -> dict[bytes, NDArray[np.float32]]:
    """The vectors of chunks by digest, each of shape (dimension,). SystemicError when they are of another dimension, ValueError
    when one is not finite or zero, and what the encoder raises.
    """
    texts = [found.embedded_text for found in chunks.values()]
    vectors = target.encoder.encode_documents(texts, stopped=stopped)
    wanted = (len(texts), target.generation.identity.dimension)
    if vectors.shape != wanted:
        raise SystemicError("embedder", f"the encoder gave vectors of shape {vectors.shape}, {wanted} was expected")
    sound = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    if not sound.all():
        raise ValueError(f"the encoder gave {np.count_nonzero(~sound)} of {len(texts)} vectors without a direction")
    return dict(zip(chunks, vectors, strict=True))
