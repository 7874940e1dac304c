"""`livedex publish | delete`: send change events."""

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from kafka.errors import UnknownTopicOrPartitionError

from livedex import events, tracing
from livedex.cli.session import database, patiently, people, progress, settings, warn
from livedex.cli.wait import wait_for
from livedex.config import Settings
from livedex.core.record import Place
from livedex.errors import ConfigError, UsageError
from livedex.kafka import open_admin, open_producer, translated

Topic = Annotated[str | None, typer.Option(help="Topic to send to; needed when the settings name several.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when everything sent is searchable.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds that --wait waits; then exit 4.")]

VERSIONED = "For collections that take versions from their source."
MAX_VERSION = 2**63 - 1


def publish(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, or JSON Lines of change events.", metavar="PATH...")],
    topic: Topic = None,
    version: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, help=f"Of the files. {VERSIONED}"),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 120.0,
) -> None:
    """Send documents. Prints the token of the last event in each partition."""
    count = sum(1 for _ in events.from_paths(paths, version=version))  # everything is checked before anything is sent
    if not count:
        raise UsageError(f"there is no document in {', '.join(map(str, paths))}: expected .md, .txt, .rst or .jsonl files")
    _send(events.from_paths(paths, version=version), count, topic, timeout if wait else None)


def delete(
    ids: Annotated[list[str], typer.Argument(help="Document ids.", metavar="ID...")],
    topic: Topic = None,
    version: Annotated[int | None, typer.Option(min=0, max=MAX_VERSION, help=VERSIONED)] = None,
    wait: Wait = False,
    timeout: Timeout = 120.0,
) -> None:
    """Send deletes. Prints the token of the last event in each partition."""
    _send([events.deletion(document_id, version) for document_id in ids], len(ids), topic, timeout if wait else None)


def _send(made: Iterable[events.Event], count: int, topic: str | None, timeout: float | None) -> None:
    chosen = settings()
    target = topic or _only_topic(chosen)
    patiently(lambda: _check_topic(chosen, target))
    producer = patiently(lambda: open_producer(chosen.kafka))
    tracer = tracing.start("livedex-publish", f"{socket.gethostname()}-{os.getpid()}", lambda _, why: warn(why))
    try:
        with progress("sending", count) as advance:
            places = events.send(producer, target, made, advance, tracer)
    except UnknownTopicOrPartitionError:
        raise ConfigError(f"the topic {target} does not exist: run livedex apply") from None
    finally:
        producer.close(timeout=2)
        tracer.close()
    for place in events.last_places(places):
        typer.echo(str(place))
    if timeout is not None:
        _wait_for_all(chosen, places, timeout)


def _wait_for_all(chosen: Settings, places: list[Place], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    with people.status("waiting until it is searchable"):
        for place in events.last_places(places):
            wait_for(chosen, place, max(0.0, deadline - time.monotonic()))
    letters = _dead_letters(chosen, places)
    if letters:
        raise ConfigError(
            f"of {len(places)} events sent, {letters} became dead letters: livedex dead-letters list and show ID say why"
        )


def _dead_letters(chosen: Settings, places: list[Place]) -> int:
    """How many of the events at these places of one topic are open dead letters."""
    statement = """
        select count(*) from livedex.dead_letters
         where topic = %s and state = 'open'
           and (partition, "offset") in (select * from unnest(%s::int[], %s::bigint[]))"""
    arguments = (places[0].topic, [place.partition for place in places], [place.offset for place in places])
    with database(chosen) as connection:
        row = connection.execute(statement, arguments).fetchone()
    return int(row[0]) if row else 0


def _only_topic(chosen: Settings) -> str:
    if len(chosen.sources) != 1:
        names = ", ".join(sorted(chosen.sources)) or "none"
        raise UsageError(f"the settings name {len(chosen.sources)} sources ({names}): choose one with --topic")
    return next(iter(chosen.sources))


def _check_topic(chosen: Settings, topic: str) -> None:
    admin = open_admin(chosen.kafka)
    try:
        with translated():
            if topic not in admin.list_topics():
                raise ConfigError(f"the topic {topic} does not exist: run livedex apply")
    finally:
        admin.close()
