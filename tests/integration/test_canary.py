"""The canary goes the way of users' documents, measures it truly, and is never seen by them."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from livedex.canary import MISSES, PAUSE
from livedex.catalogue import Generation
from livedex.config import EmbedderName
from livedex.core.canary import Probe, once_each, turn
from livedex.core.change import CANARY_HEADER, CANARY_PREFIX
from livedex.core.record import Record
from livedex.core.upkeep import Pace
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.errors import ConfigError, TimedOutError, UnavailableError
from livedex.index.app import IndexApp
from livedex.lifecycle import Stop
from livedex.query.app import QueryApp
from support.canaries import Caged, Forgetful, ids, start
from support.kafka import Log
from support.terminal import Terminal
from support.waiting import until
from support.workers import Metrics, Workers, free_port

TEXTS = {"apples": "Apples grow on trees.", "bridges": "Bridges cross rivers.", "clocks": "Clocks tell the time."}


@dataclass
class Slow:
    """Opens hash encoders that take their time, as long as a test says."""

    seconds: float = 0.0
    opened: list[HashEncoder] = field(default_factory=list)

    def __call__(self, embedder: EmbedderName, generation: Generation) -> HashEncoder:
        """For IndexApp."""
        del embedder
        slow = self

        class _Encoder(HashEncoder):
            def encode_documents(self, texts: Sequence[str], **more: Any) -> Vectors:
                time.sleep(slow.seconds)
                return super().encode_documents(texts, **more)

        return _Encoder(ModelSpec(model=generation.identity.model))


@dataclass(frozen=True)
class Site:
    """A topic of two partitions with three documents, an index worker and a query worker in this process."""

    workers: Workers
    log: Log
    topic: str
    config: Path
    address: str
    index: str  # the index worker's address
    encoder: Slow

    def ask(self, query: str, *, canary: bool = False, **body: Any) -> list[dict[str, Any]]:
        """The rows of a search over HTTP."""
        headers = {CANARY_HEADER: "1"} if canary else {}
        content = {"query": query, "timeout_ms": 20_000, **body}
        response = httpx.post(f"{self.address}/v1/search", json=content, headers=headers, trust_env=False, timeout=30)
        assert response.status_code == httpx.codes.OK, response.text
        rows: list[dict[str, Any]] = response.json()["results"]
        return rows

    def canary(self, **more: Any) -> Caged:
        """A canary of the test's own."""
        return Caged(self.workers, self.config, self.address, **more)

    @property
    def sources(self) -> dict[str, str]:
        """What a canary may publish to."""
        return {self.topic: "default"}

    def metrics(self) -> Metrics:
        """Of the query worker."""
        return scraped(self.address)

    def index_metrics(self) -> Metrics:
        """Of the index worker."""
        return scraped(self.index)

    def stored(self) -> list[tuple[Any, ...]]:
        """The canary documents that the database has: id, deleted, and how many chunks."""
        return self.workers.rows(
            "select document_id, deleted, (select count(*) from livedex.document_chunk m where m.doc_key = d.doc_key)"
            "  from livedex.document d where document_id ^@ %s order by 1",
            CANARY_PREFIX,
        )


def query_worker(workers: Workers, config: Path, **more: Any) -> QueryApp:
    """A query worker of this process."""
    return QueryApp(workers.settings(config, **more))


@pytest.fixture
def site(workers: Workers, log: Log) -> Iterator[Site]:
    """With everything caught up."""
    topic = log.topic(2)
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    encoder = Slow()
    index = IndexApp(workers.settings(config), open_encoder=encoder)
    with workers.in_thread(index) as scraped, workers.in_thread(query_worker(workers, config)) as address:
        places = [log.send(topic, {"id": name, "text": text}) for name, text in TEXTS.items()]
        workers.caught_up(topic, {place.partition: place.offset + 1 for place in places})
        yield Site(workers, log, topic, config, address, scraped, encoder)


# --- nobody sees it


def test_no_user_sees_a_canary(site: Site) -> None:
    """Not over HTTP, not in SQL, whatever the mode or the filter, and asked for by its very text; k rows stay k rows, and no
    count has it.
    """
    with site.canary() as canary:
        runs = [canary.run(site.sources, number) for number in range(2)]
        assert [run and run.outcome for run in runs] == ["found", "found"]
        assert site.stored() == [(f"{CANARY_PREFIX}command/{n}", False, 1) for n in range(2)]
        (text,) = site.workers.rows(
            "select c.text from livedex.document d join livedex.document_chunk m using (doc_key) join livedex.chunk c"
            " using (chunk_key) where d.document_id = %s", f"{CANARY_PREFIX}command/1",
        )[0]  # fmt: skip
        assert ids(site.ask(text, canary=True, mode="vector"))[0] == f"{CANARY_PREFIX}command/1"
        for body in asked_for():
            assert set(ids(site.ask(text, **body))) <= set(TEXTS), body
        assert len(site.ask(text, mode="vector", k=3)) == 3
        batch = {"searches": [{"query": text, "timeout_ms": 20_000}]}
        answer = httpx.post(f"{site.address}/v1/search/batch", json=batch, headers={CANARY_HEADER: "1"}, trust_env=False).json()
        assert set(ids(answer["results"][0]["results"])) == set(TEXTS)
        _assert_hidden_in_sql(site, text)
        status = httpx.get(f"{site.address}/v1/status", trust_env=False).json()["collections"][0]
        assert (status["documents"], status["chunks"]) == (3, 3)


def asked_for() -> list[dict[str, Any]]:
    """Searches that would find a canary if it were a document like others."""
    return [
        *({"mode": mode, "k": k} for mode in ("hybrid", "vector", "text") for k in (1, 3, 1000)),
        {"since": "2000-01-01T00:00:00Z", "per_document": 10},
        {"filter": {}, "until": "2100-01-01T00:00:00Z"},
    ]


def _assert_hidden_in_sql(site: Site, text: str) -> None:
    vector = str([float(number) for number in HashEncoder(ModelSpec(model="hash-16")).encode_queries([text])[0]])
    with site.workers.connect() as connection:
        for mode in ("hybrid", "vector", "text"):
            found = connection.execute(
                "select document_id from livedex.search_vector(%s::vector, k => 1000, mode => %s, query => %s)",
                (vector, mode, text),
            ).fetchall()
            assert {row[0] for row in found} <= set(TEXTS)
            by_text = "select document_id from livedex.search(%s, k => 1000, mode => %s, timeout => '20 s')"
            assert {row[0] for row in connection.execute(by_text, (text, mode)).fetchall()} <= set(TEXTS)
        for view in ("documents", "chunks"):
            found = connection.execute(f"select document_id from livedex.{view}").fetchall()
            assert {row[0] for row in found} == set(TEXTS)


def test_a_document_with_the_same_text_is_seen_and_the_canary_is_not(site: Site) -> None:
    """They have one chunk in common, which is nothing to hide."""
    with site.canary() as canary:
        assert canary.run(site.sources, 0)
        (text,) = site.workers.rows("select text from livedex.chunk where text ^@ 'livedexcanary'")[0]
        place = site.log.send(site.topic, {"id": "copy", "text": text, "format": "text"})
        rows = site.ask(text, after=str(place), per_document=5, k=4)
        assert rows[0]["document_id"] == "copy"
        assert set(ids(rows)) == {*TEXTS, "copy"}


def test_a_document_with_a_reserved_id_is_a_dead_letter(site: Site) -> None:
    """What nobody could see is not taken in silence; a delete does no harm."""
    name = f"{CANARY_PREFIX}mine"
    refused = [
        site.log.send(site.topic, {"id": name, "text": "A text."}),
        site.log.send(site.topic, {"id": name, "op": "metadata", "metadata": {"a": 1}}),
    ]
    last = site.log.send(site.topic, None, key=name)
    site.workers.caught_up(site.topic, {last.partition: last.offset + 1})
    letters = site.workers.rows('select "offset", reason, detail from livedex.dead_letters order by 1')
    assert [(offset, reason) for offset, reason, _ in letters] == [(place.offset, "schema") for place in refused]
    assert all("kept for livedex canary" in detail for _, _, detail in letters)


def test_searches_of_canaries_are_no_users_searches(site: Site) -> None:
    """They count neither in requests nor in seconds nor in stages, which are what users have."""

    def counted() -> tuple[float, ...]:
        found = site.metrics()
        names = ("requests_total", "seconds_count", "stage_seconds_count")
        return tuple(found.value(f"livedex_search_{name}") for name in names)

    before = counted()
    with site.canary() as canary:
        assert canary.run(site.sources, 0)
    assert counted() == before
    site.ask("apples")
    assert counted() == (before[0] + 1, before[1] + 1, before[2] + 2), "embedded and searched"


def test_canaries_do_not_make_documents_fresher(site: Site) -> None:
    """Each of their events is counted once, as all are; what is judged as freshness and as clocks is what users published."""

    def counted() -> tuple[float, ...]:
        found = site.index_metrics()
        names = ("events_total", "freshness_seconds_count", "clock_skew_total")
        return tuple(found.value(f"livedex_{name}") for name in names)

    until(lambda: counted()[0] == len(TEXTS), what="the documents to be counted")
    before = counted()
    with site.canary() as canary:
        assert [run and run.outcome for run in (canary.run(site.sources, number) for number in range(2))] == ["found", "found"]
    until(lambda: counted()[0] >= before[0] + 4, what="the canaries and their deletions to be counted")
    assert counted() == (before[0] + 4, before[1], before[2])
    site.log.send(site.topic, {"id": "later", "text": "Another text.", "time": "2100-01-01T00:00:00Z"})
    until(lambda: counted() == (before[0] + 5, before[1] + 1, before[2] + 1), what="a user's document to be counted")


# --- it measures what is


def test_the_time_is_the_true_one(site: Site) -> None:
    """An encoder that takes longer raises it by so much."""
    with site.canary() as canary:
        quick = [run.seconds for number in range(4) if (run := canary.run(site.sources, number))]
        site.encoder.seconds = 1.5
        slow = canary.run(site.sources, 4)
        assert slow is not None
        assert slow.error is None
        assert 1.5 <= slow.seconds < 1.5 + 2 * max(quick) + 0.5
        assert max(quick) < 1.5
        assert canary.value("livedex_canary_seconds_count") == 5
        assert canary.value("livedex_canary_seconds_sum") == pytest.approx(sum(quick) + slow.seconds)
        assert canary.value("livedex_canary_seconds_bucket", le="1.0") == sum(each <= 1 for each in quick)
        assert canary.value("livedex_canary_runs_total", outcome="found") == 5
        assert abs(time.time() - canary.value("livedex_canary_last_success_timestamp_seconds")) < 60


def test_each_partition_has_its_turn(site: Site) -> None:
    """One document in each, in the partition that its name says, and the next replaces it."""
    with site.canary() as canary:
        for number in range(4):
            assert canary.run(site.sources, number)
    mine = [record for record in site.log.records(site.topic) if (record.key or b"").startswith(CANARY_PREFIX.encode())]
    assert [(record.partition, record.key.decode()[-1]) for record in mine if record.key] == [(0, "0")] * 3 + [(1, "1")] * 3
    assert [record.value is None for record in mine] == [False, False, True] * 2
    until(lambda: all(deleted and not chunks for _, deleted, chunks in site.stored()), what="the canaries to be deleted")
    assert len(site.stored()) == 2


def test_a_document_that_another_canary_takes_away_is_published_again(workers: Workers, log: Log) -> None:
    """A canary that ends deletes the document of its place, also where another one waits for it: that is no failure."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    with (
        workers.in_thread(query_worker(workers, config)) as address,
        ThreadPoolExecutor(1) as pool,
        Caged(workers, config, address, timeout=30) as canary,
    ):
        running = pool.submit(canary.run, {topic: "default"}, 0)
        (first,) = until(lambda: log.records(topic), what="the canary to be published")
        gone = log.send(topic, None, key=first.key, headers=[(CANARY_HEADER, b"1")])
        with workers.in_thread(IndexApp(workers.settings(config))):
            run = running.result(60)
    assert run is not None
    assert run.outcome == "found"
    assert run.token == f"{topic}:0:{gone.offset + 1}"
    assert run.at <= first.timestamp_ms / 1000, "its time began when the first was published"
    assert run.seconds >= (log.records(topic)[2].timestamp_ms - first.timestamp_ms) / 1000


def test_a_search_that_misses_makes_the_time_longer(site: Site) -> None:
    """What is found by the second search took until then, and nothing is published again: a fault is not hidden."""
    with Forgetful(site.address) as forgetful, Caged(site.workers, site.config, forgetful.url) as canary:
        runs = [canary.run(site.sources, 2 * number) for number in range(3)]
        assert [run and run.outcome for run in runs] == ["found"] * 3
        assert all(run and run.seconds >= PAUSE for run in runs)
        assert forgetful.asked == 6
        assert len(canaries_of(site.log, site.topic)) == 3
        assert canary.value("livedex_canary_seconds_bucket", le="0.25") == 0


def test_a_search_that_never_finds_is_a_failure(site: Site) -> None:
    """One document, one failure."""
    with (
        Forgetful(site.address, always=True) as forgetful,
        Caged(site.workers, site.config, forgetful.url, timeout=10.0) as canary,
    ):
        run = canary.run(site.sources, 0)
        assert run is not None
        assert isinstance(run.error, TimedOutError)
        assert forgetful.asked > MISSES
        assert len(canaries_of(site.log, site.topic)) == 1


def test_a_canary_that_another_replaced_is_found(workers: Workers, log: Log) -> None:
    """When the later one of two is searchable, both are."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    with workers.in_thread(query_worker(workers, config)) as address, ThreadPoolExecutor(2) as pool:
        canaries = [Caged(workers, config, address, timeout=60) for _ in range(2)]
        running = [pool.submit(canary.run, {topic: "default"}, 0) for canary in canaries]
        until(lambda: len(log.records(topic)) == 2, what="both to be published")
        with workers.in_thread(IndexApp(workers.settings(config))):
            runs = [each.result(90) for each in running]
        for canary in canaries:
            canary.close()
    assert [run and run.outcome for run in runs] == ["found", "found"]
    assert sorted(run.token for run in runs if run and run.token) == [f"{topic}:0:0", f"{topic}:0:1"]


def test_a_document_that_is_applied_and_not_found_is_a_failure(site: Site) -> None:
    """A search that does not find what it should is the worst of faults: told as such, and never taken for a lag."""
    with site.canary(timeout=1.0) as canary:
        site.workers.execute(
            "create function livedex.hide() returns trigger language plpgsql as "
            "$$ begin if new.document_id ^@ 'livedex-canary/' then new.deleted := true; end if; return new; end $$",
            "create trigger hide before insert or update on livedex.document for each row execute function livedex.hide()",
        )
        run = canary.run(site.sources, 0)
        assert run is not None
        assert isinstance(run.error, TimedOutError)
        assert "was applied, but no search found its document" in str(run.error)
        assert canary.value("livedex_canary_runs_total", outcome="failed") == 1
        assert canary.value("livedex_canary_seconds_count") == 0


def test_a_source_that_gives_versions_has_canaries_too(workers: Workers, log: Log) -> None:
    """They give their own, and are deleted by a later one."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16", versions="source")
    workers.apply(config)
    with workers.in_thread(IndexApp(workers.settings(config))), workers.in_thread(query_worker(workers, config)) as address:
        with Caged(workers, config, address) as canary:
            assert [run and run.error for run in (canary.run({topic: "default"}, number) for number in range(2))] == [
                None,
                None,
            ]
        deleted = "select deleted from livedex.document where document_id ^@ 'livedex-canary/'"
        until(lambda: workers.rows(deleted) == [(True,)], what="the canary to be deleted")
    assert workers.rows("select * from livedex.dead_letters") == []


def test_a_stop_ends_it_and_counts_nothing(workers: Workers, log: Log) -> None:
    """Whoever is asked to stop while it looks has neither found nor failed."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    stop = Stop()
    with (
        workers.in_thread(query_worker(workers, config)) as address,
        ThreadPoolExecutor(1) as pool,
        Caged(workers, config, address, timeout=60, stop=stop) as canary,
    ):
        running = pool.submit(canary.run, {topic: "default"}, 0)
        until(lambda: log.records(topic), what="the canary to be published")
        stop.ask("the test")
        assert running.result(15) is None
        assert canary.value("livedex_canary_runs_total", outcome="failed") == 0


# --- what is away


def test_what_is_away_is_named(workers: Workers, log: Log, kafka_settings: object) -> None:
    """No query worker, no Kafka, no topic, no collection: the failure says which."""
    del kafka_settings
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    nowhere = f"http://127.0.0.1:{free_port()}"

    def error(url: str, sources: Mapping[str, str], settings: Path = config) -> object:
        with Caged(workers, settings, url, timeout=1.0) as canary:
            run = canary.run(sources, 0)
            assert run is not None
            assert canary.value("livedex_canary_runs_total", outcome="failed") == 1
            return run.error

    assert isinstance(away := error(nowhere, {topic: "default"}), UnavailableError)
    assert "no query worker answers" in str(away)
    with workers.in_thread(query_worker(workers, config)) as address:
        unknown = error(address, {topic: "other"})
        assert isinstance(unknown, ConfigError)
        assert "other" in str(unknown)
        with Caged(workers, config, address) as nowhere_to:
            assert nowhere_to.run({}, 0) is None
            assert nowhere_to.value("livedex_canary_runs_total") == 0
    tokens = workers.folder / "tokens.toml"
    tokens.write_text('[tokens.a]\ntoken = "canary-0123456789abcdef"\ncollections = ["*"]\n')
    with workers.in_thread(query_worker(workers, config, api_tokens_file=tokens)) as address:
        refused = error(address, {topic: "default"})
        assert isinstance(refused, ConfigError)
        assert "token" in str(refused)


@pytest.fixture
def signals() -> Iterator[None]:
    """The command takes the signals of its process, which here is the test's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_command_ends_with_the_documented_codes(
    workers: Workers, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals: None
) -> None:
    """0 found, 1 set up wrongly, 2 usage, 3 not reachable, 4 timed out; and what it published is gone."""
    topic = log.topic(2)
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    environment = {
        "LIVEDEX_CONFIG": str(config),
        "LIVEDEX_KAFKA_BOOTSTRAP_SERVERS": workers.stack.kafka_bootstrap_servers,
        "COLUMNS": "200",
    }
    livedex = Terminal(environment, monkeypatch, capsys)
    with workers.in_thread(query_worker(workers, config)) as address:
        late = livedex("canary", "--once", "--url", address, "--timeout", "0.5")
        assert (late.code, "failed after" in late.out) == (4, True), late.err
        assert "was not searchable within 0.5 s" in late.err
        with workers.in_thread(IndexApp(workers.settings(config))):
            found = livedex("canary", "--once", "--url", address, "--json")
            assert (found.code, found.err) == (0, ""), found.err
            lines = [json.loads(line) for line in found.out.splitlines() if line.startswith("{")]  # beside the workers' own
            assert [(line["partition"], line["outcome"], line["reason"]) for line in lines] == [
                (0, "found", None),
                (1, "found", None),
            ]
            assert all(0 < line["seconds"] < 30 for line in lines)
            deleted = "select deleted from livedex.document where document_id ^@ 'livedex-canary/'"
            until(lambda: workers.rows(deleted) == [(True,), (True,)], what="the canaries to be deleted")
    for arguments, code, says in (
        (["--url", f"http://127.0.0.1:{free_port()}", "--timeout", "0.5"], 3, "no query worker answers"),
        (["--topic", "absent.topic", "--collection", "default"], 1, "kafka lacks the topic absent.topic"),
    ):
        done = livedex("canary", "--once", *arguments)
        assert done.code == code, done.err
        assert says in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topic", "absent.topic"], "name it with --collection"),
        (["--collection", "absent"], "no source of the collection absent"),
        (["--every", "soon"], "a number with a unit was expected"),
        (["--every", "0s"], "at least 1s"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_options_are_exit_2(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked of anybody."""
    done = Terminal({"COLUMNS": "200"}, monkeypatch, capsys)("canary", *arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.accept
def test_a_stop_of_the_index_worker_makes_failures_count(workers: Workers, log: Log) -> None:
    """`livedex canary` goes on through it, says it, and finds again once a worker is back; SIGTERM ends it with 0."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    with workers.in_thread(query_worker(workers, config)) as address:
        canary = start(workers, config, "--every", "1s", "--timeout", "1", "--json", "--url", address)
        with workers.in_thread(IndexApp(workers.settings(config))):
            until(lambda: outcomes(canary.log()).count("found") >= 2, timeout=60, what="canaries to be found")
            until(canary.ready, what="the canary to be ready")
        until(lambda: canary.metrics().value("livedex_canary_runs_total", outcome="failed") >= 2, what="failures to be counted")
        assert httpx.get(f"{canary.address}/readyz", trust_env=False).status_code == httpx.codes.SERVICE_UNAVAILABLE
        with workers.in_thread(IndexApp(workers.settings(config))):
            until(canary.ready, timeout=60, what="canaries to be found again")
            canary.popen.send_signal(signal.SIGTERM)
            assert canary.popen.wait(15) == 0
            deleted = "select deleted from livedex.document where document_id ^@ 'livedex-canary/'"
            until(lambda: workers.rows(deleted) == [(True,)], what="the canary to be deleted")
    seen = outcomes(canary.log())
    assert seen[-1] == "found"
    assert "failed" in seen


def outcomes(log: str) -> list[str]:
    """What became of each document, by the lines that the command wrote."""
    return [json.loads(line)["outcome"] for line in log.splitlines() if line.startswith("{")]


def test_an_index_worker_has_a_canary_if_it_is_told_to(workers: Workers, log: Log) -> None:
    """Its metrics count what is found, and what is not while no query worker answers; without the setting there are none."""
    topic = log.topic()
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    port = free_port()
    own = {"canary_url": f"http://127.0.0.1:{port}", "canary_every": "1s", "canary_timeout": "1s"}
    with workers.in_thread(IndexApp(workers.settings(config, **own))) as index:

        def count(outcome: str) -> float:
            return scraped(index).value("livedex_canary_runs_total", outcome=outcome)

        until(lambda: count("failed") >= 1, what="a failure to be counted")
        with workers.in_thread(query_worker(workers, config, http_port=port)):
            until(lambda: count("found") >= 2, what="canaries to be found")
            assert workers.rows("select document_id from livedex.documents") == []
    until(lambda: "canary" not in [thread.name for thread in threading.enumerate()], what="its thread to end")
    assert [record.value is None for record in log.records(topic)][-1]
    with workers.in_thread(IndexApp(workers.settings(config))) as index:
        assert "livedex_canary" not in httpx.get(f"{index}/metrics", trust_env=False).text


@pytest.mark.accept
def test_one_of_the_index_workers_has_the_canary(workers: Workers, log: Log) -> None:
    """However many there are, one publishes and tells; when it ends another goes on, and begins at 0."""
    topic = log.topic(3)
    config = workers.config(topic, model="hash-16")
    workers.apply(config)
    pace = Pace(look=0.2)
    with workers.in_thread(query_worker(workers, config)) as address, ExitStack() as later:
        own = {"canary_url": address, "canary_every": "1s", "canary_timeout": "20s"}
        apps = [IndexApp(workers.settings(config, **own), pace=pace) for _ in range(3)]
        first = later.enter_context(workers.in_thread(apps[0]))
        until(lambda: scraped(first).value("livedex_canary_runs_total", outcome="found") >= 1, what="a canary to be found")
        with workers.in_thread(apps[1]) as second, workers.in_thread(apps[2]) as third:
            count = len(canaries_of(log, topic))
            until(lambda: len(canaries_of(log, topic)) > count + 3, what="canaries after the other workers began")
            for other in (second, third):
                assert "livedex_canary_last_success_timestamp_seconds{" not in scraped(other).text
                assert scraped(other).value("livedex_canary_runs_total") == 0
            before = time.time()
            later.close()

            def began() -> dict[str, float]:
                name = "livedex_canary_began_timestamp_seconds"
                found = {each: scraped(each).value(name, topic=topic) for each in (second, third)}
                return {each: at for each, at in found.items() if at}

            (chosen,) = until(began, what="another worker to go on")
            assert began()[chosen] >= before
            until(lambda: scraped(chosen).value("livedex_canary_runs_total", outcome="found") >= 1, what="its first canary")
            assert scraped(chosen).value("livedex_canary_runs_total", outcome="failed") == 0
            assert list(began()) == [chosen]


@pytest.mark.accept
def test_a_stopped_source_has_no_canary(workers: Workers, log: Log) -> None:
    """Of a topic whose indexing an operator has to mend nothing is published, found or failed; of the others it goes on."""
    topics = sorted([log.topic(), log.topic()])
    config = workers.config(topics[0], model="hash-16", versions="source")
    config.write_text(config.read_text() + f'\n[sources."{topics[1]}"]\ncollection = "default"\n')
    workers.apply(config)
    workers.execute(f"update livedex.source set state = 'stopped', reason = 'a test' where topic = '{topics[0]}'")
    with workers.in_thread(query_worker(workers, config)) as address:
        own = {"canary_url": address, "canary_every": "1s", "canary_timeout": "20s"}
        with workers.in_thread(IndexApp(workers.settings(config, **own), pace=Pace(look=0.2))) as index:

            def runs(topic: str) -> float:
                return scraped(index).value("livedex_canary_runs_total", topic=topic)

            until(lambda: runs(topics[1]) >= 2, what="canaries of the other topic")
            assert runs(topics[0]) == 0
            assert scraped(index).value("livedex_canary_runs_total", outcome="failed") == 0
            workers.execute(f"update livedex.source set state = 'stopped', reason = 'a test' where topic = '{topics[1]}'")
            name = "livedex_canary_last_success_timestamp_seconds{"
            until(lambda: name not in scraped(index).text, what="the canary to leave the source alone")
    assert canaries_of(log, topics[0]) == []


def test_a_topic_that_fails_is_told_beside_one_that_does_not(site: Site) -> None:
    """Each has its turn, its counts and its last success; before its first document it stands at 0."""
    absent = f"{site.topic}.absent"
    sources = {**site.sources, absent: "default"}
    with site.canary(timeout=5.0) as canary:
        canary.follow(sources)
        for topic in sources:
            assert canary.value("livedex_canary_last_success_timestamp_seconds", topic=topic) == 0
            assert f'livedex_canary_runs_total{{outcome="failed",topic="{topic}"}} 0.0' in canary.text
            assert canary.value("livedex_canary_turn_seconds", topic=topic) == 2 * 5.0
        runs = [canary.run(sources, number) for number in range(4)]
        assert [run and (run.topic, run.partition, run.outcome) for run in runs] == [
            (site.topic, 0, "found"), (absent, None, "failed"), (site.topic, 1, "found"), (absent, None, "failed"),
        ]  # fmt: skip
        for topic, outcome in ((site.topic, "found"), (absent, "failed")):
            assert canary.value("livedex_canary_runs_total", topic=topic) == 2
            assert canary.value("livedex_canary_runs_total", topic=topic, outcome=outcome) == 2
        assert canary.value("livedex_canary_last_success_timestamp_seconds", topic=absent) == 0
        assert canary.value("livedex_canary_last_success_timestamp_seconds", topic=site.topic) > time.time() - 60
        canary.follow(site.sources)
        assert f'livedex_canary_last_success_timestamp_seconds{{topic="{absent}"}}' not in canary.text


def scraped(address: str) -> Metrics:
    """The metrics of a worker."""
    return Metrics(httpx.get(f"{address}/metrics", trust_env=False).text)


def canaries_of(log: Log, topic: str) -> list[Record]:
    """What canaries published there, without their deletions."""
    return [record for record in log.records(topic) if CANARY_HEADER in dict(record.headers) and record.value is not None]


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        ({"a": 1}, [("a", 0)]),
        ({"b": 1, "a": 3}, [("a", 0), ("b", 0), ("a", 1), ("a", 2)]),
        ({"a": 2, "b": 2, "c": 1}, [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1)]),
    ],
)
def test_topics_have_their_turns_one_after_the_other(partitions: dict[str, int], expected: list[tuple[str, int]]) -> None:
    """No topic waits for all partitions of another; and once each, all have their turn."""
    assert [turn(number, partitions) for number in once_each(partitions)] == expected
    count = len(partitions)
    assert [turn(number, partitions)[0] for number in range(2 * count)] == sorted(partitions) * 2


def test_a_probe_knows_itself_and_who_replaced_it() -> None:
    """By the document of its place with its own moment or a later one, or by a later place in a log that orders."""
    probe = Probe.made("command", 3, now=1_000.5, chance=0xFEDCBA9876543210)
    assert (probe.document_id, probe.sent) == (f"{CANARY_PREFIX}command/3", 1_000_500_000)
    assert probe.text == "livedexcanaryponmlkjihgfedcba"

    def seen(document_id: str, version: int, **metadata: object) -> bool:
        return probe.seen_in([("other", {"sent": probe.sent}, 7), (document_id, metadata, version)], offset=7)

    own = probe.document_id
    assert seen(own, 7, sent=probe.sent)
    assert seen(own, 8, sent=probe.sent + 1)
    assert seen(own, 8, sent=probe.sent - 1), "made before, and published behind"
    assert not seen(own, 6, sent=probe.sent - 1)
    assert not seen(own, probe.sent - 1, sent=probe.sent - 1), "its version is no offset"
    for metadata in ({}, {"sent": "later"}, {"sent": True}):
        assert not seen(own, 8, **metadata)
    assert not seen("another", 8, sent=probe.sent)
