"""`livedex dead-letters`: records that could not be indexed are tried again behind the same fence, or given up."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.dead_letters import opened
from support.encoders import open_failing
from support.letters import OPEN, Desk, assert_folded, bad, good

OpenDesk = Callable[..., Desk]
PENDING = "select document_id, pending_reason from livedex.documents order by 1"


def no_encoder(embedder: EmbedderName, generation: Generation) -> Any:
    """For `opened`, where none may be opened."""
    raise AssertionError(f"{embedder} was opened for {generation.collection}")


# --- replay


def test_replayed_records_become_searchable(desk: Desk) -> None:
    """What failed in the encoder is embedded by the command, with chunks and vectors, as the log says; the progress stays."""
    desk.take(good("a", "The old text."), bad("a"), bad("b", "A sentence about okapis. " * 200), good("c", "Fine."))
    assert desk.letters() == [("open", 1, "embedding-failed")] * 2
    progress = desk.workers.rows("select next_offset, owner, updated_at from livedex.progress")
    assert desk.workers.rows(PENDING) == [("a", "embedding-failed"), ("c", None)]

    answers = desk.answers("replay", "--all")
    assert [(row["document_id"], row["result"], row["outcome"]) for row in answers] == [
        ("b", "replayed", "applied"),
        ("a", "replayed", "applied"),
    ]
    assert_folded(desk)
    assert desk.letters("state, attempts") == [("replayed", 1)] * 2
    assert desk.workers.rows(PENDING) == [("a", None), ("b", None), ("c", None)]
    assert desk.workers.rows("select next_offset, owner, updated_at from livedex.progress") == progress
    unembedded = (
        "select count(*) from livedex.document_chunk m left join livedex.embedding_1 e using (chunk_key) where e is null"
    )
    assert desk.workers.rows(unembedded) == [(0,)]
    found = desk.workers.rows("select document_id from livedex.search_vector(null, mode => 'text', query => 'okapis')")
    assert found == [("b",)]


def test_people_see_what_became_of_each(desk: Desk) -> None:
    """A table on stdout, a bar and the sum on stderr."""
    desk.take(good("a", "The old text."), bad("a"))
    done = desk("replay", *map(str, desk.ids()))
    assert done.code == 0
    assert "applied" in done.out
    assert "1/1" in done.err
    assert "of 1 dead letters: 1 replayed (applied)" in done.err


def test_an_older_record_changes_nothing(desk: Desk) -> None:
    """A letter that is older than its document is replayed as stale: nothing is opened, embedded or changed."""
    with desk.workers.in_thread(desk.worker()):
        for events in ([bad("a"), bad("gone")], [good("a", "The newer text."), {"id": "gone", "op": "delete"}]):
            desk.send(*events)
            desk.caught_up()  # in one batch the newer ones would fold the others away
    before = desk.workers.rows("select * from livedex.document order by doc_key")
    with opened(desk.workers.settings(desk.config), OPEN, open_encoder=no_encoder) as letters:
        answers = [letters.replay(number) for number in desk.ids()]
    assert [(answer.result, answer.outcome) for answer in answers] == [("replayed", "stale")] * 2
    assert all("newer version" in (answer.detail or "") for answer in answers)
    assert desk.workers.rows("select * from livedex.document order by doc_key") == before
    assert desk.letters("state") == [("replayed",)] * 2
    assert_folded(desk)


def test_of_two_letters_of_a_document_the_newer_wins(desk: Desk) -> None:
    """In whichever order ids are given, the newest is tried first, and the older one is stale."""
    desk.take(bad("a", "First."), bad("a", "Second."))
    answers = desk.answers("replay", *map(str, desk.ids()))
    assert [row["outcome"] for row in answers] == ["applied", "stale"]
    assert_folded(desk)


def test_a_record_that_fails_again_is_counted(desk: Desk) -> None:
    """Each try raises attempts by one and tells the reason; the letter stays open, the others go on, the exit code is 1."""
    desk.take(b"no JSON", bad("a"), key="broken")
    broken, unread = desk.ids()
    failed_at = "extract(epoch from failed_at)"
    first = desk.letters(failed_at)
    answers = {row["id"]: row for row in desk.answers("replay", "--all", code=1)}
    assert (answers[broken]["result"], answers[broken]["reason"]) == ("failed", "invalid-json")
    assert answers[broken]["attempts"] == 2
    assert "JSON" in answers[broken]["detail"]
    assert answers[unread]["result"] == "replayed"
    assert desk.letters() == [("open", 2, "invalid-json"), ("replayed", 1, "embedding-failed")]
    assert desk.letters(failed_at)[0] > first[0]
    done = desk("replay", str(broken))
    assert done.code == 1
    assert "1 failed" in done.err
    assert desk.letters()[0] == ("open", 3, "invalid-json")


def test_many_that_fail_again_are_each_at_fault_themselves(desk: Desk) -> None:
    """More failures in a row than stop a worker do not stop a replay; stage, reason and detail are those of the last try."""
    desk.take(*(bad(str(number)) for number in range(19)))
    with desk.workers.connect() as connection:
        connection.execute("update livedex.dead_letter set stage = 'store', reason = 'storing-failed', detail = 'before'")
        connection.execute(
            'insert into livedex.dead_letter (topic, partition, "offset", key, value, timestamp, stage, reason, detail)'
            ' select topic, partition, "offset" + 1000, key, value, timestamp, stage, reason, detail from livedex.dead_letter'
        )
    with opened(desk.workers.settings(desk.config), OPEN, open_encoder=open_failing) as letters:
        results = [letters.replay(number).result for number in desk.ids()]
    assert results == ["failed"] * 38
    detail = "RuntimeError: the input has a token that the model does not know"
    wanted = ("open", 2, "embed", "embedding-failed", detail)
    assert set(desk.letters("state, attempts, stage, reason, detail")) == {wanted}


@pytest.mark.parametrize("table", ["document", "chunk"])
def test_a_record_that_postgres_refuses_is_counted_and_passes_later(desk: Desk, table: str) -> None:
    """Whether a chunk or the document is refused: nothing of it is visible, and once Postgres takes it, it is."""
    desk.take(bad("a"))
    column = {"document": "title", "chunk": "context"}[table]
    with desk.workers.connect() as connection:
        connection.execute(f"alter table livedex.{table} add constraint nothing check ({column} not like 'a%')")
        ((answer),) = desk.answers("replay", "--all", code=1)
        assert (answer["result"], answer["reason"], answer["attempts"]) == ("failed", "storing-failed", 2)
        assert desk.workers.rows("select document_id from livedex.documents") == []
        assert desk.letters("state, stage") == [("open", "store")]
        connection.execute(f"alter table livedex.{table} drop constraint nothing")
    assert desk.answers("replay", "--reason", "storing-failed")[0]["outcome"] == "applied"
    assert_folded(desk)


def test_a_wrong_embedder_is_no_fault_of_the_record(desk: Desk) -> None:
    """A model that is not the generation's ends the command with the remedy, and the letter is as it was."""
    desk.take(bad("a"))
    done = desk("replay", "--all", LIVEDEX_EMBEDDER="auto")
    assert done.code == 1
    assert "set LIVEDEX_EMBEDDER=hash" in done.err
    assert desk.letters() == [("open", 1, "embedding-failed")]


# --- what is chosen


def test_filters_choose(open_desk: OpenDesk) -> None:
    """Each filter of the list lets its letters pass, and a replay takes the same."""
    desk, other = open_desk(), None
    desk.take(bad("a"), bad("b"), b"no JSON", key="c")
    other = desk.log.topic()
    desk.config.write_text(f'{desk.config.read_text()}[collections.other]\n[sources."{other}"]\ncollection = "other"\n')
    desk.workers.apply(desk.config)
    with desk.workers.in_thread(desk.worker()):
        desk.workers.caught_up(other, {0: desk.log.send(other, bad("a")).offset + 1})
    first, second, third, fourth = desk.ids()

    def listed(*filters: str) -> list[int]:
        return [row["id"] for row in desk.answers("list", *filters)]

    assert listed() == [fourth, third, second, first]
    assert listed("--reason", "invalid-json") == [third]
    assert listed("--topic", other) == [fourth]
    assert listed("--collection", "default") == [third, second, first]
    assert listed("--document", "a") == [fourth, first]
    assert listed("--document", "a", "--collection", "other") == [fourth]
    assert listed("--partition", "0", "--limit", "2") == [fourth, third]
    assert listed("--partition", "1") == []
    assert listed("--state", "discarded") == []
    assert "no dead letters" in desk("list", "--state", "discarded").err

    assert [row["id"] for row in desk.answers("replay", "--all", "--reason", "embedding-failed", "--limit", "2")] == [
        fourth,
        second,
    ]
    assert [row["id"] for row in desk.answers("discard", "--document", "c")] == [third]
    assert desk.letters("state") == [("open",), ("replayed",), ("discarded",), ("replayed",)]
    assert desk.workers.rows("select collection from livedex.documents where document_id = 'a'") == [("other",)]
    assert listed("--state", "replayed") == [fourth, second]
    assert listed("--state", "all", "--limit", "1") == [fourth]


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_nothing_is_changed_by_accident(desk: Desk, verb: str) -> None:
    """Neither ids nor a filter, or both, is a usage error; an id that does not exist is named, before anything is done."""
    desk.take(bad("a"))
    (number,) = desk.ids()
    mistakes = {
        "": "--all", "--limit 5": "--all", "1 --all": "--all", "1 --topic t": "--topic", "--reason strange": "--reason",
        "--partition -1": "--partition", "x": "ID", "0": "ID",
    }  # fmt: skip
    for arguments, says in mistakes.items():
        done = desk(verb, *arguments.split())
        assert (done.code, done.out) == (2, ""), arguments
        assert says in done.err
    absent = desk(verb, str(number), "77777", "88888")
    assert (absent.code, absent.out) == (1, "")
    assert "no dead letter 77777, 88888" in absent.err
    assert desk.letters("state, attempts") == [("open", 1)]
    nothing = desk(verb, "--topic", "nothing.here")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no dead letters with topic nothing.here" in nothing.err


def test_what_is_closed_is_taken_only_where_the_state_says_so(desk: Desk) -> None:
    """A discarded letter is refused and a replayed one is done already, unless --state names its state."""
    desk.take(bad("a"), bad("b"))
    first, second = map(str, desk.ids())
    assert desk.answers("discard", first)[0]["result"] == "discarded"
    assert desk.answers("discard", first)[0]["detail"] == "it was discarded already"
    (refused,) = desk.answers("replay", first, code=1)
    assert refused["result"] == "refused"
    assert "--state discarded" in refused["detail"]
    assert desk.answers("replay", "--all")[0]["id"] == int(second)
    assert desk.answers("replay", second)[0]["detail"] == "it was replayed already"
    assert desk.answers("discard", second, code=1)[0]["result"] == "refused"
    assert desk.letters("state") == [("discarded",), ("replayed",)]

    assert desk.answers("replay", "--state", "discarded")[0]["outcome"] == "applied"
    again = desk.answers("replay", "--all", "--state", "replayed")
    assert [(row["result"], row["outcome"]) for row in again] == [("replayed", "stale")] * 2
    assert_folded(desk)


def test_a_letter_of_an_earlier_log_is_refused(desk: Desk) -> None:
    """After a reset that raised the epoch a letter cannot be replayed, nor can a damaged batch: both say so, and wait."""
    desk.take(bad("a"), bad("b"))
    first, second = map(str, desk.ids())
    with desk.workers.connect() as connection:
        connection.execute("update livedex.dead_letter set reason = 'unreadable' where id = %s", (second,))
    (damaged,) = desk.answers("replay", second, code=1)
    assert damaged["result"] == "refused"
    assert "damaged batch" in damaged["detail"]
    reset = desk.terminal(desk.config)("source", "reset", desk.topic)
    assert reset.code == 0, reset.err
    (refused,) = desk.answers("replay", first, code=1)
    assert "epoch 0" in refused["detail"]
    assert "epoch 1" in refused["detail"]
    assert f"dead-letters discard {first}" in refused["detail"]
    assert desk.workers.rows("select document_id from livedex.document") == []
    assert desk.letters("state, attempts") == [("open", 1)] * 2
    assert [row["result"] for row in desk.answers("discard", first, second)] == ["discarded"] * 2


def test_the_record_is_shown_with_its_collection_and_version(desk: Desk) -> None:
    """`show` has what a replay goes by."""
    desk.take(bad("a"))
    shown = json.loads(desk("show", str(desk.ids()[0]), "--json").out)
    assert (shown["collection"], shown["epoch"], shown["version"]) == ("default", 0, [0, 0, 0])
