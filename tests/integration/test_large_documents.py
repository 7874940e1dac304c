"""What is much to embed: large documents go slice by slice, and versions that wait are folded before they cost anything."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import EncodingStopped, Vectors
from livedex.errors import UnavailableError
from livedex.index.app import IndexApp
from livedex.index.stages import CHUNKS_PER_SLICE
from support.encoders import MARK, FailingEncoder
from support.kafka import Log
from support.waiting import until
from support.workers import Metrics, Workers

TEXT = " ".join(f"Sentence {number} is like no other one in this long text." for number in range(20_000))
MAPPED = "select count(*) from livedex.chunks"
STAGED = "select count(*) from livedex.embedding_1"


class CountingEncoder(FailingEncoder):
    """The hash encoder, which counts texts, and does not answer the `silent_at`-th call until it is told to stop."""

    def __init__(self, silent_at: int | None = None) -> None:
        super().__init__(ModelSpec(model="hash-384"))
        self.texts = 0
        self.calls = 0
        self.silent = threading.Event()
        self._silent_at = silent_at

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        self.calls += 1
        if self.calls == self._silent_at:
            self.silent.set()
            until(stopped, timeout=60, what="the stop")
            raise EncodingStopped
        vectors = super().encode_documents(texts, stopped=stopped)
        self.texts += len(texts)
        return vectors


class HeldEncoder(HashEncoder):
    """The hash encoder, which notes the texts, waits while it is held, and is away when it is asked for `away_for` first."""

    def __init__(self, away_for: str | None = None) -> None:
        super().__init__(ModelSpec(model="hash-384"))
        self._away_for = away_for
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        self.asked += texts
        until(self.go_on.is_set, timeout=60, what="the encoder to be let go on")
        if self._away_for in texts:
            self._away_for = None
            raise UnavailableError("embedder", "the model server does not answer")
        return super().encode_documents(texts, stopped=stopped)


class Site:
    """A topic, and workers on it one after another."""

    def __init__(self, workers: Workers, log: Log) -> None:
        self.workers, self.log, self.topic = workers, log, log.topic()
        self.config: Path = workers.config(self.topic)
        workers.apply(self.config)

    def worker(self, encoder: HashEncoder) -> IndexApp:
        """One with this encoder."""

        def open_encoder(embedder: EmbedderName, generation: Generation) -> HashEncoder:
            del embedder, generation
            return encoder

        return IndexApp(self.workers.settings(self.config), open_encoder=open_encoder)

    def count(self, statement: str) -> int:
        """What a query counts."""
        return int(self.workers.rows(statement)[0][0])


@pytest.fixture
def site(workers: Workers, log: Log) -> Site:
    """An empty collection."""
    return Site(workers, log)


def test_a_worker_that_ends_inside_a_large_document_leaves_what_it_made(site: Site) -> None:
    """The next worker embeds only the rest."""
    end = site.log.send(site.topic, {"id": "large", "text": TEXT}).offset + 1
    first, second = CountingEncoder(silent_at=4), CountingEncoder()
    with site.workers.in_thread(site.worker(first)):
        assert first.silent.wait(60)
        until(lambda: site.count(STAGED) >= 2 * CHUNKS_PER_SLICE, what="the slices before to be staged")
        assert site.count(MAPPED) == 0
    assert first.texts == 3 * CHUNKS_PER_SLICE
    with site.workers.in_thread(site.worker(second)):
        site.workers.caught_up(site.topic, {0: end})
    chunks = site.count(MAPPED)
    assert chunks > 6 * CHUNKS_PER_SLICE
    assert first.texts + second.texts <= chunks + CHUNKS_PER_SLICE, "what one slice holds may be made again, no more"
    assert site.count(STAGED) == chunks


def test_a_large_document_with_a_text_at_fault_is_given_up_there(site: Site) -> None:
    """It becomes one dead letter, the rest of it is not embedded, and what comes behind it is applied."""
    middle = len(TEXT) // 2
    site.log.send(site.topic, {"id": "large", "text": f"{TEXT[:middle]} {MARK} {TEXT[middle:]}"})
    end = site.log.send(site.topic, {"id": "small", "text": "A text."}).offset + 1
    encoder = CountingEncoder()
    with site.workers.in_thread(site.worker(encoder)):
        site.workers.caught_up(site.topic, {0: end})
    assert site.workers.rows("select document_id, reason from livedex.dead_letter") == [("large", "embedding-failed")]
    assert site.workers.rows("select document_id from livedex.documents") == [("small",)]
    assert 2 * CHUNKS_PER_SLICE <= encoder.texts <= 5 * CHUNKS_PER_SLICE


def in_flight(address: str) -> float:
    """The bytes that a worker polled and has not applied."""
    return Metrics(httpx.get(f"{address}/metrics", trust_env=False).text).value("livedex_inflight_bytes")


def send_while_held(site: Site, encoder: HeldEncoder, address: str) -> int:
    """Eleven versions of a document, each polled before the next is sent, the first in work; the end of the log."""
    site.log.send(site.topic, {"id": "a", "text": "Version 0."})
    until(lambda: encoder.asked, what="the first to be in work")
    end = 0
    for number in range(1, 11):
        before = in_flight(address)
        end = site.log.send(site.topic, {"id": "a", "text": f"Version {number}."}).offset + 1
        until(lambda before=before: in_flight(address) > before, what="the version to be polled")  # type: ignore[misc]
    return end


def test_of_many_versions_that_come_while_the_encoder_is_busy_the_last_is_embedded(site: Site) -> None:
    """Polled one by one, they are folded before they are embedded; each event is counted once all the same."""
    encoder = HeldEncoder()
    with site.workers.in_thread(site.worker(encoder)) as address:
        end = send_while_held(site, encoder, address)
        encoder.go_on.set()
        site.workers.caught_up(site.topic, {0: end})
        assert encoder.asked == ["Version 0.", "Version 10."]
        until(lambda: in_flight(address) == 0, what="all of them to have ended")
        found = Metrics(httpx.get(f"{address}/metrics", trust_env=False).text)
    assert [found.value("livedex_events_total", outcome=outcome) for outcome in ("applied", "superseded")] == [2, 9]
    assert site.workers.rows("select text from livedex.chunks") == [("Version 10.",)]


def test_versions_that_were_joined_and_failed_are_read_again(site: Site) -> None:
    """All of them ended with their batch, so nothing of the partition is in flight any more, and it is claimed again."""
    encoder = HeldEncoder(away_for="Version 10.")
    with site.workers.in_thread(site.worker(encoder)) as address:
        end = send_while_held(site, encoder, address)
        encoder.go_on.set()
        site.workers.caught_up(site.topic, {0: end}, timeout=30)
    assert encoder.asked == ["Version 0.", "Version 10.", "Version 10."]
    assert site.workers.rows("select text from livedex.chunks") == [("Version 10.",)]
