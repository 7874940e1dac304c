"""`livedex dev up | env | down`: the development stack."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from livedex.dev.stack import Stack

app = typer.Typer(help="A Kafka broker and a Postgres server of your own, on loopback.", no_args_is_help=True)

Directory = Annotated[Path, typer.Option("--dir", help="Data, logs and pid files.", file_okay=False)]
Port = Annotated[int | None, typer.Option(min=1, max=65535, show_default="a free one, then the same")]
DEFAULT_DIRECTORY = Path(".livedex")


@app.command()
def up(directory: Directory = DEFAULT_DIRECTORY, kafka_port: Port = None, postgres_port: Port = None) -> None:
    """Start the stack in the background; return when both servers answer."""
    console = Console(stderr=True)
    with console.status("starting kafka and postgres"):
        addresses = Stack(directory).up(kafka_port=kafka_port, postgres_port=postgres_port)
    console.print(f"kafka    {addresses.kafka_bootstrap_servers}", highlight=False)
    console.print(f"postgres {addresses.database_url}", highlight=False, soft_wrap=True)
    remedy = "" if directory == DEFAULT_DIRECTORY else f" --dir '{directory}'"
    console.print(f'in this shell: eval "$(livedex dev env{remedy})"', highlight=False, soft_wrap=True)


@app.command()
def env(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Print the two settings that point livedex at the stack, for `eval`."""
    addresses = Stack(directory).addresses()
    typer.echo(f"export LIVEDEX_KAFKA_BOOTSTRAP_SERVERS='{addresses.kafka_bootstrap_servers}'")
    typer.echo(f"export LIVEDEX_DATABASE_URL='{addresses.database_url}'")


@app.command()
def down(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Stop the stack; data stays."""
    Stack(directory).down()
