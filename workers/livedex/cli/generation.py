"""`livedex generation`: changes of a collection's model, without downtime."""

from pathlib import Path
from typing import Annotated, Any

import typer

from livedex import generations
from livedex import status as overview
from livedex.cli.asking import asking
from livedex.cli.evaluate import TIMEOUT_MS, Judged, measured, read_judged
from livedex.cli.session import data, database, people, print_json, settings, table
from livedex.config import Settings
from livedex.core.quality import DEPTH
from livedex.errors import ConfigError, UsageError

app = typer.Typer(
    help="Generations: the models of a collection, the one that is searched and those beside it.", no_args_is_help=True
)

Collection = Annotated[str, typer.Argument(help="Collection.")]
Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the generation.")]


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Plain JSON.")] = False) -> None:
    """Every generation: its model, what state it is in, and how far it is built."""
    with database(settings()) as connection:
        found = generations.read(connection)
    if as_json:
        print_json(found)
        return
    columns = {"collection": "collection", "generation": "id", "state": "state", "model": "model", "dimension": "dimensions",
               "metric": "metric", "storage": "storage", "index": "index", "says": "progress"}  # fmt: skip
    data.print(table("generations", [{**row, **_shown(row)} for row in found], columns))


@app.command()
def switch(
    collection: Collection, generation: Number,
    queries: Annotated[Path | None, typer.Option(help="Golden queries, as for evaluate: it must not be worse.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgments.")] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="How much lower nDCG@10 may be.")] = 0.02,
) -> None:  # fmt: skip
    """Search this generation from now on, once it is complete. The one before is kept, and written on."""
    if (queries is None) is not (qrels is None):
        raise UsageError("--queries and --qrels belong together: give both, or none")
    chosen = settings()
    with database(chosen) as connection:
        if queries is not None and qrels is not None:
            generations.check_ready(connection, collection, generation)
            _check_golden(chosen, collection, generation, read_judged(queries, qrels), tolerance)
        generations.switch(connection, collection, generation)
    people.print(f"collection {collection} is searched in generation {generation}")


@app.command()
def rollback(collection: Collection) -> None:
    """Search the generation again that was active before the last switch."""
    with database(settings()) as connection:
        number = generations.rollback(connection, collection)
    people.print(f"collection {collection} is searched in generation {number}")


@app.command()
def drop(generation: Number) -> None:
    """Delete a generation that is not searched. It is built no further, or cannot come back by a rollback any more."""
    with database(settings()) as connection:
        generations.drop(connection, generation)
    people.print(f"generation {generation} is gone")


def _check_golden(chosen: Settings, collection: str, generation: int, judged: Judged, tolerance: float) -> None:
    """ConfigError when the generation answers the golden queries worse than the active one."""
    body = {"collection": collection, "k": DEPTH, "timeout_ms": TIMEOUT_MS}
    with asking(chosen) as ask:
        before = measured(ask, judged, body).ndcg
    with asking(chosen, generation=generation) as ask:
        after = measured(ask, judged, body).ndcg
    people.print(f"nDCG@{DEPTH} of {len(judged)} golden queries: {after:.3f}, in the active generation {before:.3f}")
    if after < before - tolerance:
        raise ConfigError(
            f"generation {generation} answers the golden queries worse, nDCG@{DEPTH} {after:.3f} against {before:.3f}: nothing "
            "was switched; raise --tolerance to switch all the same"
        )


def _shown(row: dict[str, Any]) -> dict[str, str | None]:
    """The cells for people."""
    index = None if row["index_ready"] is None else "ready" if row["index_ready"] else "building"
    return {"says": None if row["state"] == "active" else overview.describe(row), "index": index}
