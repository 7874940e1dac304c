"""livedex.search from the clients that applications have, at the primary and at a hot standby, in every kind of transaction."""

from collections.abc import Callable, Iterator

import pytest

from livedex.dev.stack import Addresses
from support.asking import TEXTS, unused
from support.clients import TRANSACTIONS, Client, Transaction
from support.clients.foreign import NodePostgres, Pgjdbc
from support.clients.python import CLIENTS, K
from support.standby import Twins, twins

pytestmark = pytest.mark.accept
FOREIGN: dict[str, Callable[[], Client]] = {"pgjdbc": Pgjdbc, "node-postgres": NodePostgres}


@pytest.fixture(scope="module")
def both(stack: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """A primary and its standby."""
    with twins(tmp_path_factory.mktemp("clients"), stack.kafka_bootstrap_servers) as own:
        yield own


@pytest.fixture(scope="module", params=[*CLIENTS, *FOREIGN])
def client(request: pytest.FixtureRequest) -> Client:
    """One of them."""
    return CLIENTS[request.param] if request.param in CLIENTS else FOREIGN[request.param]()


@pytest.mark.parametrize("server", ["primary", "standby"])
@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_a_client_searches_by_text(both: Twins, client: Client, server: str, transaction: Transaction) -> None:
    """New texts and texts of a moment ago, in one transaction, often enough for drivers that prepare what comes often."""
    new = [f"{unused()} {name} 'ж字😀\\ $1 %s" for name in [*TEXTS, *TEXTS]]
    asked = [text for text in new for _ in range(2)]
    found = client(both.urls[server], transaction, asked)
    assert [len(rows) for rows in found] == [K] * len(asked)
    for text, rows in zip(asked, found, strict=True):
        name = text.split()[3]
        assert rows[0] == (name, TEXTS[name])
    assert [both.encoder.times(text) for text in new] == [1] * len(new)
