"""`livedex migrate | apply | index | serve`: set a database up, and run the two workers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from livedex import lifecycle, memory, observe, secret_files
from livedex import migrate as migrations
from livedex.cli.session import database, patiently, people, settings, warn
from livedex.config import Settings
from livedex.errors import ConfigError

if TYPE_CHECKING:
    from livedex.index.app import IndexApp
    from livedex.query.app import QueryApp


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing; exit 1 if something is.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
) -> None:
    """Bring the database to this version."""
    files = migrations.load()
    if sql:
        typer.echo(migrations.script(files))
        return
    with database(settings(), migrated=False) as connection:
        if check:
            missing = [migration.version for migration in migrations.pending(connection, files)]
            if missing:
                raise ConfigError(f"the database lacks the migrations {', '.join(missing)}: run livedex migrate")
            for warning in migrations.check(connection):
                warn(warning)
            people.print("the database is up to date")
            return
        applied = migrations.migrate(connection, files, warn=warn)
    people.print(f"applied {', '.join(applied)}" if applied else "the database is up to date")


def apply(
    file: Annotated[
        Path | None, typer.Argument(help="Settings file; without it LIVEDEX_CONFIG, else the built-in default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
    create_topics: Annotated[bool, typer.Option("--create-topics/--no-create-topics", help="Create missing topics.")] = True,
) -> None:
    """Make collections, sources and missing topics match the settings."""
    from livedex import apply as provisioning

    chosen = settings(file)
    with database(chosen) as connection:
        with people.status("comparing the settings with what is there"):
            steps = patiently(lambda: provisioning.plan(chosen, connection, topics=create_topics))
        for step in steps:
            typer.echo(step.say)
        if not steps:
            people.print("everything is as the settings say")
        elif not dry_run:
            provisioning.run(steps)


def index() -> None:
    """Run the index worker, until SIGTERM."""
    chosen, stop = _begin()
    from livedex.index.app import IndexApp

    _end(IndexApp(chosen, stop=stop))


def serve() -> None:
    """Run the query worker, until SIGTERM."""
    chosen, stop = _begin()
    from livedex.query.app import QueryApp

    _end(QueryApp(chosen, stop=stop))


def _begin() -> tuple[Settings, lifecycle.Stop]:
    """What both workers do before the heavy imports, so that a signal during those is heard too."""
    stop = lifecycle.Stop()
    stop.on_signals()
    memory.share_arenas()
    chosen = settings()
    observe.configure_logging(chosen.log_format)
    secret_files.warn_of_all(chosen)
    return chosen, stop


def _end(app: "IndexApp | QueryApp") -> NoReturn:
    app.run()
    lifecycle.leave(0)
