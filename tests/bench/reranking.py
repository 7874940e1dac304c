"""One cross-encoder in a process of its own: `python -m bench.reranking livedex | baseline FOLDER`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from bench.child import Message, serve
from bench.figures import timed

Judge = Callable[[str, Sequence[str]], Any]


def begin(side: str, folder: str) -> Callable[[Message], Message]:
    """Answer {"asked": [[question, passages], ...]} by the seconds of each."""
    judge, precision = {"livedex": livedex, "baseline": baseline}[side](folder)

    def answer(request: Message) -> Message:
        return {"seconds": [timed(lambda: judge(*each)) for each in request["asked"]], "precision": precision}  # noqa: B023

    return answer


def livedex(folder: str) -> tuple[Judge, str]:
    """The reranker that a query worker takes by itself."""
    from livedex.encoders.reranker import open_reranker

    reranker: Any = open_reranker("auto", folder)
    judge: Judge = lambda question, passages: reranker.scores(question, passages, deadline=float("inf"))  # noqa: E731
    return judge, getattr(reranker, "precision", "f32")


def baseline(folder: str) -> tuple[Judge, str]:
    """sentence-transformers at its defaults."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(folder, local_files_only=True)
    return lambda question, passages: model.predict([(question, passage) for passage in passages]), "f32"


if __name__ == "__main__":
    serve(lambda: begin(*sys.argv[1:3]))
