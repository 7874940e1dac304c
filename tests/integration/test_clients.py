"""livedex.search from psql, psycopg and SQLAlchemy; all clients, and a standby, are tried by `make accept`."""

from collections.abc import Iterator

import pytest

from livedex.dev.stack import Addresses
from support.asking import TEXTS, SlowEncoder, fill_collection, serving, unused
from support.clients import TRANSACTIONS, Transaction
from support.clients.python import QUICK
from support.database import fresh_database
from support.workers import Workers


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SlowEncoder]]:
    """A database with three documents and a query worker, and the worker's encoder."""
    with (
        fresh_database(stack.database_url, template) as url,
        Workers(stack, url, tmp_path_factory.mktemp("clients")) as workers,
    ):
        fill_collection(url)
        encoder = SlowEncoder()
        with serving(workers, url, encoder):
            yield url, encoder


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_a_client_searches_by_text(served: tuple[str, SlowEncoder], name: str, transaction: Transaction) -> None:
    """A new text and the same again, in one transaction."""
    url, encoder = served
    text = f"{unused()} clocks 'ж字😀\\ $1 %s"
    for rows in QUICK[name](url, transaction, [text, text]):
        assert rows[0] == ("clocks", TEXTS["clocks"])
    assert encoder.times(text) == 1
