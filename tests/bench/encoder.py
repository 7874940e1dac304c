"""One encoder in a process of its own: `python -m bench.encoder livedex | baseline`."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.child import Message, serve
from bench.figures import timed
from livedex.config import DEFAULT_MODEL
from livedex.encoders import ModelSpec, open_encoder
from livedex.encoders.models import find_model

Encode = Callable[[Sequence[str]], Any]


def begin(side: str) -> Callable[[Message], Message]:
    """Encode what is asked for: {"texts": FILE, "keep": FILE or null}; the answer has the seconds."""
    encode, precision = {"livedex": livedex, "baseline": baseline}[side]()

    def answer(request: Message) -> Message:
        texts = json.loads(Path(request["texts"]).read_text())
        found: list[Any] = []
        seconds = timed(lambda: found.append(encode(texts)))
        if request.get("keep"):
            np.save(request["keep"], found[0])
        return {"seconds": seconds, "texts": len(texts), "precision": precision}

    return answer


def livedex() -> tuple[Encode, str]:
    """The encoder that `auto` opens here."""
    encoder = open_encoder("auto", ModelSpec(model=DEFAULT_MODEL))
    return encoder.encode_documents, f"{encoder.identity.encoder} {encoder.identity.precision}"


def baseline() -> tuple[Encode, str]:
    """Sentence-transformers with the batch size that is its default."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(DEFAULT_MODEL)), local_files_only=True)
    return lambda texts: model.encode(list(texts), batch_size=32), "torch f32"


if __name__ == "__main__":
    serve(lambda: begin(sys.argv[1]))
