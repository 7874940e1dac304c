"""The whole way with the real default model, on few documents: what is sent is found by its meaning."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from livedex.config import DEFAULT_MODEL, KafkaSettings
from livedex.dev.stack import Addresses
from livedex.encoders import Encoder, ModelSpec, open_encoder
from livedex.errors import ConfigError
from support.database import fresh_database
from support.kafka import Log
from support.workers import Process, Workers

pytestmark = pytest.mark.model

DOCUMENTS = {
    "password": "If you cannot sign in any more, ask for a new secret word on the login page; a mail with a link arrives.",
    "refund": "Money is given back within fourteen days when you return the goods that you bought.",
    "volcano": "Molten rock rises through the crust and leaves the mountain as lava and ash.",
    "bread": "Knead flour, water, salt and yeast, let the dough rest overnight, then bake it in a hot oven.",
    "backup": "Copies of the database are taken every night and kept on another site for a month.",
    "chess": "The bishop moves along diagonals and the knight is the only piece that jumps over others.",
    "heart": "Blood is pumped through the body by a muscle that contracts about seventy times a minute.",
    "train": "The express to the coast leaves from platform nine and needs a seat reservation.",
}
QUESTIONS = {
    "how do I reset my login credentials": "password",
    "can I get my cash back for a purchase": "refund",
    "why do eruptions happen": "volcano",
    "recipe for a loaf": "bread",
    "disaster recovery of stored data": "backup",
    "rules of a board game": "chess",
    "cardiology": "heart",
    "travel by rail": "train",
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """The default model, in this process."""
    try:
        return open_encoder("torch", ModelSpec(model=DEFAULT_MODEL))
    except ConfigError as error:
        import os

        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def running(
    stack: Addresses, template: str, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workers, Process]]:
    """Both workers with the real model, the documents searchable."""
    del encoder
    settings = KafkaSettings(bootstrap_servers=stack.kafka_bootstrap_servers)
    folder: Path = tmp_path_factory.mktemp("real-model")
    with fresh_database(stack.database_url, template) as url, Workers(stack, url, folder) as workers, Log(settings) as log:
        topic = log.topic()
        config = workers.config(topic)
        workers.apply(config, LIVEDEX_EMBEDDER="auto")
        index = workers.start("index", config, LIVEDEX_EMBEDDER="auto")
        places = [log.send(topic, {"id": name, "text": text}) for name, text in DOCUMENTS.items()]
        workers.caught_up(topic, {0: places[-1].offset + 1})
        assert index.stop() == 0
        yield workers, workers.start("serve", config, LIVEDEX_EMBEDDER="auto")


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_a_question_finds_the_document_that_answers_it(running: tuple[Workers, Process], mode: str) -> None:
    """Questions that share no word with their answer find it first."""
    _, serve = running
    found = {}
    for question in QUESTIONS:
        body = {"query": question, "mode": mode, "k": 3, "timeout_ms": 20_000}
        answer = httpx.post(f"{serve.address}/v1/search", json=body, timeout=30, trust_env=False).json()
        found[question] = answer["results"][0]["document_id"]
    assert found == QUESTIONS


def test_stored_vectors_are_those_of_the_model(running: tuple[Workers, Process], encoder: Encoder) -> None:
    """What the worker stored is what the model gives for the chunk, within the precision of the storage."""
    workers, _ = running
    rows = workers.rows("select c.text, e.embedding::text from livedex.chunk c join livedex.embedding_1 e using (chunk_key)")
    stored = np.array([[float(number) for number in row[1].strip("[]").split(",")] for row in rows])
    expected = encoder.encode_documents([row[0] for row in rows])
    assert (stored * expected).sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_vectors_do_not_depend_on_the_batch(encoder: Encoder) -> None:
    """A text has the same vector alone and among others of other lengths."""
    texts = [*DOCUMENTS.values(), " ".join(DOCUMENTS.values())]
    together = encoder.encode_documents(texts)
    alone = np.concatenate([encoder.encode_documents([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_tokens_are_counted_as_the_model_reads_them(encoder: Encoder) -> None:
    """A text of the counted limit is read whole: its last word changes the vector, which a word after the limit does not."""
    limit = encoder.identity.max_tokens
    full = "word " * (limit - 2)
    assert encoder.count_tokens([full, "word " + full]) == [limit, limit + 1]
    changed = full[: -len("word ")] + "bread "
    first, second, third, fourth = encoder.encode_documents([full, changed, full + "bread", full])
    assert abs(first @ second) < 0.9999
    assert abs(first @ third) == pytest.approx(1, abs=1e-5)
    assert abs(first @ fourth) == pytest.approx(1, abs=1e-5)


def test_a_worker_with_another_model_refuses_to_start(running: tuple[Workers, Process], tmp_path: Path) -> None:
    """A changed file of the model makes another revision, and the worker says what differs and what to do."""
    workers, _ = running
    import shutil

    from livedex.encoders.models import find_model

    folder = tmp_path / DEFAULT_MODEL
    shutil.copytree(find_model(DEFAULT_MODEL), folder)
    (folder / "extra.json").write_text("{}")
    with workers.connect() as connection:
        connection.execute("update livedex.generation set model = %s", (str(folder),))
        try:
            done = workers.run("index", LIVEDEX_EMBEDDER="auto", LIVEDEX_METRICS_PORT="0", timeout=120)
        finally:
            connection.execute("update livedex.generation set model = %s", (DEFAULT_MODEL,))
    assert done.returncode == 1
    assert "its revision is" in done.stderr
    assert "Install the model" in done.stderr
    assert "Traceback" not in done.stderr
