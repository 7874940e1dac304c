"""`livedex dead-letters replay` beside others: locks, a second operator, a reset, a worker that goes on; and who may."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from livedex.catalogue import Generation, open_checked
from livedex.config import EmbedderName
from livedex.database import WRITER_SETTINGS, open_pool
from livedex.dead_letters import Answer, Letters, opened
from livedex.encoders.shelf import Shelf
from livedex.index.letters import LetterStore
from support.database import login_role
from support.letters import OPEN, Desk, assert_folded, bad, good
from support.waiting import until

TEXTS = "select document_id, text from livedex.chunks order by document_id, ordinal"


@contextmanager
def impatient(desk: Desk, pause: Callable[[float], None]) -> Iterator[Letters]:
    """Letters whose statements wait a moment for a lock, and that do this between two tries."""
    settings = {**WRITER_SETTINGS, "lock_timeout": "100ms"}
    store = LetterStore(open_pool(desk.workers.database_url, size=3, name="impatient", settings=settings))
    try:
        yield Letters(store, Shelf("hash", open_checked), OPEN, pause=pause)
    finally:
        store.close()


def test_a_lock_of_somebody_else_is_waited_for(desk: Desk) -> None:
    """A document that another transaction holds is tried again after a pause."""
    desk.take(good("a", "The old text."), bad("a"))
    pauses = []
    with psycopg.connect(desk.workers.database_url) as other:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            other.rollback()

        other.execute("select from livedex.document for update")
        with impatient(desk, pause) as letters:
            assert letters.replay(desk.ids()[0]).outcome == "applied"
    assert len(pauses) == 1
    assert_folded(desk)


@pytest.mark.parametrize("becomes", ["replayed", "discarded"])
def test_of_two_operators_the_second_finds_it_done(desk: Desk, becomes: str) -> None:
    """A replay waits for another one of the same letter, and then applies nothing."""
    desk.take(bad("a"))
    answers: list[Answer] = []
    with (
        psycopg.connect(desk.workers.database_url) as other,
        opened(desk.workers.settings(desk.config), OPEN) as letters,
    ):
        other.execute("select from livedex.dead_letter for update")
        replaying = threading.Thread(target=lambda: answers.append(letters.replay(desk.ids()[0])))
        replaying.start()
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        until(lambda: desk.workers.rows(waiting) == [(1,)], what="the replay to wait for the row")
        other.execute("update livedex.dead_letter set state = %s", (becomes,))
        other.commit()
        replaying.join()
    (answer,) = answers
    assert (answer.result, answer.outcome) == ("replayed" if becomes == "replayed" else "refused", None)
    assert desk.workers.rows("select document_id from livedex.document") == []
    assert desk.letters("state, attempts") == [(becomes, 1)]


@pytest.mark.parametrize(
    ("change", "result", "outcome", "says"),
    [
        ("update livedex.source set epoch = epoch + 1", "refused", None, "epoch 1"),
        (
            "update livedex.document set content_version = '{0,99,99}', metadata_version = '{0,99,99}'",
            "replayed",
            "stale",
            "newer version",
        ),
    ],
    ids=["reset", "newer event"],
)
def test_what_changes_while_the_model_runs_is_noticed(
    desk: Desk, change: str, result: str, outcome: str | None, says: str
) -> None:
    """A reset, or a newer event of the document, between the reading of a letter and its end: nothing is applied."""
    desk.take(good("a", "The old text."), bad("a"))

    def after_a_change(embedder: EmbedderName, generation: Generation) -> Any:
        with desk.workers.connect() as connection:
            connection.execute(change)
        return open_checked(embedder, generation)

    with opened(desk.workers.settings(desk.config), OPEN, open_encoder=after_a_change) as letters:
        answer = letters.replay(desk.ids()[0])
    assert (answer.result, answer.outcome) == (result, outcome)
    assert says in (answer.detail or "")
    assert desk.workers.rows(TEXTS) == [("a", "The old text.")]


@pytest.mark.accept
def test_replays_beside_a_worker_that_updates_the_same_documents(desk: Desk) -> None:
    """While a worker applies newer events of the documents, replays of their older ones end in the fold of the whole log."""
    names = [str(number) for number in range(8)]
    desk.take(*(bad(name, f"Try {number}.") for number in range(2) for name in names))
    with desk.workers.in_thread(desk.worker()):
        over = threading.Event()

        def update() -> None:
            number = 0
            while not over.is_set() or number < 20:
                number += 1
                desk.send(*(good(name, f"Update {number}.") for name in names[:6]))

        updating = threading.Thread(target=update)
        updating.start()
        try:  # as a process: the worker in this one writes to stdout
            done = desk.workers.run("dead-letters", "replay", "--all", "--json", config=desk.config)
        finally:
            over.set()
            updating.join()
        desk.caught_up()
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == 16
    assert {row["result"] for row in answers} == {"replayed"}
    assert_folded(desk)
    assert set(desk.letters("state")) == {("replayed",)}


def test_the_role_of_the_index_worker_may_replay(desk: Desk) -> None:
    """A member of livedex_indexer may list, replay and discard; one of livedex_query may only list, and is told."""
    desk.take(bad("a"), bad("b"))
    first, second = map(str, desk.ids())
    url = desk.workers.database_url
    with login_role(url, "livedex_query") as (name, reader), login_role(url, "livedex_indexer") as (_, indexer):
        assert len(desk.answers("list", LIVEDEX_DATABASE_URL=reader)) == 2
        for verb in ("replay", "discard"):
            done = desk(verb, first, LIVEDEX_DATABASE_URL=reader)
            assert (done.code, done.out) == (1, "")
            assert f"{name} may not change dead letters: grant it livedex_indexer" in done.err
        assert desk.answers("replay", first, LIVEDEX_DATABASE_URL=indexer)[0]["outcome"] == "applied"
        assert desk.answers("discard", second, LIVEDEX_DATABASE_URL=indexer)[0]["result"] == "discarded"
