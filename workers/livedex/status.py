"""What an operator asks first: how far each source is, what each collection holds, which dead letters are open."""

from typing import Any

from psycopg.rows import dict_row

from livedex.database import Connection, query


def read(connection: Connection) -> dict[str, Any]:
    """The status as plain values, as far as Postgres knows it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        sources = cursor.execute(query("query", "status_sources")).fetchall()
        collections = cursor.execute(query("query", "status_collections")).fetchall()
        letters = cursor.execute(query("query", "status_dead_letters")).fetchall()
    return {
        "sources": sources,
        "collections": collections,
        "dead_letters": {row["reason"]: row["letters"] for row in letters},
    }
