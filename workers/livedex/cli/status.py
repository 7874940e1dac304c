"""`livedex status`: how fresh the index is, and what is wrong."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import typer
from kafka import TopicPartition
from kafka.errors import KafkaError
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from livedex import status as overview
from livedex.cli.session import data, database, people, print_json, readable, settings, table
from livedex.config import KafkaSettings, Settings
from livedex.core.standing import problems, summary
from livedex.database import Connection, translated
from livedex.errors import ConfigError, UnavailableError
from livedex.kafka import LogEnds, describe

WATCH_EVERY = 2.0  # seconds

SOURCES = {"topic": "topic", "partition": "part", "collection": "collection", "state": "state", "lag": "lag",
           "staleness_seconds": "stale s", "owner": "owner", "updated_at": "moved at"}  # fmt: skip
COLLECTIONS = {"collection": "collection", "documents": "documents", "chunks": "chunks", "generation": "generation",
               "model": "model", "dimension": "dimensions", "metric": "metric", "index_state": "index",
               "worker": "upkeep by"}  # fmt: skip
WORKERS = {"worker": "worker", "kind": "kind", "is": "is", "partitions": "partitions", "updated_at": "moved at",
           "texts": "embeds for SQL"}  # fmt: skip


def status(
    as_json: Annotated[bool, typer.Option("--json", help="JSON; with --watch one object a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when something is wrong.")] = False,
) -> None:
    """What is wrong; lag, staleness and owner of each source; documents, chunks and index of each collection; the workers, and
    how fresh the last minutes were; open dead letters.
    """
    chosen = settings()
    if watch:
        _watch(chosen, as_json=as_json)
        return
    with database(chosen) as connection:
        found = _read(connection, chosen.kafka)
    if found["log"] is not None:
        people.print(f"{found['log']}; lag and staleness are unknown", style="yellow")
    print_json(found) if as_json else data.print(_tables(found))
    if check and found["problems"]:
        raise typer.Exit(1)


def _watch(chosen: Settings, *, as_json: bool) -> None:
    """Shows what there is, and while Postgres is away that it is."""
    with ExitStack() as opened:
        live = None if as_json else opened.enter_context(Live(console=data, auto_refresh=False))
        for found in _again_and_again(chosen):
            if live is None:
                print_json(found, line=True)
            else:
                live.update(_tables(found) if "sources" in found else Text(readable(found["summary"])), refresh=True)


def _again_and_again(chosen: Settings) -> Iterator[dict[str, Any]]:
    known = False  # a first failure ends the command as any other
    while True:
        try:
            with database(chosen) as connection:
                while True:
                    yield _read(connection, chosen.kafka)
                    known = True
                    time.sleep(WATCH_EVERY)
        except UnavailableError as error:
            if not known:
                raise
            yield {"summary": str(error), "problems": [str(error)]}
            time.sleep(WATCH_EVERY)


def _read(connection: Connection, kafka: KafkaSettings) -> dict[str, Any]:
    with translated():
        found = overview.read(connection)
    positions = {
        TopicPartition(row["topic"], row["partition"]): row["next_offset"]
        for row in found["sources"]
        if row["partition"] is not None
    }
    found["log"] = None
    try:
        log = LogEnds.ask(kafka, positions)
    except (UnavailableError, ConfigError) as error:
        found["log"] = str(error)
    except KafkaError as error:  # it refuses to tell: what Postgres knows is shown all the same
        found["log"] = f"kafka refuses to say where the log ends: {describe(error)}"
    else:
        for row in found["sources"]:
            partition = TopicPartition(row["topic"], row["partition"])
            row["lag"] = log.lag.get(partition)
            row["staleness_seconds"] = log.staleness(partition, time.time())
    wrong = problems(found)
    return {"summary": summary(found, wrong), "problems": wrong, **found}


def _tables(found: dict[str, Any]) -> Group:
    remarks = [remark for row in found["collections"] for remark in overview.remarks(row)]
    letters = [{"reason": reason, "letters": count} for reason, count in found["dead_letters"].items()]
    parts: list[Any] = [
        *_verdict(found),
        table("sources", found["sources"], SOURCES),
        _collections(found["collections"]),
        *(Text(readable(remark)) for remark in remarks if remark not in found["problems"]),
        _workers(found["workers"]),
        Text(overview.describe_freshness(found["freshness"])),
        table("open dead letters", letters, {"reason": "reason", "letters": "letters"}) if letters else "no open dead letters",
    ]
    return Group(*(part for each in parts for part in (each, "")))


def _verdict(found: dict[str, Any]) -> list[Text]:
    """What is wrong, before everything else."""
    if not found["problems"]:
        return [Text(found["summary"], style="green")]
    return [Text("\n".join(readable(problem) for problem in found["problems"]), style="red")]


def _collections(rows: list[dict[str, Any]]) -> Table:
    shown = [{**row, "index_state": overview.describe_index(row["index"]), "worker": row["index"] and row["index"]["worker"]}
             for row in rows]  # fmt: skip
    return table("collections", shown, COLLECTIONS)


def _workers(rows: list[dict[str, Any]]) -> Table | str:
    if not rows:
        return "no worker is there: start livedex index, and livedex serve"
    yes = {True: "yes", False: "no"}
    shown = [
        {
            **row,
            "is": "connected" if row["connected"] else "gone",
            "partitions": row["partitions"] if row["kind"] == "index" else None,
            "texts": yes[row["texts"]] if row["kind"] == "query" else None,
        }
        for row in rows
    ]
    return table("workers", shown, WORKERS)
