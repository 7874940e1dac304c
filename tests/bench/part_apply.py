"""The one transaction that makes a batch searchable: how long it holds its locks."""

import random
from collections.abc import Iterator, Sequence

from bench.direct import Direct, Document, opened
from bench.figures import Figure, quantile
from bench.scene import Scene

PART = "apply"
DOCUMENTS = 100
ROUNDS = 100


def measure(scene: Scene) -> Iterator[Figure]:
    """Batches of edited and of new documents, in turns. No vector index: the transaction touches none."""
    choose = random.Random(23)
    with scene.database() as workers, opened(workers.database_url, 23) as direct:
        direct.drop_index()
        documents = [Document(f"edited/{number}", choose) for number in range(DOCUMENTS)]
        direct.write([document.event() for document in documents])
        rounds = scene.rounds(ROUNDS, 5)
        edited, new = [], []
        for number in range(rounds):
            edited.append(direct.write([document.edit() for document in documents]).apply)
            new.append(_new(direct, choose, number))
        chunks = workers.rows("select count(*) from livedex.chunk")[0][0]
    detail = f"{rounds} batches; {chunks} chunks in the end"
    yield _figure(f"fenced transaction, {DOCUMENTS} edited documents, p99", edited, 50, detail)
    yield _figure(f"fenced transaction, {DOCUMENTS} new documents of 12 chunks, p99", new, 120, detail)


def _new(direct: Direct, choose: random.Random, number: int) -> float:
    return direct.write([Document(f"new/{number}/{each}", choose).event() for each in range(DOCUMENTS)]).apply


def _figure(name: str, seconds: Sequence[float], aim: float, detail: str) -> Figure:
    return Figure(
        part=PART, name=name, value=quantile(seconds, 99) * 1000, unit="ms", aim=aim, better="less",
        detail=f"p50 {quantile(seconds, 50) * 1000:.1f}, most {max(seconds) * 1000:.1f} ms; {detail}",
    )  # fmt: skip
