"""Each failure has its own answer: a record at fault is isolated, an outage is waited for, what is broken stops loudly."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.errors import ConfigError, UnavailableError
from livedex.index.app import IndexApp
from support.kafka import Log
from support.waiting import until
from support.workers import Metrics, Workers

Mood = Callable[[Sequence[str], Vectors], Vectors]


class MoodyEncoder(HashEncoder):
    """The hash encoder, whose vectors go through `mood` before anybody sees them."""

    mood: Mood = staticmethod(lambda _, vectors: vectors)
    calls = 0

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        self.calls += 1
        return self.mood(texts, super().encode_documents(texts, stopped=stopped))


class Index:
    """A worker in a thread, on a topic of its own, with an encoder that does as it is told."""

    def __init__(self, workers: Workers, log: Log, config: Path, topic: str) -> None:
        self.workers, self.log, self.topic = workers, log, topic
        self.encoder = MoodyEncoder(ModelSpec(model="hash-384"))
        self.app = IndexApp(workers.settings(config), open_encoder=self._open)
        self.address = ""

    def _open(self, embedder: EmbedderName, generation: Generation) -> MoodyEncoder:
        del embedder
        if generation.identity.model == "absent":
            raise ConfigError("the model 'absent' was not found")
        self.encoder = MoodyEncoder(ModelSpec(model=generation.identity.model))
        return self.encoder

    def send(self, *names: str, text: str = "A text of {}.", title: str | None = None) -> int:
        """Upserts of documents with these names; the end of the log."""
        posts = [self.log.post(self.topic, {"id": name, "text": text.format(name), "title": title}) for name in names]
        return [post() for post in posts][-1].offset + 1

    def send_together(self, *names: str, title: str | None = None) -> int:
        """The same, so that they come in one batch."""
        return self.log.send_together(
            self.topic, [{"id": name, "text": f"A text of {name}.", "title": title} for name in names]
        )

    def caught_up(self, end: int) -> None:
        """Wait until everything is applied."""
        self.workers.caught_up(self.topic, {0: end})

    def letters(self) -> list[tuple[str, str]]:
        """(document, reason) of every dead letter."""
        return [
            (row[0], row[1]) for row in self.workers.rows("select document_id, reason from livedex.dead_letter order by id")
        ]

    def documents(self) -> set[str]:
        """The ids of the visible documents."""
        return {row[0] for row in self.workers.rows("select document_id from livedex.documents")}

    def progress(self) -> int:
        """The next offset."""
        rows = self.workers.rows("select coalesce(max(next_offset), 0) from livedex.progress")
        return int(rows[0][0])

    def not_ready_for(self) -> list[str]:
        """What /readyz names."""
        answer = httpx.get(f"{self.address}/readyz", trust_env=False)
        return list(answer.json()["waiting_for"]) if answer.status_code == 503 else []

    def held(self, reason: str) -> float:
        """The gauge of held partitions."""
        return Metrics(httpx.get(f"{self.address}/metrics", trust_env=False).text).value(
            "livedex_paused_partitions", reason=reason
        )


@pytest.fixture
def index(workers: Workers, log: Log) -> Iterator[Index]:
    """A worker at work."""
    topic = log.topic()
    config = workers.config(topic)
    workers.apply(config)
    made = Index(workers, log, config, topic)
    with workers.in_thread(made.app) as address:
        made.address = address
        yield made


def away(texts: Sequence[str], vectors: Vectors) -> Vectors:
    """A mood: nobody is there."""
    del texts, vectors
    raise UnavailableError("embedder", "the model server does not answer")


def names(count: int, of: str = "good") -> list[str]:
    """So many names."""
    return [f"{of} {number}" for number in range(count)]


def test_the_records_at_fault_are_found_by_halving(index: Index) -> None:
    """Of many documents in one batch only those that the model cannot read become dead letters, in few tries."""

    def fails(texts: Sequence[str], vectors: Vectors) -> Vectors:
        if any("bad" in text for text in texts):
            raise ValueError("a token that the model does not know")
        return vectors

    index.encoder.mood = fails
    index.caught_up(index.send(*names(60), "bad 1", *names(30, "fine"), "bad 2"))
    assert index.letters() == [("bad 1", "embedding-failed"), ("bad 2", "embedding-failed")]
    assert index.documents() == {*names(60), *names(30, "fine")}
    assert index.encoder.calls < 60
    assert index.not_ready_for() == []


def test_vectors_without_a_direction_are_the_records_fault(index: Index) -> None:
    """A model that gives NaN for one text makes one dead letter."""

    def spoils(texts: Sequence[str], vectors: Vectors) -> Vectors:
        vectors[[number for number, text in enumerate(texts) if "bad" in text]] = np.nan
        return vectors

    index.encoder.mood = spoils
    index.caught_up(index.send("good 0", "bad 0", "good 1"))
    assert index.letters() == [("bad 0", "embedding-failed")]
    assert index.documents() == {"good 0", "good 1"}


def test_an_encoder_that_fails_on_everything_skips_nothing(index: Index) -> None:
    """After twenty failures in a row no record is at fault: nothing is skipped, /readyz and a gauge say so, and once the
    encoder is mended the worker goes on by itself.
    """

    def broken(texts: Sequence[str], vectors: Vectors) -> Vectors:
        raise ValueError("the weights are gone")

    index.encoder.mood = broken
    end = index.send_together(*names(40))
    until(lambda: f"{index.topic}[0]" in index.not_ready_for(), what="the worker to be not ready")
    until(lambda: index.held("systemic") == 1, what="the gauge")
    assert (index.progress(), index.letters()) == (0, [])
    index.encoder.mood = lambda _, vectors: vectors
    index.caught_up(end)
    assert (index.documents(), index.letters()) == (set(names(40)), [])
    until(lambda: index.not_ready_for() == [], what="the worker to be ready")


def test_a_lone_culprit_is_no_streak_however_often_it_is_tried(index: Index, database_url: str) -> None:
    """While the batch cannot be applied for another reason, the same failing record is counted once."""

    def fails(texts: Sequence[str], vectors: Vectors) -> Vectors:
        if any("bad" in text for text in texts):
            raise ValueError("a token that the model does not know")
        return vectors

    index.encoder.mood = fails
    index.caught_up(index.send("good 0"))
    with psycopg.connect(database_url) as blocker:
        blocker.execute("select from livedex.source_progress for update")
        before = index.encoder.calls
        end = index.send("bad 0")
        until(lambda: index.encoder.calls > before, what="the encoder to be asked")
    index.caught_up(end)
    assert index.letters() == [("bad 0", "embedding-failed")]


def test_a_wrong_dimension_stops_at_once(index: Index) -> None:
    """Even with a single record in flight: it cannot be the record's fault."""
    index.encoder.mood = lambda _, vectors: vectors[:, :8]
    end = index.send("good 0")
    until(lambda: f"{index.topic}[0]" in index.not_ready_for(), what="the worker to be not ready")
    assert (index.progress(), index.letters()) == (0, [])
    index.encoder.mood = lambda _, vectors: vectors
    index.caught_up(end)
    assert index.documents() == {"good 0"}


def test_a_missing_table_stops_at_once(index: Index) -> None:
    """A database that is not ours is nobody's dead letter; once the table is back the worker goes on."""
    index.caught_up(index.send("good 0"))
    index.workers.execute("alter table livedex.document_chunk rename to elsewhere")
    end = index.send("good 1")
    until(lambda: f"{index.topic}[0]" in index.not_ready_for(), what="the worker to be not ready")
    assert index.letters() == []
    index.workers.execute("alter table livedex.elsewhere rename to document_chunk")
    index.caught_up(end)
    assert index.documents() == {"good 0", "good 1"}


def test_an_encoder_that_is_away_is_waited_for(index: Index) -> None:
    """No dead letter, no end: the dependency is named until it is back."""
    index.encoder.mood = away
    end = index.send(*names(30))
    until(lambda: index.not_ready_for() == ["embedder"], what="the worker to wait for the embedder")
    until(lambda: index.held("embedder") == 1, what="the gauge")
    assert (index.progress(), index.letters()) == (0, [])
    index.encoder.mood = lambda _, vectors: vectors
    index.caught_up(end)
    assert index.documents() == set(names(30))


@pytest.mark.parametrize(
    "refusal",
    [
        "alter table livedex.document add constraint refused check (title is distinct from 'bad')",
        "alter table livedex.chunk add constraint refused check (text not like '%bad%')",
    ],
    ids=["applying", "staging"],
)
def test_what_postgres_refuses_is_isolated_too(index: Index, refusal: str) -> None:
    """The document that a table does not take becomes a dead letter, an older version of it in the same batch is applied, and
    its neighbours are.
    """
    index.workers.execute(refusal)
    index.send("victim", *names(30))
    end = index.send("victim", title="bad", text="A bad text of {}.")
    index.caught_up(index.send(*names(5, "later")))
    assert index.letters() == [("victim", "storing-failed")]
    assert index.documents() == {"victim", *names(30), *names(5, "later")}
    assert index.workers.rows("select text from livedex.chunks where document_id = 'victim'") == [("A text of victim.",)]
    assert index.workers.rows('select "offset", stage from livedex.dead_letter') == [(end - 1, "store")]
    assert index.workers.rows("select pending_reason from livedex.documents where document_id = 'victim'") == [
        ("storing-failed",)
    ]


def test_of_two_events_of_a_document_the_one_that_is_refused_is_at_fault(index: Index) -> None:
    """A good text is applied beside newer metadata that a table does not take, in one batch."""
    index.workers.execute("alter table livedex.document add constraint refused check (not metadata ? 'bad')")
    events: list[dict[str, Any]] = [{"id": "a", "text": "A text."}, {"id": "a", "op": "metadata", "metadata": {"bad": 1}}]
    end = index.log.send_together(index.topic, events)
    index.caught_up(end)
    assert index.documents() == {"a"}
    assert index.workers.rows('select "offset", reason from livedex.dead_letter') == [(end - 1, "storing-failed")]


@pytest.mark.accept
def test_a_moment_without_memory_makes_no_dead_letter(index: Index) -> None:
    """A model's library says in its own way that it has none, for a single record and for a few words alike."""

    def starved(texts: Sequence[str], vectors: Vectors) -> Vectors:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")

    index.encoder.mood = starved
    end = index.send("good 0")
    until(lambda: index.encoder.calls > 14, what="more tries than a document has")
    assert (index.progress(), index.letters(), index.not_ready_for()) == (0, [], ["embedder"])
    index.encoder.mood = lambda _, vectors: vectors
    index.caught_up(end)
    assert index.documents() == {"good 0"}


@pytest.mark.accept
def test_documents_that_no_memory_is_enough_for_are_found_one_after_another(index: Index) -> None:
    """Each is tried a few times, while there is memory for a few words; three of them take three times as long as one."""

    def starved(texts: Sequence[str], vectors: Vectors) -> Vectors:
        if any("huge" in text for text in texts):
            raise MemoryError
        return vectors

    index.encoder.mood = starved
    end = index.send_together("huge 1", "good 1", "huge 2", "good 2", "huge 3")
    index.caught_up(end)
    assert {name for name, _ in index.letters()} == {"huge 1", "huge 2", "huge 3"}
    assert index.documents() == {"good 1", "good 2"}
    assert index.encoder.calls < 100


def test_a_source_is_stopped_also_while_another_collections_model_is_missing(index: Index) -> None:
    """And goes on when it is live again: what cannot be opened concerns its own collection only."""
    index.caught_up(index.send("good 0"))
    connection = index.workers.connect()
    connection.execute("insert into livedex.collection (name) values ('other')")
    connection.execute(
        """with chunked as (
             insert into livedex.chunking (collection_id, parameters, max_tokens, text_config)
             select c.collection_id, k.parameters, k.max_tokens, k.text_config
               from livedex.collection c, livedex.chunking k where c.name = 'other' returning collection_id, chunking_id
           ), made as (
             insert into livedex.generation (collection_id, chunking_id, model, model_revision, encoder, dimension)
             select collection_id, chunking_id, 'absent', '1', 'hash', 4 from chunked returning collection_id, generation_id
           )
           select 1"""
    )
    connection.execute(
        """update livedex.collection c set active_generation = g.generation_id
             from livedex.generation g where g.collection_id = c.collection_id and c.name = 'other'"""
    )
    until(lambda: "catalogue" in index.not_ready_for(), what="the model to be missed")
    connection.execute("update livedex.source set state = 'stopped', reason = 'an operator stopped it'")
    until(lambda: index.held("stopped") == 1, what="the source to be left")
    end = index.send("good 1")
    connection.execute("update livedex.source set state = 'live', reason = null")
    index.caught_up(end)
    assert index.documents() == {"good 0", "good 1"}
    connection.close()


def test_a_database_that_refuses_everything_skips_nothing(index: Index) -> None:
    """Twenty refusals in a row are the database's fault."""
    index.workers.execute("alter table livedex.document add constraint refused check (title is null)")
    end = index.send_together(*names(40), title="any")
    until(lambda: f"{index.topic}[0]" in index.not_ready_for(), what="the worker to be not ready")
    assert (index.progress(), index.letters()) == (0, [])
    index.workers.execute("alter table livedex.document drop constraint refused")
    index.caught_up(end)
    assert (index.documents(), index.letters()) == (set(names(40)), [])


def test_a_database_that_lost_commits_is_caught_up_again(index: Index) -> None:
    """After a failover to a copy that lacks the last commits, an idle worker notices by itself and applies them again."""
    index.caught_up(index.send("kept"))
    end = index.send(*names(5))
    index.caught_up(end)
    lost = "select doc_key from livedex.document where document_id like 'good%'"
    index.workers.execute(
        f"delete from livedex.document_chunk where doc_key in ({lost})",
        f"delete from livedex.document where doc_key in ({lost})",
        "update livedex.source_progress set next_offset = 1",
    )
    index.caught_up(end)
    assert index.documents() == {"kept", *names(5)}


def test_a_generation_that_was_replaced_is_written_no_more(index: Index) -> None:
    """A batch that was planned for another generation than the active one changes nothing."""
    index.caught_up(index.send("good 0"))
    index.workers.execute("update livedex.collection set active_generation = null")
    end = index.send("good 1")
    until(lambda: index.app.metrics.fenced._value.get() > 0, what="the batch to be refused")
    assert (index.progress(), index.documents()) == (end - 1, {"good 0"})


def test_a_letter_is_closed_when_its_record_can_be_indexed_after_all(index: Index) -> None:
    """Read again with the encoder mended, the record is applied and its letter not open any more; one that fails again is."""

    def fails(texts: Sequence[str], vectors: Vectors) -> Vectors:
        if any(name in text for text in texts for name in blamed):
            raise ValueError("a token that the model does not know")
        return vectors

    blamed = ["first", "second"]
    index.encoder.mood = fails
    end = index.send("first", "second", "good")
    index.caught_up(end)
    blamed.remove("first")
    index.workers.execute("update livedex.source_progress set next_offset = 0")
    index.caught_up(end)
    letters = "select document_id, state, attempts from livedex.dead_letter order by id"
    assert index.workers.rows(letters) == [("first", "replayed", 1), ("second", "open", 2)]
    assert index.documents() == {"first", "good"}
