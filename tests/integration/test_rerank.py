"""Reranked searches: a cross-encoder judges the best candidates, in time or not at all."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from livedex.encoders.reranker import Reranker, Scores, WordsReranker, too_late
from livedex.index.app import IndexApp
from livedex.query import active
from livedex.query.app import QueryApp
from support.kafka import Log
from support.terminal import Terminal
from support.waiting import until
from support.workers import Metrics, Workers

QUESTION = "how is a sail mended"
TEXTS = {
    "exact": "how is a boat painted",
    "answer": "With needle and thread: this is how a sail is mended, and a torn jib.",
    "near": "a sail, a sail",
    "other": "Fog over the harbour.",
}


@dataclass(slots=True)
class Slow:
    """A reranker that takes its time for each passage, and looks at the deadline between two."""

    seconds: float = 0.0

    def scores(self, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
        """See Reranker."""
        for _ in passages:
            time.sleep(self.seconds)
            if time.perf_counter() >= deadline:
                raise too_late()
        return WordsReranker().scores(query, passages, deadline=float("inf"))


def no_numbers(_: Slow, query: str, passages: Sequence[str], *, deadline: float) -> Scores:
    """What a broken model makes of every passage."""
    del query, deadline
    return np.full(len(passages), np.nan, np.float32)


@dataclass(slots=True)
class Site:
    """A collection with a reranker, and a worker that answers."""

    workers: Workers
    config: Path
    topic: str
    reranker: Slow
    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Of a command whose searches the worker answers."""
        return {
            "LIVEDEX_CONFIG": str(self.config),
            "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": self.workers.stack.kafka_bootstrap_servers,
            "LIVEDEX_DATABASE_URL": self.workers.database_url,
            "LIVEDEX_EMBEDDER": "hash",
            "LIVEDEX_HTTP_PORT": self.address.rpartition(":")[2],
        }

    def ask(self, **body: Any) -> httpx.Response:
        """A search by words for QUESTION, unless told otherwise."""
        asked = {"query": QUESTION, "mode": "text", "k": 4, **body}
        return httpx.post(f"{self.address}/v1/search", json=asked, timeout=20, trust_env=False)

    def names(self, **body: Any) -> list[str]:
        """The documents in their order."""
        answer = self.ask(**body)
        assert answer.status_code == 200, answer.text
        return [row["document_id"] for row in answer.json()["results"]]


@pytest.fixture
def site(workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Four documents."""
    reranker = Slow()

    def open_slow(embedder: str, name: str) -> Reranker:
        assert (embedder, name) == ("hash", "words")
        return reranker

    monkeypatch.setattr(active, "open_reranker", open_slow)
    topic = log.topic()
    config = workers.config(topic, model="hash-8", reranker="words", text_config="simple")
    workers.apply(config)
    places = [log.send(topic, {"id": name, "text": text}) for name, text in TEXTS.items()]
    with workers.in_thread(IndexApp(workers.settings(config))):
        workers.caught_up(topic, {0: places[-1].offset + 1})
    with workers.in_thread(QueryApp(workers.settings(config))) as address:
        yield Site(workers, config, topic, reranker, address)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_the_reranker_decides_the_order(site: Site, mode: str) -> None:
    """Whatever found the candidates; the score is the reranker's, the time its own stage."""
    answer = site.ask(mode=mode, rerank=True).json()
    best = answer["results"][0]
    assert best["document_id"] == "answer"
    assert best["score"] == 1
    scores = [row["score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["degraded"] is False
    assert answer["took_ms"]["rerank"] > 0
    metrics = Metrics(httpx.get(f"{site.address}/metrics", trust_env=False).text)
    assert metrics.value("livedex_search_stage_seconds_count", stage="rerank") == 1
    assert site.ask(mode=mode).json()["took_ms"]["rerank"] == 0


def test_candidates_beyond_the_rows_asked_for_are_judged(site: Site) -> None:
    """The best of twenty, however few are asked for."""
    assert site.names(k=1, mode="vector", rerank=True) == ["answer"]


def test_without_time_the_order_is_that_of_the_search(site: Site) -> None:
    """In time, and marked."""
    plain = site.names()
    site.reranker.seconds = 0.2
    began = time.monotonic()
    late = site.ask(rerank=True, timeout_ms=300)
    assert time.monotonic() - began < 2
    assert late.status_code == 200
    assert late.json()["degraded"] is True
    assert [row["document_id"] for row in late.json()["results"]] == plain


def test_scores_that_are_no_numbers_give_no_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that of the search, and the answer says so."""
    plain = site.names()
    monkeypatch.setattr(Slow, "scores", no_numbers)
    answer = site.ask(rerank=True).json()
    assert answer["degraded"] is True
    assert [row["document_id"] for row in answer["results"]] == plain


def test_a_collection_without_a_reranker_says_so(site: Site) -> None:
    """As a mistake of the caller, with the remedy; once it has none."""
    site.config.write_text(site.config.read_text().replace('reranker = "words"\n', ""))
    site.workers.apply(site.config)
    until(lambda: site.ask(rerank=True).status_code == 400, what="the change to be noticed")
    problem = site.ask(rerank=True).json()
    assert problem["detail"].startswith("rerank: collection default has no reranker: set one in livedex.toml")
    together = [{"query": QUESTION, "mode": "text"}, {"query": QUESTION, "mode": "text", "rerank": True}]
    batch = httpx.post(f"{site.address}/v1/search/batch", json={"searches": together}, timeout=20, trust_env=False).json()
    assert [each["status"] for each in batch["results"]] == [200, 400]


def test_the_command_line_reranks(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the worker."""
    livedex = Terminal({**site.environment, "COLUMNS": "200"}, monkeypatch, capsys)
    done = livedex("search", QUESTION, "--mode", "text", "--rerank")
    assert done.code == 0, done.err
    assert "1.0000" in next(line for line in done.out.splitlines() if "answer" in line)
    assert "not reranked" not in done.err
    with_own = livedex("search", QUESTION, "--rerank", LIVEDEX_HTTP_PORT="1")
    assert (with_own.code, "1.0000" in with_own.out) == (0, True)
    site.reranker.seconds = 0.5
    late = livedex("search", QUESTION, "--mode", "text", "--rerank", "--timeout", "0.4")
    assert (late.code, "not reranked" in late.err) == (0, True)


def test_figures_are_not_given_for_what_was_not_reranked(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Those of the search's own order would pass for the reranker's."""
    monkeypatch.setattr(Slow, "scores", no_numbers)
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text(json.dumps({"_id": "1", "text": QUESTION}) + "\n")
    qrels.write_text("query-id\tcorpus-id\tscore\n1\tanswer\t1\n")
    livedex = Terminal(site.environment, monkeypatch, capsys)
    done = livedex("evaluate", "--queries", str(queries), "--qrels", str(qrels), "--mode", "text", "--rerank")
    assert (done.code, "the search for query '1' was not reranked" in done.err) == (3, True)


def test_sql_says_where_reranking_is(site: Site) -> None:
    """0A000, with the way that there is."""
    with site.workers.connect() as connection, pytest.raises(Exception, match=r"search_vector cannot rerank") as refused:
        connection.execute("select * from livedex.search_vector(null, query => 'sail', mode => 'text', rerank => true)")
    assert getattr(refused.value, "sqlstate", None) == "0A000"


def test_words_are_judged_by_their_share() -> None:
    """The reranker for tests."""
    found = WordsReranker().scores("a b", ["a b c", "b", "x"], deadline=float("inf"))
    assert np.array_equal(found, np.array([1, 0.5, 0], np.float32))
