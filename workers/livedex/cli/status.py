"""`livedex status`: how fresh the index is."""

import time
from typing import Annotated, Any

import typer
from kafka import TopicPartition
from rich.console import Group
from rich.live import Live
from rich.text import Text

from livedex import status as overview
from livedex.cli.session import data, database, people, print_json, readable, settings, table
from livedex.config import KafkaSettings
from livedex.database import Connection, translated
from livedex.errors import UnavailableError
from livedex.kafka import LogEnds

WATCH_EVERY = 2.0  # seconds


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
) -> None:
    """Lag, staleness and owner of each source; documents, chunks and index of each collection; open dead letters."""
    chosen = settings()
    with database(chosen) as connection:
        if not watch:
            found = _read(connection, chosen.kafka)
            print_json(found) if as_json else data.print(_tables(found))
            return
        with Live(console=data, auto_refresh=False) as live:
            while True:
                found = _read(connection, chosen.kafka)
                print_json(found) if as_json else live.update(_tables(found), refresh=True)
                time.sleep(WATCH_EVERY)


def _read(connection: Connection, kafka: KafkaSettings) -> dict[str, Any]:
    with translated():
        found = overview.read(connection)
    positions = {
        TopicPartition(row["topic"], row["partition"]): row["next_offset"]
        for row in found["sources"]
        if row["partition"] is not None
    }
    try:
        log = LogEnds.ask(kafka, positions)
    except UnavailableError as error:
        people.print(f"{error}; lag and staleness are unknown", style="yellow")
        return found
    for row in found["sources"]:
        partition = TopicPartition(row["topic"], row["partition"])
        row["lag"] = log.lag.get(partition)
        row["staleness_seconds"] = log.staleness(partition, time.time())
    return found


def _tables(found: dict[str, Any]) -> Group:
    sources = {"topic": "topic", "partition": "part", "collection": "collection", "state": "state", "lag": "lag",
               "staleness_seconds": "stale s", "owner": "owner"}  # fmt: skip
    collections = {"collection": "collection", "documents": "documents", "chunks": "chunks", "generation": "generation",
                   "model": "model", "dimension": "dimensions", "metric": "metric", "index_state": "index",
                   "worker": "upkeep by"}  # fmt: skip
    rows = [{**row, "index_state": overview.describe_index(row["index"]), "worker": row["index"] and row["index"]["worker"]}
            for row in found["collections"]]  # fmt: skip
    remarks = [remark for row in found["collections"] for remark in overview.remarks(row)]
    letters = [{"reason": reason, "letters": count} for reason, count in found["dead_letters"].items()]
    return Group(
        table("sources", found["sources"], sources),
        "",
        table("collections", rows, collections),
        *(Text(readable(remark)) for remark in remarks),
        "",
        table("open dead letters", letters, {"reason": "reason", "letters": "letters"}) if letters else "no open dead letters",
    )
