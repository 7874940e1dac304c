"""Turns a cross-encoder into one graph for OpenVINO, from the tokens of a question and a passage to how well they fit.

`python -m livedex.encoders.reranker_conversion MODEL_FOLDER TARGET` is a process of its own, as that of bi-encoders is. TARGET
gets the graph, the tokenizer, what else the adapter must know, and the logits that torch gives for a few pairs.
"""

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from livedex.encoders.conversion import FACTS, GRAPH, REFERENCE, TOKENIZER
from livedex.encoders.probe import TEXTS

QUESTION = "How is a password reset?"
LONGEST = 512  # tokens of a pair, where a model does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerFacts:
    """What a cross-encoder says of itself."""

    max_tokens: int  # of a pair, special tokens included
    sigmoid: bool  # whether its scores are between 0 and 1: it is put behind the logits


def pairs() -> list[tuple[str, str]]:
    """Pairs that fit well, badly and not at all."""
    return [(QUESTION, text) for text in TEXTS]


def facts(model: Any) -> RerankerFacts:
    """Of an opened CrossEncoder; ValueError when it gives more than one number for a pair."""
    import torch

    if model.num_labels != 1:
        raise ValueError(f"it gives {model.num_labels} numbers for a pair, one was expected: it is no reranker")
    known = model.max_seq_length
    return RerankerFacts(
        max_tokens=min(known or LONGEST, 8 * LONGEST), sigmoid=isinstance(model.activation_fn, torch.nn.Sigmoid)
    )


def convert(folder: Path, target: Path) -> None:
    """Write everything that the OpenVINO adapter needs into `target`, an existing folder. Seconds, and a GB of memory."""
    import openvino
    import torch
    from sentence_transformers import CrossEncoder

    model: Any = CrossEncoder(str(folder), local_files_only=True, trust_remote_code=False, device="cpu").eval()
    found = facts(model)
    names = [name for name in model.tokenizer.model_input_names if name in ("input_ids", "attention_mask", "token_type_ids")]

    class Whole(torch.nn.Module):
        """Tokens to one number."""

        def __init__(self) -> None:
            super().__init__()
            self.inner: torch.nn.Module = model.transformers_model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
            types = {"token_type_ids": token_type_ids} if "token_type_ids" in names else {}
            logits: torch.Tensor = self.inner(input_ids=input_ids, attention_mask=attention_mask, **types).logits
            return logits[:, 0]

    example = {name: torch.ones(2, 16, dtype=torch.long) for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that are the same for every input
        graph = openvino.convert_model(Whole(), example_input=example)
    openvino.save_model(graph, target / GRAPH, compress_to_fp16=False)
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(target / TOKENIZER))
    (target / FACTS).write_text(json.dumps(asdict(found)))
    logits = model.predict(pairs(), batch_size=1, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.save(target / REFERENCE, np.asarray(logits, np.float32).reshape(-1))


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - whatever a model makes of the libraries; the caller says it in one line
        sys.exit(f"{type(error).__name__}: {error}")
