"""Queries to vectors: what comes at once shares a call of the model, and nobody pays for another's text or lateness."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from livedex.catalogue import Generation
from livedex.encoders import Encoder, ModelSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import Vectors
from livedex.encoders.remote import InputRefusedError
from livedex.errors import ConfigError, TimedOutError, UnavailableError
from livedex.observe import QueryMetrics
from livedex.query import embedding
from livedex.query.active import NotLoadedError
from livedex.query.embedding import QueryEmbedder, VectorCache
from support.waiting import until

HASH = HashEncoder(ModelSpec(model="hash-8"))
LONG = 60.0  # seconds: no deadline of interest


@dataclass
class Model:
    """An encoder that notes its calls; each text `stuck...` waits until it is let go, `bad...` is refused."""

    identity: Any = HASH.identity
    calls: list[list[str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    away: bool = False

    def let_go(self) -> None:
        """Of what is stuck now, and nothing later."""
        stuck, self.go_on = self.go_on, threading.Event()
        stuck.set()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """See Encoder."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append(list(texts))
        try:
            if any(text.startswith("stuck") for text in texts):
                assert self.go_on.wait(LONG)
            if self.away:
                raise UnavailableError("embedder", "it is away")
            if any(text.startswith("bad") for text in texts):
                raise InputRefusedError("it refuses the text")
            return HASH.encode_queries(texts)
        finally:
            self.at_once -= 1


@dataclass(frozen=True)
class Made:
    """What the embedder asks of a generation."""

    generation_id: int = 1
    identity: Any = HASH.identity


def generation(number: int = 1) -> Generation:
    """Of that number."""
    return cast("Generation", Made(number))


@dataclass
class Fixture:
    """An embedder, its model, and threads that ask."""

    model: Model
    embedder: QueryEmbedder
    pool: ThreadPoolExecutor

    def ask(self, *texts: str, number: int = 1, within: float = LONG) -> "Future[Vectors]":
        """Ask in a thread of its own."""
        deadline = time.perf_counter() + within
        return self.pool.submit(self.embedder.vectors, generation(number), texts, deadline=deadline)

    def ask_behind_a_stuck_one(self, *asked: "tuple[str, int] | str", stuck: str = "stuck") -> "list[Future[Vectors]]":
        """Ask these one after another while the model is busy."""
        answers = [self.ask(stuck)]
        until(lambda: self.model.calls, what="the model to be busy")
        for text, number in (one if isinstance(one, tuple) else (one, 1) for one in asked):
            queued = len(self.embedder._waiting)
            answers.append(self.ask(text, number=number))
            until(lambda queued=queued: len(self.embedder._waiting) > queued, what="the query to wait")  # type: ignore[misc]
        return answers


class Loaded:
    """The encoders of generations 1 and 2."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def encoder(self, wanted: Generation) -> Encoder:
        """See Encoders."""
        if wanted.generation_id > 2:
            raise NotLoadedError("it is being loaded")
        return cast("Encoder", self.model)


@pytest.fixture
def made() -> Any:
    """An embedder of small batches."""
    model = Model()
    with ThreadPoolExecutor(16) as pool:
        yield Fixture(model, QueryEmbedder(Loaded(model), QueryMetrics(), batch=4), pool)
        model.go_on.set()


def test_vectors_come_in_the_order_of_the_texts(made: Fixture) -> None:
    """One row a text, repeated ones included, in one call; no text is no row."""
    texts = ["b", "a", "b", "c"]
    found = made.ask(*texts).result()
    assert found.dtype == np.float32
    assert np.array_equal(found, HASH.encode_queries(texts))
    assert made.model.calls == [["b", "a", "c"]]
    assert made.ask().result().shape == (0, 8)


def test_those_who_wait_share_a_call(made: Fixture) -> None:
    """While the model is busy others wait; then one call is made for them, as many as a batch holds, and never two at once."""
    answers = made.ask_behind_a_stuck_one(*"abcdef")
    made.model.go_on.set()
    for text, answer in zip(["stuck", *"abcdef"], answers, strict=True):
        assert np.array_equal(answer.result(LONG), HASH.encode_queries([text]))
    assert made.model.calls == [["stuck"], list("abcd"), list("ef")]
    assert made.model.most_at_once == 1


def test_generations_are_not_mixed(made: Fixture) -> None:
    """A call is for one generation; the one that waited longest is next."""
    answers = made.ask_behind_a_stuck_one(("a", 2), ("b", 1), ("c", 2))
    made.model.go_on.set()
    for answer in answers:
        answer.result(LONG)
    assert made.model.calls == [["stuck"], ["a", "c"], ["b"]]


def test_a_text_that_is_known_costs_no_call(made: Fixture) -> None:
    """Of the same generation; one that came while it was being encoded included. Long texts are not kept."""
    answers = made.ask_behind_a_stuck_one("stuck")
    made.model.go_on.set()
    for answer in answers:
        answer.result(LONG)
    made.ask("stuck").result()
    assert made.model.calls == [["stuck"]]
    made.ask("stuck", number=2).result()
    long = "x" * 513
    made.ask(long).result()
    made.ask(long).result()
    assert made.model.calls[1:] == [["stuck"], [long], [long]]


def test_who_is_late_is_dropped(made: Fixture) -> None:
    """Its deadline ends its wait, and its text is never encoded; others are."""
    stuck, kept = made.ask_behind_a_stuck_one("kept")
    with pytest.raises(TimedOutError, match="deadline"):
        made.ask("late", within=0.05).result(LONG)
    with pytest.raises(TimedOutError):
        made.ask("too late", within=0).result(LONG)
    made.model.go_on.set()
    assert (stuck.result(LONG).shape, kept.result(LONG).shape) == ((1, 8), (1, 8))
    assert made.model.calls == [["stuck"], ["kept"]]
    made.ask("next").result(LONG)


def test_nobody_waits_for_a_stuck_model_beyond_its_deadline(made: Fixture) -> None:
    """Neither the one whose text it is stuck on, which came when it was idle; a later one gets its vector once it goes on."""
    began = time.perf_counter()
    with pytest.raises(TimedOutError, match="deadline"):
        made.embedder.vectors(generation(), ["stuck"], deadline=began + 0.1)
    assert time.perf_counter() - began < 5
    later = made.ask("later")
    made.model.go_on.set()
    assert later.result(LONG).shape == (1, 8)
    assert made.model.calls == [["stuck"], ["later"]]


def test_the_thread_that_encodes_ends_when_nobody_comes(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next text starts another."""
    monkeypatch.setattr(embedding, "IDLE_SECONDS", 0.01)
    for text in ("a", "b"):
        assert made.ask(text).result(LONG).shape == (1, 8)
        until(lambda: not made.embedder._running, what="the thread to end")


def test_one_that_was_late_in_a_batch_leaves_the_others(made: Fixture) -> None:
    """It stops waiting for the call that it is in; the call goes on for the rest."""
    first, *_ = made.ask_behind_a_stuck_one("a")
    late = made.ask("stuck too", within=0.5)
    until(lambda: len(made.embedder._waiting) == 2)
    made.model.let_go()  # the second call holds both
    first.result(LONG)
    with pytest.raises(TimedOutError):
        late.result(LONG)
    made.model.go_on.set()


def test_a_text_that_is_refused_fails_alone(made: Fixture) -> None:
    """Its neighbours in the batch get their vectors; what is away fails all of them without another try."""
    _, bad, good = made.ask_behind_a_stuck_one("bad", "good")
    made.model.go_on.set()
    assert good.result(LONG).shape == (1, 8)
    with pytest.raises(InputRefusedError):
        bad.result(LONG)
    made.model.let_go()
    made.model.away = True
    made.model.calls.clear()
    answers = made.ask_behind_a_stuck_one("c", "d", stuck="stuck again")[1:]
    made.model.go_on.set()
    for answer in answers:
        with pytest.raises(UnavailableError):
            answer.result(LONG)
    assert len(made.model.calls) == 2


def test_a_vector_that_is_none_is_not_given_out(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that the model makes it of fails, each time anew; its neighbours in the batch do not."""
    sound = made.model.encode_queries

    def broken(texts: Sequence[str]) -> Vectors:
        vectors = sound(texts)
        vectors[[text == "none" for text in texts]] = np.nan
        return vectors

    monkeypatch.setattr(made.model, "encode_queries", broken)
    _, none, good = made.ask_behind_a_stuck_one("none", "good")
    made.model.go_on.set()
    assert np.isfinite(good.result(LONG)).all()
    for asked in (none, made.ask("none")):
        with pytest.raises(ConfigError, match="a number that is none"):
            asked.result(LONG)


def test_a_generation_without_its_model_says_so(made: Fixture) -> None:
    """NotLoadedError, at once, also while others are encoded."""
    made.ask_behind_a_stuck_one()
    with pytest.raises(NotLoadedError):
        made.ask("x", number=3).result(LONG)


def test_the_cache_is_bounded() -> None:
    """What was not used for longest goes first; nothing is kept where nothing may be."""
    one = np.zeros(8, np.float32)
    cache = VectorCache(1000)  # bytes: two of these
    cache.keep(1, {"a": one, "b": one})
    assert cache.found(1, ["a"]).keys() == {"a"}
    cache.keep(1, {"c": one})
    assert cache.found(1, "abc").keys() == {"a", "c"}
    assert cache.found(2, "abc") == {}
    none = VectorCache(0)
    none.keep(1, {"a": one})
    assert none.found(1, "a") == {}


def test_many_at_once_get_their_own(made: Fixture) -> None:
    """Hundreds of texts from sixteen threads: each answer is that of its text."""
    asked = [(f"text {n % 90}", made.ask(f"text {n % 90}", number=1 + n % 2)) for n in range(600)]
    for text, answer in asked:
        assert np.array_equal(answer.result(LONG), HASH.encode_queries([text]))
    assert made.model.most_at_once == 1
