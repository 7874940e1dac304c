"""`livedex doctor`: one line for each thing that livedex needs, ok or what to do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

import typer
from kafka import TopicPartition

from livedex import catalogue
from livedex.catalogue import Source
from livedex.cli.session import data, print_json, readable, settings
from livedex.config import Settings
from livedex.core import health_rules
from livedex.core.change import VersionMode
from livedex.database import Connection, connect, first_line, query
from livedex.doctor.kafka import KafkaChecks
from livedex.doctor.model import check_models
from livedex.doctor.postgres import PostgresChecks
from livedex.errors import ConfigError, LivedexError
from livedex.kafka import describe


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found."""

    check: str
    ok: bool
    says: str


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Check Kafka, its topics, their settings and the rights to read them; Postgres, pgvector, migrations, roles, rights and
    memory; the clocks, the disks, the models, and who embeds texts for SQL. Exit 1 when something is wrong.
    """
    found = []
    for finding in _examine(settings()):
        found.append(finding)
        if not as_json:
            _show(finding)
    sound = all(finding.ok for finding in found)
    if as_json:
        print_json({"ok": sound, "checks": [{"check": each.check, "ok": each.ok, "says": each.says} for each in found]})
    if not sound:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    mark = "[green]ok  [/green]" if finding.ok else "[red]fail[/red]"
    data.print(f"{mark} {finding.check:<11} ", end="")
    data.print(readable(finding.says), markup=False, highlight=False, soft_wrap=True)


def _examine(chosen: Settings) -> Iterator[Finding]:
    with ExitStack() as opened:
        kafka = KafkaChecks(chosen.kafka)
        opened.callback(kafka.close)
        yield (answers := _run("kafka", kafka.answers))
        connections: list[Connection] = []
        yield _run("postgres", lambda: _postgres(chosen, opened, connections))
        checks = _of_kafka(kafka, chosen, connections) if answers.ok else []
        checks += _of_postgres(PostgresChecks(connections[0])) if connections else []
        checks += _of_both(kafka, chosen, connections, kafka_answers=answers.ok)
        for name, check in checks:
            yield _run(name, check)


Checks = list[tuple[str, Callable[[], str]]]


def _of_kafka(kafka: KafkaChecks, chosen: Settings, connections: list[Connection]) -> Checks:
    """Of the sources that the database follows; where it cannot be asked, of those that the settings name."""

    def followed() -> dict[str, Source]:
        return catalogue.sources(connections[0]) if connections else _named(chosen)

    def topics() -> str:
        modes = _modes(connections[0]) if connections else {}
        sources = followed()
        known = {topic: modes.get(source.collection_id, VersionMode.LOG) for topic, source in sources.items()}
        return kafka.topics(sources, known, _progress(connections[0]) if connections else {})

    return [
        ("topics", topics),
        ("settings", lambda: kafka.settings_of(followed(), PostgresChecks(connections[0]).split() if connections else ())),
        ("rights", lambda: kafka.rights(followed())),
    ]


def _named(chosen: Settings) -> dict[str, Source]:
    return {
        topic: Source(topic=topic, collection_id=0, epoch=0, state="live", reason=None, topic_id=None, partitions=None)
        for topic in chosen.sources
    }


def _modes(connection: Connection) -> dict[int, VersionMode]:
    return {number: generation.version_mode for number, generation in catalogue.generations(connection).items()}


def _progress(connection: Connection) -> dict[TopicPartition, int]:
    rows = connection.execute(query("doctor", "progress")).fetchall()
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def _of_postgres(postgres: PostgresChecks) -> Checks:
    return [
        ("pgvector", postgres.pgvector),
        ("migrations", postgres.migrations),
        ("roles", postgres.roles),
        ("permissions", postgres.permissions),
        ("buffers", postgres.buffers),
        ("texts", postgres.texts),
    ]


def _of_both(kafka: KafkaChecks, chosen: Settings, connections: list[Connection], *, kafka_answers: bool) -> Checks:
    postgres = PostgresChecks(connections[0]) if connections else None

    def clock() -> str:
        ahead = {"the database's clock": postgres.clock_ahead()} if postgres else {}
        broker = kafka.clock_ahead() if kafka_answers else None
        if broker is not None:
            ahead["kafka's clock"] = broker
        newest = kafka.newest(_followed_if_known(connections, chosen)) if kafka_answers else {}
        wrong = health_rules.clocks(ahead) or health_rules.future(newest)
        if wrong is not None:
            raise ConfigError(wrong)
        return ", ".join(f"{name} within {abs(seconds) * 1000:.0f} ms" for name, seconds in ahead.items())

    def disk() -> str:
        found = {**(postgres.disk() if postgres else {}), **(kafka.disks() if kafka_answers else {})}
        wrong = health_rules.disks(found)
        if wrong is not None:
            raise ConfigError(wrong)
        return ", ".join(f"{name} has {left // 2**30} GB left" for name, (left, _) in found.items()) or "not visible from here"

    checks: Checks = [("clock", clock), ("disk", disk)] if postgres or kafka_answers else []
    return [*checks, ("model", lambda: check_models(chosen, connections[0]))] if connections else checks


def _followed_if_known(connections: list[Connection], chosen: Settings) -> dict[str, Source]:
    """For a check that is not about the tables: where there are none, what the settings name."""
    import psycopg

    try:
        return catalogue.sources(connections[0]) if connections else _named(chosen)
    except psycopg.Error:
        return {}


def _run(name: str, check: Callable[[], str]) -> Finding:
    import psycopg
    from kafka.errors import KafkaError

    try:
        return Finding(check=name, ok=True, says=check())
    except LivedexError as error:
        says = str(error)
    except psycopg.Error as error:
        says = f"{first_line(error)}: run livedex migrate, and check the role's rights"
    except KafkaError as error:
        says = f"kafka refuses: {describe(error)}"
    return Finding(check=name, ok=False, says=says)


def _postgres(chosen: Settings, opened: ExitStack, connections: list[Connection]) -> str:
    connection = opened.enter_context(connect(chosen.database_url))
    row = connection.execute("select current_setting('server_version'), current_user").fetchone()
    assert row is not None
    connections.append(connection)
    return f"{row[0]} answers, as {row[1]}"
