"""`livedex dead-letters`: records that could not be indexed."""

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from psycopg.rows import dict_row

from livedex.cli.session import data, database, patiently, people, print_json, progress, readable, settings, table
from livedex.core.change import Reason
from livedex.database import Connection, query
from livedex.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from livedex.dead_letters import Answer, Letters

SHOWN_CHARACTERS = 2000  # of a value, for people; --json has all of it

app = typer.Typer(help="Records that could not be indexed.", no_args_is_help=True)

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As dead-letters list shows them.")]
InState = Annotated[
    Literal["open", "replayed", "discarded", "all"] | None, typer.Option("--state", help="Only those in this state (open).")
]
ForReason = Annotated[Reason | None, typer.Option("--reason", help="Only those of this reason.", metavar="REASON")]
OfTopic = Annotated[str | None, typer.Option("--topic", help="Only those of this topic.")]
OfPartition = Annotated[int | None, typer.Option("--partition", min=0, max=2**31 - 1, help="Only those of this partition.")]
OfCollection = Annotated[str | None, typer.Option("--collection", help="Only those of this collection.")]
OfDocument = Annotated[str | None, typer.Option("--document", help="Only those of this document's id.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the newest first.")]
Everything = Annotated[bool, typer.Option("--all", help="All that the filters let pass, in place of ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="Plain JSON.")]


@app.command("list")
def list_letters(
    state: InState = "open", reason: ForReason = None, topic: OfTopic = None, partition: OfPartition = None,
    collection: OfCollection = None, document: OfDocument = None, limit: AtMost = 100, as_json: AsJson = False,
) -> None:  # fmt: skip
    """List dead letters, the newest first."""
    filters = _filters(state, reason, topic, partition, collection, document)
    with database(settings()) as connection:
        rows = _rows(connection, filters, limit)
    if as_json:
        print_json(rows)
    elif rows:
        columns = {"id": "id", "place": "place", "document_id": "document", "reason": "reason", "attempts": "attempts",
                   "state": "state", "failed_at": "failed", "detail": "detail"}  # fmt: skip
        data.print(table("dead letters", rows, columns))
    else:
        people.print(_none(filters))


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As dead-letters list shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON, bytes as base64.")] = False,
) -> None:
    """Show one dead letter with its record."""
    with database(settings()) as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query("dead_letters", "show_letter"), {"id": number}).fetchone()
    if row is None:
        raise _absent([number])
    if as_json:
        print_json({name: _base64(value) for name, value in row.items()})
        return
    for name, value in row.items():
        data.print(f"[bold]{name}[/bold]", end=" ")
        data.print(_readable(value), markup=False, highlight=False)


@app.command()
def replay(
    ids: Ids = None, everything: Everything = False, state: InState = None, reason: ForReason = None, topic: OfTopic = None,
    partition: OfPartition = None, collection: OfCollection = None, document: OfDocument = None, limit: AtMost = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Try again to index records, once what failed is mended. An older event does not overwrite a newer one."""
    filters = _filters(state, reason, topic, partition, collection, document)
    _change("replay", ids, filters, everything=everything, limit=limit, as_json=as_json)


@app.command()
def discard(
    ids: Ids = None, everything: Everything = False, state: InState = None, reason: ForReason = None, topic: OfTopic = None,
    partition: OfPartition = None, collection: OfCollection = None, document: OfDocument = None, limit: AtMost = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Give records up: they count as open no more, and stay to be shown."""
    filters = _filters(state, reason, topic, partition, collection, document)
    _change("discard", ids, filters, everything=everything, limit=limit, as_json=as_json)


def _filters(
    state: str | None, reason: Reason | None, topic: str | None, partition: int | None, collection: str | None,
    document: str | None,
) -> dict[str, Any]:  # fmt: skip
    """What the query `list_letters` lets pass."""
    return {
        "state": state, "reason": reason, "topic": topic, "partition": partition, "collection": collection,
        "document": document,
    }  # fmt: skip


def _change(
    verb: Literal["replay", "discard"], ids: list[int] | None, filters: dict[str, Any], *, everything: bool, limit: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Replay or discard what was asked for; exit 1 when something of it was not."""
    _check_choice(verb, ids, filters, everything=everything, limit=limit)
    from livedex.dead_letters import opened
    from livedex.index.letters import State

    chosen = settings()
    states = frozenset(State) if filters["state"] == "all" else frozenset({State(filters["state"] or "open")})
    with database(chosen) as connection:
        _check_rights(connection)
        numbers = _numbers(connection, ids, filters, limit)
    if not numbers:
        people.print(_none(filters))
    with opened(chosen, states) as letters:
        answers = _each(verb, letters, numbers, as_json=as_json)
    if not all(answer.done for answer in answers):
        raise typer.Exit(1)


def _each(verb: Literal["replay", "discard"], letters: "Letters", numbers: list[int], *, as_json: bool) -> "list[Answer]":
    """One after another; what became of those that had their turn is shown however it ends."""
    step: Callable[[int], Answer] = letters.replay if verb == "replay" else letters.discard
    answers: list[Answer] = []
    try:
        with progress(verb, len(numbers)) as advance:
            for number in numbers:
                answers.append(patiently(partial(step, number)))
                advance()
    finally:
        _tell(answers, len(numbers), as_json=as_json)
    return answers


def _tell(answers: "list[Answer]", wanted: int, *, as_json: bool) -> None:
    rows = [asdict(answer) for answer in answers]
    if as_json:
        print_json(rows)
    elif rows:
        columns = {"id": "id", "place": "place", "document_id": "document", "result": "result", "outcome": "outcome",
                   "attempts": "attempts", "reason": "reason", "detail": "detail"}  # fmt: skip
        data.print(table("dead letters", rows, columns))
    counted = Counter(f"{answer.result}{f' ({answer.outcome})' if answer.outcome else ''}" for answer in answers)
    if wanted:
        counts = [f"{number} {result}" for result, number in sorted(counted.items())]
        people.print(f"of {wanted} dead letters: {', '.join(counts) or 'none was changed'}")


def _check_choice(
    verb: str, ids: list[int] | None, filters: dict[str, Any], *, everything: bool, limit: int | None
) -> None:  # fmt: skip
    """Ids, or a filter, or --all: UsageError when it is none of them, or ids with another."""
    given = [f"--{name}" for name, value in filters.items() if value is not None]
    others = [name for name in given if name != "--state"] + ["--all"] * everything + ["--limit"] * (limit is not None)
    if ids and others:
        raise UsageError(f"{verb} has both ids and {others[0]}: expected ids, or filters and --all")
    if not ids and not given and not everything:
        raise UsageError(
            f"{verb} has neither ids nor a filter: expected ids as livedex dead-letters list shows them, a filter such as "
            "--reason, or --all"
        )


def _check_rights(connection: Connection) -> None:
    row = connection.execute(query("dead_letters", "may_change_letters")).fetchone()
    assert row is not None
    if not row[1]:
        raise ConfigError(f"{row[0]} may not change dead letters: grant it livedex_indexer")


def _numbers(connection: Connection, ids: list[int] | None, filters: dict[str, Any], limit: int | None) -> list[int]:
    """What was asked for, the newest first: what is older in the same document is stale by then, and costs no vector."""
    if not ids:
        return [row["id"] for row in _rows(connection, filters, limit)]
    found = [row["id"] for row in _rows(connection, {"ids": ids, "state": "all"}, None)]
    absent = sorted(set(ids) - set(found))
    if absent:
        raise _absent(absent)
    return found


def _rows(connection: Connection, filters: dict[str, Any], limit: int | None) -> list[dict[str, Any]]:
    everything = dict.fromkeys(("ids", "reason", "topic", "partition", "collection", "document"))
    arguments = {**everything, **filters, "state": filters["state"] or "open", "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("dead_letters", "list_letters"), arguments).fetchall()


def _absent(ids: list[int]) -> ConfigError:
    names = ", ".join(map(str, ids))
    return ConfigError(f"there is no dead letter {names}: livedex dead-letters list --state all names them")


def _none(filters: dict[str, Any]) -> str:
    given = [f"{name} {value}" for name, value in filters.items() if value is not None and (name, value) != ("state", "all")]
    return readable(" with ".join(["no dead letters", ", ".join(given)]) if given else "no dead letters")


def _base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_base64(part) for part in value] if isinstance(value, list) else value


def _readable(value: Any) -> str:
    if isinstance(value, bytes):
        text = value[: SHOWN_CHARACTERS * 4].decode(errors="backslashreplace")
        shown = readable(text[:SHOWN_CHARACTERS])
        return shown if len(text) <= SHOWN_CHARACTERS else f"{shown}... ({len(value)} bytes)"
    return ", ".join(map(_readable, value)) if isinstance(value, list) else readable(str(value))
