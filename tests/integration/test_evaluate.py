"""`livedex evaluate` measures the searches that people get, through the query worker and without one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from livedex.config import KafkaSettings
from livedex.dev.stack import Addresses
from livedex.query.app import QueryApp
from support.database import fresh_database
from support.kafka import Log
from support.terminal import Terminal
from support.workers import Workers, free_port

ANIMALS = ["aardvark", "baboon", "caribou", "dingo", "emu"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A collection of five documents, and the environment of who evaluates it."""

    environment: dict[str, str]
    queries: Path
    qrels: Path


@pytest.fixture(scope="module")
def judged(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """Each document has the words of its own query; for the hash encoder only the same text is near, so one query is exactly a
    document's text, and the others are found by words alone.
    """
    folder = tmp_path_factory.mktemp("judged")
    kafka = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(kafka) as log:
        topic = log.topic()
        config = workers.config(topic, model="hash-64")
        workers.apply(config)
        places = [log.send(topic, {"id": name, "text": f"About the {name}."}) for name in ANIMALS]
        workers.caught_up_by(config, topic, {0: places[-1].offset + 1})
        queries, qrels = folder / "queries.jsonl", folder / "qrels.tsv"
        texts = {"exact": "About the aardvark.", **{name: f"a wild {name}" for name in ANIMALS[1:]}, "unjudged": "zebra"}
        queries.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()))
        right = {"exact": "aardvark", **{name: name for name in ANIMALS[1:]}}
        qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{name}\t{id_}\t1\n" for name, id_ in right.items()))
        with workers.in_thread(QueryApp(workers.settings(config))) as address:
            environment = {
                "LIVEDEX_CONFIG": str(config),
                "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers,
                "LIVEDEX_DATABASE_URL": url,
                "LIVEDEX_EMBEDDER": "hash",
                "LIVEDEX_HTTP_PORT": address.rpartition(":")[2],
            }
            yield Judged(environment, queries, qrels)


@pytest.fixture
def livedex(judged: Judged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command line."""
    return Terminal(judged.environment, monkeypatch, capsys)


def test_each_mode_has_a_row(livedex: Terminal, judged: Judged) -> None:
    """Words find every answer first, vectors of the hash encoder the one with the same text; what nobody judged is left out."""
    done = livedex("evaluate", "--queries", str(judged.queries), "--qrels", str(judged.qrels), "--json")
    assert done.code == 0, done.err
    assert "1 of 6 queries have no relevant document" in done.err
    rows = {row["mode"]: row for row in json.loads(done.out)}
    assert list(rows) == ["vector", "text", "hybrid"]
    assert {row["queries"] for row in rows.values()} == {5}
    assert {row["recall_at"] for row in rows.values()} == {100}
    assert (rows["text"]["ndcg"], rows["text"]["recall"], rows["text"]["mrr"]) == (1, 1, 1)
    assert rows["vector"]["recall"] == 1, "five documents are all found"
    assert rows["vector"]["ndcg"] < 1


def test_the_table_for_people(livedex: Terminal, judged: Judged) -> None:
    """One mode, with its depth."""
    arguments = ["--queries", str(judged.queries), "--qrels", str(judged.qrels), "--mode", "text", "-k", "10"]
    done = livedex("evaluate", *arguments, COLUMNS="120")
    assert done.code == 0, done.err
    assert "recall@10" in done.out
    assert done.out.splitlines()[-1].split() == ["text", "no", "1.000", "1.000", "1.000"]


def test_without_a_query_worker_it_searches_itself(livedex: Terminal, judged: Judged) -> None:
    """With the same result; that there is none is said once."""
    arguments = ["evaluate", "--queries", str(judged.queries), "--qrels", str(judged.qrels), "--json"]
    alone = livedex(*arguments, LIVEDEX_HTTP_PORT=str(free_port()))
    assert alone.code == 0, alone.err
    assert alone.err.count("no query worker") == 1
    assert json.loads(alone.out) == json.loads(livedex(*arguments).out)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--mode", "sparse"], 2, "mode"),
        (["--collection", "absent"], 1, "the collection absent does not exist"),
        (["-k", "5"], 2, "-k"),
        (["-k", "1001"], 2, "-k"),
    ],
)
def test_wrong_arguments(livedex: Terminal, judged: Judged, arguments: list[str], code: int, why: str) -> None:
    """Each is told, and nothing is on stdout."""
    done = livedex("evaluate", "--queries", str(judged.queries), "--qrels", str(judged.qrels), *arguments)
    assert (done.code, done.out) == (code, "")
    assert why in done.err


def test_ids_that_do_not_agree(livedex: Terminal, judged: Judged, tmp_path: Path) -> None:
    """Judgments of other queries are a mistake, not a result of 0."""
    other = tmp_path / "qrels"
    other.write_text("301 0 a 1\n")
    done = livedex("evaluate", "--queries", str(judged.queries), "--qrels", str(other))
    assert (done.code, done.out) == (2, "")
    assert "do the ids agree?" in done.err
