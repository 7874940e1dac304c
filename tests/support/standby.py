"""A server and its hot standby, with three documents; the query worker watches both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from livedex.dev.stack import Addresses
from livedex.query.app import QueryApp
from support.asking import SlowEncoder, fill_collection, serving
from support.database import create_template, url_of
from support.faults import servers
from support.faults.servers import Server
from support.waiting import until
from support.workers import Workers

DATABASE = "searched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """The two servers; `urls` are those of the database, by role."""

    urls: dict[str, str]
    primary: Server
    standby: Server
    app: QueryApp
    encoder: SlowEncoder


@contextmanager
def twins(folder: Path, kafka: str) -> Iterator[Twins]:
    """Both, and a query worker that says at both that it is there."""
    with servers.server(folder / "primary") as primary, servers.standby(primary, folder / "standby", port=primary.port) as copy:
        urls = {"primary": url_of(primary.url, DATABASE), "standby": url_of(copy.url, DATABASE)}
        create_template(primary.url, DATABASE)
        fill_collection(urls["primary"])
        until(lambda: _caught_up(urls), what="the standby to have the documents")
        stack = Addresses(kafka_bootstrap_servers=kafka, database_url=urls["primary"])
        encoder = SlowEncoder()
        with (
            Workers(stack, urls["primary"], folder) as workers,
            serving(workers, urls["primary"], encoder, standbys=[urls["standby"]]) as app,
        ):
            yield Twins(urls=urls, primary=primary, standby=copy, app=app, encoder=encoder)


def _caught_up(urls: dict[str, str]) -> bool:
    with psycopg.connect(urls["primary"]) as primary:
        (end,) = primary.execute("select pg_current_wal_lsn()::text").fetchone() or ("",)
    try:
        with psycopg.connect(urls["standby"]) as standby:
            return standby.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)).fetchone() == (True,)
    except psycopg.OperationalError:  # it has not heard of the database yet
        return False
