"""`livedex search`: ask the query worker, or search in this process where none answers."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from livedex.cli.asking import asking
from livedex.cli.session import data, people, print_json, readable, settings
from livedex.errors import UsageError

EXCERPT = 160  # characters of a chunk in the table


def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Results.")] = 10,
    collection: Annotated[str, typer.Option(help="Collection.")] = "default",
    filter: Annotated[str, typer.Option(help="Metadata that a document must contain, as JSON.")] = "{}",  # noqa: A002
    mode: Annotated[str, typer.Option(help="hybrid, vector or text.")] = "hybrid",
    rerank: Annotated[bool, typer.Option("--rerank", help="Let the collection's cross-encoder judge the best.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, max=60, help="Seconds.")] = 10.0,
) -> None:
    """Search a collection."""
    import json

    try:
        wanted = json.loads(filter)
    except ValueError:
        raise UsageError(f"--filter {filter!r} is no JSON object") from None
    body = {
        "query": text, "k": k, "collection": collection, "filter": wanted, "mode": mode, "rerank": rerank,
        "timeout_ms": int(timeout * 1000),
    }  # fmt: skip
    with asking(settings()) as ask:
        answer = ask(body)
    if answer["degraded"]:
        people.print("not reranked: there was no time for it, or the reranker is not loaded; a longer --timeout may help")
    if as_json:
        print_json(answer)
    elif answer["results"]:
        data.print(_table(answer["results"]))
    else:
        people.print("nothing found")


def _table(results: list[dict[str, Any]]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("score", "document", "title", "text"):
        made.add_column(heading, overflow="fold" if heading == "text" else "ellipsis")
    for row in results:
        excerpt = " ".join(row["chunk"].split())[:EXCERPT]
        cells = (f"{row['score']:.4f}", row["document_id"], row["title"] or "", excerpt)
        made.add_row(*(Text(readable(cell)) for cell in cells))
    return made
