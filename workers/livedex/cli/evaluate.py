"""`livedex evaluate`: how good the searches of a collection are, on queries whose answers people judged."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from livedex.cli.asking import Ask, asking
from livedex.cli.session import data, people, print_json, progress, settings, table
from livedex.core.quality import DEPTH, Grades, Quality, quality, relevant
from livedex.errors import UnavailableError, UsageError
from livedex.judgments import read_judgments, read_queries

MODES = ("vector", "text", "hybrid")
TIMEOUT_MS = 60_000  # how good they are is asked here, not how fast


def evaluate(
    queries: Annotated[Path, typer.Option(help="BEIR's JSON Lines, TREC topics, or lines of id, tab, text.")],
    qrels: Annotated[Path, typer.Option(help="Judgments of BEIR or TREC.")],
    mode: Annotated[str | None, typer.Option(help="hybrid, vector or text; default: each of them.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="The same again, reranked by the cross-encoder.")] = False,
    collection: Annotated[str, typer.Option(help="Collection.")] = "default",
    generation: Annotated[int | None, typer.Option(help="A generation beside the active one, in its place.")] = None,
    k: Annotated[int, typer.Option("-k", min=DEPTH, max=1000, help="Results of each search: the depth of recall.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Measure nDCG@10, recall@k and MRR@10 through the real search."""
    judged = read_judged(queries, qrels)
    ways = [(name, reranked) for name in ([mode] if mode else MODES) for reranked in ((False, True) if rerank else (False,))]
    with asking(settings(), generation=generation) as ask, progress("searching", len(judged) * len(ways)) as step:
        rows = [
            {"mode": name, "rerank": reranked, **asdict(measured(ask, judged, body, step))}
            for name, reranked in ways
            for body in [{"mode": name, "rerank": reranked, "collection": collection, "k": k, "timeout_ms": TIMEOUT_MS}]
        ]
    if as_json:
        print_json([{**row, "recall_at": k} for row in rows])
        return
    for row in rows:
        row["rerank"] = "yes" if row["rerank"] else "no"
    headings = {"mode": "mode", "rerank": "rerank", "ndcg": f"nDCG@{DEPTH}", "recall": f"recall@{k}", "mrr": f"MRR@{DEPTH}"}
    data.print(table(f"collection {collection}, {len(judged)} queries", rows, headings))


Judged = Mapping[str, tuple[str, Grades]]  # by id of the query: its text and what people said of documents


def read_judged(queries: Path, qrels: Path) -> Judged:
    """The queries that have an answer; the others say nothing, and how many they are is said."""
    texts, grades = read_queries(queries), read_judgments(qrels)
    answered = {name: (text, grades[name]) for name, text in texts.items() if relevant(grades.get(name, {}))}
    if not answered:
        raise UsageError(f"{qrels} has a relevant document for none of the {len(texts)} queries: do the ids agree?")
    if len(answered) < len(texts):
        people.print(f"{len(texts) - len(answered)} of {len(texts)} queries have no relevant document, and are left out")
    return answered


def measured(ask: Ask, judged: Judged, body: dict[str, Any], step: Callable[[], None] = lambda: None) -> Quality:
    """The quality of searches as `body` says. UnavailableError when one was not reranked that was to be."""
    rankings = {}
    for name, (text, _) in judged.items():
        answer = ask({**body, "query": text})
        if answer["degraded"]:
            raise UnavailableError(
                "reranker",
                f"the search for query {name!r} was not reranked, so that its order is not the reranker's: the log of livedex "
                "serve says why it does not load the reranker; ask again once it has",
            )
        rankings[name] = [row["document_id"] for row in answer["results"]]
        step()
    return quality(rankings, {name: grades for name, (_, grades) in judged.items()}, depth=body["k"])
