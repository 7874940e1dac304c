"""The embedding port and its adapters: text to vectors, on each side of the search with its own prompt."""

from livedex.encoders.opening import open_encoder, server_of
from livedex.encoders.port import Encoder, Identity, ModelSpec

__all__ = ["Encoder", "Identity", "ModelSpec", "open_encoder", "server_of"]
