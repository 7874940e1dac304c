"""A cross-encoder that judges twenty candidates, beside `CrossEncoder.predict` of sentence-transformers, and what it adds to a
search of 100,000 chunks.
"""

import statistics
from collections.abc import Iterator

from rich.console import Console

import real_models
from bench.asking import Desk, desk
from bench.child import Child
from bench.figures import Figure, quantile
from bench.scene import Scene
from livedex.encoders.openvino_streams import precisions
from real_models import RERANKER

PART = "rerank"
CANDIDATES = 20
QUESTIONS, ROUNDS = 10, 5  # of each round
SEARCHES = 60
AIM = 1.8  # where the processor has bf16


def measure(scene: Scene) -> Iterator[Figure]:
    """The candidates are those of real searches."""
    folder = str(real_models.folder_of(RERANKER))
    with desk(scene, Console().print, reranker=folder) as asking:
        yield _judging(asking, scene, folder)
        yield from _searching(asking, scene.rounds(SEARCHES, 10))


def _judging(asking: Desk, scene: Scene, folder: str) -> Figure:
    with asking.client() as client:
        found = {question: asking.ask(client, question, "hybrid", k=CANDIDATES) for question in asking.new(QUESTIONS)}
    asked = [[question, [row["chunk"] for row in rows]] for question, rows in found.items()]
    seconds: dict[str, list[float]] = {"livedex": [], "baseline": []}
    ratios = []
    with Child("bench.reranking", "livedex", folder) as ours, Child("bench.reranking", "baseline", folder) as theirs:
        sides = {"livedex": ours, "baseline": theirs}
        precision, _ = (str(child.ask(asked=asked[:2])["precision"]) for child in sides.values())  # warms both up
        for _ in range(scene.rounds(ROUNDS)):
            one = {side: list(map(float, child.ask(asked=asked)["seconds"])) for side, child in sides.items()}
            ratios += [plain / fast for plain, fast in zip(one["baseline"], one["livedex"], strict=True)]
            for side, values in one.items():
                seconds[side] += values
    fast, plain = (statistics.median(values) * 1000 for values in seconds.values())
    return Figure(
        part=PART, name=f"rerank {CANDIDATES} candidates, against CrossEncoder.predict", unit="x",
        aim=AIM if "bf16" in precisions() else None,
        value=statistics.median(ratios),
        detail=f"p50 {fast:.0f} against {plain:.0f} ms; {RERANKER.name}, {RERANKER.weights}; openvino {precision} against "
        f"torch f32; {len(ratios)} questions in turns",
    )  # fmt: skip


def _searching(asking: Desk, number: int) -> Iterator[Figure]:
    asking.over_http(asking.new(3), "hybrid", rerank=True)
    without, reranked = [], []
    for _ in range(3):  # in turns
        without += asking.over_http(asking.new(number // 3), "hybrid")
        reranked += asking.over_http(asking.new(number // 3), "hybrid", rerank=True)
    for name, seconds in (("without reranking", without), ("reranked", reranked)):
        yield Figure(
            part=PART, name=f"HTTP, hybrid, {name}, p50", value=statistics.median(seconds) * 1000, unit="ms", better="less",
            detail=f"p95 {quantile(seconds, 95) * 1000:.0f} ms; {len(seconds)} new questions to {len(asking.vectors)} chunks",
        )  # fmt: skip
