"""An embedding server behind HTTP, asked in either dialect, that refuses, fails, is slow or away."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
from fastapi.responses import JSONResponse

from livedex import apply
from livedex.catalogue import Generation
from livedex.encoders import ModelSpec, http, open_encoder
from livedex.encoders.hash import HashEncoder
from livedex.encoders.http import HttpEncoder
from livedex.encoders.port import EncodingStopped
from livedex.encoders.remote import Conversation, InputRefusedError, Server, retry_after
from livedex.errors import ConfigError, SystemicError, UnavailableError
from livedex.index.app import IndexApp
from livedex.observe import QueryMetrics
from livedex.query.app import QueryApp
from livedex.query.embedding import Loaded, QueryEmbedder
from support.embedding_server import MODEL, EmbeddingServer
from support.kafka import Log
from support.waiting import until
from support.workers import Workers

SPEC = ModelSpec(model=MODEL)
TEXTS = [f"text number {number} " * (number % 7 + 1) for number in range(50)]
EXPECTED = HashEncoder(SPEC).encode_documents(TEXTS)


@pytest.fixture
def told() -> Iterator[EmbeddingServer]:
    """A server that speaks as Text Embeddings Inference does."""
    server = EmbeddingServer()
    with server.running(server.inference()):
        yield server


def opened(
    server: EmbeddingServer, *, patience: float = 5.0, concurrency: int = 4, token_file: Path | None = None
) -> HttpEncoder:
    """An encoder that asks it, with little patience."""
    named = Server(url=server.address, concurrency=concurrency, token_file=token_file)
    return HttpEncoder(SPEC, named, Conversation(named, patience=patience, jitter=lambda: 0.0))


def test_passwords_in_the_address_are_not_shown() -> None:
    """Neither the user's nor a key in the query; the host and the path are."""
    named = Server(url="http://user:of-the-server-31@127.0.0.1:1/v1?key=of-the-query-32")
    with pytest.raises(UnavailableError, match=r"the embedding server http://127\.0\.0\.1:1/v1 does not answer") as caught:
        HttpEncoder(SPEC, named, Conversation(named, patience=0.1, jitter=lambda: 0.0))
    assert not any(secret in str(caught.value) for secret in ("of-the-server-31", "of-the-query-32"))


@pytest.mark.parametrize("content", [b"sesame\nsesame-too", b"sesame-\xf6", b""])
def test_a_file_without_one_token_is_told_without_it(tmp_path: Path, content: bytes) -> None:
    """What no header can carry would be quoted by who refuses it."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="does not have one token") as caught:
        Server(url="http://127.0.0.1:1", token_file=path).headers()
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("dialect", ["inference", "openai"])
def test_vectors_come_in_the_order_of_the_texts(dialect: str) -> None:
    """Whatever the dialect, the size of requests and the order in which answers come."""
    server = EmbeddingServer()
    app, path = (server.inference(), "") if dialect == "inference" else (server.openai(), "/v1")
    with server.running(app, path):
        encoder = open_encoder("http", SPEC, server=Server(url=server.address))
        assert np.allclose(encoder.encode_documents(TEXTS), EXPECTED, atol=1e-6)
        assert encoder.identity.dimension == EXPECTED.shape[1]
        assert encoder.encode_documents([]).shape == (0, EXPECTED.shape[1])
        counts = zip(encoder.count_tokens(TEXTS), HashEncoder(SPEC).count_tokens(TEXTS), strict=True)
        assert all(found >= true for found, true in counts)


def test_prompts_are_put_before_the_texts(told: EmbeddingServer) -> None:
    """Each side's own, and its tokens count."""
    spec = ModelSpec(model=MODEL, query_prompt="query: ", document_prompt="passage: ")
    encoder, local = open_encoder("http", spec, server=Server(url=told.address)), HashEncoder(spec)
    assert np.allclose(encoder.encode_documents(["a"]), local.encode_documents(["a"]), atol=1e-6)
    assert np.allclose(encoder.encode_queries(["a"]), local.encode_queries(["a"]), atol=1e-6)
    assert encoder.count_tokens(["a"]) == local.count_tokens(["a"])


def test_requests_are_limited_in_number_and_size(told: EmbeddingServer) -> None:
    """Never more at a time than the settings say, from all threads together, never more texts than the server takes."""
    encoder = opened(told, concurrency=3)
    told.seconds = 0.02
    threads = [threading.Thread(target=encoder.encode_documents, args=(TEXTS,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.busiest == 3
    assert told.refusals == 0


@pytest.mark.parametrize("status", [424, 429, 500, 503])
def test_what_is_refused_for_now_is_asked_again(told: EmbeddingServer, status: int) -> None:
    """Until the server takes it."""
    encoder = opened(told)
    told.status = status
    made: list[np.ndarray] = []
    asking = threading.Thread(target=lambda: made.append(encoder.encode_documents(TEXTS[:3])))
    asking.start()
    until(lambda: told.refusals >= 2, what="the server to refuse twice")
    told.status = 200
    asking.join(timeout=10)
    assert np.allclose(made[0], EXPECTED[:3], atol=1e-6)


def test_a_server_that_stays_away_is_a_dependency_that_is_down(told: EmbeddingServer) -> None:
    """Not the texts are at fault, so the caller waits."""
    encoder = opened(told, patience=0.5)
    told.status = 503
    with pytest.raises(UnavailableError, match=r"the embedding server .* does not answer: status 503") as caught:
        encoder.encode_documents(TEXTS[:3])
    assert caught.value.dependency == "embedder"


def test_retry_after_is_heeded(told: EmbeddingServer) -> None:
    """Where the server asks for longer than the caller's patience, no second request is made."""
    encoder = opened(told, patience=2.0)
    told.status, told.retry_after = 429, "3"
    with pytest.raises(UnavailableError, match="status 429"):
        encoder.encode_documents(TEXTS[:3])
    assert told.refusals == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("3", 3.0), ("0", 0.0), ("date", 4.0), ("past", 0.0), ("soon", None), ("", None)],
    ids=["seconds", "now", "date", "past date", "nonsense", "absent"],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(said: str, seconds: float | None) -> None:
    """What is neither counts as not said."""
    now = datetime(2026, 11, 25, tzinfo=UTC)
    moments = {"date": now + timedelta(seconds=4), "past": now - timedelta(days=1)}
    written = format_datetime(moments[said], usegmt=True) if said in moments else said
    assert retry_after(httpx.Response(429, headers={"Retry-After": written}), now) == seconds


def test_a_text_that_the_server_refuses_is_at_fault_itself(told: EmbeddingServer) -> None:
    """It is found among others and not asked again, no dependency is down, and the others are embedded."""
    encoder = opened(told)
    told.mark = "number 2 "
    for _ in range(2):
        with pytest.raises(InputRefusedError, match=r"answers 422 to .*/embed: told"):
            encoder.encode_documents(TEXTS[:4])
        assert told.refusals == 4, "all, half of them, half of these, and the text"
    assert np.allclose(encoder.encode_documents(TEXTS[3:20]), EXPECTED[3:20], atol=1e-6)


@pytest.mark.parametrize("most", [1, 10])
def test_a_server_that_takes_fewer_texts_than_asked_gets_fewer(most: int) -> None:
    """Where it does not say how many it takes, too many are no fault of any text; of queries that come together neither."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        server.batch = most
        encoder = opened(server)
        assert np.allclose(encoder.encode_documents(TEXTS), EXPECTED, atol=1e-6)
        embedder = QueryEmbedder(cast("Loaded", SimpleNamespace(encoder=lambda _: encoder)), QueryMetrics())
        made = cast("Generation", SimpleNamespace(generation_id=1, identity=encoder.identity))
        found = embedder.vectors(made, TEXTS, deadline=time.perf_counter() + 30)
        assert np.allclose(found, EXPECTED, atol=1e-6)
        before = server.refusals
        encoder.encode_documents(TEXTS)
        assert server.refusals == before, "what it takes is remembered"


def test_a_server_that_takes_no_text_at_all_is_the_operators(told: EmbeddingServer) -> None:
    """No text is blamed for it."""
    encoder = opened(told)
    told.status = 422
    for encode in (encoder.encode_documents, encoder.encode_queries):
        with pytest.raises(SystemicError, match=r"takes no text: .* answers 422"):
            encode(TEXTS[:3])
    told.status = 200
    assert np.allclose(encoder.encode_documents(TEXTS[:3]), EXPECTED[:3], atol=1e-6)


NO_VECTORS = (None, "0.1", [None], ["0.1"], {"0": 0.1})


@pytest.mark.parametrize("vector", NO_VECTORS)
def test_what_is_no_vector_is_the_operators(told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, vector: object) -> None:
    """In either dialect, and no text is blamed."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        for one, wrap in ((server, lambda index: {"index": index, "embedding": vector}), (told, lambda _: vector)):
            encoder = opened(one)
            rows = [wrap(index) for index in range(4)]  # type: ignore[no-untyped-call]
            with monkeypatch.context() as patch:
                patch.setattr(
                    Conversation, "post", lambda *_, rows=rows, one=one, **__: {"data": rows} if one is server else rows
                )
                with pytest.raises(SystemicError, match="gives a vector that is no list of numbers"):
                    encoder.encode_documents(TEXTS[:3])


def test_a_witness_that_is_no_number_does_not_pass(told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As little as another model's."""
    encoder = opened(told)
    rows = [[float("nan")] * EXPECTED.shape[1], *EXPECTED[:3].tolist()]
    monkeypatch.setattr(Conversation, "post", lambda *_, **__: rows)
    with pytest.raises(SystemicError, match="gives a vector that is no list of numbers"):
        encoder.encode_documents(TEXTS[:3])


@pytest.mark.parametrize("row", [None, [None] * 384, [0.1] * 383 + [None], ["0.1"] * 384])
def test_a_text_without_a_vector_is_at_fault_itself(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, row: list[object] | None
) -> None:
    """Where the witness has one. Of documents its numbers are none, which is told to the caller, and the others get theirs; of
    queries it is refused, also when it is asked for again, and whoever asked for the others asks again without it.
    """
    answer = told.embed

    def nulls(texts: list[str], authorization: str | None) -> Any:
        found = answer(texts, authorization)
        return [row if text == TEXTS[1] else vector for text, vector in zip(texts, found, strict=True)]  # type: ignore[arg-type]

    monkeypatch.setattr(told, "embed", nulls)
    encoder = opened(told)
    made = encoder.encode_documents(TEXTS[:3])
    assert not np.isfinite(made[1]).all()
    assert np.allclose(made[[0, 2]], EXPECTED[[0, 2]], atol=1e-6)
    with pytest.raises(InputRefusedError, match="gives no vector for this text, and for others does"):
        encoder.encode_queries(TEXTS[:3])
    asked = told.answers
    with pytest.raises(InputRefusedError, match="gives no vector"):
        encoder.encode_queries(TEXTS[1:2])
    assert told.answers == asked
    assert np.allclose(encoder.encode_queries([TEXTS[0], TEXTS[2]]), EXPECTED[[0, 2]], atol=1e-6)


def test_a_server_without_vectors_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, told: EmbeddingServer) -> None:
    """Before anything is compared with them."""
    monkeypatch.setattr(told, "embed", lambda texts, _: [None] * len(texts))
    with pytest.raises(ConfigError, match="gives a vector that is no list of numbers"):
        opened(told)


@pytest.mark.parametrize("indices", [[0, 0, 2, 3], [None, 1, 2, 3]])
def test_a_server_that_does_not_number_its_vectors_is_refused(
    indices: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody guesses which vector is of which text, and no text is blamed."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        encoder = opened(server)
        told = [{"index": index, "embedding": [0.0] * EXPECTED.shape[1]} for index in indices]
        monkeypatch.setattr(Conversation, "post", lambda *_, **__: {"data": told})
        with pytest.raises(SystemicError, match="does not say which vector is of which text"):
            encoder.encode_documents(TEXTS[:3])


def test_a_server_that_says_at_once_is_not_asked_without_end(told: EmbeddingServer) -> None:
    """Retry-After: 0, or a date in the past by its clock, is no leave to ask as fast as it refuses."""
    encoder = opened(told, patience=1.0)
    told.status, told.retry_after = 429, "0"
    with pytest.raises(UnavailableError, match="status 429"):
        encoder.encode_documents(TEXTS[:3])
    assert told.refusals < 10


@pytest.mark.parametrize("status", [424, 500])
def test_a_text_that_the_server_fails_on_is_at_fault_itself(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """When others pass meanwhile; asked for again, also among others, it is refused without asking the server."""
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    encoder = opened(told, patience=1.0)
    told.mark, told.marked = "number 2 ", status
    with pytest.raises(InputRefusedError, match=f"fails on this text, and on others does not: .* status {status}"):
        encoder.encode_documents(TEXTS[:20])
    before = told.refusals
    with pytest.raises(InputRefusedError, match="fails on this text"):
        encoder.encode_documents(TEXTS[:4])
    assert told.refusals == before
    assert np.allclose(encoder.encode_documents(TEXTS[3:20]), EXPECTED[3:20], atol=1e-6)


def test_a_query_that_the_server_fails_on_fails_alone(told: EmbeddingServer) -> None:
    """Those that are embedded with it get their vectors; asked for again, it is refused without asking the server."""
    encoder = opened(told)
    told.mark, told.marked, told.seconds = "bad", 500, 0.1
    embedder = QueryEmbedder(cast("Loaded", SimpleNamespace(encoder=lambda _: encoder)), QueryMetrics())
    made = cast("Generation", SimpleNamespace(generation_id=1, identity=encoder.identity))

    def ask(text: str) -> np.ndarray:
        return embedder.vectors(made, [text], deadline=time.perf_counter() + 30)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, "first")
        until(lambda: told._busy, what="the model to be busy")
        bad, *good = [pool.submit(ask, text) for text in ("bad", "good", "better")]
        assert [len(each.result()) for each in (first, *good)] == [1, 1, 1]
        with pytest.raises(InputRefusedError, match=r"fails on this text, .* status 500"):
            bad.result()
    before = told.refusals
    with pytest.raises(InputRefusedError):
        ask("bad")
    assert told.refusals == before


def test_a_server_that_fails_on_every_query_is_down(told: EmbeddingServer) -> None:
    """No text is blamed for it, and the next is asked for again."""
    encoder = opened(told)
    told.status = 500
    with pytest.raises(UnavailableError, match="status 500"):
        encoder.encode_queries(["a"])
    told.status = 200
    assert encoder.encode_queries(["a"]).shape == (1, EXPECTED.shape[1])


def test_a_request_that_is_too_much_for_the_server_is_halved(told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that it fails on together, and not alone, are at fault in no way."""
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    encoder = opened(told, patience=1.0)
    refusal = told._refusal
    monkeypatch.setattr(told, "_refusal", lambda texts, token: 500 if len(texts) > 2 else refusal(texts, token))
    assert np.allclose(encoder.encode_documents(TEXTS[:6]), EXPECTED[:6], atol=1e-6)


@pytest.mark.parametrize("alone", [False, True])
def test_a_server_that_comes_back_while_it_is_found_out_blames_no_text(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """It failed on the text, and then takes the witness: so it is asked for the text once more."""
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    encoder = opened(told, patience=0.5)
    if alone:
        told.batch = 1
        encoder.encode_documents(TEXTS[:1])  # finds out that each is to be asked for alone, behind the witness
    answer, away = told.embed, iter([True])

    def embed(texts: list[str], authorization: str | None) -> Any:
        if texts == [http.WITNESS]:
            told.status = 200
        found = answer(texts, authorization)
        if texts == [http.WITNESS] and next(away, False):
            told.status = 500
        return found

    monkeypatch.setattr(told, "embed", embed)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        away = iter([alone])
        told.status = 200 if alone else 500
        before = told.refusals
        assert np.allclose(encode(TEXTS[:1]), EXPECTED[:1], atol=1e-6)
        assert told.refusals > before


@pytest.mark.parametrize("alone", [False, True])
def test_a_server_that_comes_back_with_another_model_is_noticed(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Before it is asked for the text once more."""
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    encoder = opened(told, patience=0.5)
    own, other = told.encoder, HashEncoder(ModelSpec(model=MODEL, document_prompt="another model"))
    if alone:
        told.batch = 1
        encoder.encode_documents(TEXTS[:1])
    refusal = told._refusal

    def restarting(texts: list[str], token: str | None) -> int | None:
        if texts != [http.WITNESS]:
            told.encoder = other
            return 500
        return refusal(texts, token)

    for encode in (encoder.encode_documents, encoder.encode_queries):
        told.encoder = own
        with monkeypatch.context() as patch:
            patch.setattr(told, "_refusal", restarting)
            with pytest.raises(SystemicError, match="gives other vectors"):
                encode(TEXTS[:1])


def test_a_server_that_comes_back_and_takes_fewer_texts_blames_none(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it refuses the second time is found out about as at the first."""
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    encoder = opened(told, patience=0.5)
    told.batch, told.status = 1, 500
    answer = told.embed

    def back(texts: list[str], authorization: str | None) -> Any:
        if texts == [http.WITNESS]:
            told.status = 200
        return answer(texts, authorization)

    monkeypatch.setattr(told, "embed", back)
    refusal = told._refusal
    monkeypatch.setattr(told, "_refusal", lambda texts, token: told.status if told.status != 200 else refusal(texts, token))
    assert np.allclose(encoder.encode_documents(TEXTS[:1]), EXPECTED[:1], atol=1e-6)


def test_a_server_that_fails_behind_the_witness_is_down(told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each text is asked for alone: it is asked for the witness again before the text is blamed."""
    told.batch = 2
    encoder = opened(told, patience=0.5)
    monkeypatch.setattr(http, "FAILING_PATIENCE", 0.3)
    told.batch = 1
    encoder.encode_documents(TEXTS[:1])
    answer = told.embed

    def once(texts: list[str], authorization: str | None) -> Any:
        found = answer(texts, authorization)
        told.status = 500
        return found

    for encode in (encoder.encode_documents, encoder.encode_queries):
        with monkeypatch.context() as patch:
            patch.setattr(told, "embed", once)
            with pytest.raises(UnavailableError, match="status 500"):
                encode(TEXTS[:1])
        told.status = 200
        assert np.allclose(encode(TEXTS[:1]), EXPECTED[:1], atol=1e-6), "nobody remembers anything of it"


def test_how_many_texts_a_server_refused_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been what stands before it, or the length of the texts."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        encoder = opened(server)
        server.batch = 1
        encoder.encode_documents(TEXTS[:4])
        server.batch = 1024
        asked = server.answers
        encoder.encode_documents(TEXTS[:4])
        assert server.answers - asked == 8, "each alone, behind the witness"
        monkeypatch.setattr(http, "REMEMBERED", 0.0)
        encoder = opened(server)
        server.batch = 1
        encoder.encode_documents(TEXTS[:1])
        server.batch = 1024
        asked = server.answers
        assert np.allclose(encoder.encode_documents(TEXTS[:4]), EXPECTED[:4], atol=1e-6)
        assert server.answers - asked == 1


def test_queries_that_a_server_takes_one_by_one_are_several_requests_at_a_time() -> None:
    """Their searches wait together, and not for each other."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        server.batch = 1
        encoder = opened(server, concurrency=3)
        encoder.encode_queries(TEXTS[:1])
        server.seconds, server.busiest = 0.05, 0
        assert np.allclose(encoder.encode_queries(TEXTS[:12]), EXPECTED[:12], atol=1e-6)
        assert server.busiest == 3


def test_a_long_retry_after_is_kept_by_every_request(told: EmbeddingServer) -> None:
    """Where the server asks for longer than anybody waits here, nothing is asked before, by nobody."""
    encoder = opened(told, patience=60.0)
    told.status, told.retry_after = 429, "30"
    with pytest.raises(UnavailableError, match="status 429, and is to be asked again in 30 s"):
        encoder.encode_documents(TEXTS[:3])
    told.status = 200
    with pytest.raises(UnavailableError, match=r"is to be asked again in (30|29|28) s"):
        encoder.encode_queries(["a"])
    assert (told.refusals, told.answers) == (1, 1)


def test_a_query_does_not_wait_longer_for_a_place_than_for_an_answer(
    told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While other requests have all the places."""
    monkeypatch.setattr(http, "QUERY_PATIENCE", 0.3)
    encoder = opened(told, concurrency=1)
    told.seconds = 2.0
    asking = threading.Thread(target=encoder.encode_documents, args=(TEXTS[:3],))
    asking.start()
    until(lambda: told._busy, what="the place to be taken")
    with pytest.raises(UnavailableError, match="busy with other requests"):
        encoder.encode_queries(["a"])
    assert told.answers == 1  # the one at the opening: the other request is under way
    asking.join()


def test_tokens_are_counted_by_several_requests_at_a_time(told: EmbeddingServer) -> None:
    """As many as the settings say, in the order of the texts; a stop ends it."""
    encoder = opened(told, concurrency=3)
    told.seconds, told.busiest = 0.05, 0
    assert encoder.count_tokens(TEXTS) == HashEncoder(SPEC).count_tokens(TEXTS)
    assert told.busiest == 3
    encoder = opened(told, concurrency=1)
    told.seconds = 0.3
    begun = time.monotonic()
    with pytest.raises(EncodingStopped):
        encoder.count_tokens(TEXTS * 10, stopped=lambda: time.monotonic() - begun > 0.2)
    assert time.monotonic() - begun < 10  # of 19


def test_a_server_that_changes_its_model_is_noticed_at_once(told: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a vector of the other model is given to anybody, of a document or of a query, by whatever request."""
    encoder = opened(told, concurrency=1)
    own, other = told.encoder, HashEncoder(ModelSpec(model=MODEL, document_prompt="another model"))
    told.encoder = other
    with pytest.raises(SystemicError, match="gives other vectors than when this worker opened it"):
        encoder.encode_documents(TEXTS[:3])
    with pytest.raises(SystemicError, match="gives other vectors than when this worker opened it"):
        encoder.encode_queries(TEXTS[:1])
    told.encoder = own
    answer = told.embed

    def later(texts: list[str], authorization: str | None) -> JSONResponse | list[list[float]]:
        found = answer(texts, authorization)
        told.encoder = other
        return found

    monkeypatch.setattr(told, "embed", later)
    with pytest.raises(SystemicError, match="gives other vectors than when this worker opened it"):
        encoder.encode_documents(TEXTS)


def test_another_model_is_noticed_between_two_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is too large for the server is many, and each of them says which model it met."""
    server = EmbeddingServer()
    with server.running(server.openai(), "/v1"):
        server.batch = 10
        encoder = opened(server)
        answer = server.embed

        def changing(texts: list[str], authorization: str | None) -> JSONResponse | list[list[float]]:
            found = answer(texts, authorization)
            if not isinstance(found, JSONResponse):
                server.encoder = HashEncoder(ModelSpec(model=MODEL, document_prompt="another model"))
            return found

        monkeypatch.setattr(server, "embed", changing)
        with pytest.raises(SystemicError, match="gives other vectors than when this worker opened it"):
            encoder.encode_documents(TEXTS[:20])


def test_another_model_fails_all_that_wait_at_once(told: EmbeddingServer) -> None:
    """It answers, so it is no outage of the dependency, but nobody's text either, for which each would be asked for alone."""
    encoder = opened(told)
    said: list[object] = []
    embedder = QueryEmbedder(cast("Loaded", SimpleNamespace(encoder=lambda _: encoder)), QueryMetrics(), told=said.append)
    made = cast("Generation", SimpleNamespace(generation_id=1, identity=encoder.identity))
    told.encoder = HashEncoder(ModelSpec(model=MODEL, document_prompt="another model"))
    answer, go_on = told.embed, threading.Event()

    def held(texts: list[str], authorization: str | None) -> Any:
        assert go_on.wait(30)
        return answer(texts, authorization)

    told.embed = held  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        asked = told.answers
        first = pool.submit(embedder.vectors, made, ["first"], deadline=time.perf_counter() + 30)
        until(lambda: embedder._running and not embedder._waiting, what="the model to be busy")
        others = [pool.submit(embedder.vectors, made, [text], deadline=time.perf_counter() + 30) for text in TEXTS[:3]]
        until(lambda: len(embedder._waiting) == 3, what="the others to wait")
        go_on.set()
        for each in (first, *others):
            with pytest.raises(SystemicError, match="gives other vectors"):
                each.result()
    assert told.answers - asked == 2
    embedder.probe(made)  # nobody is there to be told
    assert said == [None] * 3


def test_a_wrong_token_is_the_operators(told: EmbeddingServer, tmp_path: Path) -> None:
    """At the start a wrong setting, later nothing that a record could be blamed for; with the right one it works."""
    secret = tmp_path / "token"
    secret.write_text("right\n")
    told.token = "right"
    encoder = opened(told, token_file=secret)
    assert np.allclose(encoder.encode_documents(TEXTS[:2]), EXPECTED[:2], atol=1e-6)
    with pytest.raises(ConfigError, match=r"answers 401 .*: check LIVEDEX_EMBEDDER_URL and LIVEDEX_EMBEDDER_TOKEN_FILE"):
        opened(told)
    told.token = "another"
    with pytest.raises(SystemicError, match=r"answers 401"):
        encoder.encode_documents(TEXTS[:2])
    with pytest.raises(ConfigError, match=r"token .* cannot be read: No such file or directory"):
        opened(told, token_file=tmp_path / "absent")


def test_a_stop_is_not_held_up_by_a_server_that_is_away(told: EmbeddingServer) -> None:
    """Waiting for the next try ends when the worker stops."""
    encoder = opened(told, patience=60)
    told.status = 503
    with pytest.raises(EncodingStopped):
        encoder.encode_documents(TEXTS[:3], stopped=lambda: told.refusals > 0)


def test_a_server_that_does_not_say_its_window_needs_the_setting() -> None:
    """A guess would cut texts off without a word."""
    server = EmbeddingServer()
    with server.running(server.openai(says_window=False), "/v1"):
        with pytest.raises(ConfigError, match=r"does not say how many tokens .*: set LIVEDEX_EMBEDDER_MAX_TOKENS"):
            open_encoder("http", SPEC, server=Server(url=server.address))
        assert open_encoder("http", SPEC, server=Server(url=server.address, max_tokens=512)).identity.max_tokens == 512


def test_without_an_address_there_is_no_server() -> None:
    """The setting is named."""
    with pytest.raises(ConfigError, match="no server is set: set LIVEDEX_EMBEDDER_URL"):
        open_encoder("http", SPEC)


def test_a_worker_embeds_through_a_server_and_outlives_its_absence(told: EmbeddingServer, workers: Workers, log: Log) -> None:
    """Documents become searchable; while the server refuses, nothing is a dead letter; a text that it refuses is one."""
    topic = log.topic()
    config = workers.config(topic)
    settings = workers.settings(config, embedder="http", embedder_url=told.address, model=MODEL)
    with workers.connect() as connection:
        apply.run(apply.plan(settings, connection, topics=True))
    with workers.in_thread(IndexApp(settings)):
        last = _tell(told, workers, log, topic)
    found = {row[0] for row in workers.rows("select document_id from livedex.documents")}
    assert found == {"first", "second", "fourth"}
    assert workers.rows('select "offset", reason from livedex.dead_letters') == [(last - 1, "embedding-failed")]


def _tell(told: EmbeddingServer, workers: Workers, log: Log, topic: str) -> int:
    """What happens to the server between the documents; the offset of the last."""
    place = log.send(topic, {"id": "first", "text": "reached through a server"})
    workers.caught_up(topic, {0: place.offset + 1})
    told.status = 503
    log.send(topic, {"id": "second", "text": "waits until it is back"})
    until(lambda: told.refusals > 0, what="the server to be asked and to refuse")
    told.status, told.mark = 200, "unreadable"
    log.send(topic, {"id": "third", "text": "unreadable to the server"})
    last = log.send(topic, {"id": "fourth", "text": "goes on"})
    workers.caught_up(topic, {0: last.offset + 1})
    return last.offset


def test_a_query_worker_outlives_the_absence_of_a_server(told: EmbeddingServer, workers: Workers, log: Log) -> None:
    """While the server fails the worker says that it is down and not ready; once it answers, it is ready again by itself,
    although no search comes meanwhile.
    """
    config = workers.config(log.topic())
    settings = workers.settings(config, embedder="http", embedder_url=told.address, model=MODEL)
    with workers.connect() as connection:
        apply.run(apply.plan(settings, connection, topics=True))
    app = QueryApp(settings)
    with workers.in_thread(app) as address, httpx.Client(base_url=address, trust_env=False, timeout=10) as client:
        assert client.get("/v1/search", params={"q": "it answers"}).status_code == httpx.codes.OK
        told.status = 503
        refused = client.get("/v1/search", params={"q": "it does not", "timeout_ms": 500})
        assert refused.status_code in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
        until(lambda: app.health.waiting_for == ["embedder"], timeout=20, what="the embedder to be down")
        assert 'livedex_dependency_up{dependency="embedder"} 0.0' in client.get("/metrics").text
        told.status = 200
        until(lambda: app.health.waiting_for == [], timeout=20, what="the embedder to be up, without a search")
        assert client.get("/readyz").status_code == httpx.codes.OK
