"""`livedex grant | revoke`: who may search what in SQL."""

from typing import Annotated

import typer

from livedex import grants
from livedex.cli.session import database, people, settings

Collection = Annotated[str, typer.Argument(help="The collection, as livedex status shows it.")]
Role = Annotated[str, typer.Argument(help="A role of the database server.")]


def grant(collection: Collection, role: Role) -> None:
    """Let a database role search a collection with livedex.search and livedex.search_vector."""
    with database(settings()) as connection:
        new = grants.grant(connection, collection, role)
    people.print(f"{role} may search {collection}" if new else f"{role} may search {collection} already")


def revoke(collection: Collection, role: Role) -> None:
    """Take it back."""
    with database(settings()) as connection:
        gone = grants.revoke(connection, collection, role)
    people.print(f"{role} may no longer search {collection}" if gone else f"{role} had no grant for {collection}")
