"""Folders as sentence-transformers reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]

#: What every model here has in common: a BERT of 384 dimensions in 12 layers.
BERT = {
    "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30522,
    "pad_token_id": 0, "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}  # fmt: skip


def write_transformer(folder: Path, config: Mapping[str, Any], weights: Weights) -> None:
    """config.json and the weights."""
    from safetensors.numpy import save_file

    write_json(folder / "config.json", {**BERT, **config})
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})


def write_bi_encoder(folder: Path, *, pooling: Literal["cls", "mean"], prompts: Mapping[str, str], max_tokens: int) -> None:
    """What makes a bi-encoder with vectors of length 1 of a transformer that is in the folder."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": BERT["hidden_size"], **modes})
    (folder / "2_Normalize").mkdir()
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def write_json(path: Path, content: object) -> None:
    """One file, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
