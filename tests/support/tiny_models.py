"""Models of every kind, small and untrained: what they find means nothing, and their two sides differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIMENSION, MAX_TOKENS = 32, 48
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def symmetric(folder: Path, *, normalised: bool = True, prompts: Mapping[str, str] | None = None) -> Path:
    """One model for both sides; with `prompts` the sides differ by these."""
    return _save(folder, _sentence_model(_bert(folder, 1), normalised=normalised), prompts)


def two_models(folder: Path) -> Path:
    """A Router with another model on each side."""
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Pooling

    query, document = (_bert(folder, seed) for seed in (1, 2))
    router = Router.for_query_document(
        query_modules=[query, Pooling(DIMENSION)], document_modules=[document, Pooling(DIMENSION)]
    )
    return _save(folder, [router, *_ending(normalised=True)])


def static(folder: Path) -> Path:
    """No transformer: a vector for each token, and their mean; it reads texts of any length."""
    import numpy as np
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    weights = np.random.default_rng(3).normal(size=(len(_vocabulary()), DIMENSION)).astype(np.float32)
    module = StaticEmbedding(_tokenizer(), embedding_weights=weights)
    return _save(folder, [module, *_ending(normalised=True)], {"query": "question: ", "document": "answer: "})


def _vocabulary() -> list[str]:
    return [*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]


def _tokenizer() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab={token: number for number, token in enumerate(_vocabulary())}, model_max_length=MAX_TOKENS)


def _bert(folder: Path, seed: int) -> Any:
    """A transformer of random weights, as sentence-transformers has it."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(_vocabulary()), hidden_size=DIMENSION, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=MAX_TOKENS, initializer_range=0.5,
    )  # fmt: skip
    place = folder.with_name(f"{folder.name}-{seed}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(place)
    _tokenizer().save_pretrained(place)
    return Transformer(str(place), max_seq_length=MAX_TOKENS)


def _sentence_model(transformer: Any, *, normalised: bool) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [transformer, Pooling(DIMENSION), *_ending(normalised=normalised)]


def _ending(*, normalised: bool) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Normalize

    return [Normalize()] if normalised else []


def _save(folder: Path, modules: list[Any], prompts: Mapping[str, str] | None = None) -> Path:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=modules, prompts=dict(prompts or {}), device="cpu").save_pretrained(str(folder))
    return folder
