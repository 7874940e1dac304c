"""Searches by text from the clients that applications have: psql, psycopg, asyncpg, SQLAlchemy, pgjdbc, node-postgres.

A client asks some texts one after the other, on one connection and in one transaction, and gives the rows of each.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

Transaction = Literal["autocommit", "begin", "read only"]
TRANSACTIONS: tuple[Transaction, ...] = get_args(Transaction)
Rows = list[tuple[str, str]]  # document_id, chunk
Client = Callable[[str, Transaction, Sequence[str]], list[Rows]]  # of a URL, the kind of transaction and the texts


def parsed(output: str, texts: Sequence[str]) -> list[Rows]:
    """The rows of each text, from lines of its number, document_id and chunk."""
    found: list[Rows] = [[] for _ in texts]
    for line in output.splitlines():
        number, document_id, chunk = line.split("\t")
        found[int(number)].append((document_id, chunk))
    return found
