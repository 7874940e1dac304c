"""What operators ask over HTTP: who they are, how fresh the index is, and what becomes of dead letters."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from livedex.config import KafkaSettings
from livedex.core.change import CANARY_HEADER
from livedex.encoders import ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.query.app import QueryApp
from livedex.query.log_watch import NO_KAFKA
from support.database import login_role
from support.letters import Desk, bad, good
from support.served import is_problem
from support.waiting import until
from support.workers import Workers, free_port

OPERATOR, READER = "operator-0123456789abcdef", "reader-0123456789abcdef"
TOKENS = f"""
[tokens.operator]
token = "{OPERATOR}"
collections = ["default"]
operator = true

[tokens.reader]
token = "{READER}"
collections = ["default"]

[tokens.stranger]
token = "stranger-0123456789abcdef"
collections = []
"""


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The tokens file."""
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return path


@contextmanager
def serving(workers: Workers, config: Path, **more: Any) -> Iterator[Callable[..., httpx.Response]]:
    """A query worker, to be asked `(method, path, token)`."""
    app = QueryApp(workers.settings(config, **more))
    with workers.in_thread(app) as address, httpx.Client(base_url=address, timeout=20, trust_env=False) as client:

        def ask(method: str, path: str, token: str | None = OPERATOR, **headers: str) -> httpx.Response:
            shown = {"Authorization": f"Bearer {token}"} if token else {}
            return client.request(method, path, headers={**shown, **headers})

        yield ask


def test_a_caller_is_told_who_it_is(desk: Desk, tokens: Path) -> None:
    """Its token's name and whether that is an operator's; without tokens everybody on this machine is one."""
    with serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        is_problem(ask("GET", "/v1/caller", None), 401)
        assert ask("GET", "/v1/caller").json() == {"name": "operator", "operator": True, "tokens": True}
        assert ask("GET", "/v1/caller", READER).json() == {"name": "reader", "operator": False, "tokens": True}
    with serving(desk.workers, desk.config) as ask:
        assert ask("GET", "/v1/caller", None).json() == {"name": "", "operator": True, "tokens": False}


def test_an_operator_replays_and_discards(desk: Desk, tokens: Path) -> None:
    """A record that can be indexed by now is found afterwards, one that is given up is open no more; each is tried once."""
    desk.take(bad("mended", "about zebras"), bad("given up"), good("fine", "a text"))
    (first, second) = desk.ids()
    with serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        listed = ask("GET", "/v1/dead-letters").json()
        assert (listed["may_change"], listed["why_not"]) == (True, None)
        assert [(row["id"], row["document_id"], row["reason"], row["state"]) for row in listed["letters"]] == [
            (second, "given up", "embedding-failed", "open"), (first, "mended", "embedding-failed", "open"),
        ]  # fmt: skip
        replayed = ask("POST", f"/v1/dead-letters/{first}/replay").json()
        assert (replayed["result"], replayed["outcome"], replayed["document_id"]) == ("replayed", "applied", "mended")
        assert ask("POST", f"/v1/dead-letters/{second}/discard").json()["result"] == "discarded"
        assert desk.letters("state") == [("replayed",), ("discarded",)]
        again = ask("POST", f"/v1/dead-letters/{first}/discard").json()
        assert (again["result"], again["detail"]) == ("refused", "it is replayed: --state replayed takes it all the same")
        found = ask("GET", "/v1/search?q=zebras&mode=text").json()["results"]
        assert [row["document_id"] for row in found] == ["mended"]
        assert ask("GET", "/v1/dead-letters").json()["letters"] == []
        of = [row["id"] for row in ask("GET", "/v1/dead-letters?state=discarded&collection=default").json()["letters"]]
        assert of == [second]
        assert ask("GET", "/v1/dead-letters?state=all&limit=1").json()["letters"][0]["id"] == second
        is_problem(ask("POST", "/v1/dead-letters/999999/replay"), 404, "no dead letter 999999")
        is_problem(ask("POST", "/v1/dead-letters/0/replay"), 400, "number")
        is_problem(ask("GET", "/v1/dead-letters?reason=nothing"), 400, "reason")


def test_a_record_that_fails_again_stays_open(desk: Desk, tokens: Path) -> None:
    """Its new reason and the number of tries are told, and stand in the list."""
    desk.take(b"no event", key="broken")
    (number,) = desk.ids()
    with serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        answer = ask("POST", f"/v1/dead-letters/{number}/replay").json()
        assert (answer["result"], answer["reason"], answer["attempts"]) == ("failed", "invalid-json", 2)
        assert desk.letters("state, attempts") == [("open", 2)]


def test_only_an_operators_token_changes_anything(desk: Desk, tokens: Path) -> None:
    """Not another token, not none, not anybody on this machine where no tokens are asked for: that one only reads."""
    desk.take(bad("a"))
    (number,) = desk.ids()
    paths = [f"/v1/dead-letters/{number}/{verb}" for verb in ("replay", "discard")]
    with serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        for method, path in [("GET", "/v1/dead-letters"), *(("POST", path) for path in paths)]:
            is_problem(ask(method, path, None), 401)
            is_problem(ask(method, path, READER), 403, "the token reader is no operator's")
    with serving(desk.workers, desk.config) as ask:
        listed = ask("GET", "/v1/dead-letters", None).json()
        assert (len(listed["letters"]), listed["may_change"]) == (1, False)
        assert "LIVEDEX_API_TOKENS_FILE" in listed["why_not"]
        for path in paths:
            is_problem(ask("POST", path, None), 403, "LIVEDEX_API_TOKENS_FILE")
    assert desk.letters("state, attempts") == [("open", 1)]


def test_each_route_asks_for_a_token(desk: Desk, tokens: Path) -> None:
    """Of all that the OpenAPI document names, only health and metrics are for anybody; the header of canaries opens nothing."""
    with serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        known = ask("GET", "/openapi.json", None).json()["paths"]
        asked = {(method.upper(), path.replace("{number}", "1")) for path, methods in known.items() for method in methods}
        for headers in ({}, {CANARY_HEADER: "1"}):
            found = {(method, path) for method, path in asked if ask(method, path, None, **headers).status_code != 401}
            assert found == {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
    assert ("POST", "/v1/dead-letters/1/discard") in asked
    assert ("POST", "/v1/search") in asked


def test_the_log_says_whose_token_changed_what(desk: Desk, tokens: Path) -> None:
    """By its name in the tokens file."""
    desk.take(bad("a"))
    (number,) = desk.ids()
    with capture_logs() as lines, serving(desk.workers, desk.config, api_tokens_file=tokens) as ask:
        assert ask("POST", f"/v1/dead-letters/{number}/discard").json()["result"] == "discarded"
    said = [{**line} for line in lines if line["event"] == "letters.changed"]
    wanted = {"verb": "discard", "id": number, "token": "operator", "result": "discarded"}
    assert [wanted.items() <= line.items() for line in said] == [True]


def test_the_role_of_the_query_worker_is_not_enough(desk: Desk, tokens: Path) -> None:
    """As a member of livedex_query it lists dead letters and says what a change needs; of livedex_indexer too, it makes it."""
    desk.take(bad("a"))
    (number,) = desk.ids()
    with (
        login_role(desk.workers.database_url, "livedex_query") as (name, url),
        serving(desk.workers, desk.config, api_tokens_file=tokens, database_url=url) as ask,
    ):
        listed = ask("GET", "/v1/dead-letters").json()
        assert (len(listed["letters"]), listed["may_change"]) == (1, False)
        assert f"grant livedex_indexer to {name}" in listed["why_not"]
        is_problem(ask("POST", f"/v1/dead-letters/{number}/replay"), 403, f"grant livedex_indexer to {name}")
        assert desk.letters("state, attempts") == [("open", 1)]
        desk.workers.execute(f"grant livedex_indexer to {name}")
        assert ask("POST", f"/v1/dead-letters/{number}/replay").json()["result"] == "replayed"


class WaitingEncoder(HashEncoder):
    """The hash encoder, but documents wait until told."""

    started, go_on = threading.Event(), threading.Event()

    def encode_documents(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Vectors:
        """See Encoder."""
        self.started.set()
        assert self.go_on.wait(30)
        return super().encode_documents(texts, stopped=stopped)


def test_one_dead_letter_at_a_time(desk: Desk, tokens: Path) -> None:
    """A second change meanwhile is 409, and changes nothing; the first one ends well, with the encoder that searches use."""
    desk.take(bad("a"), bad("b"))
    first, second = desk.ids()
    settings = desk.workers.settings(desk.config, api_tokens_file=tokens)
    app = QueryApp(settings, open_encoder=lambda _, made: WaitingEncoder(ModelSpec(model=made.identity.model)))
    with desk.workers.in_thread(app) as address, ThreadPoolExecutor(1) as pool:

        def change(number: int, verb: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {OPERATOR}"}
            return httpx.post(f"{address}/v1/dead-letters/{number}/{verb}", headers=headers, timeout=40, trust_env=False)

        replayed = pool.submit(change, first, "replay")
        try:
            assert WaitingEncoder.started.wait(20)
            is_problem(change(second, "discard"), 409, "another dead letter")
        finally:
            WaitingEncoder.go_on.set()
        assert replayed.result().json()["result"] == "replayed"
    assert desk.letters("state") == [("replayed",), ("open",)]


def test_the_overview_says_how_fresh_the_documents_are(desk: Desk) -> None:
    """p50 and p95 of those that changed within the window, by time; older changes and such of the future are left out."""
    now = datetime.now(UTC)
    times = {"recent": now - timedelta(seconds=60), "old": now - timedelta(days=2), "future": now + timedelta(hours=1)}
    desk.take(*({**good(name, "a text"), "time": when.isoformat()} for name, when in times.items()))
    with serving(desk.workers, desk.config) as ask:
        found = ask("GET", "/v1/overview", None).json()
    (collection,) = found["freshness"]
    assert (collection["collection"], collection["documents"], len(collection["slices"])) == ("default", 1, 1)
    assert 60 <= collection["p50"] == collection["p95"] == collection["slices"][0]["p50"] < 120
    assert found["slice_seconds"] > times["recent"].timestamp() - collection["slices"][0]["at"] >= 0


def test_the_overview_says_how_far_the_log_is_ahead(desk: Desk) -> None:
    """Lag and staleness of each partition, once Kafka was asked; caught up they are 0, and they rise while nobody applies."""
    desk.take(good("a", "one"), good("b", "two"))
    with serving(desk.workers, desk.config) as ask:

        def partition(state: str, lag: int | None) -> dict[str, Any]:
            found = until(lambda: known(state, lag), timeout=30, what=f"the log to be {state} with lag {lag}")
            assert found is not None
            return found

        def known(state: str, lag: int | None) -> dict[str, Any] | None:
            found = ask("GET", "/v1/overview", None).json()
            (row,) = found["partitions"]
            return row if (found["log"]["state"], row["lag"]) == (state, lag) else None

        row = partition("known", 0)
        assert (row["topic"], row["next_offset"], row["staleness_seconds"]) == (desk.topic, 2, 0.0)
        desk.send(good("c", "three"), good("d", "four"))
        assert partition("known", 2)["staleness_seconds"] > 0


def test_the_overview_says_when_it_cannot_know_the_log(desk: Desk, tokens: Path) -> None:
    """Where Kafka is away or not configured, lag is null, not 0; why is told to operators, and the rest is there."""
    desk.take(good("a", "one"))
    settings = desk.workers.settings(desk.config)
    for kafka, says in (
        (KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"), "does not answer"),
        (KafkaSettings(), NO_KAFKA),
    ):
        app = QueryApp(settings.model_copy(update={"kafka": kafka, "api_tokens_file": tokens}))
        with desk.workers.in_thread(app) as address:

            def overview(token: str) -> dict[str, Any]:
                headers = {"Authorization": f"Bearer {token}"}
                return dict(httpx.get(f"{address}/v1/overview", headers=headers, timeout=20, trust_env=False).json())

            until(lambda: overview(OPERATOR)["log"]["state"] == "unknown", what="Kafka to be asked in vain")
            found = overview(OPERATOR)
            assert says in found["log"]["problem"]
            assert [(row["lag"], row["staleness_seconds"]) for row in found["partitions"]] == [(None, None)]
            log = overview(READER)["log"]
            assert (log["state"], log["problem"]) == ("unknown", None)
            assert overview("stranger-0123456789abcdef")["partitions"] == []
