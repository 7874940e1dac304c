"""The commands of `livedex`, gathered."""

from pathlib import Path
from typing import Annotated

import typer

from livedex import __version__
from livedex.cli import (
    canary,
    dead_letters,
    dev,
    doctor,
    evaluate,
    generation,
    grants,
    operate,
    publish,
    search,
    source,
    status,
    wait,
)
from livedex.cli.session import settings_file

app = typer.Typer(
    name="livedex",
    help="A semantic index in Postgres that is exactly the fold of a Kafka log of document changes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001, RUF100 - typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def livedex(
    config: Annotated[Path | None, typer.Option(help="Settings file (default: LIVEDEX_CONFIG).")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Keep a semantic index equal to a log of document changes, and search it."""
    del version
    settings_file.set(config)


app.add_typer(dev.app, name="dev")
app.command()(operate.migrate)
app.command()(operate.apply)
app.command()(operate.index)
app.command()(operate.serve)
app.command()(publish.publish)
app.command()(publish.delete)
app.command()(search.search)
app.command()(status.status)
app.command()(wait.wait)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(source.app, name="source")
app.add_typer(generation.app, name="generation")
app.command()(grants.grant)
app.command()(grants.revoke)
app.command()(doctor.doctor)
app.command()(canary.canary)
app.command()(evaluate.evaluate)
