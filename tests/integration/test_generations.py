"""A collection changes its model while it is written and searched: nobody waits, nothing mixes, and the way back is open."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from livedex import generations
from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.core.change import CANARY_HEADER, CANARY_PREFIX
from livedex.core.mailbox import PRESENCE_CLASS
from livedex.database import query
from livedex.encoders import Encoder, probe
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.errors import ConfigError, ConflictError
from livedex.index import maintain_build
from livedex.index.app import IndexApp
from livedex.query.app import QueryApp
from support.fold import fold
from support.generations import Asking, assert_is_fold_in, generations_of
from support.kafka import Log
from support.terminal import Terminal
from support.upkeep import FAST
from support.waiting import until
from support.workers import Workers

TEXT = "The lighthouse keeper writes a letter."


class Frail(HashEncoder):
    """A model that gives no direction for some texts, as a real one gives NaN."""

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        vectors = super().encode_documents(texts, stopped=stopped)
        vectors[["wreck" in text for text in texts]] = np.nan
        return vectors


class Slow(HashEncoder):
    """A model that takes its time, and counts what it embeds."""

    embedded = 0  # by all of them

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        time.sleep(0.2)
        Slow.embedded += len(texts)
        return super().encode_documents(texts, stopped=stopped)


KINDS = {"frail: ": Frail, "slow: ": Slow}  # by the prompt of documents


def open_encoder(embedder: EmbedderName, made: Generation) -> HashEncoder:
    """The hash encoder, of the kind that the prompt says, or not to be had."""
    del embedder
    if made.identity.document_prompt == "absent: ":
        raise ConfigError("the model was not found")
    return KINDS.get(made.identity.document_prompt, HashEncoder)(made.model_spec)


@dataclass(slots=True)
class Site:
    """A collection in use: both workers in threads, and the command line of its operator."""

    workers: Workers
    log: Log
    topic: str
    config: Path
    livedex: Terminal
    address: str = ""
    choose: random.Random = field(default_factory=lambda: random.Random(7))

    def send(self, count: int, *, of: int = 60) -> int:
        """Upserts and deletes of so many documents; the end of the log."""
        posts = []
        for _ in range(count):
            name = f"doc/{self.choose.randrange(of)}"
            words = " ".join(self.choose.choices(["brine", "kelp", "gull", "mast", "tide", "lamp"], k=80))
            event: dict[str, Any] = {"id": name, "op": "delete"} if self.choose.random() < 0.2 else {"id": name, "text": words}
            posts.append(self.log.post(self.topic, event))
        return [post() for post in posts][-1].offset + 1

    def settings(self, **collection: str) -> None:
        """Set the collection so."""
        path = self.workers.config(self.topic, group=None, client=None, **collection)
        self.config.write_text(path.read_text())

    def change(self, **collection: str) -> None:
        """Set the collection so, and apply it."""
        self.settings(**collection)
        done = self.livedex("apply")
        assert done.code == 0, done.err

    def generations(self) -> dict[int, dict[str, Any]]:
        """What `livedex generation list` tells, by number."""
        with self.workers.connect() as connection:
            return {row["generation"]: row for row in generations.read(connection)}

    def built(self, number: int) -> None:
        """Wait until a generation has all documents."""
        until(lambda: self.generations()[number]["complete"], what="all to be built")
        row = self.generations()[number]
        assert row["built"] == row["documents"]

    def search(self, text: str = TEXT, **body: Any) -> dict[str, Any]:
        """By vector alone: the document with just this text has a score of 1, if both were embedded by one model."""
        asked = {"query": text, "k": 3, "mode": "vector", **body}
        response = httpx.post(f"{self.address}/v1/search", json=asked, timeout=10, trust_env=False)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def is_fold(self) -> None:
        """Every live generation is the fold of the log."""
        expected = fold(self.log.records(self.topic), numbered_by="log")
        with self.workers.connect() as connection:
            for made in generations_of(connection).values():
                assert_is_fold_in(connection, made, expected)


@pytest.fixture
def site(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """One whose model is hash-16, with a document that searches ask for."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    environment = {
        "LIVEDEX_CONFIG": str(config),
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": workers.stack.kafka_bootstrap_servers,
        "LIVEDEX_DATABASE_URL": workers.database_url,
        "LIVEDEX_EMBEDDER": "hash",
        "COLUMNS": "300",
    }
    made = Site(workers, log, topic, config, Terminal(environment, monkeypatch, capsys))
    settings = workers.settings(config)
    with (
        workers.in_thread(IndexApp(settings, pace=FAST, open_encoder=open_encoder)),
        workers.in_thread(QueryApp(settings)) as address,
    ):
        made.address = address
        place = log.send(topic, {"id": "asked", "text": TEXT})
        workers.caught_up(topic, {0: place.offset + 1})
        yield made


def test_the_model_changes_under_writes_and_searches(site: Site) -> None:
    """A generation with another prompt, so that vectors of both have one length, is built from what is stored while documents
    change; then it is searched in one step, and back, without a failed or mixed answer. Both are the fold at every stage.
    """
    site.workers.caught_up(site.topic, {0: site.send(150)})
    with Asking(site.address, TEXT, "asked") as asking:
        site.change(model="hash-16", document_prompt="passage: ", query_prompt="passage: ")
        for _ in range(5):
            site.send(20)
        site.built(2)
        site.workers.caught_up(site.topic, {0: site.send(20)})
        site.is_fold()
        assert site.livedex("generation", "switch", "default", "2").code == 0
        until(lambda: asking.generations[-1] == 2, what="searches in the new generation")
        site.workers.caught_up(site.topic, {0: site.send(30)})
        site.is_fold()
        assert [(n, row["state"]) for n, row in site.generations().items()] == [(1, "kept"), (2, "active")]
        began = time.monotonic()
        assert site.livedex("generation", "rollback", "default").code == 0
        assert time.monotonic() - began < 5
        until(lambda: asking.generations[-1] == 1, what="searches in the old generation")
        site.workers.caught_up(site.topic, {0: site.send(30)})
        site.is_fold()
        assert site.livedex("generation", "switch", "default", "2").code == 0
        assert site.livedex("generation", "drop", "1").code == 0
        until(lambda: asking.generations[-1] == 2, what="searches in the new generation")
        site.workers.caught_up(site.topic, {0: site.send(30)})
    assert not asking.failures
    assert len(asking.generations) > 50
    site.is_fold()
    assert list(site.generations()) == [2]
    left = "select (select count(*) from livedex.chunking), to_regclass('livedex.embedding_1')"
    until(lambda: site.workers.rows(left) == [(1, None)], what="the dropped generation to go")
    site.is_fold()


@pytest.mark.parametrize(
    "change", [{"model": "hash-24"}, {"model": "hash-16", "context": "none"}, {"model": "hash-16", "metric": "l2"}]
)
def test_each_setting_of_a_generation_may_change(site: Site, change: dict[str, str]) -> None:
    """Another dimension, another chunking, another metric."""
    end = site.log.send(site.topic, {"id": "titled", "title": "A title", "text": "Some text.\n\n" * 200}).offset + 1
    site.workers.caught_up(site.topic, {0: end})
    site.change(**change)
    site.built(2)
    assert site.livedex("generation", "switch", "default", "2").code == 0
    site.is_fold()
    assert site.search()["results"][0]["document_id"] == "asked"
    assert site.livedex("apply").code == 0
    assert "everything is as the settings say" in site.livedex("apply").err


def test_what_is_not_ready_is_not_switched_to(site: Site) -> None:
    """With what is missing; the searches go on in the old generation."""
    blocker = site.workers.connect()
    blocker.execute("begin; select from livedex.document for update")  # so that nothing is built
    site.change(model="hash-24")
    refused = site.livedex("generation", "switch", "default", "2")
    assert refused.code == 1
    assert "generation 2 of collection default is not ready: the document 'asked' is not in it yet" in refused.err
    assert site.search()["generation"] == 1
    blocker.execute("rollback")
    blocker.close()
    site.built(2)
    assert site.livedex("generation", "switch", "default", "2").code == 0
    again = site.livedex("generation", "switch", "default", "2")
    assert (again.code, "is the active one" in again.err) == (1, True)


def test_a_switch_waits_for_the_query_workers(site: Site) -> None:
    """While a query worker still loads the new model, the switch waits for it, so that no text in SQL is refused; one that
    cannot load it is named, and nothing is switched.
    """
    loads = threading.Event()

    def slowly(embedder: EmbedderName, made: Generation) -> Encoder:
        if made.identity.model == "hash-24" and not loads.is_set():
            raise ConfigError("the model is not there")
        return HashEncoder(made.model_spec)

    app = QueryApp(site.workers.settings(site.config), open_encoder=slowly)
    app.name = "serve-without-model"
    with site.workers.in_thread(app), site.workers.connect() as connection, ThreadPoolExecutor(1) as other:
        site.change(model="hash-24")
        site.built(2)
        until(lambda: present(connection) == {1: 2, 2: 1}, what="the other query worker to have both models")
        with pytest.raises(ConfigError, match=r"is not ready: serve-without-model-mailbox cannot embed texts for it"):
            generations.switch(connection, "default", 2, patience=0.2)
        assert site.search()["generation"] == 1
        with site.workers.connect() as own:
            switched = other.submit(generations.switch, own, "default", 2)
            with pytest.raises(TimeoutError):
                switched.result(timeout=1)
            loads.set()
            app._encoders._refused.clear()  # which would be tried again in half a minute
            switched.result(timeout=20)
        assert present(connection) == {1: 2, 2: 2}
        for number in range(20):
            connection.execute("select livedex.embed(%s)", (f"a new text {number}",))


def test_an_application_keeps_its_vectors_apart(site: Site) -> None:
    """A vector that was made before a switch is searched in its own generation when its number is said, and refused once that
    one was dropped; embed gives the vector of the generation that is said.
    """
    site.change(model="hash-16", document_prompt="passage: ", query_prompt="passage: ")  # of the same dimension
    site.built(2)
    with site.workers.connect() as connection:

        def embedded() -> str:
            return str(connection.execute("select livedex.embed(%s)::text", (TEXT,)).fetchone())

        def score(vector: str) -> float:
            found = connection.execute(
                "select score from livedex.search_vector(%s::vector, mode => 'vector') where document_id = 'asked'",
                (vector.strip("(,')"),),
            ).fetchone()
            assert found is not None
            return float(found[0])

        active = "select livedex.active_generation()"
        assert connection.execute(active).fetchone() == (1,)
        kept = embedded()
        assert score(kept) == pytest.approx(1, abs=1e-3)
        generations.switch(connection, "default", 2)
        assert connection.execute(active).fetchone() == (2,)
        assert score(kept) < 0.9, "of another model"
        connection.execute("set livedex.generation = '1'")
        assert score(kept) == pytest.approx(1, abs=1e-3)
        assert embedded() == kept
        for mode in ("vector", "text"):
            with connection.transaction():
                connection.execute("select livedex.search(%s, mode => %s)", (TEXT, mode))
                assert embedded() == kept, "a search leaves the choice as it was"
                assert score(kept) == pytest.approx(1, abs=1e-3)
        generations.drop(connection, 1)
        searched = "select livedex.search('a text that was never asked before')"
        for refused in (embedded, lambda: score(kept), lambda: connection.execute(searched)):
            with pytest.raises(psycopg.Error, match="is not searched any more") as error:
                refused()
            assert error.value.sqlstate == "LX001"
        connection.execute("reset livedex.generation")
        assert score(embedded()) == pytest.approx(1, abs=1e-3)


def test_of_two_operators_at_once_one_switches(site: Site) -> None:
    """The other waits, and is told that it was done; whoever holds the collection for longer is named as the reason."""
    site.change(model="hash-24")
    site.built(2)
    with site.workers.connect() as first, site.workers.connect() as second, ThreadPoolExecutor(1) as other:
        with first.transaction():
            generations.take_alone(first, 1, "default")
            switched = other.submit(generations.switch, second, "default", 2)
            with pytest.raises(TimeoutError):
                switched.result(timeout=0.5)
            generations.switch(first, "default", 2)
        with pytest.raises(ConfigError, match="generation 2 is the active one of collection default already"):
            switched.result(timeout=30)
        with first.transaction(), pytest.MonkeyPatch.context() as patched:
            patched.setattr(generations, "LOCK_TIMEOUT_MS", 1000)
            generations.take_alone(first, 1, "default")
            with pytest.raises(ConflictError, match="was in use for 1 s, by a batch or by another operator"):
                generations.switch(second, "default", 1)
    assert site.search()["generation"] == 2


def present(connection: "psycopg.Connection[Any]") -> dict[int, int]:
    """How many query workers can embed texts in SQL, by generation."""
    there = "select object, count(*) from livedex.advisory_locks where form = 2 and class = %s group by object"
    return dict(connection.execute(there, (PRESENCE_CLASS,)).fetchall())


MISTAKES = [
    (["switch", "default", "7"], "there is no generation 7"),
    (["switch", "other", "1"], "generation 1 is one of collection default"),
    (["rollback", "default"], "collection default keeps no earlier generation"),
    (["rollback", "absent"], "collection absent keeps no earlier generation"),
    (["drop", "1"], "generation 1 is the active one"),
    (["drop", "7"], "there is no generation 7"),
]


def test_wrong_commands(site: Site) -> None:
    """Each is told, and changes nothing."""
    for arguments, says in MISTAKES:
        done = site.livedex("generation", *arguments)
        assert done.code == 1
        assert says in done.err
    assert list(site.generations()) == [1]


def test_a_document_that_takes_longer_than_the_grace_is_built(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector takes nothing that is staged for it."""
    monkeypatch.setattr(Slow, "embedded", 0)
    monkeypatch.setattr(maintain_build, "CHUNKS", 8)
    monkeypatch.setattr(maintain_build, "HOLD_EVERY", 0.1)
    text = " ".join(f"Sentence {number} is like no other one in this long text." for number in range(1_500))
    place = site.log.send(site.topic, {"id": "large", "title": "Of all chunks", "text": text})
    site.workers.caught_up(site.topic, {0: place.offset + 1})
    site.change(model="hash-16", document_prompt="slow: ", context="none", orphan_grace="1s")  # other chunks
    site.built(2)
    ((chunks,),) = site.workers.rows("select count(*) from livedex.embedding_2")
    assert chunks > 10 * maintain_build.CHUNKS, "it must take two seconds"
    assert Slow.embedded <= chunks + len(probe.TEXTS), "nothing is embedded again"


def test_a_model_that_a_worker_does_not_have_is_left_to_others(site: Site) -> None:
    """Documents go on to be applied to the active generation; the other one is not complete, and not switched to."""
    site.change(model="hash-16", document_prompt="absent: ")
    site.workers.caught_up(site.topic, {0: site.send(10)})
    assert site.generations()[2]["state"] == "building"
    expected = fold(site.log.records(site.topic), numbered_by="log")
    with site.workers.connect() as connection:
        assert_is_fold_in(connection, generations_of(connection)[1], expected)
    assert site.livedex("generation", "switch", "default", "2").code == 1
    assert site.livedex("generation", "drop", "2").code == 0


def test_what_a_worker_left_out_is_built_behind_it(site: Site) -> None:
    """A batch that was not made for a generation that is built takes its documents out of it, and the builder takes them up."""
    site.workers.caught_up(site.topic, {0: site.send(30)})
    site.change(model="hash-24")
    site.built(2)
    with site.workers.connect() as connection:
        made = generations_of(connection)
        left_out = connection.execute(
            "select array(select doc_key from livedex.document where not deleted order by doc_key limit 5)"
        ).fetchone()
        assert left_out is not None
        connection.execute(query("index", "leave_to_builder"), {"generations": [2], "doc_keys": left_out[0]})
        with pytest.raises(ConfigError, match="is not ready"):
            generations.switch(connection, "default", 2)
    assert sorted(made) == [1, 2]
    site.built(2)
    until(lambda: site.livedex("generation", "switch", "default", "2").code == 0, what="it to be ready again")
    site.is_fold()


def test_the_list_is_for_people_and_programs(site: Site) -> None:
    """As a table, and as JSON; documents of canaries are counted in neither, nor in the gauge."""
    canary = {"id": f"{CANARY_PREFIX}index/0", "text": "livedexcanary", "format": "text"}
    place = site.log.send(site.topic, canary, headers=[(CANARY_HEADER, b"1")])
    site.workers.caught_up(site.topic, {0: place.offset + 1})
    site.change(model="hash-24")
    site.built(2)
    assert len(site.workers.rows("select from livedex.document_chunk where chunking_id = 2")) == 2, "the canary has a chunk"
    ratio = query("maintain", "built_ratio")
    with site.workers.connect() as connection:
        assert connection.execute(ratio, {"generation_id": 2}).fetchone() == (1.0,)
        with connection.transaction(force_rollback=True):
            connection.execute(
                "delete from livedex.document_chunk m using livedex.document d"
                " where m.doc_key = d.doc_key and m.chunking_id = 2 and d.document_id = 'asked'"
            )
            assert connection.execute(ratio, {"generation_id": 2}).fetchone() == (0.0,), "of the one document that counts"
            assert [row["built"] for row in generations.read(connection)] == [None, 0]
    listed = site.workers.run("generation", "list", "--json", config=site.config)
    assert [(row["generation"], row["state"], row["dimension"]) for row in json.loads(listed.stdout)] == [
        (1, "active", 16),
        (2, "building", 24),
    ]
    shown = site.workers.run("generation", "list", config=site.config, COLUMNS="200")
    assert "building, 1 of 1 documents, complete" in shown.stdout
    told = json.loads(site.workers.run("status", "--json", config=site.config).stdout)["collections"][0]["generations"]
    assert [(row["generation"], row["built"], row["documents"]) for row in told] == [(2, 1, 1)]


def test_golden_queries_guard_the_switch(site: Site, tmp_path: Path) -> None:
    """A generation that answers them worse is not switched to, unless that is allowed; evaluate measures it, too."""
    site.send(30)
    only_stop_words = "How was it with them?"  # so that words find nothing, and the vectors decide
    end = site.log.send(site.topic, {"id": "golden", "text": only_stop_words}).offset + 1
    site.workers.caught_up(site.topic, {0: end})
    queries, qrels = tmp_path / "queries", tmp_path / "qrels"
    queries.write_text(f"q1\t{only_stop_words}\n")
    qrels.write_text("q1 0 golden 1\n")
    files = ["--queries", str(queries), "--qrels", str(qrels)]
    # other prompts on the two sides of the hash encoder: no question is near its answer any more
    site.change(model="hash-16", document_prompt="passage: ", query_prompt="query: ")
    site.built(2)
    ranked = {}
    for number in ("1", "2"):
        done = site.workers.run("evaluate", *files, "--mode", "vector", "--generation", number, "--json", config=site.config)
        assert done.returncode == 0, done.stderr
        ranked[number] = json.loads(done.stdout)[0]["ndcg"]
    assert ranked["1"] == 1 > ranked["2"]
    unpaired = site.livedex("generation", "switch", "default", "2", "--queries", str(queries))
    assert (unpaired.code, "belong together" in unpaired.err) == (2, True)
    refused = site.livedex("generation", "switch", "default", "2", *files)
    assert (refused.code, "generation 2 answers the golden queries worse" in refused.err) == (1, True)
    assert site.generations()[1]["state"] == "active"
    assert site.livedex("generation", "switch", "default", "2", *files, "--tolerance", "1").code == 0


def test_one_generation_is_built_at_a_time(site: Site) -> None:
    """Other settings meanwhile are refused with the remedy; dropping it makes room."""
    site.change(model="hash-24")
    assert "everything is as the settings say" in site.livedex("apply").err
    site.settings(model="hash-32")
    refused = site.livedex("apply")
    assert refused.code == 1
    assert "generation 2 of collection default is being built" in refused.err
    assert "livedex generation drop 2 first" in refused.err
    assert site.livedex("generation", "drop", "2").code == 0
    assert site.livedex("apply").code == 0
    site.built(3)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_that_fails_ends_its_generation_and_nothing_else(site: Site, when: str) -> None:
    """NaN of the new model for a text that the old one reads, whether it is there before or comes after: the generation failed,
    with the reason; no dead letter, no stop, and what it was can be dropped.
    """
    wreck = {"id": "wreck", "text": "A wreck on the reef."}
    if when == "before":
        site.workers.caught_up(site.topic, {0: site.log.send(site.topic, wreck).offset + 1})
    site.change(model="hash-24", document_prompt="frail: ")
    if when == "after":
        site.built(2)
        site.workers.caught_up(site.topic, {0: site.log.send(site.topic, wreck).offset + 1})
    until(lambda: site.generations()[2]["state"] == "failed", what="the generation to fail")
    assert "vectors without a direction" in site.generations()[2]["reason"]
    site.workers.caught_up(site.topic, {0: site.send(10)})
    assert site.workers.rows("select count(*) from livedex.dead_letter") == [(0,)]
    assert site.search("A wreck on the reef.")["results"][0]["document_id"] == "wreck"
    refused = site.livedex("generation", "switch", "default", "2")
    assert (refused.code, "generation 2 failed, because of ValueError" in refused.err) == (1, True)
    again = site.livedex("apply")
    assert (again.code, "livedex generation drop 2 makes room" in " ".join(again.err.split())) == (1, True)
    assert site.livedex("generation", "drop", "2").code == 0
    site.is_fold()
