"""Encoders that fail where a test wants it."""

from collections.abc import Callable, Sequence

from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors

MARK = "the encoder cannot read this"


class FailingEncoder(HashEncoder):
    """The hash encoder, but a batch with a marked text raises, as a model does that chokes on one input."""

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        if any(MARK in text for text in texts):
            raise RuntimeError("the input has a token that the model does not know")
        return super().encode_documents(texts, stopped=stopped)


def open_failing(embedder: EmbedderName, generation: Generation) -> FailingEncoder:
    """For IndexApp."""
    del embedder
    return FailingEncoder(generation.model_spec)
