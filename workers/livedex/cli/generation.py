"""`livedex generation`: changes of a collection's model, without downtime."""

from typing import Annotated, Any

import typer

from livedex import generations
from livedex import status as overview
from livedex.cli.session import data, database, people, print_json, settings, table

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
def switch(collection: Collection, generation: Number) -> None:
    """Search this generation from now on, once it is complete. The one before is kept, and written on."""
    with database(settings()) as connection:
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


def _shown(row: dict[str, Any]) -> dict[str, str | None]:
    """The cells for people."""
    index = None if row["index_ready"] is None else "ready" if row["index_ready"] else "building"
    return {"says": None if row["state"] == "active" else overview.describe(row), "index": index}
