"""How fast texts become vectors, beside sentence-transformers at its default batch size; each side in a process of its own."""

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.child import Child
from bench.figures import Figure
from bench.scene import Scene
from livedex.config import DEFAULT_MODEL
from livedex.encoders.models import find_model

PART = "encode"
ROUNDS = 7
TOKENS = 128
COUNT = {"128-token chunks": 128, "mixed lengths": 256}
AIMS = {"bf16": {"128-token chunks": 2.5, "mixed lengths": 3.2}, "f32": {"128-token chunks": 1.3, "mixed lengths": 1.6}}


def measure(scene: Scene) -> Iterator[Figure]:
    """Both sets, in rounds that take turns."""
    sets = _sets(list(scene.events.documents.values()))
    folder = scene.folder / "encode"
    folder.mkdir()
    for name, texts in sets.items():
        (folder / f"{name}.json").write_text(json.dumps(texts))
    with Child("bench.encoder", "livedex") as ours, Child("bench.encoder", "baseline") as theirs:
        sides = {"livedex": ours, "baseline": theirs}
        for name in sets:
            precisions = {side: _ask(child, folder, name, keep=side)[1] for side, child in sides.items()}
            rounds = [
                {side: _ask(child, folder, name)[0] for side, child in sides.items()} for _ in range(scene.rounds(ROUNDS))
            ]
            yield from _figures(name, sets[name], rounds, precisions)
            yield Figure(
                part=PART, name=f"cosine to torch, {name}", value=_cosine(folder, name), aim=0.9999,
                detail=f"the smallest of {len(sets[name])}",
            )  # fmt: skip


def _figures(
    name: str, texts: Sequence[str], rounds: Sequence[dict[str, float]], precisions: dict[str, str]
) -> Iterator[Figure]:
    speed = {side: len(texts) / statistics.median(found[side] for found in rounds) for side in rounds[0]}
    ratio = statistics.median(found["baseline"] / found["livedex"] for found in rounds)
    aims = AIMS["bf16" if "bf16" in precisions["livedex"] else "f32"]
    yield Figure(
        part=PART, name=f"encode, {name}, against sentence-transformers", value=ratio, unit="x", aim=aims[name],
        detail=f"{speed['livedex']:.0f} against {speed['baseline']:.0f} chunks/s; {precisions['livedex']} against "
        f"{precisions['baseline']}; median of {len(rounds)} rounds",
    )  # fmt: skip


def _ask(child: Child, folder: Path, name: str, *, keep: str | None = None) -> tuple[float, str]:
    """(seconds, precision)."""
    file = str(folder / f"{name}.{keep}.npy") if keep else None
    answer = child.ask(texts=str(folder / f"{name}.json"), keep=file)
    return float(answer["seconds"]), str(answer["precision"])


def _cosine(folder: Path, name: str) -> float:
    ours, theirs = (np.load(folder / f"{name}.{side}.npy") for side in ("livedex", "baseline"))
    return float((ours * theirs).sum(axis=1).min())


def _sets(documents: Sequence[str]) -> dict[str, list[str]]:
    """Stretches of 128 tokens, and paragraphs as they come; from everywhere in the documents."""
    choose = random.Random(5)
    stretches = [text for document in documents for text in _stretches(document)]
    paragraphs = [part for document in documents for part in document.split("\n\n") if part.strip()]
    sets = dict(zip(COUNT, (stretches, paragraphs), strict=True))
    return {name: choose.sample(texts, min(COUNT[name], len(texts))) for name, texts in sets.items()}


def _stretches(document: str) -> Iterator[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(find_model(DEFAULT_MODEL) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    offsets = tokenizer.encode(document, add_special_tokens=False).offsets
    inner = TOKENS - 2  # two more frame each text
    for start in range(0, len(offsets) - inner + 1, inner):
        yield document[offsets[start][0] : offsets[start + inner - 1][1]]
