"""`livedex source`: the topics that collections follow."""

from typing import Annotated

import typer
from psycopg.rows import dict_row

from livedex import reset as resetting
from livedex.cli.session import data, database, patiently, people, print_json, settings, table
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


@app.command()
def reset(
    topic: Annotated[str, typer.Argument(help="As source list shows it.")],
    versions_restarted: Annotated[
        bool, typer.Option("--versions-restarted", help="The producer's versions began anew; for versions from the source.")
    ] = False,
) -> None:
    """Read a topic from its beginning again: after it was made anew, or when its log lost events.

    What is indexed stays searchable meanwhile. What the log no longer has is removed once all of it was read; where versions
    come from the source only with --versions-restarted: without it nothing tells what was read again from what was not.
    """
    chosen = settings()
    with database(chosen) as connection:
        epoch = patiently(lambda: resetting.reset(chosen.kafka, connection, topic, versions_restarted=versions_restarted))
    people.print(f"{topic} is read from its beginning, as epoch {epoch}; livedex source list says when it is live")
