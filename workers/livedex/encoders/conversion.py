"""Turns a sentence-transformers model into one graph for OpenVINO, from token ids to the vector.

`python -m livedex.encoders.conversion MODEL_FOLDER TARGET` is a process of its own, so that the worker never loads torch, whose
threads and memory would stand beside OpenVINO's. TARGET gets the graph, the tokenizer, what else the adapter must know, and the
vectors that torch gives for the probe's texts.
"""

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from livedex.encoders.probe import TEXTS

GRAPH, TOKENIZER, FACTS, REFERENCE = "model.xml", "tokenizer.json", "facts.json", "reference.npy"
NO_LIMIT, UNBOUNDED = 10**9, 8192  # tokens from which on a model reads all, and how many are said to be read then
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the names that models give it


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a model says of itself."""

    dimension: int
    max_tokens: int
    query_prompt: str
    document_prompt: str
    has_types: bool  # the transformer takes token types, which are all zero here


def facts(model: Any) -> Facts:
    """Of an opened SentenceTransformer; ValueError when it does not say its dimension or how many tokens it reads."""
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    reader = _reader(model)
    dimension, max_tokens = model.get_embedding_dimension(), getattr(reader, "max_seq_length", None)
    if dimension is None or max_tokens is None:
        raise ValueError("the model does not say its dimension or how many tokens it reads: it is no text encoder")
    return Facts(
        dimension=dimension,
        max_tokens=int(max_tokens) if max_tokens < NO_LIMIT else UNBOUNDED,
        query_prompt=prompts.get("query", ""),
        document_prompt=next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), ""),
        has_types="token_type_ids" in getattr(reader.tokenizer, "model_input_names", ()),
    )


def tokenizer_of(model: Any) -> Any:
    """The `tokenizers.Tokenizer` of an opened SentenceTransformer's documents; it neither cuts nor fills up."""
    from tokenizers import Tokenizer

    found = _reader(model).tokenizer
    own = Tokenizer.from_str(getattr(found, "backend_tokenizer", found).to_str())
    own.no_truncation()
    own.no_padding()
    return own


def _reader(model: Any) -> Any:
    """The module that reads documents. A Router has one for each side, and may read questions with another model."""
    routes = getattr(model[0], "sub_modules", None)
    if routes is None:
        return model[0]
    if "document" not in routes:
        raise ValueError(f"the model has a way for each of {', '.join(routes)}, and none for documents")
    return routes["document"][0]


def convert(folder: Path, target: Path) -> None:
    """Write everything that the OpenVINO adapter needs into `target`, an existing folder. Seconds, and a GB of memory."""
    import openvino
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    model: Any = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False, device="cpu").eval()
    if not isinstance(model[0], Transformer):
        raise TypeError(f"its first module is a {type(model[0]).__name__}, a transformer was expected")
    found = facts(model)

    class Whole(torch.nn.Module):
        """Token ids and attention mask to the vector: the transformer with all that follows it."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer: torch.nn.Module = model[0].auto_model
            self.rest: torch.nn.Module = torch.nn.Sequential(*list(model)[1:])

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            types = {"token_type_ids": torch.zeros_like(input_ids)} if found.has_types else {}
            hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types)[0]
            features = {"token_embeddings": hidden, "attention_mask": attention_mask}
            vector: torch.Tensor = self.rest(features)["sentence_embedding"]
            return vector

    example = {name: torch.ones(2, 16, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that are the same for every input
        graph = openvino.convert_model(Whole(), example_input=example)
    openvino.save_model(graph, target / GRAPH, compress_to_fp16=False)
    tokenizer_of(model).save(str(target / TOKENIZER))
    (target / FACTS).write_text(json.dumps(asdict(found)))
    # with the prompt: some models leave its tokens out of the mean, which the graph cannot
    prompt = found.document_prompt
    reference = model.encode(list(TEXTS), prompt=prompt, batch_size=1, normalize_embeddings=True, show_progress_bar=False)
    np.save(target / REFERENCE, np.asarray(reference, np.float32))


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - whatever a model makes of the libraries; the caller says it in one line
        sys.exit(f"{type(error).__name__}: {error}")
