"""A primary and a standby behind one address, and the failover from the one to the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from livedex.dev.stack import Addresses
from support.database import create_template, fresh_database, url_of
from support.faults import servers
from support.faults.arena import Ends, World
from support.faults.proxy import Proxy
from support.faults.servers import Server, through

TEMPLATE = "template_faults"


class Pair:
    """The two servers, and the proxies that lead to the one in charge: for the workers and for the harness."""

    def __init__(self, primary: Server, copy: Server, replication: Proxy, *addresses: Proxy) -> None:
        self.copy = copy
        self._primary = primary
        self._replication = replication
        self._addresses = addresses

    def lose_what_comes(self) -> None:
        """From now on the standby hears nothing."""
        self._replication.cut()

    def fail_over(self) -> None:
        """The primary dies, the standby is promoted, and the address leads to it."""
        self._primary.crash()
        with psycopg.connect(self.copy.url, autocommit=True) as connection:
            connection.execute("select pg_promote()")
        for address in self._addresses:
            address.redirect(self.copy.port)

    def replayed(self, like: str) -> Callable[[], Ends]:
        """Asks the standby for the progress that it has; `like` is a URL of the database."""
        url = url_of(self.copy.url, str(psycopg.conninfo.conninfo_to_dict(like)["dbname"]))

        def ask() -> Ends:
            with psycopg.connect(url, autocommit=True) as connection:
                rows = connection.execute("select topic, partition, next_offset from livedex.source_progress").fetchall()
            return {(topic, partition): offset for topic, partition, offset in rows}

        return ask


@contextmanager
def replicated(folder: Path, kafka: str, seed: int) -> Iterator[tuple[Pair, World]]:
    """Two servers, and a world in which the address leads to the first."""
    with (
        servers.server(folder / "primary") as primary,
        Proxy(primary.port) as replication,
        servers.standby(primary, folder / "standby", port=replication.port) as copy,
        Proxy(primary.port, seed=seed) as seen,
        Proxy(primary.port) as direct,
    ):
        create_template(primary.url, TEMPLATE)
        with fresh_database(primary.url, TEMPLATE) as url:
            world = World(
                direct=Addresses(kafka_bootstrap_servers=kafka, database_url=through(url, direct)),
                seen=Addresses(kafka_bootstrap_servers=kafka, database_url=through(url, seen)),
                folder=folder,
                seed=seed,
            )
            yield Pair(primary, copy, replication, seen, direct), world
            primary.up()  # to drop its database
