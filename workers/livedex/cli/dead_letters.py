"""`livedex dead-letters`: records that could not be indexed."""

import base64
from typing import Annotated, Any, Literal

import typer
from psycopg.rows import dict_row

from livedex.cli.session import data, database, people, print_json, readable, settings, table
from livedex.database import query
from livedex.errors import ConfigError

SHOWN_CHARACTERS = 2000  # of a value, for people; --json has all of it

app = typer.Typer(help="Records that could not be indexed.", no_args_is_help=True)


@app.command("list")
def list_letters(
    state: Annotated[Literal["open", "replayed", "discarded", "all"], typer.Option(help="Only those in this state.")] = "open",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON.")] = False,
) -> None:
    """List dead letters, the newest first."""
    with database(settings()) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("query", "list_dead_letters"), {"state": state, "limit": limit}).fetchall()
    if as_json:
        print_json(rows)
    elif rows:
        columns = {"id": "id", "place": "place", "document_id": "document", "reason": "reason", "attempts": "attempts",
                   "state": "state", "failed_at": "failed", "detail": "detail"}  # fmt: skip
        data.print(table("dead letters", rows, columns))
    else:
        people.print(f"no dead letters in state {state}" if state != "all" else "no dead letters")


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", help="As dead-letters list shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON, bytes as base64.")] = False,
) -> None:
    """Show one dead letter with its record."""
    with database(settings()) as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query("query", "show_dead_letter"), {"id": number}).fetchone()
    if row is None:
        raise ConfigError(f"there is no dead letter {number}: livedex dead-letters list --state all names them")
    if as_json:
        print_json({name: _base64(value) for name, value in row.items()})
        return
    for name, value in row.items():
        data.print(f"[bold]{name}[/bold]", end=" ")
        data.print(_readable(value), markup=False, highlight=False)


def _base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_base64(part) for part in value] if isinstance(value, list) else value


def _readable(value: Any) -> str:
    if isinstance(value, bytes):
        text = value[: SHOWN_CHARACTERS * 4].decode(errors="backslashreplace")
        shown = readable(text[:SHOWN_CHARACTERS])
        return shown if len(text) <= SHOWN_CHARACTERS else f"{shown}... ({len(value)} bytes)"
    return ", ".join(map(_readable, value)) if isinstance(value, list) else readable(str(value))
