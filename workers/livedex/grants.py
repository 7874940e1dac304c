"""`livedex grant` and `revoke`: which database role may search which collection in SQL.

A role needs two things: the right to call the functions, which members of livedex_search have, and a row that names the
collection. Who was granted the role that is named here, by Postgres, may search with it. The row holds for that role alone: one
that takes its name after DROP ROLE or ALTER ROLE ... RENAME has to be granted anew, and so has a role that was renamed.
"""

from psycopg import errors

from livedex.database import Connection, first_line, query, translated
from livedex.errors import ConfigError

_INHERITING = 160_000  # Postgres 16


def grant(connection: Connection, collection: str, role: str) -> bool:
    """Let the role search the collection; False when it could. ConfigError when either is not there, or it is refused."""
    with translated(), connection.transaction():
        named = {"collection_id": _collection(connection, collection), "role": role}
        connection.execute(query("grants", "forget"))
        member = _member(connection, role)
        if not member:
            statement = "inheriting_member" if connection.info.server_version >= _INHERITING else "member"
            _as_granter(connection, statement, role)
        return connection.execute(query("grants", "allow"), named).rowcount > 0 or not member


def revoke(connection: Connection, collection: str, role: str) -> bool:
    """Take it back; False when the role could not. With its last collection the role loses the functions too."""
    with translated(), connection.transaction():
        named = {"collection_id": _collection(connection, collection), "role": role}
        connection.execute(query("grants", "forget"))
        member = _member(connection, role)
        gone = connection.execute(query("grants", "forbid"), named).rowcount > 0
        if gone and member and connection.execute(query("grants", "others"), named).fetchone() == (0,):
            _as_granter(connection, "no_member", role)
        return gone


def _collection(connection: Connection, name: str) -> int:
    row = connection.execute(query("grants", "collection"), {"collection": name}).fetchone()
    if row is None:
        raise ConfigError(f"the collection {name!r} does not exist: livedex status lists the collections")
    return int(row[0])


def _member(connection: Connection, role: str) -> bool:
    row = connection.execute(query("grants", "role"), {"role": role}).fetchone()
    if row is None:
        raise ConfigError(f"the role {role!r} does not exist in this server: CREATE ROLE makes it")
    return bool(row[1])


def _as_granter(connection: Connection, statement: str, role: str) -> None:
    try:
        connection.execute(query("grants", statement, role=role))
    except errors.InsufficientPrivilege as error:
        raise ConfigError(
            f"role {connection.info.user} may not grant or revoke livedex_search: {first_line(error)}. Run this as "
            "the role that migrated the database, or as a superuser"
        ) from error
