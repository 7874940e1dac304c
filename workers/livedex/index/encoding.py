"""A text to the chunks of a generation, and these to their vectors, for batches and for what is built behind them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from livedex.catalogue import Target
from livedex.core.chunking import Chunk, chunk
from livedex.encoders.port import EncodingStopped
from livedex.errors import ConfigError, SystemicError, UnavailableError
from livedex.index.recent import Recent

NOT_THE_TEXT = (UnavailableError, EncodingStopped, SystemicError, ConfigError)  # what an encoder raises whatever the text is


def cut(
    text: str, *, title: str | None, markdown: bool, target: Target, stopped: Callable[[], bool],
    counts: Recent[int] | None = None,
) -> tuple[Chunk, ...]:  # fmt: skip
    """The chunks of a text; what `counts` knows is not counted again. Raises what the tokenizer raises, EncodingStopped soon
    after `stopped()` became true.
    """
    return chunk(
        text,
        title=title,
        markdown=markdown,
        spec=target.generation.spec,
        count_tokens=partial(_count_tokens, target, stopped, Recent(0) if counts is None else counts),
        max_tokens=target.generation.identity.max_tokens,
    )


def _count_tokens(target: Target, stopped: Callable[[], bool], counts: Recent[int], texts: Sequence[str]) -> list[int]:
    """Of an edited document most was counted lately, and counting takes as long as all else of its cut, or a request to an
    embedding server.
    """
    number = target.generation.generation_id
    digests = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    known = counts.get(number, digests)
    new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
    made = dict(zip(new, target.encoder.count_tokens(list(new.values()), stopped=stopped), strict=True)) if new else {}
    counts.put(number, made)
    return [known[digest] if digest in known else made[digest] for digest in digests]


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
