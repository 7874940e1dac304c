"""`livedex source`: the topics that collections follow."""

from typing import Annotated

import typer
from psycopg.rows import dict_row

from livedex.cli.session import data, database, print_json, settings, table
from livedex.database import query

app = typer.Typer(help="The topics that collections follow.", no_args_is_help=True)


@app.callback()
def source() -> None:
    """The topics that collections follow."""


@app.command("list")
def list_sources(as_json: Annotated[bool, typer.Option("--json", help="Plain JSON.")] = False) -> None:
    """Every source with its collection and state."""
    with database(settings()) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("query", "list_sources")).fetchall()
    if as_json:
        print_json(rows)
    else:
        columns = {"topic": "topic", "collection": "collection", "state": "state", "epoch": "epoch", "partitions": "partitions",
                   "reason": "reason"}  # fmt: skip
        data.print(table("sources", rows, columns))
